"""The installer as a text: cut off anywhere it does nothing, and every shell can read it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from shrk_coordinator.data_plane.install import refusing_script
from support.cut import a_sandbox, harmful
from support.installer import SCRIPT


def test_a_script_that_is_cut_off_does_nothing() -> None:
    script = SCRIPT.read_bytes()
    assert not script.endswith(b"\n"), "its last byte is what starts it"
    before, _, _ = script.decode().partition("\n{\n")
    assert all(line.startswith("#") or not line for line in before.splitlines()), "the rest is one group in braces"
    # Where a name is cut off it may be another command's: `find_python` after four bytes.
    names = {match.end(1) for match in re.finditer(rb"^(find|set)_?\w+\(\)", script, re.MULTILINE)}
    assert names, "there are such names"
    sample = {*names, *range(0, len(script), 251), *range(len(script) - 300, len(script))}
    assert harmful(script, sorted(sample)) == {}


def test_a_script_that_is_whole_is_seen_to_do_something() -> None:
    script = SCRIPT.read_bytes()
    assert "called" in harmful(script, [len(script)])[len(script)]


def test_a_refusal_that_is_cut_off_does_nothing_either() -> None:
    script = refusing_script("it isn't here").encode()
    with a_sandbox() as sandbox:
        assert [n for n in range(len(script)) if sandbox.harm(script[:n])] == []


@pytest.mark.parametrize(
    "command",
    [("dash", "-n"), ("busybox", "sh", "-n"), ("bash", "--posix", "-n"), ("shellcheck", "-s", "sh")],
    ids=" ".join,
)
def test_shells_and_shellcheck_have_nothing_to_say(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine: apt install {command[0]}")
    ran = subprocess.run([*command, str(SCRIPT)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
