"""The batching writer without an event loop: what is sent at one moment leaves in one message, as in the product."""

from __future__ import annotations

from collections.abc import Callable

from shrk_contract.batching import PATIENCE_SECONDS, Frame, Outbox
from simulation.clock import Action

#: Does an action so many seconds later, in the process whose outbox this is.
Later = Callable[[float, Action], None]


class InstantOutbox(Outbox[Frame]):
    """Hands all frames of one moment to `write`, at the end of that moment."""

    def __init__(self, later: Later, write: Callable[[list[Frame]], None]) -> None:
        super().__init__(_nobody)
        self._later = later
        self._leave = write
        #: A batch is due at the end of this moment; and one when patience ends.
        self._due = False
        self._patient = False
        self._beats = False

    def send(self, frame: Frame, body_bytes: int = 0, *, patient: bool = False) -> None:
        """Queue one frame."""
        self._waiting.append(frame)
        if not patient:
            self._soon()
        elif not self._patient:
            self._patient = True
            self._later(PATIENCE_SECONDS, self._patience_ends)

    def beat(self) -> None:
        """Send a batch without frames, unless some are waiting."""
        self._beats = True
        self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._later(0.0, self.flush)

    def _patience_ends(self) -> None:
        self._patient = False
        self.flush()

    def flush(self) -> None:
        """Now, whatever is waiting."""
        self._due = False
        frames, self._waiting = self._waiting, []
        if frames or self._beats:
            self._beats = False
            self._leave(frames)


async def _nobody(frames: list[Frame]) -> None:
    raise AssertionError("nothing runs this outbox's loop")
