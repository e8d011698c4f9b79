"""`shrk models pull` with a played program; `tests/engine/test_models_pull.py` has the real one and a hub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.models import app
from shrk_node_agent.commands.models_pull import Outcome, Pulled, Pulling, downloads_of
from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.revisions import Pinned
from shrk_node_agent.engines import downloads as agents_downloads
from shrk_node_agent.settings import AgentSettings, CatalogueEntry
from support.scripted_downloads import FOUND, a_snapshot, downloads
from support.wardens import wait_for_file

TINY = {"tiny": CatalogueEntry(source="org/tiny")}


class Noted:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str, float | None] | str] = []

    def step(self, name: str, detail: str, fraction: float | None) -> None:
        self.steps.append((name, detail, fraction))

    def over(self) -> None:
        self.steps.append("over")


async def pulled(given: Downloads, shown: Noted | None = None) -> Sequence[Pulled]:
    return await Pulling(given, shown or Noted()).run(TINY)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file, which SHRK_CONFIG names, of a node in `tmp_path`."""
    path = tmp_path / "config.toml"
    path.write_text(f'engine = "sim"\nstate_dir = "{tmp_path}/node"\n[catalogue.qwen]\nsource = "org/qwen"\n')
    monkeypatch.setenv("SHRK_CONFIG", str(path))
    return path


async def test_a_model_is_fetched_with_progress_and_pinned(tmp_path: Path) -> None:
    folder = a_snapshot(tmp_path)
    shown = Noted()
    [one] = await pulled(downloads(tmp_path, FOUND, {"event": "fetched", "folder": str(folder), "files": 1}), shown)
    assert (one.outcome, one.commit, one.bytes, one.folder) == (Outcome.FETCHED, "c" * 40, 4, str(folder))
    assert one.said == f"tiny: fetched, 0.1 MB of org/tiny at {'c' * 12} in {folder}"
    assert shown.steps[1:] == [("tiny", "downloading: 0.0 MB of 2.0 GB", 0.0), "over"]
    assert downloads(tmp_path).lock.pinned("org/tiny", None) == Pinned("c" * 40, {"model.safetensors": 4})


async def test_what_is_here_is_not_fetched_again_and_shows_no_progress(tmp_path: Path) -> None:
    a_snapshot(tmp_path)
    given = downloads(tmp_path, STATUS="1")
    given.lock.pin("org/tiny", None, Pinned("c" * 40, {"model.safetensors": 4}))
    shown = Noted()
    [one] = await pulled(given, shown)
    assert (one.outcome, shown.steps) == (Outcome.HERE, [])
    assert one.said.startswith("tiny: here already, ")


async def test_one_that_fails_is_told_with_its_last_words_and_the_next_is_fetched_all_the_same(tmp_path: Path) -> None:
    refused = {"event": "refused", "kind": "network", "reason": "the hub cannot be reached"}
    given = downloads(tmp_path, "the library speaks", refused, STATUS="3")
    chosen = {**TINY, "mine": CatalogueEntry(source=str(tmp_path))}
    first, second = await Pulling(given, Noted()).run(chosen)
    assert first.outcome is Outcome.FAILED
    assert first.said == "shrk: tiny: The model is not fetched: the hub cannot be reached\n  | the library speaks"
    assert second.outcome is Outcome.LOCAL


async def test_a_stop_ends_it_and_says_how_to_go_on(tmp_path: Path) -> None:
    given = downloads(tmp_path, FOUND, STAY="1", TOLD=str(tmp_path / "told"))
    pulling = Pulling(given, Noted())
    running = asyncio.create_task(pulling.run({**TINY, "next": CatalogueEntry(source="org/next")}))
    await asyncio.to_thread(wait_for_file, tmp_path / "told")
    pulling.stop()
    first, second = await running
    assert (first.outcome, second.outcome) == (Outcome.STOPPED, Outcome.STOPPED)
    assert first.said == "tiny: stopped. What is complete stays; go on with: shrk models pull tiny"
    pinned = given.lock.pinned("org/tiny", None)
    assert pinned is not None
    assert pinned.commit == "c" * 40, "it goes on with the commit that it began with"


def test_an_agent_that_starts_does_not_take_it_for_a_leftover(tmp_path: Path) -> None:
    settings = AgentSettings.model_validate({"state_dir": tmp_path, "catalogue": {"m": {"source": "m"}}})
    ours, agents = downloads_of(settings), agents_downloads(settings)
    assert (ours.run.parent, ours.cache, ours.machine_turn) == (agents.run, agents.cache, agents.machine_turn)


def test_a_name_that_is_not_in_the_catalogue_is_refused_with_the_nearest_and_nothing_is_fetched(file: Path) -> None:
    result = CliRunner().invoke(app, ["pull", "qwen", "qwem"])
    assert result.exit_code == Exit.CONFIG_INVALID
    assert (result.stdout, result.stderr) == ("", "shrk: 'qwem' is not in the catalogue; did you mean qwen?\n")


def test_a_catalogue_without_models_says_where_to_find_some(file: Path) -> None:
    file.write_text("")
    result = CliRunner().invoke(app, ["pull", "qwen"])
    assert result.exit_code == Exit.CONFIG_INVALID
    assert "which is empty. What fits here: shrk models suggest" in result.stderr


def test_the_simulated_engine_has_no_files(file: Path) -> None:
    result = CliRunner().invoke(app, ["pull", "qwen"])
    assert (result.exit_code, result.stdout) == (
        Exit.OK,
        "qwen: the simulated engine has no files; nothing to do\n",
    )
    assert not (file.parent / "node").exists()


def test_a_folder_of_the_owners_needs_no_download_and_no_engine(file: Path) -> None:
    file.write_text(f'engine_venv = "{file.parent}/none"\n[catalogue.mine]\nsource = "{file.parent}"\n')
    result = CliRunner().invoke(app, ["pull", "mine"])
    assert result.exit_code == Exit.OK
    assert result.stdout == f"mine: its source {file.parent} is a folder of this machine, and needs no download\n"


def test_without_an_engine_environment_it_says_what_to_install(file: Path) -> None:
    file.write_text(f'engine_venv = "{file.parent}/none"\n[catalogue.qwen]\nsource = "org/qwen"\n')
    result = CliRunner().invoke(app, ["pull", "qwen"])
    assert result.exit_code == Exit.ERROR
    assert f"There is no vLLM in {file.parent}/none. Install it" in result.stderr


def test_json_has_a_schema_and_one_entry_a_model(file: Path) -> None:
    told = json.loads(CliRunner().invoke(app, ["pull", "qwen", "--json"]).stdout)
    assert told["schema"] == 1
    assert told["models"] == [
        {
            "model": "qwen",
            "source": "org/qwen",
            "outcome": "simulated",
            "commit": None,
            "bytes": 0,
            "folder": None,
            "reason": "",
        }
    ]
