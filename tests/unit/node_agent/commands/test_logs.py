"""`shrk logs` of an agent in the background, and of its engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.logs import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHRK_STATE_DIR", str(tmp_path))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "agent.log").write_text(
        '{"node": "n-1", "event": "enrolled", "level": "info", "timestamp": "2026-11-30T18:00:00.123Z"}\nplain\n'
    )
    (logs / "org%2Fm.log").write_text("loading\nloaded\n")
    return tmp_path


def test_the_agents_log_is_told_in_words(folder: Path) -> None:
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout) == (Exit.OK, "2026-11-30T18:00:00 info enrolled node=n-1\nplain\n")


def test_raw_lines_are_as_they_were_written(folder: Path) -> None:
    assert CliRunner().invoke(app, ["--raw", "-n", "2"]).stdout == (folder / "logs" / "agent.log").read_text()


def test_an_engines_log_is_found_by_its_models_name(folder: Path) -> None:
    assert CliRunner().invoke(app, ["org/m", "-n", "1"]).stdout == "loaded\n"


@pytest.mark.parametrize("name", ["nobody", "../agent", "/etc/passwd"])
def test_an_engine_that_is_none_is_refused_with_those_that_are(folder: Path, name: str) -> None:
    result = CliRunner().invoke(app, [name])
    assert result.exit_code == Exit.ERROR
    assert "there are those of: org/m" in result.stderr


def test_without_a_log_it_is_told_where_there_may_be_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path)])
    assert result.exit_code == Exit.ERROR
    assert "shrk start" in result.stderr
