"""Who keeps the agent on a machine, tried with programs that play systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_node_agent.commands import logs, service, start, status, stop
from shrk_node_agent.commands.ending import Exit
from support.asked_agent import PlayedAgent

SYSTEMCTL = """\
#!/bin/sh
echo "systemctl $*" >> "$PLAYED/asked"
case "$*" in
  *--user*show*) cat "$PLAYED/user-$(echo "$*" | sed 's/.*--property \\([A-Za-z]*\\).*/\\1/')" 2>/dev/null ;;
  *show*) cat "$PLAYED/$(echo "$*" | sed 's/.*--property \\([A-Za-z]*\\).*/\\1/')" 2>/dev/null ;;
  *) [ ! -e "$PLAYED/refuses" ] || { echo "Access denied" >&2; exit 4; }
     [ ! -e "$PLAYED/starts" ] || sh "$PLAYED/starts" ;;
esac
"""
JOURNALCTL = '#!/bin/sh\necho "journalctl $*" >> "$PLAYED/asked"\necho "said by the journal"\n'


class PlayedSystemd:
    """`systemctl` and `journalctl` on the PATH, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, **properties: str) -> None:
        """What `systemctl show` tells; with `user_` before a name, of the user's own unit."""
        for name, value in properties.items():
            (self.folder / name.replace("user_", "user-")).write_text(value)

    def asked(self) -> list[str]:
        """Everything but questions."""
        lines = (self.folder / "asked").read_text().splitlines() if (self.folder / "asked").exists() else []
        return [line for line in lines if " show " not in line]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedSystemd:
    for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PLAYED", str(tmp_path))
    return PlayedSystemd(tmp_path)


@pytest.fixture
def kept(agent: PlayedAgent, systemd: PlayedSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedAgent:
    """An agent whose folder stands in the settings file, as the installer writes it: not named for one call."""
    config = tmp_path / "config.toml"
    config.write_text(f'state_dir = "{agent.folder}"\n')
    monkeypatch.setenv("SHRK_CONFIG", str(config))
    monkeypatch.delenv("SHRK_STATE_DIR")
    systemd.has(LoadState="loaded", MainPID=str(agent.document["pid"]), ActiveState="active", SubState="running")
    return agent


def test_a_unit_of_the_machine_is_preferred_to_one_of_the_user(systemd: PlayedSystemd) -> None:
    systemd.has(user_LoadState="loaded")
    assert service.keeper(None) == service.Systemd(user=True)
    systemd.has(LoadState="loaded")
    assert service.keeper(None) == service.Systemd(user=False)


def test_without_a_unit_the_installers_service_is_taken_and_else_nobodys(
    systemd: PlayedSystemd, tmp_path: Path
) -> None:
    systemd.has(LoadState="not-found")
    assert service.keeper(None, tmp_path) == service.Plain()
    script = tmp_path / "service"
    script.write_text("#!/bin/sh\n")
    assert service.keeper(None, tmp_path) == service.Plain(), "it cannot be run"
    script.chmod(0o755)
    assert service.keeper(None, tmp_path) == service.Script(script)


def test_a_folder_named_for_one_call_is_never_the_services(
    systemd: PlayedSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd.has(LoadState="loaded")
    assert service.keeper(tmp_path) == service.Plain()
    monkeypatch.setenv("SHRK_STATE_DIR", str(tmp_path))
    assert service.keeper(None) == service.Plain()


def test_what_systemd_keeps_is_started_by_systemd(kept: PlayedAgent, systemd: PlayedSystemd) -> None:
    socket = kept.folder / "control.sock"
    socket.rename(kept.folder / "hidden.sock")
    systemd.has(starts=f"mv {kept.folder}/hidden.sock {socket}")
    result = CliRunner().invoke(start.app, [])
    assert result.exit_code == Exit.OK
    assert result.stdout.startswith("The node agent is started (pid 4711); the node is online\nIts log: shrk logs\n")
    assert systemd.asked() == ["systemctl start shrk-node.service"]


def test_a_systemd_that_refuses_is_quoted_with_what_to_do(kept: PlayedAgent, systemd: PlayedSystemd) -> None:
    kept.close()
    systemd.has(refuses="")
    result = CliRunner().invoke(start.app, [])
    assert result.exit_code == Exit.ERROR
    assert "systemctl start shrk-node.service failed: Access denied. Try: sudo systemctl start" in result.stderr


def test_an_agent_that_systemd_keeps_is_stopped_through_systemd(kept: PlayedAgent, systemd: PlayedSystemd) -> None:
    # systemd's signal is not played: the agent is gone once it has been asked.
    kept.change(pid=2**22 + 1)
    systemd.has(MainPID=str(2**22 + 1))
    kept.looks = lambda: kept.close_soon() if systemd.asked() else None
    result = CliRunner().invoke(stop.app, [])
    assert result.exit_code == Exit.OK, result.output
    assert systemd.asked() == ["systemctl --no-block stop shrk-node.service"]
    assert kept.asked == []


def test_an_agent_beside_systemds_is_asked_itself(kept: PlayedAgent, systemd: PlayedSystemd) -> None:
    systemd.has(MainPID="1")
    kept.change(pid=2**22 + 1)
    kept.stops = kept.close_soon
    assert CliRunner().invoke(stop.app, []).exit_code == Exit.OK
    assert systemd.asked() == []
    assert kept.asked == [("stop", False)]


def test_one_that_systemd_is_about_to_start_again_is_stopped_too(kept: PlayedAgent, systemd: PlayedSystemd) -> None:
    kept.close()
    systemd.has(ActiveState="activating")
    assert CliRunner().invoke(stop.app, []).exit_code == Exit.OK
    assert systemd.asked() == ["systemctl stop shrk-node.service"]


def test_the_journal_is_its_log(kept: PlayedAgent, systemd: PlayedSystemd, capfd: pytest.CaptureFixture[str]) -> None:
    assert CliRunner().invoke(logs.app, ["-f", "-n", "5"]).exit_code == Exit.OK
    [asked] = systemd.asked()
    assert asked == "journalctl --unit shrk-node.service --output cat --no-pager --lines 5 --follow"
    assert capfd.readouterr().out == "said by the journal\n"


def test_the_state_of_a_unit_that_failed_is_told(kept: PlayedAgent, systemd: PlayedSystemd) -> None:
    kept.close()
    systemd.has(ActiveState="failed", SubState="failed")
    result = CliRunner().invoke(status.app, [])
    assert result.exit_code == Exit.NOT_RUNNING
    assert "\n  shrk-node.service: failed (failed)\n  It said last:\n  | said by the journal\n" in result.stdout
