"""The installer on a machine that is not clean: settings, units and programs that are there already."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shrk_node_agent.time_zone import in_force, zone
from support.installer import SCRIPT, Machine, script_of
from support.network import Network
from support.terminal import Terminal

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or (shutil.which("curl") is None and shutil.which("wget") is None),
    reason="the installer needs openssl, and curl or wget",
)
#: Notes what it was called for; of a service that it was asked about it says that it is dead.
SYSTEMCTL = """#!/bin/sh
printf '%s\\n' "$*" >>{calls}
case $1 in show) echo ActiveState=failed ;; esac
"""


@pytest.fixture
def calls(machine: Machine) -> Path:
    """What systemctl was called for; with it the machine has a systemd."""
    (machine.root / "run/systemd/system").mkdir(parents=True)
    stub(machine, "systemctl", SYSTEMCTL.format(calls=machine.folder / "calls"))
    return machine.folder / "calls"


def stub(machine: Machine, program: str, text: str) -> None:
    (machine.folder / "bin" / program).write_text(text)
    (machine.folder / "bin" / program).chmod(0o755)


def put(machine: Machine, path: str, text: str = "") -> Path:
    file = machine.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


async def test_an_uninstallation_stops_and_disables_the_unit_even_if_its_program_is_gone(
    machine: Machine, calls: Path
) -> None:
    (machine.root / "opt/shrk").mkdir()
    unit = put(machine, "etc/systemd/system/shrk-node.service", "[Unit]\n")
    status, said = await machine.pipe(SCRIPT.read_text(), "--uninstall", "--yes")
    assert (status, unit.exists()) == (0, False), said
    assert "disable --now --quiet shrk-node.service" in calls.read_text().splitlines()


@pytest.mark.parametrize("before", ["", "[Unit]\n# as an owner has it\n"])
async def test_a_unit_that_is_taken_back_is_disabled_and_one_that_was_there_before_is_put_back(
    machine: Machine, calls: Path, before: str
) -> None:
    """The two functions alone: what comes before them takes twenty seconds."""
    path, root = "etc/systemd/system/shrk-node.service", machine.root
    unit = put(machine, path, before) if before else root / path
    state = "started='' ran='' previous='' previous_engine='' place='' fresh='' user_mode=1"
    state += " init=systemd systemctl=systemctl"
    places = f"tmp={machine.folder}/tmp opt={root}/opt/shrk etc={root}/etc/shrk var={root}/var units={unit.parent}"
    functions = SCRIPT.read_text().removesuffix('main "$@"; }')
    status, said = await machine.pipe(f"{functions}{state} {places}\nwrite_unit && cat $unit; take_back; }}\n")
    assert (status, "ExecStart=" in said) == (0, True), said
    assert (unit.read_text() if unit.exists() else "") == before
    expected = ["daemon-reload"] if before else ["disable --now --quiet shrk-node.service", "daemon-reload"]
    assert calls.read_text().splitlines() == ["daemon-reload", *expected]


@pytest.fixture
def agent(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    """A process that the service's script takes for an agent, and that does not end by itself."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code, "shrk_node_agent"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        put(machine, "opt/shrk/service.pid", f"{process.pid}\n")
        yield process
        process.kill()


@pytest.mark.parametrize(("settings", "seconds"), [("drain_seconds = 7\n", 47), ("", 150)])
async def test_an_agent_whose_program_is_gone_is_ended_after_its_drain_and_not_before(
    machine: Machine, agent: subprocess.Popen[bytes], settings: str, seconds: int
) -> None:
    put(machine, "etc/shrk/config.toml", settings)
    stub(machine, "sleep", f"#!/bin/sh\necho >>{machine.folder}/slept\n")
    status, said = await machine.pipe(SCRIPT.read_text(), "--uninstall", "--yes")
    assert (status, agent.wait()) == (0, -signal.SIGKILL), said
    assert len((machine.folder / "slept").read_text().splitlines()) == seconds


async def test_nothing_is_removed_where_nobody_has_agreed(machine: Machine) -> None:
    put(machine, "etc/shrk/config.toml", "drain_seconds = 7\n")
    before = machine.files()
    status, said = await machine.pipe(SCRIPT.read_text(), "--uninstall")
    assert (status, "not uninstalled: nobody can be asked" in said, "--yes" in said) == (2, True, True), said
    assert machine.files() == before


def a_coordinator_beside(machine: Machine) -> None:
    unit = f"[Service]\nExecStart={machine.root}/opt/shrk/current/bin/shrk coordinator serve\n"
    put(machine, "etc/systemd/system/shrk-coordinator.service", unit)


async def test_a_coordinator_that_runs_from_the_same_place_keeps_its_program(machine: Machine, calls: Path) -> None:
    a_coordinator_beside(machine)
    put(machine, "opt/shrk/versions/x/bin/shrk")
    before = machine.files()
    status, said = await machine.pipe(SCRIPT.read_text(), "--uninstall", "--yes")
    assert (status, "not uninstalled: the coordinator of this machine" in said) == (1, True), said
    assert "systemctl disable --now shrk-node." in said
    assert machine.files() == before


