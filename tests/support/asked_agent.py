"""An agent for the verbs to talk to: the product's own control socket in a thread, with a document that tests write."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shrk_contract.trouble import Trouble
from shrk_node_agent.control import ControlSocket
from shrk_node_agent.owner_calls import routes
from shrk_node_agent.reload import Changes

#: Far above what anything here takes: it only ends a test that hangs.
SECONDS_MAX = 30.0


class PlayedAgent:
    """Serves a document, and notes what is asked of it."""

    def __init__(self, document: dict[str, Any]) -> None:
        # Short: the path of a unix socket holds 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="shrk-"))
        self.document = document
        self.asked: list[object] = []
        #: What a reload tells; a Trouble is raised.
        self.reloaded: Changes | Trouble = Changes()
        #: Called in the agent's thread when somebody asks it to stop.
        self.stops: Callable[[], None] = lambda: None
        #: Called in the agent's thread each time that somebody has looked at the status.
        self.looks: Callable[[], None] = lambda: None
        self._loop = asyncio.new_event_loop()
        self._control = ControlSocket(self.folder / "control.sock", self._status, routes(self))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._is_open = False
        #: Set at each question about the status.
        self.looked_at = threading.Event()

    # --- what the verbs ask ---------------------------------------------------------------------------

    def pause(self, seconds: float | None) -> None:
        """Note it."""
        self.asked.append(("pause", seconds))

    def resume(self) -> None:
        """Note it."""
        self.asked.append("resume")

    def stop_soon(self, now: bool) -> None:
        """Note it."""
        self.asked.append(("stop", now))
        self.stops()

    async def reload_now(self) -> Changes:
        """Note it, and answer what the test wants."""
        self.asked.append("reload")
        if isinstance(self.reloaded, Trouble):
            raise self.reloaded
        return self.reloaded

    def _status(self) -> dict[str, Any]:
        document = self.document
        self.looked_at.set()
        self.looks()
        return document

    # --- what tests do --------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to answer."""
        if not self._thread.is_alive():
            self._thread.start()
        asyncio.run_coroutine_threadsafe(self._control.open(), self._loop).result(SECONDS_MAX)
        self._is_open = True

    def close(self) -> None:
        """Answer no more. Not from the agent's own thread."""
        if self._is_open:
            self._is_open = False
            asyncio.run_coroutine_threadsafe(self._control.close(), self._loop).result(SECONDS_MAX)

    def close_soon(self) -> None:
        """The same, from the agent's own thread."""
        self._is_open = False
        self._closing = self._loop.create_task(self._control.close())

    def change(self, **fields: Any) -> None:
        """Other fields from now on; whoever waits for a change is woken. From any thread."""
        self.document = {**self.document, **fields, "revision": self.document["revision"] + 1}
        self._loop.call_soon_threadsafe(self._control.changed)

    def forget(self) -> None:
        """Remove everything of it."""
        self.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(SECONDS_MAX)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        shutil.rmtree(self.folder)


@contextmanager
def an_agent(document: dict[str, Any]) -> Iterator[PlayedAgent]:
    """One that answers."""
    agent = PlayedAgent(document)
    try:
        agent.open()
        yield agent
    finally:
        agent.forget()
