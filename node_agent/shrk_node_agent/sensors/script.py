"""The file that a scripted GPU plays: TOML (`.toml`) or JSON, read anew whenever it has changed.

    [[gpu]]
    name = "Scripted GPU"
    memory_gb = 24
    temperatures = [[0, 45], [20, 72]]   # °C after so many seconds; straight lines between, the last one stays
    power_limit = "settable"             # or refused (needs root), ignored (accepted, not taken), unsupported

    [[gpu]]
    heat = { ambient = 30 }              # instead of temperatures: warms with the agent's load
    processes = [{ pid = 4242, memory_gb = 1.5 }]

Whoever steers it while it runs writes the new file beside the old one and renames it: seconds count anew from there.
"""

from __future__ import annotations

import json
import tomllib
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shrk_node_agent.sensors.gpu import Metric, SensorsFailed
from shrk_node_agent.sensors.heat_model import HeatModel

#: A few GPUs take a kilobyte; whoever names a log or a model by mistake should be told at once.
SCRIPT_BYTES_MAX = 1024 * 1024
#: More than any machine holds.
GPUS_MAX = 64


class Setting(StrEnum):
    """What becomes of an order to set something."""

    SETTABLE = "settable"
    REFUSED = "refused"
    #: The driver says yes, and a look shows that nothing has changed.
    IGNORED = "ignored"
    UNSUPPORTED = "unsupported"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScriptedProcess(_Part):
    """One process on a GPU."""

    pid: int = Field(ge=1, le=2**32 - 1)
    #: None: not told.
    memory_gb: float | None = Field(default=None, ge=0, le=100_000)


class ScriptedHeat(_Part):
    """See `HeatModel`; watts and degrees Celsius."""

    ambient: float = Field(default=25.0, ge=-50, le=100)
    celsius_per_watt: float = Field(default=0.18, gt=0, le=100)
    joules_per_celsius: float = Field(default=500.0, gt=0, le=1e9)
    idle_watts: float = Field(default=20.0, ge=0, le=10_000)
    busy_watts: float = Field(default=350.0, ge=0, le=10_000)
    #: At the beginning; None: the room's.
    start: float | None = Field(default=None, ge=-50, le=1000)

    def model(self) -> HeatModel:
        """The model that these are the figures of."""
        return HeatModel(self.ambient, self.celsius_per_watt, self.joules_per_celsius, self.idle_watts, self.busy_watts)


class ScriptedGpu(_Part):
    """One GPU: `[[gpu]]`."""

    name: str = Field(default="Scripted GPU", min_length=1, max_length=100)
    #: Empty: made of its index.
    uuid: str = Field(default="", max_length=100)
    memory_gb: float = Field(default=24.0, ge=0, le=100_000)
    #: None: what its processes leave.
    memory_free_gb: float | None = Field(default=None, ge=0, le=100_000)
    #: One that stays; absurd ones (0, 255, -1) are played as they are.
    temperature: float | None = None
    temperatures: tuple[tuple[float, float], ...] = ()
    heat: ScriptedHeat | None = None
    #: 0 to 1; None: what the agent tells.
    load: float | None = Field(default=None, ge=0, le=1)
    #: None: what the load makes of it.
    power: float | None = Field(default=None, ge=0, le=10_000)
    throttle: tuple[str, ...] = ()
    #: None: not told.
    processes: tuple[ScriptedProcess, ...] | None = ()
    power_limit: Setting = Setting.REFUSED
    power_limit_range: tuple[float, float] = (100.0, 350.0)
    target_temperature: Setting = Setting.UNSUPPORTED
    target_temperature_range: tuple[float, float] = (50.0, 90.0)
    #: Metrics that its driver does not tell, as `shrk doctor` words them: "temperature", "power".
    untold: frozenset[Metric] = frozenset()
    #: Fallen off the bus.
    lost: bool = False

    @model_validator(mode="after")
    def _one_source_of_heat(self) -> Self:
        named = [
            word
            for word, there in (
                ("temperature", self.temperature is not None),
                ("temperatures", bool(self.temperatures)),
                ("heat", self.heat is not None),
            )
            if there
        ]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} contradict each other; keep one of them")
        if any(later[0] <= earlier[0] for earlier, later in pairwise(self.temperatures)):
            raise ValueError("temperatures: the seconds must grow from one pair to the next")
        for field in ("power_limit_range", "target_temperature_range"):
            low, high = getattr(self, field)
            if low > high:
                raise ValueError(f"{field}: {low:g} is more than {high:g}; write the lower one first")
        return self

    def celsius_at(self, seconds: float) -> float | None:
        """As scripted; None where the heat model decides."""
        if self.heat is not None:
            return None
        if self.temperature is not None or not self.temperatures:
            return 40.0 if self.temperature is None else self.temperature
        for (begin, low), (end, high) in pairwise(self.temperatures):
            if begin <= seconds < end:
                return low + (high - low) * (seconds - begin) / (end - begin)
        first, last = self.temperatures[0], self.temperatures[-1]
        return first[1] if seconds < first[0] else last[1]


class Script(_Part):
    """The whole file."""

    gpu: tuple[ScriptedGpu, ...] = Field(default=(ScriptedGpu(),), max_length=GPUS_MAX)
    #: Where it is not empty, nothing can be read at all, as with a driver that is gone; this is why.
    fails: str = ""

    @model_validator(mode="after")
    def _uuids_differ(self) -> Self:
        uuids = [gpu.uuid for gpu in self.gpu if gpu.uuid]
        if len(set(uuids)) < len(uuids):
            raise ValueError("gpu: two of them have the same uuid; give each its own, or none")
        return self


def read_script(path: Path) -> Script:
    """Raises SensorsFailed, which names the file, the field and what it may be."""
    try:
        with path.open("rb") as file:
            text = file.read(SCRIPT_BYTES_MAX + 1)
    except OSError as error:
        raise SensorsFailed(
            f"scripted_gpu: {path} cannot be read ({error.strerror}); name a script that can"
        ) from error
    if len(text) > SCRIPT_BYTES_MAX:
        raise SensorsFailed(f"scripted_gpu: {path} has more than {SCRIPT_BYTES_MAX} bytes; is it a script?")
    try:
        written = tomllib.loads(text.decode()) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:  # Of tomllib, json and the decoder.
        form = "TOML" if path.suffix == ".toml" else "JSON (a script in TOML must be called .toml)"
        raise SensorsFailed(f"scripted_gpu: {path} is not {form}: {error}") from error
    try:
        return Script.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the script"
        said = first["msg"].removeprefix("Value error, ")
        raise SensorsFailed(f"scripted_gpu: {path}: {where}: {said}, not {first['input']!r:.80}") from error
