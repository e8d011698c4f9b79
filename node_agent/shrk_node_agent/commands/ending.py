"""How a verb ends: the exit codes that scripts depend on, and what a person can mend said without a traceback."""

from __future__ import annotations

import http
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from shrk_contract.trouble import Trouble
from shrk_node_agent.control_client import Refused


class Exit(IntEnum):
    """Exit codes of the verbs. A closed list, the same for every command of shrk."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_ELIGIBLE = 4
    CONFIG_INVALID = 5
    AUTH = 6
    TIMEOUT = 7


_OLD = (
    "the agent that runs is older than this command, and cannot be asked this. Restart its service, or end it by a "
    "signal (SIGTERM) and then: shrk start"
)


class WrongUsage(Trouble):
    """What was typed cannot be meant. `str()` says what can."""

    exit_code = Exit.USAGE


@contextmanager
def said_plainly() -> Iterator[None]:
    """Ends the command with a message and its exit code for everything that a person can mend."""
    try:
        yield
    except Trouble as error:
        unknown = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED)
        old = isinstance(error, Refused) and error.status in unknown
        typer.echo(f"shrk: {_OLD if old else error}", err=True)
        raise typer.Exit(int(error.exit_code)) from error
    except KeyboardInterrupt as error:
        # What a shell reports of a program that Ctrl-C ended.
        raise typer.Exit(130) from error
