"""What each engine that this node may run needs: of the owner's memory for models, and of GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.fit import Model, SizeUnknown, needed, usable


@dataclass(frozen=True, slots=True)
class Need:
    """One engine that this node may run."""

    #: Its id.
    engine: str
    model: str
    #: What it takes of the memory for models; 0: not counted.
    memory_bytes: int = 0
    #: What is known of its size, for GPUs; by the engine's id.
    size: Model | None = None
    #: Its owner wants it; else it is in the catalogue only, and may be wanted at any time.
    served: bool = True

    def sized(self) -> Model:
        """Its size, as far as it is known."""
        return self.size or Model(self.engine, memory_bytes=self.memory_bytes or None)

    def bytes_on(self, gpus: Iterable[GpuReading] | None) -> int:
        """What it takes of this machine, in all, as coordinators reckon; 0: nobody knows."""
        if self.memory_bytes or gpus is None:
            return self.memory_bytes
        need = needed(self.sized())
        # Of which nothing is known, that takes a whole GPU: perhaps the smallest.
        return min(map(usable, gpus), default=0) if isinstance(need, SizeUnknown) else need.each(1)
