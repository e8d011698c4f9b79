"""Queries of death, as the judge knows them: what engines crashed of, and who may be asked for it from then on."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.lives import EngineLife
from shrk_coordinator.state.suspects import CRASHES_MAX, POISONED_SECONDS
from simulation.story import Story, Try


class Deaths:
    """Requests that the coordinator has been told engines crashed of, by what their callers sent."""

    def __init__(self) -> None:
        self._crashes: dict[bytes, dict[EngineLife, NodeId]] = {}
        self._until: dict[bytes, float] = {}
        #: Of each model, the suspect that runs.
        self._on_trial: dict[str, Try] = {}

    def crashed(self, attempt: Try, now: float) -> None:
        """An engine crashed, and this attempt had no token yet."""
        digest = attempt.story.ask.digest
        if now >= self._until.get(digest, 0.0):
            self._crashes.pop(digest, None)
        self._crashes.setdefault(digest, {})[attempt.life] = attempt.site.node_id
        self._until[digest] = now + POISONED_SECONDS

    def spoke(self, attempt: Try) -> None:
        """A token came: it crashes nobody."""
        self._crashes.pop(attempt.story.ask.digest, None)
        self.over(attempt)

    def over(self, attempt: Try) -> None:
        """However it ended."""
        if self._on_trial.get(attempt.story.ask.model) is attempt:
            del self._on_trial[attempt.story.ask.model]

    def nodes(self, story: Story, now: float) -> Collection[NodeId]:
        """Where engines crashed of it."""
        if not self._crashes:
            return ()
        digest = story.ask.digest
        if now >= self._until.get(digest, 0.0):
            return ()
        return self._crashes.get(digest, {}).values()

    def convicted(self, story: Story, now: float) -> bool:
        """It is asked of nobody any more."""
        return len(self.nodes(story, now)) >= CRASHES_MAX

    def begun(self, attempt: Try, offering: Collection[NodeId], others: Iterable[Try], now: float) -> None:
        """A node is asked; `offering`: all that offer the model; `others`: attempts under way."""
        story = attempt.story
        if not (blamed := self.nodes(story, now)):
            return
        node = attempt.site.node_id
        assert len(blamed) < CRASHES_MAX, f"{story.name} is asked of {node}, and has crashed {len(blamed)} engines"
        assert node not in blamed or set(offering) <= set(blamed), f"{story.name} is asked of {node}, which it crashed"
        assert self.may_run(story, now), f"{story.name} is asked of {node} while another suspect runs"
        assert node not in self.reading(others, now), f"{story.name} is asked of {node}, beside another suspect"
        self._on_trial[story.ask.model] = attempt

    def reading(self, attempts: Iterable[Try], now: float) -> set[NodeId]:
        """Of these attempts, where suspects run that have not said anything."""
        if not self._crashes:
            return set()
        return {a.site.node_id for a in attempts if a.spoke_at is None and self.nodes(a.story, now)}

    def may_run(self, story: Story, now: float) -> bool:
        """Whether a suspect need not wait for another of its model; anybody else need not."""
        return not self.nodes(story, now) or story.ask.model not in self._on_trial

    @property
    def anyone_on_trial(self) -> bool:
        """Whether a suspect runs."""
        return bool(self._on_trial)
