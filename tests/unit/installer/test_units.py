"""The systemd units: how much they give away, and what the services rely on in them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from support.house import ROOT

UNITS = ROOT / "systemd"


@pytest.mark.parametrize(("unit", "exposure_max"), [("shrk-node.service", 2.0), ("shrk-coordinator.service", 1.5)])
def test_a_unit_gives_little_away(unit: str, exposure_max: float) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine: apt install systemd")
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / unit)]
    said = subprocess.run(command, capture_output=True, text=True)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", said.stdout)
    assert exposure is not None, said.stdout + said.stderr
    assert float(exposure[1]) <= exposure_max
    assert not said.stderr, "a directive that systemd does not know"


@pytest.mark.parametrize("unit", ["shrk-node.service", "shrk-coordinator.service"])
def test_a_unit_has_what_the_services_rely_on(unit: str) -> None:
    lines = (UNITS / unit).read_text().splitlines()
    wanted = {"Type=notify", "NotifyAccess=main", "WatchdogSec=30", "KillMode=mixed", "NoNewPrivileges=yes"}
    assert wanted <= set(lines)
    assert ("Delegate=yes" in lines) == (unit == "shrk-node.service")
    stop = next(int(line.partition("=")[2]) for line in lines if line.startswith("TimeoutStopSec="))
    assert stop > 120 + 10, "longer than the drain, and what follows it"


def test_the_agent_may_use_nvidia_devices() -> None:
    text = (UNITS / "shrk-node.service").read_text()
    assert "PrivateDevices=yes" not in text
    for device in ("char-nvidia", "char-nvidiactl", "char-nvidia-uvm", "char-nvidia-caps", "char-drm"):
        assert f"\nDeviceAllow={device} rw\n" in text
