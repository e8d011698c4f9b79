"""Which of the owner's models are loaded, and where: what coordinators assign, as far as memory and GPUs allow.

Before a coordinator has spoken, everything is loaded that fits, in the owner's order. The agent has the last word: it
loads no model that its owner did not name, and never more than fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shrk_contract.terms import ModelOutcome
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.events import EngineId
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.seats import ANYWHERE, Seat, has_room, plan, taken_by
from shrk_node_agent.state.terms.fit import Model, fits, usable

#: Why a node takes nothing and obeys nothing any more, for coordinators.
STOPPING = "the node is stopping"
#: For the owner: why a model is not loaded.
NO_ROOM_YET = "It does not fit beside the models before it (memory_gb), and no coordinator has chosen among them yet"
NO_ROOM = "A coordinator wants this model here, but it does not fit beside the others (memory_gb)"
NO_ROOM_NOW = "There is no room for it now"
TOO_LARGE = "It is too large for this machine"
GUESSED = "; that is a guess: if it is wrong, write what it takes in all as its `memory_gb`"
NOT_SERVED = "Its owner has taken it off `models`"
NOT_ASSIGNED = "No coordinator wants this model here now"


@dataclass(slots=True)
class Assignment:
    """What is wanted on this node now."""

    #: Those that its owner serves, the most important first.
    needs: Mapping[EngineId, Need]
    #: For all models together; 0: there is no bound.
    memory_bytes: int = 0
    #: What its owner could want besides.
    unserved: tuple[Model, ...] = ()
    #: Of those that are there; None: this machine has none, or they have not been read yet.
    gpus: tuple[GpuReading, ...] | None = None
    #: UUIDs of those that work for somebody else now, or cool down.
    taken_away: frozenset[str] = frozenset()
    #: Where those sit that are wanted.
    seats: Mapping[EngineId, Seat] = field(default_factory=dict)
    #: Why the others of those that were chosen are not.
    reasons: dict[EngineId, str] = field(default_factory=dict)
    #: (leader term, revision) of the newest assignment; None before the first.
    revision: tuple[int, int] | None = None
    outcomes: tuple[ModelOutcome, ...] = field(default=())
    #: In the order in which they are to have room: the owner's, until a coordinator has spoken.
    _chosen: tuple[EngineId, ...] = ()
    _has_spoken: bool = False

    @classmethod
    def at_start(cls, needs: Iterable[Need], memory_bytes: int = 0) -> Assignment:
        """Everything that fits."""
        assignment = cls({})
        assignment.serve(needs, memory_bytes, {})
        return assignment

    def serve(self, needs: Iterable[Need], memory_bytes: int, kept: Mapping[EngineId, Seat]) -> None:
        """The owner has other models, or other memory for them."""
        needs = list(needs)
        self.needs, self.memory_bytes = {need.engine: need for need in needs if need.served}, memory_bytes
        self.unserved = tuple(need.sized() for need in needs if not need.served)
        if not self._has_spoken:
            self._chosen = tuple(self.needs)
        self.plan(kept)

    def assigned(self, revision: tuple[int, int], models: Sequence[str], kept: Mapping[EngineId, Seat]) -> bool:
        """A coordinator wants these models; False where a newer one has spoken already. `kept`: who is loaded where."""
        if not self._newest(revision):
            return False
        self._has_spoken = True
        by_model = {need.model: engine for engine, need in self.needs.items()}
        self._chosen = tuple(by_model[model] for model in models if model in by_model)
        self.plan(kept)
        self.outcomes = tuple(self._outcome(model, by_model) for model in models)
        return True

    def declined(self, revision: tuple[int, int], models: Sequence[str], why: str) -> bool:
        """A coordinator wants these models, and the node does not obey; False where a newer one has spoken already."""
        if not self._newest(revision):
            return False
        self.outcomes = tuple(ModelOutcome(model, False, why) for model in models)
        return True

    def plan(self, kept: Mapping[EngineId, Seat]) -> None:
        """Who of the chosen has room, and where; who is loaded keeps its seat."""
        chosen = [engine for engine in self._chosen if engine in self.needs]
        fitting, self.reasons = self._within_memory(chosen)
        if self.gpus is None:
            self.seats = dict.fromkeys(fitting, ANYWHERE)
            return
        sizes = {engine: need.sized() for engine, need in self.needs.items()}
        wanted = [sizes[engine] for engine in fitting]
        others = [*(size for engine, size in sizes.items() if engine not in fitting), *self.unserved]
        kept = {engine: seat for engine, seat in kept.items() if engine in fitting}
        free = [gpu for gpu in self.gpus if gpu.uuid not in self.taken_away]
        # What fits on no card that is free now waits for one that is not.
        planned = plan(wanted, others, self.gpus, plan(wanted, others, free, kept).seats)
        self.seats = planned.seats
        taken = taken_by(self.seats.values())
        for engine in self.needs.keys() - self.seats.keys():
            # Whoever wants it or not: here it will never be, or not beside those that are here.
            size = sizes[engine]
            if not (alone := fits(size, self.gpus)).fits:
                guessed = size.memory_bytes is None and size.weights_bytes is None
                self.reasons[engine] = f"{TOO_LARGE}: {alone.reason}{GUESSED if guessed else ''}"
            elif not (beside := fits(size, self.gpus, taken)).fits:
                self.reasons[engine] = f"{NO_ROOM_NOW}: {beside.reason}"

    @property
    def bound_bytes(self) -> int:
        """For all models together; 0: nobody knows of a bound."""
        return self.memory_bytes or sum(map(usable, self.gpus or ()))

    def unwanted_why(self, engine: EngineId) -> str:
        """Why it is not to be loaded, for the owner."""
        if engine not in self.needs:
            return NOT_SERVED
        return self.reasons.get(engine, NOT_ASSIGNED)

    def _newest(self, revision: tuple[int, int]) -> bool:
        if self.revision is not None and revision < self.revision:
            return False
        self.revision = revision
        return True

    def _outcome(self, model: str, by_model: Mapping[str, EngineId]) -> ModelOutcome:
        engine = by_model.get(model)
        if engine is None:
            return ModelOutcome(model, False, "the owner does not serve it")
        if engine not in self.seats:
            return ModelOutcome(model, False, f"it does not fit beside the others: {self.reasons[engine]}")
        return ModelOutcome(model, True)

    def _within_memory(self, engines: Iterable[EngineId]) -> tuple[list[EngineId], dict[EngineId, str]]:
        """Who has room in the memory for models, and why the others have none."""
        left, fitting, reasons = self.memory_bytes, list[EngineId](), dict[EngineId, str]()
        for engine in engines:
            need = self.needs[engine].memory_bytes
            if not self.memory_bytes or need <= left:
                left -= need
                fitting.append(engine)
            else:
                reasons[engine] = NO_ROOM if self._has_spoken else NO_ROOM_YET
        return fitting, reasons

    def has_room(self, engine: EngineId, loaded: Mapping[EngineId, Seat]) -> bool:
        """Whether it may be started now, beside those that have not been unloaded yet."""
        others = {other: seat for other, seat in loaded.items() if other != engine}
        taken = sum(self.needs[other].memory_bytes for other in others if other in self.needs)
        if self.memory_bytes and taken + self.needs[engine].memory_bytes > self.memory_bytes:
            return False
        return has_room(self.seats[engine], others.values(), self.gpus or ())
