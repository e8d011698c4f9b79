"""What a GPU's settings were before we touched them, so that its owner finds them again when the agent is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")


@dataclass(slots=True)
class _Held:
    original: float
    #: As we left it.
    left: float


class SetValues(Generic[Key]):
    """One entry for each setting that we touched. Values that differ by at most `tolerance` are the same."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._held: dict[Key, _Held] = {}

    def setting(self, key: Key, current: float, wanted: float) -> None:
        """We are about to set it. What it is now is the owner's value, unless it is what we left."""
        held = self._held.get(key)
        original = held.original if held and self._same(held.left, current) else current
        self._held[key] = _Held(original, wanted)

    def left(self, key: Key, value: float) -> None:
        """It was read back as this."""
        self._held[key].left = value

    def touched(self, key: Key) -> bool:
        """Whether it was ever set by us."""
        return key in self._held

    def to_restore(self, key: Key, current: float) -> float | None:
        """What to set it back to; None: nothing to do, as it is so already or somebody else has set it since."""
        held = self._held.get(key)
        if held is None or not self._same(held.left, current) or self._same(held.original, current):
            return None
        return held.original

    def _same(self, one: float, other: float) -> bool:
        return abs(one - other) <= self._tolerance
