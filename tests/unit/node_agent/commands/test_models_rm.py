"""`shrk models rm`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.models import app
from shrk_node_agent.engine.revisions import Pinned, RevisionLock
from shrk_node_agent.engine.turn import Turn
from support.asked_agent import PlayedAgent
from support.status_documents import engine, healthy
from support.terminal import at_a_terminal

SETTINGS = """\
[catalogue.tiny]
source = "org/tiny"
[catalogue.same]
source = "org/tiny"
revision = "v2"
[catalogue.other]
source = "org/other"
[catalogue.mine]
source = "{mine}"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the owner's, with weights."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"precious")
    return folder


@pytest.fixture
def node(agent: PlayedAgent, mine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a node with the files of one model, whose agent has nothing loaded."""
    agent.document = healthy(engines=[engine("tiny", state="paused"), engine("other")])
    (agent.folder / "config.toml").write_text(SETTINGS.format(mine=mine))
    monkeypatch.setenv("SHRK_CONFIG", str(agent.folder / "config.toml"))
    blobs = agent.folder / "models" / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "b").write_bytes(os.urandom(1_000_000))
    lock = RevisionLock(agent.folder / "models.lock")
    for source, revision in (("org/tiny", None), ("org/tiny", "v2"), ("org/other", None)):
        lock.pin(source, revision, Pinned("c" * 40, {"b": 1_000_000}))
    return agent.folder


def rm(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["rm", *words])
    return result.exit_code, result.stdout, result.stderr


def is_here(node: Path) -> bool:
    """Files and commits, both."""
    there = (node / "models" / "models--org--tiny").is_dir()
    lock = RevisionLock(node / "models.lock")
    pinned = [lock.pinned("org/tiny", revision) is not None for revision in (None, "v2")]
    assert pinned == [there, there], "both or neither"
    assert lock.pinned("org/other", None) is not None, "which is another model's"
    return there


def test_files_and_commits_of_the_model_go_and_what_is_freed_is_told(node: Path) -> None:
    status, told, _ = rm("tiny", "--yes")
    assert status == Exit.OK
    assert told == "tiny: 1.0 MB are freed; org/tiny is removed. An agent that is to serve it fetches it again\n"
    assert not is_here(node)
    assert (node / "config.toml").exists()


@pytest.mark.parametrize("state", ["starting", "downloading", "loading", "verifying", "online", "busy", "draining"])
def test_a_model_that_the_agent_has_is_refused_with_what_to_do(node: Path, agent: PlayedAgent, state: str) -> None:
    agent.change(engines=[engine("same", source="org/tiny", state=state)])
    status, told, error = rm("tiny", "--yes")
    assert (status, told) == (Exit.ERROR, "")
    assert f"tiny is in use: the agent's model same is {state}" in error
    assert "shrk stop" in error
    assert "take same off `models`, which an agent takes in at once (shrk set models OTHER,...)." in error
    assert "start the agent again" not in error
    assert is_here(node)


def test_a_paused_one_whose_process_still_ends_is_in_use(node: Path, agent: PlayedAgent) -> None:
    agent.change(engines=[engine("tiny", state="paused", pids=[4712])])
    assert rm("tiny", "--yes")[0] == Exit.ERROR
    assert is_here(node)


@pytest.mark.parametrize("running", ["tiny", "renamed"])
def test_files_of_a_model_that_runs_stay_whatever_the_settings_say_now(
    node: Path, agent: PlayedAgent, running: str
) -> None:
    agent.change(engines=[engine(running, source="org/tiny", pids=[4712])])
    (node / "config.toml").write_text('[catalogue.tiny]\nsource = "org/new"\n')
    status, told, error = rm("org/tiny", "--yes")
    assert (status, told) == (Exit.ERROR, "")
    assert f"org/tiny is in use: the agent's model {running} is online" in error
    assert is_here(node)


def test_a_model_that_runs_from_another_source_keeps_nobody(node: Path, agent: PlayedAgent) -> None:
    agent.change(engines=[engine("tiny", source="org/before", pids=[4712]), engine("renamed")])
    assert rm("tiny", "--yes")[0] == Exit.OK
    assert not is_here(node)


def test_of_an_agent_that_names_no_sources_any_model_that_runs_might_be_this_one(
    node: Path, agent: PlayedAgent
) -> None:
    older = engine("other")
    del older["source"]
    agent.change(engines=[older])
    assert "the agent's model other is online" in rm("tiny", "--yes")[2]
    assert is_here(node)


def test_an_agent_that_begins_to_load_it_at_the_last_moment_keeps_it_and_its_commit(
    node: Path, agent: PlayedAgent
) -> None:
    def begins() -> None:
        agent.document = healthy(engines=[engine("tiny", state="starting")])

    agent.looks = begins
    status, _, error = rm("tiny", "--yes")
    assert status == Exit.ERROR
    assert "tiny is starting" in error
    assert is_here(node)


def test_without_an_agent_it_is_removed_all_the_same(node: Path, agent: PlayedAgent) -> None:
    agent.close()
    assert rm("tiny", "--yes")[0] == Exit.OK
    assert not is_here(node)


def test_while_somebody_downloads_nothing_is_removed(node: Path) -> None:
    turn = Turn(node / "models.turn")
    assert turn.take()
    status, _, error = rm("tiny", "--yes")
    turn.let_go()
    assert status == Exit.ERROR
    assert "a model is being downloaded into this folder now" in error
    assert is_here(node)


def test_where_nobody_can_be_asked_it_wants_a_yes(node: Path) -> None:
    for words in (["tiny"], ["tiny", "--json"]):
        status, _, error = rm(*words)
        assert status == Exit.USAGE
        assert "would remove tiny and free 1.0 MB, and nobody can be asked: say --yes" in error
    assert is_here(node)


@pytest.mark.parametrize(("answer", "status", "stays"), [("y", 0, False), ("n", 1, True), ("", 1, True)])
def test_at_a_terminal_it_asks_with_the_size(node: Path, answer: str, status: int, stays: bool) -> None:
    with at_a_terminal(["models", "rm", "tiny"], os.environ) as terminal:
        terminal.wait_for(f"tiny: org/tiny, 1.0 MB in {node}/models/models--org--tiny, also the files of same\n")
        terminal.answer("Remove it, and free 1.0 MB? [y/N]:", answer)
        assert terminal.end() == status, terminal.shown
    assert ("Nothing is removed." in terminal.shown) is stays
    assert is_here(node) is stays


def test_ctrl_c_at_the_question_removes_nothing(node: Path) -> None:
    with at_a_terminal(["models", "rm", "tiny"], os.environ) as terminal:
        terminal.wait_for("[y/N]:")
        assert terminal.interrupt() == 130, terminal.shown
    assert is_here(node)


def test_a_folder_of_the_owners_is_never_touched(node: Path, mine: Path) -> None:
    status, told, _ = rm("mine", "--yes")
    assert status == Exit.OK
    assert told == f"mine: its source {mine} is a folder of yours, and is never touched; nothing to remove\n"
    assert (mine / "model.safetensors").read_bytes() == b"precious"


def test_one_that_was_never_fetched_needs_no_yes(node: Path) -> None:
    assert rm("other") == (Exit.OK, "other: nothing of org/other is on this machine\n", "")


def test_what_is_in_the_catalogue_no_more_is_removed_by_its_name_on_the_hub(node: Path) -> None:
    (node / "config.toml").write_text('[catalogue.other]\nsource = "org/other"\n')
    status, told, _ = rm("org/tiny", "--yes")
    assert (status, told) == (Exit.OK, "org/tiny: 1.0 MB are freed; org/tiny is removed\n")
    assert not is_here(node)


@pytest.mark.parametrize("name", ["tinny", "org/none", "../../etc", "/etc", "..", ""])
def test_a_name_that_is_nowhere_is_refused(node: Path, name: str) -> None:
    status, _, error = rm(name, "--yes")
    assert status == Exit.CONFIG_INVALID
    assert f"{name!r} is not in the catalogue; " in error
    assert is_here(node)


def test_json_has_a_schema_and_what_became_of_each(node: Path) -> None:
    told = json.loads(rm("tiny", "other", "mine", "--yes", "--json")[1])
    assert told["schema"] == 1
    assert [(one["model"], one["outcome"]) for one in told["models"]] == [
        ("tiny", "removed"),
        ("other", "nothing"),
        ("mine", "local"),
    ]
    assert 1_000_000 <= told["models"][0]["freed_bytes"] < 1_010_000


def test_files_that_cannot_be_removed_are_told(node: Path) -> None:
    folder = node / "models" / "models--org--tiny"
    folder.rename(node / "elsewhere")
    folder.symlink_to(node / "elsewhere")
    status, _, error = rm("tiny", "--yes")
    assert status == Exit.ERROR
    assert "is a link to" in error
    assert (node / "elsewhere" / "blobs" / "b").exists()
