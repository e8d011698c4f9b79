"""Well-known open models that owners are offered: what they are good for, and what fits on this machine's GPUs. Pure.

A table of its day: newer models come, these stay fetchable. Any model of the hub with safetensors can be served; one
that is not listed here is as good a choice. Sizes are those of the files that `engine/fetch.py` would fetch.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tomlkit

from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.terms.fit import Fit, Model, Need, Shape, fits, needed

#: When the table was last gone through.
AS_OF = "September 2025"
#: Of a machine's memory, where it has no GPU: the rest is the owner's.
CPU_MEMORY_SHARE = 0.5
#: A context that an engine is given: the first with which a model needs no more GPUs than with the last.
CONTEXTS = (32_768, 16_384, 8_192)

_APACHE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One line of the table."""

    name: str
    source: str
    #: Billions.
    parameters: float
    quantisation: str
    #: Of its safetensors files, in GB.
    weights_gb: float
    #: As its config.json has it.
    shape: Shape
    good_for: str
    licence: str
    #: Its licence is to be accepted on the hub first, and the agent needs a token (HF_TOKEN).
    gated: bool = False
    task: str = "generate"
    #: Small enough to be of use without a GPU.
    cpu: bool = False


#: The best first, as people judge them who may run any of them.
KNOWN = (
    KnownModel(
        *("gpt-oss-120b", "openai/gpt-oss-120b", 117, "mxfp4", 65.3, Shape(36, 8, 64, heads=64)),
        *("hard reasoning, tools, code", _APACHE),
    ),
    KnownModel(
        *("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct", 70.6, "bf16", 141.1, Shape(80, 8, 128, heads=64)),
        *("conversation, many languages", "Llama 3.3", True),
    ),
    KnownModel(
        *("qwen3-32b", "Qwen/Qwen3-32B-AWQ", 32.8, "awq", 19.4, Shape(64, 8, 128, heads=64)),
        *("reasoning, code, many languages", _APACHE),
    ),
    KnownModel(
        *("qwen3-coder-30b", "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 30.5, "fp8", 31.2, Shape(48, 4, 128, heads=32)),
        *("programming with tools, fast for its size", _APACHE),
    ),
    KnownModel(
        *("gpt-oss-20b", "openai/gpt-oss-20b", 20.9, "mxfp4", 13.8, Shape(24, 8, 64, heads=64)),
        *("reasoning and tools, fast", _APACHE),
    ),
    KnownModel(
        *("mistral-small-24b", "mistralai/Mistral-Small-24B-Instruct-2501", 23.6, "bf16", 47.2),
        *(Shape(40, 8, 128, heads=32), "conversation, tools, European languages", _APACHE),
    ),
    KnownModel(
        *("qwen3-14b", "Qwen/Qwen3-14B-AWQ", 14.8, "awq", 10.0, Shape(40, 8, 128, heads=40)),
        *("reasoning, code, many languages", _APACHE),
    ),
    KnownModel(
        *("gemma-3-12b", "google/gemma-3-12b-it", 12.2, "bf16", 24.4, Shape(48, 8, 256, heads=16)),
        *("writing, pictures", "Gemma", True),
    ),
    KnownModel(
        *("deepseek-r1-8b", "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", 8.2, "bf16", 16.4, Shape(36, 8, 128, heads=32)),
        *("long reasoning, maths", "MIT"),
    ),
    KnownModel(
        *("qwen3-8b", "Qwen/Qwen3-8B", 8.2, "bf16", 16.4, Shape(36, 8, 128, heads=32)),
        *("conversation, tools, many languages", _APACHE),
    ),
    KnownModel(
        *("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct", 8.0, "bf16", 16.1, Shape(32, 8, 128, heads=32)),
        *("conversation, English above all", "Llama 3.1", True),
    ),
    KnownModel(
        *("qwen3-4b", "Qwen/Qwen3-4B-AWQ", 4.0, "awq", 2.7, Shape(36, 8, 128, heads=32)),
        *("short answers on small cards", _APACHE),
    ),
    KnownModel(
        *("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", 0.6, "bf16", 1.2, Shape(28, 8, 128, heads=16)),
        *("embeddings: search, similarity", _APACHE, False, "embed", True),
    ),
    KnownModel(
        *("qwen3-0.6b", "Qwen/Qwen3-0.6B", 0.6, "bf16", 1.5, Shape(28, 8, 128, heads=16)),
        *("trying things out", _APACHE, False, "generate", True),
    ),
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One model, and how it stands with this machine."""

    known: KnownModel
    #: Why it cannot be served here; empty: it can.
    why_not: str
    bytes_needed: int
    #: By index; none: without a GPU.
    gpus: tuple[int, ...] = ()
    context_tokens: int = CONTEXTS[-1]
    #: Its table needs this, too: the node's models share a bound (`memory_gb`).
    memory_gb: float | None = None

    @property
    def fits(self) -> bool:
        """Whether it can be served here."""
        return not self.why_not

    def entry(self) -> dict[str, object]:
        """What [catalogue.NAME] says of it."""
        said: dict[str, object] = {"source": self.known.source}
        if self.known.task != "generate":
            said["task"] = self.known.task
        said |= {"context_tokens": self.context_tokens, "weights_gb": self.known.weights_gb}
        return said if self.memory_gb is None else said | {"memory_gb": self.memory_gb}

    def toml(self) -> str:
        """The same, for the settings file."""
        rows = (f"{key} = {tomlkit.item(value).as_string()}" for key, value in self.entry().items())
        return "\n".join((f"[catalogue.{_key(self.known.name)}]", *rows))

    def commands(self) -> tuple[str, ...]:
        """The same, for a shell; none where a table that is half written would not be valid."""
        if self.memory_gb is not None:
            return ()
        key = f"catalogue.{_key(self.known.name)}"
        return tuple(f"shrk set {shlex.quote(f'{key}.{name}')} {value}" for name, value in self.entry().items())


def suggestions(
    gpus: Sequence[GpuReading], memory_bytes: int, bound_gb: float | None = None, table: Sequence[KnownModel] = KNOWN
) -> tuple[Suggestion, ...]:
    """All of the table, each judged alone: those that fit first, the best of them at the front.

    `memory_bytes`: this machine's, which counts where it has no GPU. `bound_gb`: for all its models together.
    """
    judged = [_on_gpus(known, gpus) if gpus else _on_cpu(known, memory_bytes) for known in table]
    bounded = judged if bound_gb is None else [_within(one, bound_gb) for one in judged]
    return tuple(sorted(bounded, key=lambda one: not one.fits))


def _model(known: KnownModel, context_tokens: int, shape: Shape | None) -> Model:
    return Model(
        name=known.name,
        parameters=known.parameters,
        quantisation=known.quantisation,
        weights_bytes=int(known.weights_gb * 1e9),
        shape=shape,
        context_tokens=context_tokens,
    )


def _fit(known: KnownModel, context_tokens: int, gpus: Sequence[GpuReading]) -> Fit:
    """With a usual shape of its size, by which an agent judges before the files are here, and with its own, by which it
    judges afterwards: it must fit both times."""
    both = (fits(_model(known, context_tokens, shape), gpus) for shape in (None, known.shape))
    return max(both, key=lambda fit: (not fit.fits, fit.tensor_parallel, fit.bytes_needed))


def _need(known: KnownModel) -> int:
    """Bytes on a GPU that does not tell how much it has, or in the machine's own memory."""
    need = needed(_model(known, CONTEXTS[-1], known.shape))
    assert isinstance(need, Need), "the table says how large its models are"
    return need.each(1)


def _on_gpus(known: KnownModel, gpus: Sequence[GpuReading]) -> Suggestion:
    least = _fit(known, CONTEXTS[-1], gpus)
    if not least.fits:
        return Suggestion(known, least.reason, least.bytes_needed)
    # One text is embedded at a time: a longer context is of little use to it.
    contexts = CONTEXTS[-1:] if known.task == "embed" or least.whole else CONTEXTS
    found = ((context, _fit(known, context, gpus)) for context in contexts)
    context, fit = next(pair for pair in found if pair[1].tensor_parallel == least.tensor_parallel)
    indexes = tuple(gpu.index for gpu in gpus if gpu.uuid in fit.devices)
    return Suggestion(known, "", _need(known) if fit.whole else fit.bytes_needed, indexes, context)


def _on_cpu(known: KnownModel, memory_bytes: int) -> Suggestion:
    count, room = _need(known), int(memory_bytes * CPU_MEMORY_SHARE)
    why_not = ""
    if not known.cpu:
        why_not = f"needs a GPU: {count / 1e9:.1f} GB"
    elif count > room:
        why_not = f"needs {count / 1e9:.1f} GB, and half of this machine's memory is {room / 1e9:.1f} GB"
    return Suggestion(known, why_not, count)


def _within(one: Suggestion, bound_gb: float) -> Suggestion:
    # Rounded up: less than it needs would be a promise that cannot be kept.
    takes = math.ceil(one.bytes_needed / 1e8) / 10
    why_not = one.why_not
    if one.fits and takes > bound_gb:
        why_not = f"needs {takes:g} GB, and memory_gb = {bound_gb:g} bounds all models together"
    return Suggestion(one.known, why_not, one.bytes_needed, one.gpus, one.context_tokens, takes)


def in_catalogue(known: KnownModel, sources: Mapping[str, str]) -> str:
    """The name under which a catalogue (name to source) has the model already; "": it has not."""
    return next((name for name, source in sources.items() if source == known.source), "")


def _key(name: str) -> str:
    return tomlkit.key(name).as_string()
