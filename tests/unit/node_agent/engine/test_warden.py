"""The warden, with real processes: whatever dies, nothing of the child outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shrk_node_agent.engine.warden import __file__ as WARDEN_FILE
from shrk_node_agent.engine.warden import boot_id, living_descendants, read_process
from support.processes import alive, wait_until_gone
from support.scripted_engine import __file__ as SCRIPTED_ENGINE
from support.wardens import SLEEPER, STUBBORN, start_family, start_warden, wait_for_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="death signals and subreapers are Linux's")

#: A parent that starts two wardens, one within the other, and tells all pids.
_NEST = """
import os, subprocess, sys
inner = [sys.executable, "-m", "shrk_node_agent.engine.warden", "--remove", sys.argv[2], "--",
         sys.executable, sys.argv[3], "--uds", "x", "--model", "m", "--family", "--deaf"]
agent = "import os, subprocess, signal, sys, time; signal.signal(15, signal.SIG_IGN);" \\
        "w = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(600)"
outer = subprocess.Popen([sys.executable, "-m", "shrk_node_agent.engine.warden", "--",
                          sys.executable, "-c", agent, *inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
outer.stdout.readline(), outer.stdout.readline()
with open(sys.argv[1], "w") as f:
    print(outer.pid, file=f)
outer.wait()
"""


def test_the_status_of_a_child_that_ends_by_itself_is_the_wardens() -> None:
    with start_warden("-c", "raise SystemExit(7)") as started:
        assert started.process.wait(timeout=30) == 7
        assert started.told()["boot_id"] == boot_id()
        assert started.told() == {"exited": 7}
        assert started.told() == {"returncode": 7, "killed": 0, "left": []}


def test_a_birth_names_pid_session_and_start_of_the_child() -> None:
    with start_warden(*SLEEPER) as started:
        born = started.told()
        entry = read_process(born["pid"])
        assert entry is not None
        assert started.line() == "up"
        assert (os.getsid(born["pid"]), entry.start) == (born["session"], born["start"])
        assert born["session"] == born["pid"]


def test_a_command_that_does_not_exist_is_said_and_ends_with_127(tmp_path: Path) -> None:
    with start_warden(program=str(tmp_path / "nothing")) as started:
        assert started.line() == f"cannot run {tmp_path}/nothing: No such file or directory"
        assert started.process.wait(timeout=30) == 127


def test_a_killed_head_leaves_no_relative_behind_not_even_one_that_left_the_session() -> None:
    started, family = start_family()
    with started:
        os.kill(family[0], signal.SIGKILL)
        assert started.process.wait(timeout=30) == 128 + signal.SIGKILL
        assert started.told() == {"exited": -signal.SIGKILL}
        assert started.told() == {"returncode": -signal.SIGKILL, "killed": 2, "left": []}
        assert not alive(family)


def test_the_parents_death_ends_everything_and_removes_the_files(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "socket").touch()
    file.touch()
    flags = ("--remove", str(folder), "--remove", str(file), "--remove", str(tmp_path / "never there"))
    started, family = start_family(flags)
    with started:
        started.abandon()
        started.process.wait(timeout=30)
        assert not alive(family)
        assert not folder.exists()
        assert not file.exists()


@pytest.mark.parametrize("way", ["signal", "control pipe"])
def test_a_stop_is_sigterm_first_and_the_child_may_end_by_itself(way: str) -> None:
    with start_warden(*SLEEPER) as started:
        started.told()
        assert started.line() == "up"
        if way == "signal":
            started.process.send_signal(signal.SIGTERM)
        else:
            started.say(b"stop 60\n")
        assert started.told() == {"exited": -signal.SIGTERM}
        assert started.told()["returncode"] == -signal.SIGTERM


@pytest.mark.parametrize("way", ["signal", "control pipe"])
def test_a_stop_is_sigkill_after_the_grace(way: str) -> None:
    with start_warden(*STUBBORN, flags=("--grace", "0.1")) as started:
        started.told()
        assert started.line() == "up"
        if way == "signal":
            started.process.send_signal(signal.SIGTERM)
        else:
            started.say(b"stop 0.1\n")
        assert started.told()["returncode"] == -signal.SIGKILL


def test_a_later_shorter_stop_shortens_the_grace() -> None:
    with start_warden(*STUBBORN) as started:
        started.told()
        assert started.line() == "up"
        started.say(b"stop 600\n")
        started.say(b"stop 0.1\n")
        assert started.told()["returncode"] == -signal.SIGKILL


def test_ctrl_c_and_a_closed_terminal_are_left_to_the_parent_and_not_inherited() -> None:
    show = "import signal; print(*(signal.getsignal(n) == signal.SIG_IGN for n in (1, 2, 3)), flush=True);"
    with start_warden("-c", show + SLEEPER[1]) as started:
        born = started.told()
        assert started.line() == "False False False"
        assert started.line() == "up"
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            started.process.send_signal(number)
        started.say(b"no order of ours\n")
        assert alive([born["pid"]])
        started.say(b"stop 60\n")
        assert started.told() == {"exited": -signal.SIGTERM}
        assert started.told()["returncode"] == -signal.SIGTERM


def test_zombies_of_orphans_are_collected_while_the_child_lives() -> None:
    orphan = (
        "import os, sys, time\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "    os._exit(0)\n"
        "time.sleep(600)\n"
    )
    with start_warden("-c", orphan) as started:
        started.told()
        pid = int(started.line())
        wait_until_gone([pid])
        started.abandon()


def test_the_childs_stdin_is_empty_and_not_the_control_pipe() -> None:
    with start_warden("-c", "import sys; print(len(sys.stdin.read()))") as started:
        assert started.line() == "0"


def test_a_killed_parent_of_nested_wardens_leaves_nothing_and_the_inner_one_cleans_up(tmp_path: Path) -> None:
    told, folder = tmp_path / "told", tmp_path / "inner files"
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, "-c", _NEST, str(told), str(folder), SCRIPTED_ENGINE])
    outer = int(wait_for_file(told))
    everything = [outer, *(entry.pid for entry in living_descendants(outer))]
    assert len(everything) == 6, "outer warden, agent, inner warden, engine and its two relatives"
    parent.kill()
    parent.wait(timeout=30)
    wait_until_gone(everything)
    assert not folder.exists()


def test_it_runs_as_a_plain_file_isolated_from_any_environment() -> None:
    with start_warden("-c", "print('up')", warden=("-I", "-S", WARDEN_FILE)) as started:
        assert started.line() == "up"
        assert started.process.wait(timeout=30) == 0
