"""`python -m shrk_node_agent.sensors`, as an owner runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shrk_node_agent.sensors", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_text('{"gpu": [{"name": "One", "temperature": 66, "untold": ["power"]}, {"lost": true}]}')
    return path


def test_it_prints_what_each_gpu_tells_and_what_it_does_not(script: Path) -> None:
    told = ran("--gpu", "scripted", "--scripted-gpu", str(script), "--polls", "1")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[1:4] == [
        "GPU 0  One  GPU-scripted-0",
        "  temperature   66.0 °C",
        "  power         unknown W, limit 350.0 W",
    ]
    assert "  lost: reset it, or restart the machine" in lines
    assert '"power": "the script says so"' in told.stdout


def test_its_json_has_one_document_a_poll_and_one_of_the_capabilities(script: Path) -> None:
    told = ran("--gpu", "scripted", "--scripted-gpu", str(script), "--polls", "2", "--interval", "0", "--json")
    documents = [json.loads(line) for line in told.stdout.splitlines()]
    assert [document["schema"] for document in documents] == [1, 1, 1]
    assert [document["gpus"][0]["temperature_celsius"] for document in documents[:2]] == [66.0, 66.0]
    assert documents[2]["capabilities"]["source"] == "scripted"


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--gpu", "scripted"], 1, 'error: gpu = "scripted" needs scripted_gpu'),
        (["--gpu", "none", "--visible-devices", "0"], 5, "error: visible_devices: '0' names a GPU"),
        (["--polls", "0"], 2, "'0' is not a number of polls from 1 to 100000"),
        (["--interval", "nan"], 2, "'nan' is not a number of seconds from 0 to 3600"),
    ],
)
def test_what_cannot_be_done_ends_in_words_and_a_status(arguments: list[str], status: int, told: str) -> None:
    refused = ran(*arguments)
    assert (refused.returncode, refused.stdout) == (status, "")
    assert told in refused.stderr
