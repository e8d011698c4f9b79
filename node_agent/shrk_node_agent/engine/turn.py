"""Whose turn it is to change a node's models: one process at a time, be it an agent or an owner's command.

A lock on a file in the state folder, and no question to a running agent: it holds whether an agent runs or not, between
two commands as well, and the kernel lets go of it with the process, however that ends. An agent that is asked to fetch
would have to be told of models that its settings, as it read them, do not have.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

#: How often one looks whether it is one's turn: nobody tells. A download takes minutes.
LOOK_SECONDS = 0.25


class Turn:
    """One process's view of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Whether it is ours from now on; False: somebody else has it. Raises OSError."""
        assert self._descriptor is None, "it is ours already"
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def let_go(self) -> None:
        """Somebody else may have it."""
        assert self._descriptor is not None, "it was taken"
        os.close(self._descriptor)
        self._descriptor = None
