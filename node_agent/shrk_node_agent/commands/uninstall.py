"""`shrk uninstall`: removes shrk, by the installer that put it here: only that knows what it made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands.ending import said_plainly
from shrk_node_agent.commands.typed import verb

app = verb()


class NotInstalled(Trouble):
    """No installer put shrk here. `str()` says how it can be removed."""


@app.command()
def uninstall(
    keep_config: Annotated[bool, typer.Option("--keep-config", help="Keep settings and identity.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove shrk from this machine: service, programs, weights, settings and identity."""
    with said_plainly():
        command = uninstaller(Path(sys.prefix), keep_config=keep_config, yes=yes)
        raise typer.Exit(subprocess.run(command, check=False).returncode)


def uninstaller(prefix: Path, *, keep_config: bool, yes: bool) -> list[str]:
    """The command line, for the environment in `prefix`. Raises NotInstalled where no installer left itself there."""
    script = prefix / "install.sh"
    if not script.is_file():
        raise NotInstalled(
            f"there is no installer in {prefix}: this shrk was not installed by it, or by one too old to stay. Remove "
            "it the way it came; an installed one is removed with: curl -fsSL "
            "http://COORDINATOR:8080/install | sh -s -- --uninstall"
        )
    # Whose installation it is in, and where that lies, the script was told when it was left there.
    return [
        "sh",
        str(script),
        "--uninstall",
        *(["--keep-config"] if keep_config else []),
        *(["--yes"] if yes else []),
    ]
