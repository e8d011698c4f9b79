"""The agent's settings: flag > environment (SHRK_*) > /etc/shrk/config.toml > /etc/shrk/conf.d/*.toml > default.

Times are seconds. `load` is `shrk_contract.settings.load`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from shrk_contract.payout import checked_address
from shrk_contract.settings import ServiceSettings
from shrk_contract.settings_problems import SettingInvalid, did_you_mean
from shrk_node_agent.engine.engine import EngineSpec, Task
from shrk_node_agent.engine.launch import is_path
from shrk_node_agent.link.join_token import ControllerInvalid, parse_controller
from shrk_node_agent.sensors.gpu import GpuKind
from shrk_node_agent.state.terms.hours import Schedule
from shrk_node_agent.state.terms.occupancy import When
from shrk_node_agent.time_zone import named_zone

#: GPUs that one machine has: mining boards end at 19, servers at 16.
DEVICE_INDEX_MAX = 63

_DEVICE = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*")


class EngineKind(StrEnum):
    """Which engine serves: `auto` is vLLM where its environment is installed, else nothing starts."""

    AUTO = "auto"
    VLLM = "vllm"
    SIM = "sim"


def _words(value: object) -> object:
    """A list from the file, or comma-separated words from the environment."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


def _folder(value: object) -> object:
    """An absolute path: what is kept there must not depend on where one stood."""
    if not isinstance(value, (str, Path)):
        return value
    folder = Path(value).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder")
    return folder


def _controller(value: object) -> object:
    if isinstance(value, str):
        if "," in value or value.strip().startswith("pool:"):
            raise ValueError(
                f"{value!r} asks for a pool, several hosts as one node, which is not available yet; name one "
                "coordinator, such as tcp://10.0.0.1:9100"
            )
        try:
            parse_controller(value)
        except ControllerInvalid as error:
            raise ValueError(str(error)) from error
    return value


