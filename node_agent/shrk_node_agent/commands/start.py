"""`shrk start`: the agent, in the background. By its service where one is installed, else as a plain process.

Idempotent. Exit codes: 0 it runs, 1 it does not start, 5 its settings are not valid, 6 it is another
user's, 7 it does not answer in time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands import polling, service
from shrk_node_agent.commands.absence import LINES_SHOWN, said
from shrk_node_agent.commands.ending import Exit, said_plainly
from shrk_node_agent.commands.phrases import printable
from shrk_node_agent.commands.typed import StateDir, verb
from shrk_node_agent.control_client import NotRunning, running_in

app = verb()

#: The socket opens once leftovers of an earlier life are swept: seconds, on a machine that is busy with other things.
ANSWER_SECONDS_MAX = 60.0
#: A plain process has nobody else who bounds its log: at the next start the old one is put aside, once.
LOG_BYTES_MAX = 16 * 1024 * 1024


class NotStarted(Trouble):
    """The agent did not come up. `str()` carries its last words."""


class SettingsNotValid(NotStarted):
    """The agent refuses its settings."""

    exit_code = Exit.CONFIG_INVALID


class NoAnswerYet(NotStarted):
    """It may come up later."""

    exit_code = Exit.TIMEOUT


@app.command()
def start(state_dir: StateDir = None) -> None:
    """Start the agent in the background. Where it runs already, nothing changes."""
    with said_plainly():
        folder = running_in(state_dir)
        kept_by = service.keeper(state_dir)
        try:
            print(_running("The node agent runs already", polling.status(folder)))
            return
        except NotRunning:
            pass  # that is what this command is for
        match kept_by:
            case service.Plain():
                document = _put_into_background(folder)
            case service.Systemd() | service.Script():
                kept_by.order("start")
                document = _first_answer(folder, kept_by)
        print(_running("The node agent is started", document))
        option = f" --state-dir {state_dir}" if state_dir else ""
        where = "" if isinstance(kept_by, service.Systemd) else f" ({service.agent_log(folder, kept_by)})"
        print(f"Its log: shrk logs{option}{where}")
        print(f"How it is: shrk status{option}")


def _running(what: str, document: dict[str, Any]) -> str:
    reason = f": {printable(document['reason'])}" if document["reason"] else ""
    return f"{what} (pid {document['pid']}); the node is {document['state']}{reason}"


def _first_answer(
    folder: Path, kept_by: service.Keeper, process: subprocess.Popen[bytes] | None = None
) -> dict[str, Any]:
    """The status of an agent that has been started, once it is a node: a join token may not be taken.

    Raises NoAnswerYet; returns {} where `process` ends.
    """
    until = polling.monotonic() + ANSWER_SECONDS_MAX
    document: dict[str, Any] = {}
    for seen in polling.changes(folder, 1.0, until):
        document = {} if isinstance(seen, NotRunning) else seen
        if document.get("node_id"):
            return document
        if process is not None and process.poll() is not None:
            return {}
    if document:
        return document  # It still asks to become one; its status says how that goes.
    raise NoAnswerYet(
        f"the node agent does not answer at {folder / 'control.sock'} after {ANSWER_SECONDS_MAX:g} s; it may yet "
        f"come up: shrk wait --for online. Its last words (more: shrk logs):\n{_quoted(folder, kept_by)}"
    )


def _put_into_background(folder: Path) -> dict[str, Any]:
    """The agent in a session of its own, which outlives this terminal. Raises NotStarted."""
    log = folder / "logs" / "agent.log"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_name("agent.log.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NotStarted(f"{log} cannot be written: {error.strerror}. Use sudo, or --state-dir DIR") from error
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "shrk_node_agent", "run", "--state-dir", str(folder), "--log-format", "json"],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    if document := _first_answer(folder, service.Plain(), process):
        return document
    failed = SettingsNotValid if process.returncode == Exit.CONFIG_INVALID else NotStarted
    raise failed(f"the node agent ended at once. Its last words (more: shrk logs):\n{_quoted(folder, service.Plain())}")


def _quoted(folder: Path, kept_by: service.Keeper) -> str:
    return "\n".join(f"  | {said(line)}" for line in service.last_words(folder, kept_by, LINES_SHOWN))
