"""New settings for an agent that runs: what it takes in, what waits, and what a wrong file does to it: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shrk_contract.settings import load
from shrk_node_agent.app import Agent
from shrk_node_agent.hangup import answering_hangup
from shrk_node_agent.reload import RELOADED, Changes, compare, merged
from shrk_node_agent.settings import AgentSettings

CATALOGUE = {"a": {"source": "a", "memory_gb": 2}, "b": {"source": "b", "memory_gb": 3}}


def settings(**given: object) -> AgentSettings:
    return load(AgentSettings, **{"engine": "sim", "catalogue": CATALOGUE, **given})


def test_what_can_be_taken_in_while_running_are_settings() -> None:
    assert set(AgentSettings.model_fields) >= RELOADED


def test_terms_are_taken_in_and_what_the_agent_is_waits_for_a_restart() -> None:
    new = settings(temp_max=60, schedule="22:00-08:00", when="idle", controller="tcp://h:1", gpu="none", name="x")
    changes = compare(settings(), new)
    assert changes == Changes(("temp_max", "schedule", "when"), ("controller", "name", "gpu"))
    assert changes.sentence() == "taken in: temp_max, schedule, when; after a restart only: controller, name, gpu"


def test_settings_that_are_the_same_change_nothing() -> None:
    assert compare(settings(), settings()) == Changes()
    assert Changes().sentence() == "nothing changed"


def test_models_are_taken_in_as_far_as_the_catalogue_has_them() -> None:
    assert compare(settings(), settings(models=["b"], memory_gb=4)).applied == ("models", "memory_gb")
    larger = {**CATALOGUE, "c": {"source": "c", "memory_gb": 1}}
    assert compare(settings(), settings(models=["c"], catalogue=larger)) == Changes((), ("models", "catalogue"))


def test_memory_waits_with_the_sizes_that_make_it_enough() -> None:
    smaller = {"a": {"source": "a", "memory_gb": 1}, "b": {"source": "b", "memory_gb": 1}}
    assert compare(settings(), settings(memory_gb=1, catalogue=smaller)).needs_restart == ("catalogue", "memory_gb")


def test_the_settings_that_hold_are_the_old_ones_with_what_was_taken_in() -> None:
    held = merged(settings(), settings(temp_max=60, gpu="none", models=["b"]))
    assert (held.temp_max, held.gpu, held.models) == (60, "auto", ("b",))


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("SHRK_CONFIG", str(path))
    path.write_text(f'engine = "sim"\nstate_dir = "{tmp_path}"\n[catalogue.m]\nsource = "x"\n')
    return path


def read() -> AgentSettings:
    return load(AgentSettings)


async def test_an_agent_takes_in_new_terms_and_says_what_waits(file: Path) -> None:
    agent = Agent(read())
    before = agent.driver.state.revision
    file.write_text('temp_max = 55\nname = "other"\n' + file.read_text())
    await agent.reload(read)
    assert agent._settings.temp_max == 55
    assert agent._settings.name != "other"
    assert agent._status()["settings"] == {"problems": [], "needs_restart": ["name"]}
    assert agent.driver.state.revision > before, "who waits for the status hears of it"


async def test_a_wrong_file_changes_nothing_and_the_status_says_what_is_wrong(file: Path) -> None:
    agent = Agent(read())
    right = file.read_text()
    file.write_text("temp_max = 30\n" + right)
    await agent.reload(read)
    assert agent._settings.temp_max == 70
    told = agent._status()["settings"]
    assert isinstance(told, dict)
    [problem] = told["problems"]
    assert problem.startswith(f"{file}:1: temp_max: ")
    file.write_text("temp_max = 60\n" + right)
    await agent.reload(read)
    assert agent._settings.temp_max == 60
    assert agent._status()["settings"] == {"problems": [], "needs_restart": []}


async def test_a_file_that_is_nested_without_end_does_not_end_an_agent_that_runs(file: Path) -> None:
    agent = Agent(read())
    file.write_text("models = " + "[" * 5000 + "]" * 5000 + "\n" + file.read_text())
    await agent.reload(read)
    told = agent._status()["settings"]
    assert isinstance(told, dict)
    [problem] = told["problems"]
    assert problem.startswith(f"{file} has lists or tables in each other, too deep to be read")


async def test_each_hangup_asks_for_a_reload() -> None:
    reloads = asyncio.Queue[None]()

    async def reload() -> None:
        reloads.put_nowait(None)

    async with answering_hangup(reload, lambda: True):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await reloads.get()


#: Notes what becomes of it in the file that it is given.
PROGRAM = """
import asyncio, os, sys
from shrk_contract.service import run_until_signalled
from shrk_node_agent.hangup import answering_hangup

def note(what):
    with open(sys.argv[1], "a") as file:
        print(what, file=file)

class Service:
    async def start(self): os.write(1, b"up")
    async def drain(self): note("drained")
    async def stop(self): note("stopped")

async def reload():
    note("reloaded")
    os.write(1, b"again")

async def run():
    async with answering_hangup(reload):
        await run_until_signalled(Service())

asyncio.run(run())
"""


def test_a_program_on_a_terminal_reloads_when_it_is_asked_and_drains_when_the_terminal_goes(
    tmp_path: Path,
) -> None:
    notes = tmp_path / "notes"
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL + PROGRAM, str(notes)], stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        _read_until(ours, b"up")
        process.send_signal(signal.SIGHUP)
        _read_until(ours, b"again")
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    assert notes.read_text().split() == ["reloaded", "drained", "stopped"]


#: A session of its own, whose terminal is standard input: as a login has it.
_ON_A_TERMINAL = """
import fcntl, os, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
"""


def _read_until(terminal: int, words: bytes) -> None:
    said = b""
    while words not in said:
        said += os.read(terminal, 1000)
