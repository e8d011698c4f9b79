"""Keeps one child running the way a service manager would (Restart=always), and says so aloud."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shrk_cli.dev.processes import Child, how_it_ended

#: Pause before a start, doubled at each quick end: as the agent does for engines (1 to 60 s), but shorter
#: at the top, since someone is watching.
PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS_MAX = 30.0
#: A life this long counts as a good one, and the next pause is short again.
GOOD_LIFE_SECONDS = 30.0


class Service:
    """One child and its lives.

    `start` makes a life, `say` tells the person watching, and `judge` sees each unasked end (the child and
    its exit status): it raises where another start makes no sense.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Awaitable[Child]],
        say: Callable[[str], None],
        judge: Callable[[Child, int], None],
        *,
        restart: bool,
    ) -> None:
        self.name = name
        self._start = start
        self._say = say
        self._judge = judge
        self._restart = restart
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        #: Set once its first life has begun.
        self.started = asyncio.Event()
        #: Set when it is down and stays down.
        self.ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the process itself (not its warden); None while it is down."""
        return self._child.pid if self._child else None

    async def run(self) -> None:
        """Start it, and again whenever it ends, until stop(). Raises what `start` and `judge` raise."""
        pause = PAUSE_SECONDS_MIN
        clock = asyncio.get_running_loop().time
        try:
            while not self._stopping.is_set():
                self._child = child = await self._start()
                self.started.set()
                born = clock()
                if self._stopping.is_set():  # asked while it was starting
                    await child.stop()
                status = await child.wait()
                self._child = None
                if self._stopping.is_set():
                    return
                self._judge(child, status)
                if not self._restart:
                    self._say(f"{self.name} {how_it_ended(status)}; it stays down (--no-restart)")
                    return
                if clock() - born > GOOD_LIFE_SECONDS:
                    pause = PAUSE_SECONDS_MIN
                self._say(f"{self.name} {how_it_ended(status)}; starting it again in {pause:g} s")
                await self._sleep(pause)
                pause = min(PAUSE_SECONDS_MAX, pause * 2)
        finally:
            self.ended.set()

    async def stop(self) -> None:
        """Drain it: SIGTERM, its grace, SIGKILL. It is not started again."""
        self._stopping.set()
        if self._child:
            await self._child.stop()

    async def kill(self) -> None:
        """End it at once. It is not started again."""
        self._stopping.set()
        if self._child:
            await self._child.kill()

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
