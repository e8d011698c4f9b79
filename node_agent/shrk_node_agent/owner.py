"""What an owner's settings come to: the sensors that this machine gets, and what the state obeys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from shrk_contract.terms import Device
from shrk_node_agent.engine import weights
from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.launch import is_path
from shrk_node_agent.engine.revisions import LockUnreadable
from shrk_node_agent.sensors.choose import choose
from shrk_node_agent.sensors.gpu import Gpus
from shrk_node_agent.sensors.none import NoGpus
from shrk_node_agent.settings import AgentSettings, CatalogueEntry
from shrk_node_agent.state.devices import GpuReading
from shrk_node_agent.state.needs import Need
from shrk_node_agent.state.terms.fit import SizeUnknown, needed
from shrk_node_agent.state.terms.hours import Schedule
from shrk_node_agent.state.terms.occupancy import When
from shrk_node_agent.state.terms.terms import Wanted
from shrk_node_agent.time_zone import zone

#: What a simulated engine is said to take where nobody says anything else.
PRETENDED_BYTES = 1_000_000_000
#: What Docker and Podman leave in theirs.
_CONTAINED = (Path("/.dockerenv"), Path("/run/.containerenv"))


def gpus_of(
    settings: AgentSettings, clock: Callable[[], float], load: Callable[[], float], *, sets: bool = False
) -> Gpus:
    """The sensors; `load`, 0 to 1, is what a scripted GPU warms up by. Raises SensorsFailed.

    `sets`: for the agent that holds the lock of the node's folder, and for nobody else: it takes what is written there
    of GPUs' settings for what an agent left that was killed, and sets it back.
    """
    given = (str(settings.gpu), settings.visible_devices, settings.scripted_gpu)
    return choose(*given, clock=clock, load=load, kept=gpu_settings(settings.state_dir) if sets else None)


def gpu_settings(state_dir: Path) -> Path:
    """Where it is kept what GPUs' settings were. Not in `run/`: the sweep takes what is there for engines."""
    return state_dir / "gpu-settings.json"


def contained(markers: Sequence[Path] = _CONTAINED) -> bool:
    """Whether this agent runs in a container, as far as that shows."""
    return any(marker.exists() for marker in markers)


def wanted_of(settings: AgentSettings, gpus: Gpus) -> Wanted:
    """The terms."""
    return Wanted(
        cap=settings.temp_max,
        schedule=Schedule.parse(settings.schedule),
        zone=zone(settings.time_zone),
        when=When(str(settings.when)),
        gpus=not isinstance(gpus, NoGpus),
    )


def needs_of(settings: AgentSettings, downloads: Downloads | None) -> tuple[Need, ...]:
    """What the models need: those that are to be served in their owner's order, then the rest of the catalogue. Looks
    at files: call it before the loop runs, or in a thread.

    `downloads`: what was fetched before; None: this machine fetches nothing.
    """
    specs = {spec.id: spec for spec in settings.specs()}
    rest = [name for name in settings.catalogue if name not in settings.served]
    return tuple(
        _need(specs[name], settings.catalogue[name], downloads, served=name in settings.served)
        for name in (*settings.served, *rest)
    )


def _need(spec: EngineSpec, entry: CatalogueEntry, downloads: Downloads | None, *, served: bool) -> Need:
    weights_bytes = int(entry.weights_gb * 1e9) if entry.weights_gb else None
    size = weights.sized(spec, _folder(spec, downloads), weights_bytes, entry.parameters_billion)
    if downloads is None and isinstance(needed(size), SizeUnknown):
        size = replace(size, memory_bytes=PRETENDED_BYTES)  # a simulated engine, whose source is any word
    return Need(spec.id, spec.model, spec.memory_bytes, size, served)


def _folder(spec: EngineSpec, downloads: Downloads | None) -> Path | None:
    """Where its files are; None: not on this machine, or the engine has none."""
    if downloads is None:
        return None
    if is_path(spec.source):
        return Path(spec.source).expanduser()
    try:
        pinned = downloads.lock.pinned(spec.source, spec.revision)
    except (LockUnreadable, OSError):
        return None  # the download says so, with the remedy
    return downloads.snapshot(spec.source, pinned.commit) if pinned is not None and pinned.files else None


def device_of(reading: GpuReading) -> Device:
    """A GPU as coordinators hear of it."""
    return Device(
        id=reading.uuid,
        name=reading.name,
        memory_bytes=reading.memory_bytes,
        memory_free_bytes=reading.memory_free_bytes or 0,
        temperature_celsius=reading.temperature_celsius,
        power_watts=reading.power_watts,
        utilisation=reading.utilisation,
    )
