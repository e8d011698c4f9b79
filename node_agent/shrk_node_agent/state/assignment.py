"""Which of the owner's models are loaded: what coordinators assign, as far as the owner's memory allows.

Before a coordinator has spoken, everything is loaded that fits, in the owner's order. The agent has the last word: it
loads no model that its owner did not name, and never more than fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shrk_contract.terms import ModelOutcome
from shrk_node_agent.state.events import EngineId

#: Why a node takes nothing and obeys nothing any more, for coordinators.
STOPPING = "the node is stopping"


@dataclass(frozen=True, slots=True)
class Need:
    """One engine that this node may run."""

    engine: EngineId
    model: str
    #: What it takes of the memory for models; 0: not counted.
    memory_bytes: int = 0


@dataclass(slots=True)
class Assignment:
    """What is wanted on this node now."""

    needs: Mapping[EngineId, Need]
    #: For all models together; 0: there is no bound.
    memory_bytes: int = 0
    wanted: tuple[EngineId, ...] = ()
    #: (leader term, revision) of the newest assignment; None before the first.
    revision: tuple[int, int] | None = None
    outcomes: tuple[ModelOutcome, ...] = field(default=())

    @classmethod
    def at_start(cls, needs: Iterable[Need], memory_bytes: int = 0) -> Assignment:
        """Everything that fits."""
        by_engine = {need.engine: need for need in needs}
        assignment = cls(by_engine, memory_bytes)
        assignment.wanted = assignment._fitting(by_engine)
        return assignment

    def assigned(self, revision: tuple[int, int], models: Sequence[str]) -> bool:
        """A coordinator wants these models; False where a newer one has spoken already."""
        if not self._newest(revision):
            return False
        by_model = {need.model: engine for engine, need in self.needs.items()}
        self.wanted = self._fitting(by_model[model] for model in models if model in by_model)
        self.outcomes = tuple(self._outcome(model, by_model) for model in models)
        return True

    def declined(self, revision: tuple[int, int], models: Sequence[str], why: str) -> bool:
        """A coordinator wants these models, and the node does not obey; False where a newer one has spoken already."""
        if not self._newest(revision):
            return False
        self.outcomes = tuple(ModelOutcome(model, False, why) for model in models)
        return True

    def _newest(self, revision: tuple[int, int]) -> bool:
        if self.revision is not None and revision < self.revision:
            return False
        self.revision = revision
        return True

    def _outcome(self, model: str, by_model: Mapping[str, EngineId]) -> ModelOutcome:
        engine = by_model.get(model)
        if engine is None:
            return ModelOutcome(model, False, "the owner does not serve it")
        if engine not in self.wanted:
            return ModelOutcome(model, False, "it does not fit beside the others")
        return ModelOutcome(model, True)

    def _fitting(self, engines: Iterable[EngineId]) -> tuple[EngineId, ...]:
        left, fitting = self.memory_bytes, list[EngineId]()
        for engine in engines:
            need = self.needs[engine].memory_bytes
            if not self.memory_bytes or need <= left:
                left -= need
                fitting.append(engine)
        return tuple(fitting)

    def has_room(self, engine: EngineId, loaded: Iterable[EngineId]) -> bool:
        """Whether it may be started now, beside those that have not been unloaded yet."""
        taken = sum(self.needs[other].memory_bytes for other in loaded if other != engine)
        return not self.memory_bytes or taken + self.needs[engine].memory_bytes <= self.memory_bytes
