"""A node as a place: its line, its engines, and the agent that runs there, if one does; and since when all is well."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shrk_contract.terms import State
from simulation.agent import Agent
from simulation.coordinator import Coordinator
from simulation.engine import EngineKind
from simulation.wire import Line, Way
from simulation.world import World


class Site:
    """One node, over all starts of its agent."""

    def __init__(
        self, world: World, node_id: str, line: Line, kinds: list[EngineKind], coordinator: Coordinator
    ) -> None:
        self.node_id = node_id
        self.line = line
        self.kinds = kinds
        self.agent: Agent | None = None
        self._world = world
        self._coordinator = coordinator
        self._incarnation = 0
        #: Faults that last.
        self._faults = 0
        #: Since when nothing has been wrong here, and the coordinator knows; None while something is.
        self.calm_since: float | None = None

    # --- its agent ----------------------------------------------------------------------------------

    def power_on(self) -> None:
        """The agent starts, unless one runs."""
        if self.agent is None:
            self._incarnation += 1
            self.agent = Agent(self._world, self.node_id, self._incarnation, self.line, self.kinds, self._coordinator)
            self.agent.crashed = self._crashed
            self.agent.start()

    def kill(self, quietly: bool = False) -> None:
        """The agent's process is gone, and its engines with it."""
        if self.agent is not None:
            self.agent.kill(quietly)
            self.agent = None

    def drain(self, seconds: float, stopped: Callable[[], None]) -> None:
        """The agent is asked to stop."""
        agent = self.agent
        if agent is not None:
            agent.run(partial(agent.drain, seconds, partial(self._drained, agent, stopped)))

    def _drained(self, agent: Agent, stopped: Callable[[], None]) -> None:
        if self.agent is agent:
            self.kill()
            stopped()

    # --- how it is ----------------------------------------------------------------------------------

    def trouble_begins(self) -> None:
        """Something is wrong here until `trouble_ends`, and until all of it works again."""
        self._faults += 1
        self.calm_since = None

    def trouble_ends(self) -> None:
        """What was wrong is not wrong any more."""
        self._faults -= 1

    def _crashed(self) -> None:
        """One of its engines is gone, until it has been started again."""
        self.calm_since = None

    def look(self) -> None:
        """See whether all is well again, where it was not; what began before is judged by what it met."""
        if not self._faults and self.serving():
            self.calm_since = self._world.clock.now

    def serving(self) -> bool:
        """Every engine is up, and the coordinator offers it."""
        agent = self.agent
        node = self._coordinator.driver.state.roster.nodes.get(self.node_id)
        if agent is None or agent.dialling.session is None or node is None or node.link is None or node.draining:
            return False
        if any(connection.doomed for connection in self.line.connections):
            return False
        for view in agent.state.engines.values():
            offer = node.offers.get(view.model)
            if (
                not agent.engines[view.id].up
                or view.state is not State.ONLINE
                or offer is None
                or offer.engine.life != view.life
            ):
                return False
        return True

    def leaving(self, within: float) -> bool:
        """Whether its agent stops within so many seconds, and has been able to say so."""
        agent = self.agent
        if agent is None or agent.leaves_at is None or self.line.up is not Way.OPEN:
            return False
        return agent.leaves_at - self._world.clock.now < within

    def calm(self, since: float) -> bool:
        """Whether nothing has been wrong since then."""
        return self.calm_since is not None and self.calm_since <= since
