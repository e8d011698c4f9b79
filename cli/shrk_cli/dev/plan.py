"""What `shrk dev` will run, decided before anything starts. Pure: options in, folders, commands and texts out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shrk_cli.errors import Exit, Trouble

#: Nodes on one machine. Each is two processes and, with vLLM, 3 GB a model: more is a typing error.
NODES_MAX = 32
#: The kernel's limit for the path of a unix socket.
SOCKET_PATH_BYTES_MAX = 107
#: The longest path of a socket below the state folder. vLLM names its internal ones with a UUID, in a folder
#: that the agent makes for each life of an engine.
SOCKET_PATH_BYTES_BELOW = len(f"/dev-{NODES_MAX}/engines/shrk-12345678/123e4567-e89b-12d3-a456-426614174000")
STATE_DIR_BYTES_MAX = SOCKET_PATH_BYTES_MAX - SOCKET_PATH_BYTES_BELOW
#: How long a stopping node may go on with answers: someone waits at the terminal, and models are small.
AGENT_DRAIN_SECONDS = 20.0
#: What callers may put into `model`; slashes because Hugging Face ids are model names too.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")

TINY_MODEL = "shark-tiny"
TINY_MODEL_EMBED = "shark-tiny-embed"


class EngineKind(StrEnum):
    """Which engine the nodes run: the words of the agent's own setting `engine`."""

    VLLM = "vllm"
    SIM = "sim"


@dataclass(frozen=True, slots=True)
class Model:
    """One model that nodes serve."""

    #: The name callers use.
    name: str
    #: A folder, or a Hugging Face id.
    source: str
    #: "generate" or "embed", as in the agent's catalogue.
    task: str = "generate"


