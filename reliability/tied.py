"""Becomes the command given to it, as a process that ends with the one that started it: `python -I -S tied.py COMMAND`.

A program of its own, because a process with threads (gRPC's are among ours) must not run Python between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    # SIGKILL: what an agent leaves behind then, the wardens of its engines end.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(sys.argv[1], sys.argv[1:])
