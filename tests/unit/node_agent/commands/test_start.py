"""`shrk start` of agents that do not come up; `tests/integration/test_verbs.py` has one that does."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.start import LOG_BYTES_MAX, app
from support.asked_agent import PlayedAgent
from support.join_tokens import A_TOKEN

SETTINGS = 'engine = "sim"\n[catalogue.m]\nsource = "simulated"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a machine that has never joined."""
    (tmp_path / "config.toml").write_text(SETTINGS)
    monkeypatch.setenv("SHRK_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.delenv("SHRK_JOIN_TOKEN", raising=False)
    return tmp_path / "node"


def test_one_that_runs_is_left_alone(agent: PlayedAgent) -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == Exit.OK
    assert result.stdout == "The node agent runs already (pid 4711); the node is online\n"
    assert not (agent.folder / "logs").exists()


def test_one_that_ends_at_once_is_told_with_its_last_words(folder: Path) -> None:
    result = CliRunner().invoke(app, ["--state-dir", str(folder)])
    assert result.exit_code == Exit.ERROR
    assert "shrk: the node agent ended at once. Its last words (more: shrk logs):\n  | " in result.stderr
    assert "This machine is not a node yet" in result.stderr
    assert (folder / "logs" / "agent.log").stat().st_mode & 0o777 == 0o600


def test_one_whose_settings_are_not_valid_ends_it_with_five(folder: Path) -> None:
    (folder.parent / "config.toml").write_text("temperature = 70\n" + SETTINGS)
    result = CliRunner().invoke(app, ["--state-dir", str(folder)])
    assert result.exit_code == Exit.CONFIG_INVALID
    assert "temperature is not a setting" in result.stderr


def test_a_log_that_has_become_large_is_put_aside(folder: Path) -> None:
    log = folder / "logs" / "agent.log"
    log.parent.mkdir(parents=True)
    with log.open("wb") as file:
        file.truncate(LOG_BYTES_MAX + 1)
    CliRunner().invoke(app, ["--state-dir", str(folder)])
    assert log.with_name("agent.log.1").stat().st_size == LOG_BYTES_MAX + 1
    assert "This machine is not a node yet" in log.read_text()


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path / "file" / "node")])
    assert result.exit_code == Exit.ERROR
    assert "cannot be written: Not a directory" in result.stderr


def test_one_whose_join_token_takes_it_nowhere_is_not_said_to_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRK_CONTROLLER", "tcp://127.0.0.1:9")
    monkeypatch.setenv("SHRK_JOIN_TOKEN", A_TOKEN)
    result = CliRunner().invoke(app, ["--state-dir", str(folder)])
    assert (result.exit_code, result.stdout) == (Exit.ERROR, "")
    assert "shrk: the node agent ended at once. Its last words" in result.stderr
