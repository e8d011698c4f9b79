"""`shrk uninstall` calls the installer that left itself beside the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands.ending import Exit
from shrk_node_agent.commands.uninstall import NotInstalled, app, uninstaller


def test_the_installer_is_asked_to_take_it_away(tmp_path: Path) -> None:
    script = tmp_path / "opt" / "install.sh"
    script.parent.mkdir()
    script.touch()
    command = uninstaller(script.parent, keep_config=False, yes=True)
    assert command == ["sh", str(script), "--uninstall", "--yes"]
    command = uninstaller(script.parent, keep_config=True, yes=False)
    assert command == ["sh", str(script), "--uninstall", "--keep-config"]


def test_without_an_installer_it_says_so_and_how_it_can_be_removed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match=r"/install \| sh -s -- --uninstall"):
        uninstaller(tmp_path, keep_config=False, yes=False)
    result = CliRunner().invoke(app, ["--yes"])
    assert result.exit_code == Exit.ERROR
    assert "was not installed by it" in result.stderr
