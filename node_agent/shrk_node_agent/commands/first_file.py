"""The settings file that an installer writes: every setting with what it is for, and a model for this machine.

`python -m shrk_node_agent.commands.first_file ENGINE FILE KEY=VALUE...`; ENGINE as the installer has it. Says which
model it chose. Exit codes: 0 written, 1 not written, 5 a value is not valid.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shrk_contract.settings import load
from shrk_contract.settings_files import Files
from shrk_contract.trouble import Trouble
from shrk_node_agent.commands.models_suggest import look
from shrk_node_agent.config import set_values
from shrk_node_agent.default_file import commented_file
from shrk_node_agent.known_models import Suggestion
from shrk_node_agent.sensors.gpu import SensorsFailed
from shrk_node_agent.settings import AgentSettings

#: Of the disk's free space: more than that would be the owner's, not ours.
DISK_SHARE = 0.8
#: Stands in, to read the settings of a machine that has no model yet.
_SOME_MODEL = {"-": {"source": "-"}}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model, and why it is this one."""

    name: str
    #: What [catalogue.NAME] says of it.
    entry: Mapping[str, object]
    why: str


def chosen(engine: str, found: Sequence[Suggestion], disk_bytes: int) -> Chosen:
    """The first that fits on the GPUs and on the disk, and that anybody may fetch; where none is known to, a model that
    fits nearly everywhere. `found`: as judged for this machine; `disk_bytes`: free where weights are kept."""
    if engine == "sim":
        return Chosen("shark-sim", {"source": "simulated"}, "it only pretends")
    room = disk_bytes * DISK_SHARE
    for one in found:
        on_gpus = one.fits and bool(one.gpus) and engine != "cpu"
        if on_gpus and not one.known.gated and one.known.weights_gb * 1e9 <= room:
            why = f"{one.known.good_for}; needs {one.bytes_needed / 1e9:.1f} GB; licence: {one.known.licence}"
            return Chosen(one.known.name, one.entry(), why)
    small = {"source": "Qwen/Qwen2.5-0.5B-Instruct"}
    return Chosen("qwen2.5-0.5b-instruct", small, "small enough for any machine")


def write(engine: str, file: Path, changes: Mapping[str, str]) -> Chosen:
    """Write the file; which model is in it. Raises SettingsError, ConfigUnchanged."""
    found: Sequence[Suggestion] = ()
    if engine not in ("sim", "cpu"):
        settings = load(AgentSettings, Files(file), state_dir=changes.get("state_dir"), catalogue=_SOME_MODEL)
        with contextlib.suppress(SensorsFailed):  # the agent says so as long as it lasts
            found = look(settings)[1]
    choice = chosen(engine, found, shutil.disk_usage(file.parent).free)
    set_values(changes, file, blank=commented_file(catalogue={choice.name: choice.entry}))
    return choice


def main(words: Sequence[str]) -> int:
    """The command."""
    engine, file, *settings = words
    try:
        choice = write(engine, Path(file), dict(pair.split("=", 1) for pair in settings))
    except Trouble as trouble:
        print(f"shrk: {trouble}", file=sys.stderr)
        return trouble.exit_code
    print(f"      model: {choice.name} ({choice.why}); others: shrk models suggest")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