async def test_the_plan_says_what_becomes_of_a_coordinator_beside(offering: Network, machine: Machine) -> None:
    a_coordinator_beside(machine)
    status, said = await machine.pipe(await script_of(offering), "--dry-run", "--engine", "sim")
    assert (status, "THE COORDINATOR of this machine" in said, "restart shrk-coordinator" in said) == (0, True, True)


async def test_a_node_of_another_coordinator_stays_as_it_is_and_says_whose_it_is(
    offering: Network, machine: Machine
) -> None:
    put(machine, "etc/shrk/config.toml", 'controller = "tcp://other.example:9100"\n')
    before, script = machine.files(), await script_of(offering)
    status, said = await machine.pipe(script, "--engine", "sim", SHRK_JOIN_TOKEN=await offering.token("x"))
    assert (status, "names the coordinator at tcp://other.example:9100" in said) == (1, True), said
    assert "shrk set controller tcp://127.0.0.1:" in said
    put(machine, "var/lib/shrk/node/identity/ca.pem", another_ca())
    put(machine, "var/lib/shrk/node/identity/node.json", "{}")
    status, said = await machine.pipe(script, "--engine", "sim")
    assert (status, "belongs to the coordinator at tcp://other.example:9100" in said) == (1, True), said
    assert f"rm -r {machine.root}/var/lib/shrk/node/identity" in said
    assert set(before) <= set(machine.files())


def another_ca() -> str:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null")
    made = subprocess.run(
        ["openssl", "req", "-x509", *key, "-subj", "/CN=other"], capture_output=True, text=True, check=True
    )
    return made.stdout


@pytest.mark.parametrize(
    ("settings", "made", "engine"),
    [
        ('engine = "sim"\n', "", "engine: sim"),
        ('engine = "vllm"\n', "opt/shrk/engines/x/complete", "vLLM (cpu)"),
        (
            'engine = "vllm"\nengine_venv = "{root}/mine"  # of my own\n',
            "mine/bin/python",
            "engine: the one that is here",
        ),
    ],
)
async def test_a_second_run_needs_no_gpu_where_the_node_has_an_engine(
    offering: Network, machine: Machine, settings: str, made: str, engine: str
) -> None:
    stub(machine, "nvidia-smi", "#!/bin/sh\nexit 9\n")
    put(machine, "etc/shrk/config.toml", settings.format(root=machine.root))
    if made:
        put(machine, made, "torch==2.13.0+cpu\nvllm-cpu==0.32.0\n")
    if "engines" in made:
        (machine.root / "opt/shrk/engine").symlink_to(machine.root / "opt/shrk/engines/x")
    status, said = await machine.pipe(await script_of(offering), "--dry-run")
    assert (status, engine in said) == (0, True), said


async def test_a_program_that_somebody_else_put_there_is_left_alone(offering: Network, machine: Machine) -> None:
    put(machine, "opt/shrk/current/bin/shrk")
    before = machine.files()
    status, said = await machine.pipe(await script_of(offering), "--engine", "sim", "--no-service")
    assert (status, "none of this script's links" in said, machine.files()) == (1, True, before), said


async def test_a_tokens_file_that_cannot_be_read_is_named(machine: Machine) -> None:
    (machine.folder / "empty").write_text("\n")
    script = SCRIPT.read_text()
    status, said = await machine.pipe(script, "--token", f"file:{machine.folder}/none", "--engine", "sim")
    assert (status, f"file {machine.folder}/none cannot be read" in said) == (2, True), said
    status, said = await machine.pipe(script, "--engine", "sim", SHRK_JOIN_TOKEN=f"file:{machine.folder}/empty")
    assert (status, "is empty" in said) == (2, True), said


async def test_the_question_about_hours_names_the_time_zone(offering: Network, machine: Machine) -> None:
    (machine.folder / "script").write_text(await script_of(offering))
    status, shown = await asyncio.to_thread(answered, machine)
    assert (status, f"(time zone: {in_force('', zone(''))})" in shown) == (0, True), shown
    assert "temp_max 68, hours mon-fri 20:00-06:00" in shown


def answered(machine: Machine) -> tuple[int, str]:
    """What the script asks somebody at a terminal, and how it ends."""
    master, slave = pty.openpty()
    # Only who opens a terminal itself, in a session of its own, has it as its /dev/tty.
    opening = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execvp('sh', ['sh', *sys.argv[2:]])"
    words = (os.ttyname(slave), str(machine.folder / "script"), "--dry-run", "--engine", "sim")
    path = f"{machine.folder}/bin:{os.environ['PATH']}"
    environment = {"PATH": path, "TMPDIR": f"{machine.folder}/tmp", "SHRK_INSTALL_ROOT": str(machine.root)}
    with subprocess.Popen(
        [sys.executable, "-c", opening, *words],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(slave)
        terminal = Terminal(process, master)
        terminal.answer("Thermal cap", "68")
        terminal.answer("Payout address", "")
        terminal.answer("3 only while nobody else does even a little there", "2")
        terminal.answer("Hours (", "mon-fri 20:00-06:00")
        status = terminal.end()
    os.close(master)
    return status, terminal.shown
