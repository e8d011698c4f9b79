"""What a GPU's settings were before we touched them, so that its owner finds them again when the agent is gone.

With a file also where the agent was killed: it is written before anything is set, and the next agent reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shrk_contract import durable

#: A GPU's UUID, and what is set on it.
Key = tuple[str, str]


class NotKept(Exception):
    """What a setting was cannot be written down or read. `str()` says why, and what to do."""


@dataclass(frozen=True, slots=True)
class _Held:
    original: float
    #: As we left it; until it is read back, also what it was before.
    ours: tuple[float, ...]
    #: Of an agent before this one.
    inherited: bool = False


class SetValues:
    """One entry for each setting that we touched. Values that differ by at most `tolerance` are the same."""

    def __init__(self, tolerance: float, path: Path | None = None) -> None:
        """`path`: where they are kept; None: in memory only. It is read when something is first asked for."""
        self._tolerance = tolerance
        self._path = path
        self._read: Mapping[Key, _Held] | None = None

    def original(self, key: Key, current: float) -> float:
        """The owner's value: what it is now, unless that is what we left. Raises NotKept."""
        held = self._held.get(key)
        return held.original if held and self._is_ours(held, current) else current

    def setting(self, key: Key, current: float, wanted: float) -> None:
        """We are about to set it. Raises NotKept, and then it must not be set."""
        self._keep({**self._held, key: _Held(self.original(key, current), (current, wanted))})

    def left(self, key: Key, value: float) -> None:
        """It was read back as this. Raises NotKept."""
        held = self._held[key]
        after = {**self._held, key: _Held(held.original, (value,))}
        if self._is_ours(held, value):
            self._read = after  # What is written holds too.
        else:
            self._keep(after)

    def originals(self) -> Mapping[Key, float]:
        """The owner's value of each that was set by us, or by an agent before, and not yet set back. Raises NotKept."""
        return {key: held.original for key, held in self._held.items()}

    def touched(self, key: Key) -> bool:
        """Whether it was ever set by us, or by an agent before. Raises NotKept."""
        return key in self._held

    def inherited(self, key: Key) -> bool:
        """Whether it was set by an agent before this one, which did not set it back. Raises NotKept."""
        return key in self._held and self._held[key].inherited

    def to_restore(self, key: Key, current: float) -> float | None:
        """What to set it back to; None: nothing to do, as it is so already or somebody else has set it since.

        Raises NotKept.
        """
        held = self._held.get(key)
        if held is None or not self._is_ours(held, current) or self._same(held.original, current):
            return None
        return held.original

    def forget(self, key: Key) -> None:
        """It is as its owner wants it. Raises NotKept."""
        if key in self._held:
            self._keep({other: held for other, held in self._held.items() if other != key})

    def _is_ours(self, held: _Held, current: float) -> bool:
        return any(self._same(one, current) for one in held.ours)

    def _same(self, one: float, other: float) -> bool:
        return abs(one - other) <= self._tolerance

    # --- the file ------------------------------------------------------------------------------------

    @property
    def _held(self) -> Mapping[Key, _Held]:
        if self._read is None:
            self._read = {} if self._path is None else _read(self._path)
        return self._read

    def _keep(self, held: Mapping[Key, _Held]) -> None:
        if self._path is not None:
            try:
                if held:
                    durable.replace(self._path, _written(held), 0o644)
                else:
                    self._path.unlink(missing_ok=True)
            except OSError as error:
                raise NotKept(
                    f"what the GPUs' settings were cannot be written to {self._path} ({error.strerror}); "
                    "make room there, or let this user write there"
                ) from error
        self._read = held


def _written(held: Mapping[Key, _Held]) -> bytes:
    settings = [
        {"gpu": uuid, "setting": setting, "original": one.original, "ours": one.ours}
        for (uuid, setting), one in sorted(held.items())
    ]
    return json.dumps({"schema": 1, "settings": settings}, indent=1).encode() + b"\n"


def _read(path: Path) -> dict[Key, _Held]:
    """What an agent before this one left. Raises NotKept."""
    try:
        return dict(map(_entry, json.loads(path.read_bytes())["settings"]))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NotKept(f"{path} cannot be read ({error.strerror}); let this user read it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotKept(f"{path} holds no settings of GPUs ({error!r}); delete it") from error


def _entry(told: Mapping[str, Any]) -> tuple[Key, _Held]:
    key = (str(told["gpu"]), str(told["setting"]))
    return key, _Held(float(told["original"]), tuple(map(float, told["ours"])), inherited=True)
