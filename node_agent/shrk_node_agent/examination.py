"""What `shrk doctor` looks at on this machine, one line each. Clocks and settings are given; nothing is changed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shrk_contract.settings import SettingsError, SettingsForbidden
from shrk_node_agent.checklist import Line, Mark
from shrk_node_agent.engine import vllm
from shrk_node_agent.link import identity as identities
from shrk_node_agent.link.identity import IdentityError
from shrk_node_agent.settings import AgentSettings, EngineKind

#: Logs of engines and of the agent, and what lies about while one is updated: less, and writing fails sooner or later.
FREE_BYTES_MIN = 1_000_000_000
#: Certificates are judged by the clock, and what is logged on two machines is compared by it. NTP keeps within one.
CLOCK_SECONDS_MAX = 30.0
#: A word on a certificate that ends soon: time for its owner to see to it.
CERTIFICATE_HOURS_MIN = 6.0
#: Rights that others have on a folder that holds a key.
_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO

Json = dict[str, Any]


def settings(load: Callable[[], AgentSettings]) -> tuple[Line, AgentSettings | None]:
    """Whether they can be used, and they, if so."""
    try:
        loaded = load()
    except SettingsForbidden as error:
        # What is wrong with nothing is not to be corrected.
        return Line("settings", Mark.FAILED, "; ".join(error.problems), "sudo shrk doctor"), None
    except SettingsError as error:
        problems = "; ".join(error.problems)
        return Line("settings", Mark.FAILED, problems, "Correct that, in the settings file or the environment."), None
    count = len(loaded.models or loaded.catalogue)
    return Line("settings", Mark.PASSED, f"{count} model{'s' if count != 1 else ''} to serve"), loaded


def folder(state_dir: Path) -> Line:
    """Whether the agent's folder is there, its own, and closed to others."""
    name = "folder"
    try:
        mode = state_dir.stat().st_mode
    except OSError as error:
        return Line(name, Mark.FAILED, f"{state_dir}: {error.strerror}", "It is made when the agent starts: shrk start")
    if not os.access(state_dir, os.R_OK | os.W_OK | os.X_OK):
        return Line(name, Mark.FAILED, f"{state_dir} is another user's", "Run this as the agent's user, or with sudo.")
    if mode & _OF_OTHERS:
        why = f"{state_dir} holds this node's key, and others may look into it (mode {stat.S_IMODE(mode):04o})"
        return Line(name, Mark.FAILED, why, f"chmod 700 {state_dir}")
    return Line(name, Mark.PASSED, str(state_dir))


def disk(state_dir: Path, free_min: int = FREE_BYTES_MIN) -> Line:
    """Whether there is room for logs."""
    try:
        free = shutil.disk_usage(state_dir).free
    except OSError as error:
        return Line("disk", Mark.SKIPPED, f"{state_dir}: {error.strerror}")
    found = f"{free / 1e9:.1f} GB free at {state_dir}"
    if free < free_min:
        why = f"{found}; {free_min / 1e9:g} GB are needed"
        return Line("disk", Mark.FAILED, why, "Make room, or choose another state_dir.")
    return Line("disk", Mark.PASSED, found)


def identity(state_dir: Path, now_unix_ms: int) -> Line:
    """Whether this machine is a node, and for how long."""
    try:
        known = identities.load(state_dir / "identity")
        if known is not None:
            known.check_dates(now_unix_ms)
    except IdentityError as error:
        return Line("identity", Mark.FAILED, error.message, error.remedy)
    if known is None:
        return Line(
            "identity",
            Mark.FAILED,
            "this machine is not a node yet",
            "Start the agent with a join token: SHRK_JOIN_TOKEN=TOKEN shrk node run; the coordinator's operator makes "
            "one: shrk coordinator tokens create --owner YOU",
        )
    found = f"{known.node_id}, its certificate is valid until {known.not_after:%Y-%m-%d %H:%M} UTC"
    if known.not_after.timestamp() - now_unix_ms / 1000 < CERTIFICATE_HOURS_MIN * 3600:
        return Line("identity", Mark.NOTED, found, "It ends soon: see that the agent runs, and is linked.")
    return Line("identity", Mark.PASSED, found)


