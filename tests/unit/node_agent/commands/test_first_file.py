"""The settings file of a machine that had none: which model is in it, and what a wrong value leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from shrk_contract.settings import load, located
from shrk_contract.settings_files import read_files
from shrk_node_agent.commands.first_file import chosen, main, write
from shrk_node_agent.known_models import KNOWN, suggestions
from shrk_node_agent.settings import AgentSettings
from support.gpus import a_gpu

GB = 1_000_000_000
SMALL = "qwen2.5-0.5b-instruct"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is to be; no variable says so."""
    monkeypatch.delenv("SHRK_CONFIG", raising=False)
    return tmp_path / "config.toml"


def name_for(gigabytes: float, engine: str = "vllm", disk_gb: float = 1000) -> str:
    return chosen(engine, suggestions([a_gpu(0, gigabytes)], 64 * GB), int(disk_gb * GB)).name


def test_a_card_gets_the_first_model_that_fits_on_it_and_that_anybody_may_fetch() -> None:
    fitting = [one.known for one in suggestions([a_gpu(0, 24)], 64 * GB) if one.fits]
    assert name_for(24) == next(known.name for known in fitting if not known.gated)
    gated = {known.name for known in KNOWN if known.gated}
    assert {name_for(size) for size in (6, 12, 16, 24, 48, 80, 180)}.isdisjoint(gated)
    assert len({name_for(size) for size in (6, 24, 80)}) == 3


def test_what_the_disk_cannot_hold_is_not_chosen() -> None:
    weights = {known.name: known.weights_gb for known in KNOWN}
    assert weights[name_for(24, disk_gb=12)] <= 12 * 0.8
    assert name_for(24, disk_gb=1) == SMALL


@pytest.mark.parametrize(("engine", "name"), [("cpu", SMALL), ("sim", "shark-sim")])
def test_without_an_engine_for_gpus_they_do_not_count(engine: str, name: str) -> None:
    assert name_for(24, engine) == name


def test_a_machine_without_a_known_gpu_gets_a_small_model() -> None:
    assert chosen("vllm", suggestions([], 64 * GB), 1000 * GB).name == SMALL
    assert chosen("none", (), 1000 * GB).name == SMALL


def test_the_file_has_what_was_chosen_and_the_rest_in_comments(file: Path) -> None:
    choice = write("sim", file, {"controller": "tcp://10.0.0.1:9100", "temp_max": "65", "engine": "sim"})
    settings = load(AgentSettings, read_files(located(AgentSettings, file)))
    assert (settings.controller, settings.temp_max, list(settings.catalogue)) == (
        "tcp://10.0.0.1:9100",
        65,
        [choice.name],
    )
    lines = file.read_text().splitlines()
    assert "temp_max = 65" in lines
    assert any(line.startswith("# payout_address = ") for line in lines)


def test_a_wrong_value_is_told_and_nothing_is_written(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", str(file), "controller=tcp://10.0.0.1:9100", "schedule=25:00-26:00"]) == 5
    assert "schedule" in capsys.readouterr().err
    assert not file.exists()
    assert main(["sim", str(file), "controller=tcp://10.0.0.1:9100"]) == 0
    assert "model: shark-sim" in capsys.readouterr().out
