"""Which well-known models fit, and the lines that add them: what is offered must work as it is offered."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_contract.settings import load
from shrk_node_agent import config_command
from shrk_node_agent.known_models import KNOWN, Suggestion, suggestions
from shrk_node_agent.owner import needs_of
from shrk_node_agent.settings import AgentSettings, CatalogueEntry
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.fit import WEIGHT_BYTES, fits
from support.gpus import a_gpu

GB = 1_000_000_000


def found(*gpus: GpuReading, memory_gb: float = 64, bound_gb: float | None = None) -> dict[str, Suggestion]:
    return {one.known.name: one for one in suggestions(gpus, int(memory_gb * GB), bound_gb)}


def test_the_table_is_sound() -> None:
    assert len({one.name for one in KNOWN}) == len({one.source for one in KNOWN}) == len(KNOWN)
    for one in KNOWN:
        assert CatalogueEntry.model_validate({"source": one.source, "task": one.task})
        of_parameters = one.parameters * WEIGHT_BYTES[one.quantisation]
        assert 0.7 < one.weights_gb / of_parameters < 1.4, f"{one.name}: its files are of another size than its weights"


def test_those_that_fit_come_first_in_the_order_of_the_table() -> None:
    judged = suggestions([a_gpu(0, 24)], 64 * GB)
    order = [one.known.name for one in judged]
    fitting = [one.known.name for one in judged if one.fits]
    assert order[: len(fitting)] == fitting
    assert fitting == [one.name for one in KNOWN if one.name in fitting]
    assert {"gpt-oss-20b", "qwen3-8b", "qwen3-embedding-0.6b"} <= set(fitting)
    assert "llama-3.3-70b" not in fitting


def test_a_larger_model_is_spread_over_equal_gpus() -> None:
    one, two = found(a_gpu(0, 24)), found(a_gpu(0, 24), a_gpu(1, 24))
    assert not one["qwen3-coder-30b"].fits
    assert "needs" in one["qwen3-coder-30b"].why_not
    assert "GPU 0 has" in one["qwen3-coder-30b"].why_not
    assert two["qwen3-coder-30b"].gpus == (0, 1)
    assert two["gpt-oss-20b"].gpus == (0,), "the fewest that hold it"


def test_a_small_card_still_gets_something() -> None:
    fitting = [name for name, one in found(a_gpu(0, 8)).items() if one.fits]
    assert fitting == ["qwen3-4b", "qwen3-embedding-0.6b", "qwen3-0.6b"]


@pytest.mark.parametrize("gigabytes", [[8], [12], [16], [24], [24, 24], [48], [80], [141, 141]])
def test_what_is_said_to_fit_fits_by_the_agents_own_judgement_before_it_is_fetched_and_afterwards(
    gigabytes: list[float],
) -> None:
    gpus = [a_gpu(index, size) for index, size in enumerate(gigabytes)]
    for one in suggestions(gpus, 0):
        if one.fits:
            settings = AgentSettings.model_validate(tomllib.loads(one.toml()))
            [need] = needs_of(settings, None)
            assert need.size is not None
            assert fits(need.size, gpus).fits, f"{one.known.name}: before"
            assert fits(replace(need.size, shape=one.known.shape), gpus).fits, f"{one.known.name}: afterwards"


def test_a_gpu_that_does_not_tell_its_memory_is_taken_whole() -> None:
    one = found(a_gpu(0, 0))["qwen3-8b"]
    assert (one.fits, one.gpus, one.context_tokens) == (True, (0,), 8_192)
    assert one.bytes_needed > 16.4e9


def test_a_context_is_as_long_as_it_can_be_without_another_gpu() -> None:
    assert found(a_gpu(0, 80))["gpt-oss-20b"].context_tokens == 32_768
    assert found(a_gpu(0, 24))["gpt-oss-20b"].context_tokens == 16_384
    assert found(a_gpu(0, 80))["qwen3-embedding-0.6b"].context_tokens == 8_192


def test_without_a_gpu_tiny_models_are_left_and_half_of_the_memory_is_theirs() -> None:
    rich, poor = found(memory_gb=64), found(memory_gb=4)
    assert [name for name, one in rich.items() if one.fits] == ["qwen3-embedding-0.6b", "qwen3-0.6b"]
    assert rich["qwen3-8b"].why_not.startswith("needs a GPU: ")
    assert not any(one.fits for one in poor.values())
    assert poor["qwen3-0.6b"].why_not.endswith("half of this machine's memory is 2.0 GB")


def test_a_lost_gpu_holds_nothing() -> None:
    lost = GpuReading("GPU-0", 0, "RTX", memory_bytes=24 * GB, lost=True)
    assert not any(one.fits for one in found(lost).values())


def test_a_bound_on_all_models_counts_and_each_says_what_it_takes() -> None:
    bounded = found(a_gpu(0, 24), bound_gb=10)
    assert bounded["qwen3-8b"].why_not.endswith("and memory_gb = 10 bounds all models together")
    small = bounded["qwen3-4b"]
    assert small.fits
    assert small.memory_gb is not None
    assert small.memory_gb * 1e9 >= small.bytes_needed
    assert small.commands() == (), "a table without its memory_gb would not be valid, not even for a moment"
    AgentSettings.model_validate({"memory_gb": 10, **tomllib.loads(small.toml())})


@pytest.mark.parametrize("name", [one.name for one in KNOWN])
def test_its_lines_add_it_in_the_file_and_at_a_shell_alike(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHRK_CONFIG", str(tmp_path / "config.toml"))
    one = found(a_gpu(0, 192))[name]
    (tmp_path / "config.toml").write_text(one.toml())
    by_file = load(AgentSettings).catalogue
    (tmp_path / "config.toml").write_text("")
    for command in one.commands():
        assert shlex.split(command)[:2] == ["shrk", "set"]
        assert CliRunner().invoke(config_command.set_, shlex.split(command)[2:]).exit_code == 0
    assert load(AgentSettings).catalogue == by_file
    assert by_file[name].source == one.known.source
    assert by_file[name].task == one.known.task