def _devices(value: object) -> object:
    """Indexes and UUIDs, as words: the driver's own form of both."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value,)  # SHRK_VISIBLE_DEVICES=0 in the form of the file
    value = _words(value)
    if not isinstance(value, (list, tuple)):
        return value
    words = [str(word) for word in value]
    for place, word in enumerate(words):
        if not _DEVICE.fullmatch(word):
            raise ValueError(
                f"{word!r} is neither an index from 0 on nor a UUID such as GPU-8a3f2c1d-...; see `nvidia-smi -L`"
            )
        if word.isdecimal() and int(word) > DEVICE_INDEX_MAX:
            raise ValueError(f"{word} is no GPU's index: allowed is 0 to {DEVICE_INDEX_MAX}; see `nvidia-smi -L`")
        if word in words[:place]:
            raise ValueError(f"{word} is named twice; name each GPU once")
    return tuple(words)


def _schedule(value: object) -> object:
    if isinstance(value, str):
        if value.strip().lower() == "always":
            return ""  # as it is shown
        Schedule.parse(value)
    return value


def _time_zone(value: object) -> object:
    if isinstance(value, str) and value:
        named_zone(value)
    return value


def _payout_address(value: object) -> object:
    return checked_address(value) if isinstance(value, str) and value else value


def _script(value: object) -> object:
    """An absolute path, for the folder that one stands in when one reloads is another."""
    return Path(value).expanduser().absolute() if isinstance(value, (str, Path)) else value


def _default_state_dir() -> Path:
    # Root runs it as a service; anybody else gets a folder of their own without asking for rights.
    if os.geteuid() == 0:
        return Path("/var/lib/shrk/node")
    state_home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state_home).expanduser() / "shrk" / "node"


def _bytes(gigabytes: float | None) -> int:
    return int((gigabytes or 0) * 1e9)


class CatalogueEntry(BaseModel):
    """One model that this node can serve: `[catalogue.NAME]` in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: A folder with weights, or a Hugging Face id.
    source: str = Field(min_length=1)
    #: A commit, tag or branch of a Hugging Face id; None: its newest state at the first download, and then always that.
    revision: str | None = Field(default=None, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    task: Task = Task.GENERATE
    #: Sequences generated at once. vLLM batches them; more than this mostly makes each of them slower.
    slots: int = Field(default=16, ge=1, le=1024)
    #: Tokens of prompt and answer together; None leaves it to the model.
    context_tokens: int | None = Field(default=None, ge=128, le=10_000_000)
    #: What its engine takes of the node's memory for models, in GB; needed where the node has a `memory_gb`.
    memory_gb: float | None = Field(default=None, gt=0, le=100_000)
    #: What its weight files take, in GB; with it nobody has to guess from the parameters whether the model fits.
    weights_gb: float | None = Field(default=None, gt=0, le=100_000)
    #: In billions, where `weights_gb` is not given.
    parameters_billion: float | None = Field(default=None, gt=0, le=100_000)

    @model_validator(mode="after")
    def _only_the_hub_has_revisions(self) -> Self:
        if self.revision is not None and is_path(self.source):
            raise ValueError(
                f"revision: {self.source} is a folder of this machine and has none; take revision out, or name a model "
                "on the hub as ORG/NAME"
            )
        return self


class SimulatedSpeed(BaseModel):
    """How fast the simulated engine pretends to be: `[sim]` in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: From a request's arrival to its first token, however long the prompt; None: at once.
    first_token_ms: float | None = Field(default=None, ge=0, le=600_000)
    #: Of each sequence; None: as fast as the machine can.
    tokens_per_second: float | None = Field(default=None, ge=0, le=100_000)
    #: Up to this much is added to each step and each first token, at random; None: nothing.
    jitter_ms: float | None = Field(default=None, ge=0, le=60_000)


class AgentSettings(ServiceSettings):
    """Everything an owner can set."""

    model_config = SettingsConfigDict(env_prefix="SHRK_")

    whose: ClassVar[str] = "the node agent"
    file_variable: ClassVar[str] = "SHRK_CONFIG"
    file_default: ClassVar[Path] = Path("/etc/shrk/config.toml")
    drop_ins: ClassVar[str] = "conf.d"
    #: Other programs of ours on the same machine: the coordinator, the SDK, `shrk dev`, the installer.
    other_variables: ClassVar[frozenset[str]] = frozenset(
        {"SHRK_COORDINATOR_", "SHRK_BASE_URL", "SHRK_API_KEY", "SHRK_CACHE_DIR", "SHRK_INSTALL_", "SHRK_YES"}
    )

    #: The coordinator, as tcp://HOST:PORT of its link. None: the one at which this machine enrolled.
    controller: Annotated[str | None, BeforeValidator(_controller)] = None
    #: Needed once, until the node has its certificate.
    join_token: SecretStr | None = None
    #: Identity, logs, run files. Holds the node's key: made with mode 0700.
    state_dir: Annotated[Path, BeforeValidator(_folder)] = Field(default_factory=_default_state_dir)
    #: What the machine is called in lists.
    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=100)
    #: What generates: auto is vLLM; sim only pretends, and needs no GPU.
    engine: EngineKind = EngineKind.AUTO
    #: The engine's own environment, apart from the agent's so that upgrading one does not touch the other.
    engine_venv: Annotated[Path, BeforeValidator(_folder)] = Field(
        default_factory=lambda: Path(sys.prefix).parent / ".venv-engine"
    )
    #: Names from the catalogue to serve, the most important first; empty: all of it, in the file's order.
    models: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    #: What this machine can serve, one table for each model: [catalogue.NAME].
    catalogue: dict[str, CatalogueEntry] = Field(default_factory=dict)
    #: For all models together, in GB; what does not fit beside the others is loaded where a coordinator wants it and
    #: another is not wanted. None: all of them fit at once.
    memory_gb: float | None = Field(default=None, gt=0, le=100_000)
    #: Whether coordinators may unload models that nobody asks for.
    scale_to_zero: bool = False
    #: How fast the simulated engine pretends to be.
    sim: SimulatedSpeed = SimulatedSpeed()
    #: The GPUs to use, by index or UUID; empty: all of them.
    visible_devices: Annotated[tuple[str, ...], BeforeValidator(_devices)] = ()
    #: How warm a GPU may become, in °C. Work ends before that: 2 below it nothing new is taken.
    temp_max: float = Field(default=70.0, ge=40, le=95, allow_inf_nan=False)
    #: When to serve, such as "22:00-08:00" or "mon-fri 22:00-08:00, sat-sun 00:00-24:00"; empty: always.
    schedule: Annotated[str, BeforeValidator(_schedule)] = ""
    #: In which the hours are meant, such as "Europe/Berlin"; empty: the machine's own, or UTC where it names none.
    #: `shrk config show` tells which.
    time_zone: Annotated[str, BeforeValidator(_time_zone)] = ""
    #: Another program that holds 512 MiB of a GPU has it to itself until a minute after, and so does one that takes
    #: half of its time (always) or a tenth of it (idle).
    when: When = When.ALWAYS
    #: Where earnings go: an address on Base with the capitals of its checksum; empty: none are wanted.
    payout_address: Annotated[str, BeforeValidator(_payout_address)] = ""
    #: How GPUs are looked at: auto is NVML where its driver is, else nothing; scripted reads scripted_gpu.
    gpu: GpuKind = GpuKind.AUTO
    #: What the scripted GPU plays: a file. For trying things out, and for tests.
    scripted_gpu: Annotated[Path | None, BeforeValidator(_script)] = None
    #: How long a stopping agent lets attempts finish: most answers end within two minutes.
    drain_seconds: float = Field(default=110.0, ge=0, le=3600)
    #: auto: for people on a terminal, JSON lines elsewhere.
    log_format: str = Field(default="auto", pattern="^(auto|console|json)$")

    @property
    def memory_bytes(self) -> int:
        """For all models together; 0: there is no bound."""
        return _bytes(self.memory_gb)

    @model_validator(mode="after")
    def _scripted_gpu_has_a_script(self) -> Self:
        if self.gpu is GpuKind.SCRIPTED and self.scripted_gpu is None:
            raise SettingInvalid(
                ("gpu",), '"scripted" plays a file that scripted_gpu names, and it names none; set it, or use "auto"'
            )
        return self

    @model_validator(mode="after")
    def _models_can_be_served(self) -> Self:
        if not self.catalogue:
            raise ValueError(
                "catalogue: it is empty: this node would serve nothing; add [catalogue.NAME] with a source"
            )
        if wrong := models_wrong(self.models, self.memory_gb, self.catalogue):
            raise wrong
        return self

    @property
    def served(self) -> tuple[str, ...]:
        """The models to serve, in the owner's order."""
        return self.models or tuple(self.catalogue)

    def specs(self) -> tuple[EngineSpec, ...]:
        """The engines of all models in the catalogue, served or not."""
        return tuple(
            EngineSpec(
                id=name,
                model=name,
                source=self.catalogue[name].source,
                task=self.catalogue[name].task,
                slots=self.catalogue[name].slots,
                context_tokens=self.catalogue[name].context_tokens,
                memory_bytes=_bytes(self.catalogue[name].memory_gb),
                revision=self.catalogue[name].revision,
            )
            for name in self.catalogue
        )


def models_wrong(
    models: Collection[str], memory_gb: float | None, catalogue: Mapping[str, CatalogueEntry]
) -> SettingInvalid | None:
    """What forbids to serve these models (none named: all of the catalogue) in this memory; None: nothing."""
    for name, entry in catalogue.items():
        if memory_gb is None:
            break
        if entry.memory_gb is None and name in (models or catalogue):
            return SettingInvalid(
                ("catalogue", name, "memory_gb"),
                f"it is missing: memory_gb = {memory_gb:g} bounds all models together and this one would not count; "
                "say what it takes in GB, or take memory_gb out",
            )
        if (entry.memory_gb or 0) > memory_gb:
            return SettingInvalid(
                ("catalogue", name, "memory_gb"),
                f"{entry.memory_gb:g} is more than memory_gb = {memory_gb:g}, all that models have here; raise the one "
                "or take the model out",
            )
    for model in models:
        if model not in catalogue:
            known = ", ".join(sorted(catalogue))
            nearest = did_you_mean(model, catalogue)
            said = nearest if "did you mean" in nearest else ""
            return SettingInvalid(("models",), f"{model!r} is not in the catalogue, which holds {known}{said}")
    return None
