"""Options of `shrk chaos` that cannot work are refused before anything is opened or asked."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_cli.chaos.cli import app
from shrk_cli.errors import Exit, Trouble

THERE = ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:9"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["proxy", *THERE, "--delay-ms", "-1"], "--delay-ms"),
        (["proxy", *THERE, "--jitter-ms", "60001"], "--jitter-ms"),
        (["proxy", *THERE, "--rate-kbit", "fast"], "--rate-kbit"),
        (["proxy", "--listen", "127.0.0.1:0"], "--to"),
        (["set", "--truncate-after", "-5"], "--truncate-after"),
        (["set", "--delay-ms", "5", "--direction", "left"], "--direction"),
        (["cut", "gently"], "black-hole"),
        (["cut"], "how"),
        (["cut", "rst", "--after-bytes", "-1"], "--after-bytes"),
    ],
)
def test_an_option_that_cannot_be_is_a_usage_error_that_names_it(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == Exit.USAGE
    assert named.lower() in result.output.lower()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["proxy", "--listen", "9200", "--to", "127.0.0.1:9"], "--listen is no address"),
        (["proxy", "--listen", "127.0.0.1:0", "--to", "tcp://127.0.0.1:9"], "--to is no address"),
        (["proxy", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:0"], "--to 127.0.0.1:0 names no port"),
        (["proxy", "--listen", "127.0.0.1:9", "--to", "127.0.0.1:9"], "--listen and --to are both 127.0.0.1:9"),
        (["set"], "nothing to set"),
        (["set", "--direction", "up"], "nothing to set"),
    ],
)
def test_a_wish_that_cannot_be_is_a_usage_error_with_a_remedy(arguments: list[str], what: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, Trouble)
    assert result.exception.what == what
    assert result.exception.code == Exit.USAGE
    assert result.exception.remedy


def test_a_busy_port_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        result = CliRunner().invoke(
            app, ["proxy", "--listen", listen, "--to", "127.0.0.1:9", "--control", str(tmp_path / "s")]
        )
    assert isinstance(result.exception, Trouble)
    assert result.exception.what == f"--listen {listen} cannot be used"
    assert "in use" in result.exception.why
    assert "--listen" in result.exception.remedy
    assert not (tmp_path / "s").exists()


def test_the_control_socket_is_looked_for_in_the_users_own_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for command in (["status"], ["heal"], ["cut", "rst"], ["set", "--rate-kbit", "0"]):
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, Trouble)
        assert str(tmp_path / "shrk-chaos-") in result.exception.what
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    result = CliRunner().invoke(app, ["status", "--control", str(tmp_path / "mine")])
    assert isinstance(result.exception, Trouble)
    assert result.exception.what == f"no chaos proxy answers at {tmp_path / 'mine'}"
