"""Asks the agent that runs on this machine, through its control socket.

Light to import: it is loaded before `shrk why` and its like print anything.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import tomllib
from pathlib import Path
from typing import Any, ClassVar

from shrk_contract.trouble import Trouble

#: An agent answers from memory, within milliseconds; one whose machine swaps may take seconds.
SECONDS_MAX = 10.0
#: The largest document is a status with a log's tail for every engine: some kilobytes each.
ANSWER_BYTES_MAX = 8 * 1024 * 1024


class NotRunning(Trouble):
    """No agent runs with this folder. `str()` says which, and what to do."""

    exit_code: ClassVar[int] = 3

    def __init__(self, state_dir: Path, why: str) -> None:
        self.state_dir = state_dir
        self.why = why
        super().__init__(
            f"The node agent is not running: {why}. Start it (shrk start, or shrk node run), or name the folder of "
            "the one that runs: --state-dir DIR"
        )


class NotAllowed(Trouble):
    """The agent, or what says which one is meant, belongs to another user. `str()` says what to do."""

    exit_code: ClassVar[int] = 6

    def __init__(self, path: Path, remedy: str = "run the command as that user, or with sudo") -> None:
        super().__init__(f"{path} belongs to another user: {remedy}")


class NoAnswer(Trouble):
    """The agent took the question and did not answer it in time. `str()` says what to do."""

    exit_code: ClassVar[int] = 7

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(
            f"The node agent did not answer {path} within {seconds:g} s. Read its log: is the machine busy?"
        )


class Refused(Trouble):
    """The agent will not or cannot: `status` is HTTP's, `answer` its JSON, with what happened under "error"."""

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        self.status = status
        self.answer = answer
        super().__init__(str(answer.get("error") or f"the node agent answered with HTTP {status}"))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("shrk-node-agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def running_in(flag: Path | None) -> Path:
    """The folder of this machine's agent: the one that is named, or SHRK_STATE_DIR, or the settings file's, or the
    default.

    Raises NotAllowed where the settings file would say it and may not be read: the agent may be in any folder then.
    """
    named = flag or setting("state_dir")
    return Path(named).expanduser().absolute() if named else default_folder()


def setting(name: str) -> str:
    """One setting that is a text, from the environment or the settings file; empty where it is in neither.

    For commands that must work though other settings are wrong, or are not what the running agent has. Raises
    NotAllowed where the file is there and may not be read.
    """
    return os.environ.get(f"SHRK_{name.upper()}") or _of_settings_file(name)


def default_folder() -> Path:
    """Where an agent keeps its things unless it is told otherwise: one of root is the service."""
    if os.geteuid() == 0:
        return Path("/var/lib/shrk/node")
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "shrk" / "node"


def _of_settings_file(name: str) -> str:
    path = Path(os.environ.get("SHRK_CONFIG") or "/etc/shrk/config.toml")
    try:
        settings = tomllib.loads(path.read_text())
    except PermissionError as error:
        raise NotAllowed(path, "run it with sudo, or name --state-dir") from error
    except (OSError, ValueError, RecursionError):
        return ""  # there is none, or `shrk doctor` says what is wrong with it
    value = settings.get(name)
    return value if isinstance(value, str) else ""


def ask(
    state_dir: Path, method: str, path: str, body: dict[str, Any] | None = None, timeout: float = SECONDS_MAX
) -> dict[str, Any]:
    """The agent's answer to one question, such as ("GET", "/status"). `timeout` in seconds.

    Raises NotRunning, NotAllowed, NoAnswer, and Refused where it answers with a status of 400 or more.
    """
    control = state_dir / "control.sock"
    connection = _UnixConnection(str(control), timeout)
    try:
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text, {"Content-Type": "application/json"} if body is not None else {})
        response = connection.getresponse()
        content = response.read(ANSWER_BYTES_MAX)
    except FileNotFoundError as error:
        raise NotRunning(state_dir, f"there is no {control}") from error
    except ConnectionError as error:
        raise NotRunning(state_dir, f"nobody answers at {control}") from error
    except PermissionError as error:
        raise NotAllowed(control) from error
    except TimeoutError as error:
        raise NoAnswer(path, timeout) from error
    except http.client.HTTPException as error:
        raise NotRunning(state_dir, f"it stopped while it was asked at {control}") from error
    except OSError as error:
        raise NotRunning(state_dir, f"{control} cannot be opened ({error})") from error
    finally:
        connection.close()
    answer = _document(content)
    if response.status >= http.client.BAD_REQUEST:
        raise Refused(response.status, answer)
    return answer


def _document(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {"error": f"an answer that is no JSON: {content[:200].decode(errors='replace')}"}
    return answer if isinstance(answer, dict) else {"error": f"an answer that is no object: {str(answer)[:200]}"}