@dataclass(frozen=True, slots=True)
class SimulatorSpeed:
    """How fast simulated engines answer; None leaves it to the engine (as fast as it can)."""

    first_token_ms: int | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: its name is also its owner's, since every dev node belongs to someone else."""

    name: str
    directory: Path
    models: tuple[Model, ...]

    @property
    def config_file(self) -> Path:
        return self.directory / "config.toml"

    @property
    def control_socket(self) -> Path:
        return self.directory / "control.sock"

    @property
    def enrolled(self) -> bool:
        """Whether it holds a certificate from an earlier life, so that it needs no join token."""
        return (self.directory / "identity" / "node.json").exists()


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole network."""

    state_dir: Path
    #: Whether `shrk dev` made the state folder itself, and so removes it at the end.
    temporary: bool
    engine: EngineKind
    engine_venv: Path
    #: Where callers connect; 0 takes any free port.
    port: int
    restart: bool
    speed: SimulatorSpeed
    nodes: tuple[NodePlan, ...]
    #: What every node's made-up GPU plays, until its own copy is replaced; None: nodes look at no GPU.
    scripted_gpu: Path | None = None

    @property
    def coordinator_dir(self) -> Path:
        return self.state_dir / "coordinator"

    @property
    def coordinator_ready_file(self) -> Path:
        """Written by the coordinator when it listens: its pid and ports."""
        return self.coordinator_dir / "run" / "coordinator.json"

    @property
    def coordinator_config_file(self) -> Path:
        return self.state_dir / "coordinator.toml"

    @property
    def memory_file(self) -> Path:
        """What a kept state folder must remember for its next start: keys and ports."""
        return self.state_dir / "dev.json"

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def temporary_dir(self) -> Path:
        """TMPDIR of everything below, so that what a killed process leaves there goes too."""
        return self.state_dir / "tmp"

    def script_of(self, node: NodePlan) -> Path | None:
        """The node's own copy of the script. Its suffix says in which form it is."""
        if self.scripted_gpu is None:
            return None
        return node.directory / ("gpu.toml" if self.scripted_gpu.suffix == ".toml" else "gpu.json")

    def unused(self, nvidia: bool) -> str:
        """What to tell of real cards (`nvidia`: this machine has some) that nodes leave alone; "": nothing."""
        if not nvidia or self.engine is EngineKind.SIM or len(self.nodes) == 1:
            return ""
        return (
            "several nodes on one machine use none of its GPUs, since each would take the others for strangers; "
            "for real GPUs: --nodes 1"
        )

    def expected(self) -> dict[str, int]:
        """Model name -> how many nodes will serve it."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            for model in node.models:
                counts[model.name] = counts.get(model.name, 0) + 1
        return counts


def default_models(tiny_model: str) -> tuple[tuple[Model, ...], tuple[Model, ...]]:
    """(models of the first node, models of every other node); `tiny_model` is the folder of the weights."""
    chat = Model(TINY_MODEL, tiny_model)
    return (chat, Model(TINY_MODEL_EMBED, tiny_model, task="embed")), (chat,)


def node_plans(state_dir: Path, count: int, first: Sequence[Model], others: Sequence[Model]) -> tuple[NodePlan, ...]:
    """`count` nodes named dev-1, dev-2, ..., the first with its own models."""
    return tuple(
        NodePlan(f"dev-{n}", state_dir / f"dev-{n}", tuple(first if n == 1 else others)) for n in range(1, count + 1)
    )


def parse_models(values: Sequence[str], working_dir: Path) -> tuple[Model, ...]:
    """Read `--model NAME=PATH_OR_HF_ID` options.

    A value that names a folder (absolute, starting with `.` or `~`, or existing below `working_dir`)
    becomes an absolute path, and must exist; anything else is taken as a Hugging Face id. Whether it loads
    is the node's to say. Raises Trouble (usage) that names the value.
    """
    models: dict[str, Model] = {}
    for value in values:
        name, equals, source = value.partition("=")
        if not equals or not source:
            raise _bad_model(value, "there is no NAME= before the path or id" if not equals else "nothing follows =")
        if not MODEL_NAME.fullmatch(name):
            raise _bad_model(value, f"{name!r} is no model name: 1 to 128 letters, digits and . _ / : -")
        if name in models:
            raise _bad_model(value, f"the name {name!r} is given twice")
        models[name] = Model(name, _source(value, source, working_dir))
    return tuple(models.values())


def _source(value: str, text: str, working_dir: Path) -> str:
    try:
        path = (working_dir / Path(text).expanduser()).resolve()
    except RuntimeError as error:  # ~SOMEBODY
        raise _bad_model(value, f"{text}: there is no such user") from error
    if path.exists():
        return str(path)
    if text[0] in "/.~":
        # An engine would find out too, half a minute later.
        raise _bad_model(value, f"{path} does not exist")
    return text


def _bad_model(value: str, why: str) -> Trouble:
    return Trouble(
        f"--model {value} cannot be used",
        why=why,
        remedy="write --model NAME=PATH_OR_HF_ID, for example --model llama=./weights/llama",
        code=Exit.USAGE,
    )


def sockets_fit(state_dir: Path) -> bool:
    """Whether sockets below `state_dir` have paths that the kernel takes."""
    return len(os.fsencode(state_dir)) <= STATE_DIR_BYTES_MAX


def check_state_dir(state_dir: Path) -> None:
    """Raise Trouble (usage) when sockets below `state_dir` would have paths the kernel refuses."""
    if not sockets_fit(state_dir):
        raise Trouble(
            f"--state-dir is too long: {len(os.fsencode(state_dir))} bytes, at most {STATE_DIR_BYTES_MAX} work",
            why=f"unix sockets live below {state_dir}, and a socket's path may have {SOCKET_PATH_BYTES_MAX} bytes",
            remedy="choose a shorter one, for example --state-dir /tmp/shrk, or leave the option out",
            code=Exit.USAGE,
        )


def agent_config(plan: Plan, node: NodePlan, link_port: int) -> str:
    """The node's config.toml, as an owner would write it. Holds no secret."""
    lines = [
        f"controller = {_toml(f'tcp://127.0.0.1:{link_port}')}",
        f"state_dir = {_toml(str(node.directory))}",
        f"name = {_toml(node.name)}",
        f"drain_seconds = {AGENT_DRAIN_SECONDS:g}",
        f"engine = {_toml(plan.engine.value)}",
        *_gpu(plan, node),
        f"engine_venv = {_toml(str(plan.engine_venv))}",
        f"models = [{', '.join(_toml(model.name) for model in node.models)}]",
    ]
    for model in node.models:
        lines += ["", f"[catalogue.{_toml(model.name)}]", f"source = {_toml(model.source)}"]
        if model.task != "generate":
            lines.append(f"task = {_toml(model.task)}")
    speed = {
        "first_token_ms": plan.speed.first_token_ms,
        "tokens_per_second": plan.speed.tokens_per_second,
    }
    given = [f"{key} = {value}" for key, value in speed.items() if value is not None]
    if given:
        lines += ["", "[sim]", *given]
    return "\n".join(lines) + "\n"


def _gpu(plan: Plan, node: NodePlan) -> list[str]:
    """How the node looks at GPUs: one alone as it would anywhere, several at none, and so their engines get none.

    All nodes would share the cards. Each would take the others' engines for its owner's programs and let go of the
    card, and several agents would set power limits against each other. `Plan.unused` says it aloud.
    """
    script = plan.script_of(node)
    if script is None:
        return ['gpu = "auto"' if len(plan.nodes) == 1 and plan.engine is not EngineKind.SIM else 'gpu = "none"']
    return ['gpu = "scripted"', f"scripted_gpu = {_toml(str(script))}"]


def _toml(text: str) -> str:
    """A TOML basic string: JSON's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
