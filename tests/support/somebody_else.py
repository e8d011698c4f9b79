"""Files of another user: what may not be read, also where the tests run as root, who may read everything."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Linux's capabilities by which root reads what it may not: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
_OVERRIDE = 0b110
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    """The low and the high half of the three sets."""

    _fields_ = (("low", ctypes.c_uint32 * 3), ("high", ctypes.c_uint32 * 3))


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Within, files with no rights (`closed`) cannot be read: root lets go of what lets it, in this thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), _Sets()
    _call(libc.capget(ctypes.byref(header), ctypes.byref(sets)))
    effective = sets.low[0]
    try:
        sets.low[0] = effective & ~_OVERRIDE
        _call(libc.capset(ctypes.byref(header), ctypes.byref(sets)))
        yield
    finally:
        sets.low[0] = effective
        _call(libc.capset(ctypes.byref(header), ctypes.byref(sets)))


def _call(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "the capabilities of this thread cannot be read or set")


def closed(path: Path, text: str) -> Path:
    """A file that nobody may read."""
    path.write_text(text)
    path.chmod(0)
    return path
