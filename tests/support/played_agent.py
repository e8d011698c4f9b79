"""An agent's control socket that says whatever a test wants, in a thread of its own: commands block while they ask."""

from __future__ import annotations

import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

#: A question by its method and path.
Question = tuple[str, str]

STATUS = {
    "schema": 1,
    "revision": 1,
    "pid": 4711,
    "node_id": "node_a",
    "name": "attic",
    "state": "online",
    "reason": "",
    "link": "connected",
    "link_reason": "",
    "engines": [{"id": "m", "model": "m", "state": "online", "reason": "", "detail": ""}],
}
CHECKS = [
    {"name": "connected", "passed": True, "reason": "", "word": "", "next_action": ""},
    {"name": "demand", "passed": False, "reason": "nobody has asked for 'm'", "word": "", "next_action": "Wait."},
]
WHY = {
    "schema": 1,
    "problem": "",
    "eligible": True,
    "state": "online",
    "reason": "",
    "next_action": "",
    "since_seconds": 3.0,
    "address": "192.0.2.7",
    "at_unix_ms": 1_700_000_000_000,
    "checks": CHECKS,
}
PROBED = {
    "schema": 1,
    "problem": "",
    "passed": True,
    "reason": "",
    "next_action": "",
    "model": "m",
    "first_token_ms": 12,
}


@dataclass
class PlayedAgent:
    """Where it listens, what it answers, and what it was asked."""

    folder: Path
    answers: dict[Question, tuple[int, Any]] = field(
        default_factory=lambda: {
            ("GET", "/status"): (200, STATUS),
            ("GET", "/why"): (200, WHY),
            ("POST", "/probe"): (200, PROBED),
        }
    )
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    def says(self, method: str, path: str, answer: Any, status: int = 200) -> None:
        """From now on this is its answer there; bytes as they are, all else as JSON."""
        self.answers[method, path] = (status, answer)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    agent: PlayedAgent


class _Answer(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.agent.asked.append((self.command, self.path, body))
        status, answer = self.server.agent.answers.get((self.command, self.path), (404, {"error": "nothing here"}))
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer

    def address_string(self) -> str:
        return "a unix socket"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at `asked`."""


@contextmanager
def a_played_agent() -> Iterator[PlayedAgent]:
    """One that is well, until a test says otherwise."""
    # Short: the path of a unix socket holds 107 bytes, and pytest's own folders are longer than that.
    with tempfile.TemporaryDirectory(prefix="shrk-") as folder:
        agent = PlayedAgent(Path(folder))
        with _Server(str(agent.folder / "control.sock"), _Answer) as server:
            server.agent = agent
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield agent
            finally:
                server.shutdown()
                thread.join()
