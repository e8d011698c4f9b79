"""The models that an owner names on a command line, and the folder that holds their files."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path

from shrk_contract.settings import SettingsError, load
from shrk_contract.settings_files import Files
from shrk_contract.settings_problems import did_you_mean
from shrk_contract.trouble import Trouble
from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.settings import AgentSettings, CatalogueEntry

#: Stands in where no model is set, to read the other settings: as small as it can be, and no name of a model.
_NO_MODEL = "-"
_STANDS_IN = {"source": _NO_MODEL, "memory_gb": 1e-9}


class NotInCatalogue(Trouble):
    """A name is none of this node's models. `str()` has the nearest one."""

    exit_code = Exit.CONFIG_INVALID


def read_settings(state_dir: Path | None = None, files: Files | None = None) -> AgentSettings:
    """As an agent would read them, but for one that still has no model, too. `files`: instead of those on the disk.
    Raises SettingsError."""
    try:
        return load(AgentSettings, files, state_dir=state_dir)
    except SettingsError as error:
        try:
            return load(AgentSettings, files, state_dir=state_dir, catalogue={_NO_MODEL: _STANDS_IN})
        except SettingsError:
            raise error from None  # which does not know of the stand-in


def catalogue_of(settings: AgentSettings) -> Mapping[str, CatalogueEntry]:
    """Its models; none where there is only the stand-in."""
    return {name: entry for name, entry in settings.catalogue.items() if name != _NO_MODEL}


def unknown(name: str, catalogue: Iterable[str]) -> NotInCatalogue:
    """What is said of a name that is not in the catalogue."""
    known = sorted(catalogue)
    if not known:
        return NotInCatalogue(
            f"{name!r} is not in the catalogue, which is empty. What fits here: shrk models suggest; what is there: "
            "shrk config show"
        )
    return NotInCatalogue(f"{name!r} is not in the catalogue{did_you_mean(name, known)}")


def act_as_owner(folder: Path) -> None:
    """Root becomes whoever owns the node's folder, for good: what root writes there, the agent's own user could not
    change. Others, and where there is no folder yet, stay who they are."""
    if os.geteuid() != 0 or not folder.exists():
        return
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    try:
        entry = pwd.getpwuid(owner.st_uid)
        os.initgroups(entry.pw_name, owner.st_gid)
        # Where the hub's library looks for a token, and keeps its own things.
        os.environ["HOME"] = entry.pw_dir
    except KeyError:
        os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)
