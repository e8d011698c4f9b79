"""`shrk models pull`: fetches models to this machine now, as an agent would before it starts their engines.

The same program, cache, pinned commits and preflight as the agent's (`engine/download.py`); whose turn it is, processes
agree by a lock in the state folder (`engine/turn.py` says why). Exit codes: 0 all is here, 1 something is not, 5 a name
is not in the catalogue, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrk_node_agent.commands import progress_line
from shrk_node_agent.commands.ending import Exit, said_plainly
from shrk_node_agent.commands.typed import Json, StateDir

if TYPE_CHECKING:  # Settings load slowly, and --help needs none.
    from shrk_node_agent.engine.download import Download, Downloads, NotFetched
    from shrk_node_agent.settings import AgentSettings, CatalogueEntry

#: As a shell reports a program that Ctrl-C ended.
_INTERRUPTED = 130


class Outcome(StrEnum):
    """What became of one model; the words of the JSON document."""

    FETCHED = "fetched"
    HERE = "here"
    LOCAL = "local"
    SIMULATED = "simulated"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Pulled:
    """One model, and what is said of it."""

    model: str
    source: str
    outcome: Outcome
    said: str
    commit: str = ""
    bytes: int = 0
    folder: str = ""

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "model": self.model,
            "source": self.source,
            "outcome": str(self.outcome),
            "commit": self.commit or None,
            "bytes": self.bytes,
            "folder": self.folder or None,
            "reason": self.said if self.outcome in (Outcome.FAILED, Outcome.STOPPED) else "",
        }


def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Of the catalogue: shrk config show.")],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Fetch models to this machine now, whether the agent runs or not. What is complete is not fetched again."""
    with said_plainly():
        from shrk_node_agent.commands.catalogued import act_as_owner, catalogue_of, read_settings, unknown

        settings = read_settings(state_dir)
        catalogue = catalogue_of(settings)
        for name in names:
            if name not in catalogue:
                raise unknown(name, catalogue)
        chosen = {name: catalogue[name] for name in names}
        act_as_owner(settings.state_dir)
        shown: progress_line.Progress | None = progress_line.Silent() if as_json else None
        results = asyncio.run(_pulled(chosen, settings, shown))
        if as_json:
            print(json.dumps({"schema": 1, "models": [one.document() for one in results]}, ensure_ascii=False))
        else:
            for one in results:
                print(one.said, file=sys.stderr if one.outcome in (Outcome.FAILED, Outcome.STOPPED) else sys.stdout)
        outcomes = {one.outcome for one in results}
        if Outcome.STOPPED in outcomes:
            raise typer.Exit(_INTERRUPTED)
        if Outcome.FAILED in outcomes:
            raise typer.Exit(Exit.ERROR)


async def _pulled(
    chosen: Mapping[str, CatalogueEntry], settings: AgentSettings, shown: progress_line.Progress | None
) -> Sequence[Pulled]:
    """Raises AgentCannotRun where no engine is installed, whose Python fetches."""
    from shrk_node_agent.engine.launch import is_path
    from shrk_node_agent.engines import launcher
    from shrk_node_agent.settings import EngineKind

    simulated = settings.engine is EngineKind.SIM
    if not all(is_path(entry.source) for entry in chosen.values()):
        launcher(settings)  # Where no engine is installed, nothing can fetch either.
    loop = asyncio.get_running_loop()
    pulling = Pulling(
        downloads_of(settings),
        shown or progress_line.make(sys.stderr, loop.time),
        simulated=simulated,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, pulling.stop)
    return await pulling.run(chosen)


def downloads_of(settings: AgentSettings) -> Downloads:
    """The agent's own, but for the records of processes: an agent that starts takes those in its folder for leftovers
    of an earlier life, and kills what they name."""
    from shrk_node_agent.engines import downloads

    return replace(downloads(settings), run=settings.state_dir / "run" / "commands")


class Pulling:
    """Several models, one after the other."""

    def __init__(self, downloads: Downloads, shown: progress_line.Progress, *, simulated: bool = False) -> None:
        self._downloads = downloads
        self._shown = shown
        self._simulated = simulated
        self._download: Download | None = None
        self._stop_asked = False

    def stop(self) -> None:
        """Ask for no more; what is complete stays, for the next time."""
        self._stop_asked = True
        if self._download is not None:
            self._download.ask_to_stop()

    async def run(self, chosen: Mapping[str, CatalogueEntry]) -> Sequence[Pulled]:
        """One that fails does not keep the others; a stop does."""
        return [
            _stopped(name, entry.source) if self._stop_asked else await self._one(name, entry)
            for name, entry in chosen.items()
        ]

    async def _one(self, name: str, entry: CatalogueEntry) -> Pulled:
        from shrk_node_agent.engine.download import Download, Fetched
        from shrk_node_agent.engine.engine import EngineSpec
        from shrk_node_agent.engine.launch import is_path

        source = entry.source
        if self._simulated:
            return Pulled(name, source, Outcome.SIMULATED, f"{name}: the simulated engine has no files; nothing to do")
        if is_path(source):
            said = f"{name}: its source {source} is a folder of this machine, and needs no download"
            return Pulled(name, source, Outcome.LOCAL, said)
        ran = False

        def step(detail: str, fraction: float | None) -> None:
            nonlocal ran
            ran = True
            self._shown.step(name, detail, fraction)

        spec = EngineSpec(id=name, model=name, source=source, revision=entry.revision)
        self._download = Download(spec, self._downloads, step)
        try:
            outcome = await self._download.run()
        finally:
            if ran:
                self._shown.over()
        match outcome:
            case Fetched(folder):
                return await asyncio.to_thread(_here, name, source, folder, self._downloads, ran)
            case failed:
                return self._failed(name, source, failed)

    def _failed(self, name: str, source: str, failed: NotFetched) -> Pulled:
        if self._stop_asked:
            return _stopped(name, source)
        words = "".join(f"\n  | {line}" for line in failed.tail)
        return Pulled(name, source, Outcome.FAILED, f"shrk: {name}: {failed.reason}{words}")


def _stopped(name: str, source: str) -> Pulled:
    said = f"{name}: stopped. What is complete stays; go on with: shrk models pull {name}"
    return Pulled(name, source, Outcome.STOPPED, said)


def _here(name: str, source: str, folder: Path, downloads: Downloads, ran: bool) -> Pulled:
    """All of it is on the disk; looks at its files."""
    from shrk_node_agent.engine.fetch import gigabytes
    from shrk_node_agent.engine.revisions import snapshot_files

    size = sum(snapshot_files(folder).values())
    outcome, how = (Outcome.FETCHED, "fetched") if ran else (Outcome.HERE, "here already")
    said = f"{name}: {how}, {gigabytes(size)} of {source} at {folder.name[:12]} in {folder}"
    return Pulled(name, source, outcome, said, folder.name, size, str(folder))
