"""A join token of the right form, which admits nobody."""

from __future__ import annotations

import zlib

_COVERED = f"shrk_join_{'a' * 24}.9101.{'A' * 43}"
A_TOKEN = f"{_COVERED}.{zlib.crc32(_COVERED.encode()):08x}"