def engine(loaded: AgentSettings) -> Line:
    """Whether there is something that generates."""
    if loaded.engine is EngineKind.SIM:
        return Line("engine", Mark.NOTED, "the simulated engine: it pretends, and needs no GPU")
    version = vllm.installed(loaded.engine_venv)
    if version is None:
        return Line(
            "engine",
            Mark.FAILED,
            f"there is no vLLM in {loaded.engine_venv}",
            "Install it there, or name its environment: SHRK_ENGINE_VENV=DIR",
        )
    return Line("engine", Mark.PASSED, f"vLLM {version} in {loaded.engine_venv}")


def clock(theirs_unix_ms: int | None, ours_unix_ms: int) -> Line:
    """How far this machine's clock is from the coordinator's."""
    if theirs_unix_ms is None:
        return Line("clock", Mark.SKIPPED, "the coordinator did not tell its own")
    ahead = (ours_unix_ms - theirs_unix_ms) / 1000
    if abs(ahead) > CLOCK_SECONDS_MAX:
        way = "ahead of" if ahead > 0 else "behind"
        why = f"this machine's clock is {abs(ahead):,.0f} s {way} the coordinator's"
        return Line("clock", Mark.FAILED, why, "Set it, for example with: timedatectl set-ntp true")
    return Line("clock", Mark.PASSED, "it agrees with the coordinator's")


def agent(status: Json) -> list[Line]:
    """What the running agent says of itself: that it runs, its GPUs, its engines, its link."""
    lines = [Line("agent", Mark.PASSED, f"it runs (pid {status['pid']}) and is {status['state']}")]
    if error := status.get("settings_error"):
        lines.append(Line("reload", Mark.FAILED, f"it runs with older settings: {error}", "Correct them."))
    lines.append(_gpus(status))
    lines += [_engine(one) for one in status["engines"]]
    if status["link"] == "connected":
        return [*lines, Line("link", Mark.PASSED, "it is linked to its coordinator")]
    why = status["link_reason"] or "it dials"
    return [*lines, Line("link", Mark.FAILED, f"{status['link']}: {why}", "Find out why: shrk netcheck")]


def _gpus(status: Json) -> Line:
    if "gpus" not in status:
        return Line("gpu", Mark.SKIPPED, "this agent does not read GPUs")
    gpus = status["gpus"]
    if not gpus:
        return Line("gpu", Mark.NOTED, "no GPU is seen", "If there is one, look at its driver: nvidia-smi")
    if lost := [str(gpu["index"]) for gpu in gpus if gpu.get("lost")]:
        why = f"the driver has lost GPU {', '.join(lost)}"
        return Line("gpu", Mark.FAILED, why, "See nvidia-smi and dmesg; it mostly takes a restart of the machine.")
    told = [gpu["temperature_celsius"] for gpu in gpus if gpu.get("temperature_celsius") is not None]
    count = f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    if len(told) < len(gpus):
        why = f"{count}, of which {len(gpus) - len(told)} tell no temperature"
        return Line("gpu", Mark.FAILED, why, "Without it nothing can be kept cool: update the driver, see nvidia-smi.")
    return Line("gpu", Mark.PASSED, f"{count}, the hottest at {max(told):.0f} °C")


def _engine(one: Json) -> Line:
    name, why = f"model {one['model']}", one["reason"] or one["detail"]
    found = f"{one['state']}: {why}" if why else one["state"]
    if one["state"] in ("online", "busy"):
        return Line(name, Mark.PASSED, found)
    if one["state"] == "incompatible":
        return Line(name, Mark.FAILED, found, f"Read what it said: shrk logs {one['id']}")
    return Line(name, Mark.NOTED, found)
