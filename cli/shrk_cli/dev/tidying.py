"""Starts and ends the janitor that removes what a dev network leaves, even after kill -9 of `shrk dev`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from shrk_cli.dev.janitor import REMOVAL_SECONDS_MAX, WARDENS_SECONDS_MAX
from shrk_cli.dev.processes import python

#: Past what the janitor allows itself, for one removal at least.
FINISH_SECONDS_MAX = WARDENS_SECONDS_MAX + REMOVAL_SECONDS_MAX + 5.0


class Tidying:
    """A running janitor."""

    def __init__(self, janitor: asyncio.subprocess.Process, lifeline: int) -> None:
        self._janitor = janitor
        #: The pipe that every warden must hold open: the janitor waits for its end.
        self.lifeline = lifeline

    @classmethod
    async def start(
        cls,
        *,
        remove: Sequence[Path],
        unsocket: Sequence[Path],
        environment: Mapping[str, str],
        hold: int,
    ) -> Tidying:
        """Start the janitor, before anything that has to be tidied.

        `remove` are files and folders to remove, `unsocket` folders to free of sockets, and `hold` is a
        descriptor that it keeps open until it is done (the lock of the state folder).
        """
        lifeline_read, lifeline = os.pipe()
        janitor = await asyncio.create_subprocess_exec(
            *python("-m", "shrk_cli.dev.janitor", "--lifeline", str(lifeline_read)),
            *(argument for path in remove for argument in ("--remove", str(path))),
            *(argument for path in unsocket for argument in ("--unsocket", str(path))),
            stdin=asyncio.subprocess.PIPE,
            env=environment,
            cwd="/",
            pass_fds=(lifeline_read, hold),
            start_new_session=True,
        )
        os.close(lifeline_read)
        return cls(janitor, lifeline)

    async def finish(self) -> None:
        """Tell it that all is stopped; returns when all is tidy."""
        os.close(self.lifeline)
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        await asyncio.wait_for(self._janitor.wait(), FINISH_SECONDS_MAX)
