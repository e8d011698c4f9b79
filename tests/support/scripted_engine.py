"""An engine of a hundred lines for tests of supervision: it says, serves, forks and fails as its flags tell it.

    python scripted_engine.py --uds PATH --model NAME [--say LINE ...] [--exit STATUS] [--deaf] [--family]
                              [--refuse PATH ...] [--fail STATUS] [--context-tokens N] [--stopped STATUS]

On the standard library alone, so that it starts in a blink.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

#: What a stubborn relative runs: deaf to SIGTERM, holding on to stdout, and in a session of its own where told.
_RELATIVE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if sys.argv[1] == "away":
    os.setsid()
print("relative", os.getpid(), flush=True)
time.sleep(600)
"""


class Server(ThreadingMixIn, UnixStreamServer):
    """Many requests at once, on a unix socket."""

    daemon_threads = True


def answers_to(options: argparse.Namespace) -> type[BaseHTTPRequestHandler]:
    """What answers: /health, /v1/models, /version and one-token answers."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            model = {"id": options.model, "max_model_len": options.context_tokens}
            self._answer(200, {"/v1/models": {"data": [model]}, "/version": {"version": "1.2.3"}}.get(self.path, {}))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if self.path in options.refuse:
                self._answer(400, {"error": {"message": "not for this model"}})
            elif options.fail:
                self._answer(options.fail, {"error": {"message": "out of order"}})
            elif self.path == "/v1/embeddings":
                self._answer(200, {"data": [{"embedding": [0.5]}]})
            else:
                self._answer(200, {"usage": {"completion_tokens": 1}})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """A unix socket has no peer address to log."""

    return Answers


def start_relatives() -> None:
    """One in our session and one that went away from it."""
    for kind in ("near", "away"):
        relative = subprocess.Popen([sys.executable, "-I", "-S", "-c", _RELATIVE, kind], stdout=subprocess.PIPE)
        assert relative.stdout is not None
        sys.stdout.write(relative.stdout.readline().decode())
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds")
    parser.add_argument("--model")
    parser.add_argument("--say", action="append", default=[])
    parser.add_argument("--exit", type=int)
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--family", action="store_true")
    parser.add_argument("--refuse", action="append", default=[])
    parser.add_argument("--fail", type=int)
    parser.add_argument("--context-tokens", type=int, default=4096)
    parser.add_argument("--stopped", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(options.stopped))
    for line in options.say:
        print(line, flush=True)
    if "TMPDIR" in os.environ:
        Path(tempfile.gettempdir(), "left-behind").touch()
    if options.family:
        start_relatives()
    if options.exit is not None:
        return int(options.exit)
    if options.deaf:
        signal.pause()
    Server(options.uds, answers_to(options)).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
