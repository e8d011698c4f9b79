"""`shrk models suggest`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.models import app
from shrk_node_agent.commands.models_suggest import suggestions_text
from shrk_node_agent.known_models import KNOWN, suggestions
from support.gpus import a_gpu, scripted

FIRST = """\
1 GPU: 0 NVIDIA GeForce RTX 4090 (24.0 GB)
Well-known open models (as of September 2025) that fit; the best first, each judged alone:

1. gpt-oss-20b: reasoning and tools, fast
   needs 19.3 GB on GPU 0; 20.9 billion parameters, mxfp4; licence: Apache-2.0
     shrk set catalogue.gpt-oss-20b.source openai/gpt-oss-20b
     shrk set catalogue.gpt-oss-20b.context_tokens 16384
     shrk set catalogue.gpt-oss-20b.weights_gb 13.8

2. qwen3-14b: """


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a machine with one GPU, and without a model."""
    path = tmp_path / "config.toml"
    path.write_text(scripted(tmp_path / "gpu.json", 24))
    monkeypatch.setenv("SHRK_CONFIG", str(path))
    return path


def suggest(*words: str) -> str:
    result = CliRunner().invoke(app, ["suggest", *words])
    assert result.exit_code == Exit.OK, result.stderr
    return result.stdout


def test_a_machine_without_models_gets_the_best_first_with_gpu_size_and_the_lines_that_add_each(file: Path) -> None:
    told = suggest()
    assert told.startswith(FIRST)
    assert told.count("     shrk set ") >= 15, "five models"
    assert "more fit, " in told
    assert "shrk models suggest --all" in told
    assert "do not fit" not in told


def test_all_has_those_that_do_not_fit_with_why(file: Path) -> None:
    told = suggest("--all")
    assert "\nThese do not fit:\n  gpt-oss-120b: needs 72.9 GB, GPU 0 has 22.1 GB\n" in told
    assert all(one.name in told for one in KNOWN)
    assert "--all" not in told


def test_json_has_a_schema_and_each_with_figures_and_lines(file: Path) -> None:
    told = json.loads(suggest("--json"))
    assert told["schema"] == 1
    assert told["gpus"] == [{"index": 0, "name": "NVIDIA GeForce RTX 4090", "memory_bytes": 24_000_000_000}]
    first = told["models"][0]
    assert (first["name"], first["fits"], first["gpus"], first["in_catalogue"]) == ("gpt-oss-20b", True, [0], None)
    assert first["toml"].splitlines()[0] == "[catalogue.gpt-oss-20b]"
    assert first["commands"][0] == "shrk set catalogue.gpt-oss-20b.source openai/gpt-oss-20b"
    everything = json.loads(suggest("--json", "--all"))["models"]
    assert len(everything) == len(KNOWN)
    assert [one["reason"] == "" for one in everything] == [one["fits"] for one in everything]


def test_what_is_in_the_catalogue_is_told_by_its_name_there(file: Path) -> None:
    file.write_text(f'{file.read_text()}models = ["mine"]\n[catalogue.mine]\nsource = "openai/gpt-oss-20b"\n')
    told = suggest()
    assert "It is in the catalogue already, as mine." in told
    assert "catalogue.gpt-oss-20b.source" not in told
    assert "shrk set models mine,qwen3-14b" in told, "the owner names what is served"


def test_a_bound_on_memory_gives_tables_for_the_file(file: Path) -> None:
    file.write_text(f"memory_gb = 20\n{file.read_text()}")
    assert "in the settings file, at its end:\n       [catalogue.gpt-oss-20b]\n" in suggest()


def test_only_the_gpus_that_the_owner_lets_us_see_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(scripted(file.parent / "gpu.json", 24, 24))
    assert "GPUs 0, 1" in suggest()
    monkeypatch.setenv("SHRK_VISIBLE_DEVICES", "1")
    told = suggest()
    assert told.startswith("1 GPU: 1 ")
    assert "on GPU 1;" in told


def test_without_a_gpu_it_says_so_and_ends_well(file: Path) -> None:
    file.write_text('gpu = "none"\n')
    assert suggest().startswith("There is no GPU here that can be read, ")
    little = suggestions_text([], [], {}, left_out=14)
    assert "It has too little memory for any model." in little
    tiny = [one for one in suggestions([], 64_000_000_000) if one.fits]
    text = suggestions_text([], tiny, {one.known.name: "" for one in tiny})
    assert "that a CPU can serve, slowly" in text
    assert "qwen3-0.6b" in text


def test_gpus_on_which_nothing_fits_are_told() -> None:
    text = suggestions_text([a_gpu(0, 2)], [], {}, left_out=14)
    assert text.splitlines()[1] == "None of the well-known open models fits."
    assert "14 do not: shrk models suggest --all" in text


def test_settings_that_are_wrong_elsewhere_are_told_as_everywhere(file: Path) -> None:
    file.write_text("temp_max = 200\n")
    result = CliRunner().invoke(app, ["suggest"])
    assert result.exit_code == Exit.CONFIG_INVALID
    assert f"{file}:1: temp_max: " in result.stderr
