"""Asking the agent: its answer, or in words why there is none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from shrk_node_agent import doctor, netcheck, why
from shrk_node_agent.commands import logs, models, pause, resume, start, status, stop, wait
from shrk_node_agent.control_client import NoAnswer, NotAllowed, NotRunning, Refused, ask, default_folder, running_in
from support.played_agent import STATUS, PlayedAgent, a_played_agent
from support.somebody_else import as_somebody_else, closed


@pytest.fixture
def agent() -> Iterator[PlayedAgent]:
    with a_played_agent() as agent:
        yield agent


def test_an_answer_is_its_document(agent: PlayedAgent) -> None:
    assert ask(agent.folder, "GET", "/status") == STATUS


def test_a_body_travels_as_json(agent: PlayedAgent) -> None:
    ask(agent.folder, "POST", "/probe", {"model": "m"})
    assert agent.asked == [("POST", "/probe", b'{"model": "m"}')]


def test_a_refusal_brings_its_status_and_its_words(agent: PlayedAgent) -> None:
    agent.says("POST", "/probe", {"error": "model must be a name"}, status=400)
    with pytest.raises(Refused, match="model must be a name") as refused:
        ask(agent.folder, "POST", "/probe", {})
    assert refused.value.status == 400


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b""])
def test_what_is_no_document_is_said_to_be_none(agent: PlayedAgent, content: bytes) -> None:
    agent.says("GET", "/status", content, status=500)
    with pytest.raises(Refused, match="an answer that is no"):
        ask(agent.folder, "GET", "/status")


def test_no_socket_is_no_agent_and_the_words_name_the_folder_and_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"shrk start.*--state-dir") as not_running:
        ask(tmp_path, "GET", "/status")
    assert str(tmp_path) in str(not_running.value)
    assert not_running.value.exit_code == 3


def test_a_socket_that_a_killed_agent_left_is_no_agent(agent: PlayedAgent) -> None:
    left = agent.folder / "left"
    left.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left / "control.sock"))
    with pytest.raises(NotRunning, match="nobody answers"):
        ask(left, "GET", "/status")


def test_an_agent_that_takes_the_question_and_says_nothing_is_not_waited_for_for_ever(agent: PlayedAgent) -> None:
    silent = agent.folder / "silent"
    silent.mkdir()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(silent / "control.sock"))
        deaf.listen()
        with pytest.raises(NoAnswer) as no_answer:
            ask(silent, "GET", "/status", timeout=0.05)
    assert no_answer.value.exit_code == 7


def test_the_folder_is_the_flags_then_the_variables_then_the_files_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHRK_STATE_DIR", raising=False)
    monkeypatch.setenv("SHRK_CONFIG", str(tmp_path / "config.toml"))
    assert running_in(None) == default_folder()
    (tmp_path / "config.toml").write_text("this is no TOML")
    assert running_in(None) == default_folder()
    (tmp_path / "config.toml").write_text('state_dir = "/of/file"\nnonsense = 1\n')
    assert running_in(None) == Path("/of/file")
    monkeypatch.setenv("SHRK_STATE_DIR", "/of/variable")
    assert running_in(None) == Path("/of/variable")
    assert running_in(Path("/of/flag")) == Path("/of/flag")


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The settings file of an installed agent, for somebody who is neither root nor the agent."""
    monkeypatch.delenv("SHRK_STATE_DIR", raising=False)
    file = closed(tmp_path / "config.toml", f'state_dir = "{tmp_path}/node"\n')
    monkeypatch.setenv("SHRK_CONFIG", str(file))
    with as_somebody_else():
        yield file


def test_settings_that_may_not_be_read_are_not_taken_for_none(forbidden: Path) -> None:
    said = f"^{forbidden} belongs to another user: run it with sudo, or name --state-dir$"
    with pytest.raises(NotAllowed, match=said) as not_allowed:
        running_in(None)
    assert not_allowed.value.exit_code == 6
    assert running_in(Path("/of/flag")) == Path("/of/flag"), "who names the folder needs no settings"


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (status.app, []),
        (stop.app, []),
        (pause.app, ["2h"]),
        (resume.app, []),
        (start.app, []),
        (models.app, []),
        (wait.app, ["--for", "online"]),
        (logs.app, []),
        (why.app, []),
        (netcheck.app, []),
        (doctor.app, []),
    ],
)
def test_without_rights_no_verb_says_that_nothing_runs(forbidden: Path, app: Typer, words: list[str]) -> None:
    said = CliRunner().invoke(app, words)
    assert (said.exit_code, said.stdout) == (6, "")
    assert said.stderr.endswith(f"{forbidden} belongs to another user: run it with sudo, or name --state-dir\n")


def test_nobody_but_its_user_asks_an_agent(agent: PlayedAgent) -> None:
    agent.folder.chmod(0)
    with as_somebody_else(), pytest.raises(NotAllowed, match="run the command as that user, or with sudo") as no:
        ask(agent.folder, "GET", "/status")
    agent.folder.chmod(0o700)
    assert no.value.exit_code == 6
