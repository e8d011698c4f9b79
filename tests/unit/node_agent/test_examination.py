"""What doctor looks at on this machine, line by line."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from shrk_contract.settings import load
from shrk_node_agent import examination
from shrk_node_agent.checklist import Mark
from shrk_node_agent.examination import CLOCK_SECONDS_MAX
from shrk_node_agent.link import identity as identities
from shrk_node_agent.settings import AgentSettings
from support.identities import an_identity
from support.played_agent import STATUS
from support.raw_coordinator import unix_ms
from support.somebody_else import as_somebody_else, closed

DAY_MS = 86_400_000


def some_settings(folder: Path, **settings: object) -> AgentSettings:
    return load(AgentSettings, state_dir=folder, catalogue={"m": {"source": "x"}}, **settings)


def test_settings_that_may_not_be_read_are_not_called_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = closed(tmp_path / "config.toml", "")
    monkeypatch.setenv("SHRK_CONFIG", str(file))
    with as_somebody_else():
        line, settings = examination.settings(lambda: load(AgentSettings))
    assert (settings, line.mark, line.next_action) == (None, Mark.FAILED, "sudo shrk doctor")
    assert line.reason == f"{file} belongs to another user, and may not be read: run it with sudo"


def test_a_folder_of_the_agents_own_passes_and_one_that_others_may_read_is_to_be_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert examination.folder(tmp_path).mark is Mark.PASSED
    tmp_path.chmod(0o750)
    line = examination.folder(tmp_path)
    assert (line.mark, line.next_action) == (Mark.FAILED, f"chmod 700 {tmp_path}")
    assert "mode 0750" in line.reason
    assert examination.folder(tmp_path / "none").mark is Mark.FAILED


def test_a_disk_passes_while_there_is_room_and_says_how_much(tmp_path: Path) -> None:
    assert "GB free" in examination.disk(tmp_path, free_min=1).reason
    line = examination.disk(tmp_path, free_min=1 << 62)
    assert (line.mark, "are needed" in line.reason) == (Mark.FAILED, True)
    assert examination.disk(tmp_path / "none").mark is Mark.SKIPPED


def test_an_identity_passes_within_its_dates_and_says_until_when(tmp_path: Path) -> None:
    known = an_identity(tmp_path / "ca")
    identities.save(tmp_path / "identity", known)
    until = int(known.not_after.timestamp() * 1000)
    assert f"valid until {known.not_after:%Y-%m-%d %H:%M} UTC" in examination.identity(tmp_path, unix_ms()).reason
    assert examination.identity(tmp_path, until - 3_600_000).mark is Mark.NOTED
    late = examination.identity(tmp_path, until + DAY_MS)
    assert (late.mark, "expired" in late.reason) == (Mark.FAILED, True)
    assert "it renews the certificate by itself" in late.next_action
    assert "join token" in examination.identity(tmp_path, until + 181 * DAY_MS).next_action
    early = examination.identity(tmp_path, int(dt.datetime(2001, 1, 1, tzinfo=dt.UTC).timestamp() * 1000))
    assert (early.mark, "timedatectl" in early.next_action) == (Mark.FAILED, True)


def test_a_machine_that_is_no_node_and_one_whose_identity_is_damaged_read_what_to_do(tmp_path: Path) -> None:
    none = examination.identity(tmp_path, unix_ms())
    assert (none.mark, "SHRK_JOIN_TOKEN" in none.next_action) == (Mark.FAILED, True)
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "node.json").write_text("{}")
    damaged = examination.identity(tmp_path, unix_ms())
    assert (damaged.mark, "is damaged" in damaged.reason) == (Mark.FAILED, True)


def test_an_engine_environment_without_vllm_is_told_and_the_simulated_one_is_told_as_such(tmp_path: Path) -> None:
    none = examination.engine(some_settings(tmp_path, engine_venv=tmp_path))
    assert (none.mark, str(tmp_path) in none.reason) == (Mark.FAILED, True)
    assert examination.engine(some_settings(tmp_path, engine="sim")).mark is Mark.NOTED
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "lib" / "python3.12" / "site-packages" / "vllm-9.9.9.dist-info").mkdir(parents=True)
    assert "vLLM 9.9.9" in examination.engine(some_settings(tmp_path, engine_venv=tmp_path)).reason


@pytest.mark.parametrize(
    ("ahead", "mark", "words"),
    [
        (CLOCK_SECONDS_MAX, Mark.PASSED, "agrees"),
        (-CLOCK_SECONDS_MAX, Mark.PASSED, "agrees"),
        (CLOCK_SECONDS_MAX + 1, Mark.FAILED, "31 s ahead of the coordinator's"),
        (-7200, Mark.FAILED, "7,200 s behind the coordinator's"),
    ],
)
def test_a_clock_passes_while_it_is_within_what_certificates_forgive(ahead: float, mark: Mark, words: str) -> None:
    line = examination.clock(1_700_000_000_000, 1_700_000_000_000 + int(ahead * 1000))
    assert (line.mark, words in line.reason) == (mark, True)
    assert examination.clock(None, 5).mark is Mark.SKIPPED


def test_what_the_agent_says_becomes_one_line_each() -> None:
    lines = examination.agent(STATUS)
    assert [(line.name, line.mark) for line in lines] == [
        ("agent", Mark.PASSED),
        ("gpu", Mark.SKIPPED),
        ("model m", Mark.PASSED),
        ("link", Mark.PASSED),
    ]
    loading = {"id": "m", "model": "m", "state": "loading", "reason": "", "detail": "loading weights"}
    lines = examination.agent(
        {**STATUS, "engines": [loading], "link": "refused", "link_reason": "revoked", "gpus": [], "settings_error": "x"}
    )
    assert [(line.name, line.mark) for line in lines] == [
        ("agent", Mark.PASSED),
        ("reload", Mark.FAILED),
        ("gpu", Mark.NOTED),
        ("model m", Mark.NOTED),
        ("link", Mark.FAILED),
    ]
    assert "refused: revoked" in lines[-1].reason


def test_a_gpu_that_tells_no_temperature_cannot_be_kept_cool() -> None:
    gpus = [{"index": 0, "temperature_celsius": None, "lost": False}]
    [line] = [line for line in examination.agent({**STATUS, "gpus": gpus}) if line.name == "gpu"]
    assert (line.mark, "tell no temperature" in line.reason) == (Mark.FAILED, True)
