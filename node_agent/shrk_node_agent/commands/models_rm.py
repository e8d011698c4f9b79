"""`shrk models rm`: removes models' files from this machine, never an owner's own folder.

Exit codes: 0 they are gone, 1 one is in use or cannot be removed, 2 nobody can be asked, 5 a name is not known here.

What keeps an engine from being started on files that go: first the model's commit is forgotten, then the agent is
asked. Whoever starts an engine after that finds the model not whole, and waits for its turn to fetch it.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrk_contract.terms import State
from shrk_contract.trouble import Trouble
from shrk_node_agent.commands import polling
from shrk_node_agent.commands.ending import WrongUsage, said_plainly
from shrk_node_agent.commands.typed import Json, StateDir
from shrk_node_agent.control_client import NotRunning

if TYPE_CHECKING:  # Settings load slowly, and --help needs none.
    from shrk_node_agent.engine.removal import Kept
    from shrk_node_agent.settings import AgentSettings

#: An engine in one of these has no process that reads its model's files, once its last one has ended.
_NOT_LOADED = frozenset({State.PAUSED, State.INCOMPATIBLE})


class NotNow(Trouble):
    """The model is in use, or its files cannot be removed. `str()` says what to do."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What one name on the command line comes to."""

    name: str
    source: str
    #: Its files; None: they are a folder of the owner's.
    kept: Kept | None
    #: The catalogue's names for the same repository; none: it is in the catalogue no more.
    names: tuple[str, ...] = ()
    bytes: int = 0

    @property
    def is_here(self) -> bool:
        """Whether there is anything to remove."""
        return self.kept is not None and self.kept.is_here


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Of the catalogue, or ORG/NAME of the hub.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Remove models' files from this machine, and say what that frees. A folder of your own is never touched."""
    with said_plainly():
        from shrk_node_agent.commands.catalogued import act_as_owner, read_settings

        settings = read_settings(state_dir)
        act_as_owner(settings.state_dir)
        removals = [_removal(name, settings) for name in dict.fromkeys(names)]
        here = [one for one in removals if one.is_here]
        for one in here:
            _check_unused(one, settings.state_dir)
        if not as_json:
            for one in removals:
                if not one.is_here:
                    print(_nothing(one))
        if here and not yes and not _agreed(here, may_ask=sys.stdin.isatty() and not as_json):
            print("Nothing is removed.")
            raise typer.Exit(1)
        for one in here:
            _remove(one, settings.state_dir)
            if not as_json:
                print(_freed(one))
        if as_json:
            print(json.dumps({"schema": 1, "models": [_document(one) for one in removals]}, ensure_ascii=False))


def _removal(name: str, settings: AgentSettings) -> Removal:
    """Raises NotInCatalogue, NotNow."""
    from shrk_node_agent.commands.catalogued import catalogue_of, unknown
    from shrk_node_agent.engine.launch import is_path
    from shrk_node_agent.engine.removal import NotRemoved, kept

    catalogue = catalogue_of(settings)
    cache = settings.state_dir / "models"
    source = catalogue[name].source if name in catalogue else name
    if name in catalogue and is_path(source):
        return Removal(name, source, None, (name,))
    try:
        found = kept(cache, source)
    except NotRemoved as error:
        raise (NotNow(str(error)) if name in catalogue else unknown(name, catalogue)) from error
    if name not in catalogue and not ("/" in name and found.is_here):
        raise unknown(name, catalogue)
    names = tuple(other for other, entry in catalogue.items() if entry.source == source)
    return Removal(name, source, found, names, found.size())


def _check_unused(one: Removal, state_dir: Path) -> None:
    """Raises NotNow while a running agent has a model of the same repository. The agent itself says which it has: the
    settings may have been changed since it started."""
    try:
        engines = polling.status(state_dir)["engines"]
    except NotRunning:
        return
    for engine in engines:
        model = engine["model"]
        # An agent from before there was a source in its status: any of its models might be this one.
        is_it = engine.get("source", one.source) == one.source
        if is_it and (engine["pids"] or engine["state"] not in _NOT_LOADED):
            raise NotNow(
                f"{one.name} is in use: the agent's model {model} is {engine['state']}, and nothing is removed. Stop "
                f"the agent (shrk stop), or take {model} off `models`, which an agent takes in at once (shrk set "
                f"models OTHER,...). Once it has ended (shrk status): shrk models rm {shlex.quote(one.name)}"
            )


def _agreed(here: Sequence[Removal], *, may_ask: bool) -> bool:
    """Raises WrongUsage where nobody can be asked."""
    from shrk_node_agent.engine.fetch import gigabytes

    total = gigabytes(sum(one.bytes for one in here))
    if not may_ask:
        raise WrongUsage(
            f"this would remove {', '.join(one.name for one in here)} and free {total}, and nobody can be asked: say "
            "--yes to do it"
        )
    for one in here:
        assert one.kept is not None, "it is here"
        also = [name for name in one.names if name != one.name]
        whose = f", also the files of {', '.join(also)}" if also else ""
        print(f"{one.name}: {one.source}, {gigabytes(one.bytes)} in {one.kept.folder}{whose}")
    try:
        return typer.confirm(f"Remove {'it' if len(here) == 1 else 'them'}, and free {total}?", default=False)
    except typer.Abort as error:
        print("\nNothing is removed.")
        raise KeyboardInterrupt from error


def _remove(one: Removal, state_dir: Path) -> None:
    """Raises NotNow."""
    from shrk_node_agent.engine.removal import NotRemoved
    from shrk_node_agent.engine.revisions import LockUnreadable, RevisionLock
    from shrk_node_agent.engine.turn import Turn

    assert one.kept is not None, "it is here"
    lock, turn = RevisionLock(state_dir / "models.lock"), Turn(state_dir / "models.turn")
    try:
        if not turn.take():
            raise NotNow(
                "a model is being downloaded into this folder now, and nothing is removed. Wait for its end (shrk "
                "models), or stop it, and try again"
            )
        try:
            forgotten = lock.forget(one.source)
            try:
                _check_unused(one, state_dir)
            except BaseException:
                lock.keep(forgotten)
                raise
            one.kept.remove()
        finally:
            turn.let_go()
    except (NotRemoved, LockUnreadable) as error:
        raise NotNow(f"{one.name}: {error}") from error
    except OSError as error:
        raise NotNow(f"{error.filename or state_dir} cannot be changed: {error.strerror}. Try it with sudo") from error


def _nothing(one: Removal) -> str:
    if one.kept is None:
        return f"{one.name}: its source {one.source} is a folder of yours, and is never touched; nothing to remove"
    return f"{one.name}: nothing of {one.source} is on this machine"


def _freed(one: Removal) -> str:
    from shrk_node_agent.engine.fetch import gigabytes

    said = f"{one.name}: {gigabytes(one.bytes)} are freed; {one.source} is removed"
    if one.names:
        said += ". An agent that is to serve it fetches it again"
    return said


def _document(one: Removal) -> dict[str, Any]:
    outcome = "local" if one.kept is None else ("removed" if one.bytes or one.is_here else "nothing")
    return {"model": one.name, "source": one.source, "outcome": outcome, "freed_bytes": one.bytes}
