"""Processes of the bench: a coordinator as production starts it, mock nodes, and the server without a gateway.

All of it is synchronous: this process only waits, and must take no CPU time from what it measures.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from bench.figures import gauges
from bench.load import LAST_ANSWERS_SECONDS_MAX, Load, Outcome

ROOT = Path(__file__).resolve().parent.parent
#: Making a CA and a database, or opening the ports: under a second, on a busy machine several.
COMMAND_SECONDS_MAX = 60.0
#: From the nodes' start to their last link; they have their own bounds inside it.
NODES_SECONDS_MAX = 130.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02
#: Start-up of the generator, its connections, and the last answers.
LOAD_EXTRA_SECONDS_MAX = 25.0 + LAST_ANSWERS_SECONDS_MAX
_PR_SET_PDEATHSIG = 1


class BenchFailed(Exception):
    """The bench cannot go on; `str()` says why and what to look at."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to send load to."""

    port: int
    api_key: str
    admin_key: str
    #: What is measured, and what stands behind it.
    pid: int
    nodes_pid: int | None


def _die_with_parent() -> None:
    # Between fork and exec; this process has no other thread that could hold a lock.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _python(*arguments: str, log: IO[bytes], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        preexec_fn=_die_with_parent,
    )


def _line(process: subprocess.Popen[str], seconds: float, log: IO[bytes]) -> str:
    """The next line a process prints. Raises BenchFailed where none comes in time."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], seconds)
    line = process.stdout.readline() if readable else ""
    if not line:
        why = "ended" if readable else f"said nothing within {seconds:g} s"
        raise BenchFailed(f"{process.args!r} {why}:\n{_tail(log)}")
    return line.strip()


def _tail(log: IO[bytes]) -> str:
    text = Path(log.name).read_text(errors="replace")
    return "\n".join(text.splitlines()[-15:])


def _stop(process: subprocess.Popen[str]) -> None:
    """The end of stdin ends our own processes, SIGTERM the coordinator."""
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.close()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def straight() -> Iterator[Target]:
    """The mock engine without a gateway."""
    with tempfile.NamedTemporaryFile(prefix="shrk-bench-") as log:
        process = _python("-m", "bench.straight", log=log)
        try:
            port = int(_line(process, COMMAND_SECONDS_MAX, log))
            yield Target(port, api_key="none", admin_key="", pid=process.pid, nodes_pid=None)
        finally:
            _stop(process)


@contextlib.contextmanager
def network(nodes: int) -> Iterator[Target]:
    """A coordinator with this many mock nodes linked, in a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="shrk-bench-") as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        log = stack.enter_context((directory / "log").open("ab"))
        coordinator = _Coordinator(directory, log)
        keys = coordinator.command("init")
        process = coordinator.serve()
        stack.callback(_stop, process)
        ports = coordinator.until_ready(process)
        owners = [argument for number in range(nodes) for argument in ("--owner", f"bench-{number}")]
        made = coordinator.command("tokens", "create", "--visibility", "public", *owners)
        wish = {
            "controller": f"tcp://127.0.0.1:{ports['link_port']}",
            "directory": folder,
            "join_tokens": [token["token"] for token in made["tokens"]],
        }
        mock_nodes = _python("-m", "bench.nodes", log=log)
        stack.callback(_stop, mock_nodes)
        assert mock_nodes.stdin is not None
        mock_nodes.stdin.write(json.dumps(wish) + "\n")
        mock_nodes.stdin.flush()
        _line(mock_nodes, NODES_SECONDS_MAX, log)
        target = Target(ports["listen_port"], keys["api_key"], keys["admin_key"], process.pid, mock_nodes.pid)
        _until_all_serve(target, nodes)
        yield target


class _Coordinator:
    """The coordinator's own commands, in one state folder."""

    def __init__(self, directory: Path, log: IO[bytes]) -> None:
        self._directory = directory
        self._state_dir = directory / "coordinator"
        self._log = log
        config = directory / "coordinator.toml"
        config.touch()
        # Without it, the settings of this machine's real coordinator would apply.
        self._environment = {"SHRK_COORDINATOR_CONFIG": str(config)}

    def command(self, *arguments: str) -> dict[str, Any]:
        """Run one of its commands to its end."""
        process = _python(
            *("-m", "shrk_coordinator", *arguments, "--state-dir", str(self._state_dir), "--json"),
            log=self._log,
            environment=self._environment,
        )
        try:
            printed, _ = process.communicate(timeout=COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BenchFailed(f"{arguments} took longer than {COMMAND_SECONDS_MAX:g} s") from None
        if process.returncode != 0:
            raise BenchFailed(f"{arguments} failed:\n{_tail(self._log)}")
        made: dict[str, Any] = json.loads(printed)
        return made

    def serve(self) -> subprocess.Popen[str]:
        """Start it on free ports."""
        anywhere = "127.0.0.1:0"
        return _python(
            *("-m", "shrk_coordinator", "serve", "--state-dir", str(self._state_dir), "--log-format", "json"),
            *("--listen", anywhere, "--link-listen", anywhere, "--enrolment-listen", anywhere, "--drain-seconds", "1"),
            log=self._log,
            environment=self._environment,
        )

    def until_ready(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """Its ports, from the file it writes when all of them are open."""
        ready = self._state_dir / "run" / "coordinator.json"
        deadline = time.monotonic() + COMMAND_SECONDS_MAX
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchFailed(f"the coordinator did not start:\n{_tail(self._log)}")
            time.sleep(POLL_SECONDS)  # The file is all that tells; no event loop runs here that a sleep could hold up.
        ports: dict[str, int] = json.loads(ready.read_text())
        return ports


def _until_all_serve(target: Target, nodes: int) -> None:
    """A linked node serves once its first report is in."""
    deadline = time.monotonic() + COMMAND_SECONDS_MAX
    while True:
        listed = json.loads(_get(target.port, "/v1/models", target.api_key))["data"]
        if listed and all(model["shrk"]["nodes"] == nodes for model in listed):
            return
        if time.monotonic() > deadline:
            raise BenchFailed(f"not all of {nodes} nodes serve: {listed}")
        time.sleep(POLL_SECONDS)  # Callers are not told when a node's first report is in: one asks again.


def metrics(target: Target) -> dict[str, float]:
    """The coordinator's gauges and counters without labels."""
    return gauges(_get(target.port, "/metrics", target.admin_key).decode())


def _get(port: int, path: str, key: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=COMMAND_SECONDS_MAX) as response:
            content: bytes = response.read()
            return content
    except urllib.error.HTTPError as error:
        raise BenchFailed(f"GET {path}: {error.code} {error.read(500)!r}") from error


def generate(load: Load) -> Outcome:
    """Run the load generator to its end. Raises BenchFailed where an answer was not whole."""
    with tempfile.NamedTemporaryFile(prefix="shrk-bench-") as log:
        process = _python("-m", "bench.load", log=log)
        seconds = load.warm_seconds + load.seconds + LOAD_EXTRA_SECONDS_MAX
        try:
            printed, _ = process.communicate(json.dumps(asdict(load)) + "\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"the load generator did not end within {seconds:g} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise BenchFailed(f"the load generator failed:\n{_tail(log)}")
    outcome = Outcome(**json.loads(printed))
    if outcome.errors:
        raise BenchFailed(f"{load.model} with {load.connections} connections went wrong: {_each(outcome.errors)}")
    return outcome


def _each(errors: Sequence[str]) -> str:
    return "; ".join(errors)
