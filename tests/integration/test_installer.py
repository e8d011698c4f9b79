"""The installer as an owner meets it: one line, a node that is online; one more, and nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from pathlib import Path

import aiohttp
import pytest

from shrk_node_agent.default_file import commented_file
from shrk_node_agent.engine.process import SOCKETS_FOLDER_BYTES_MAX
from support.installer import SCRIPT, Machine, an_altered_release, clean, make_release, put_torch, script_of
from support.network import Network, until

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or (shutil.which("curl") is None and shutil.which("wget") is None),
    reason="the installer needs openssl, and curl or wget",
)


@pytest.mark.timeout(300)
async def test_one_line_makes_a_node_and_another_removes_it(offering: Network, machine: Machine) -> None:
    # Root's own mask may be any.
    script, token = f"umask 077\n{await script_of(offering)}", await offering.token("me")
    (machine.folder / "token").write_text(f"{token}\n")

    status, said = await machine.pipe(script, "--token", f"file:{machine.folder}/token", SHRK_ENGINE="sim")
    assert status == 0, said
    try:
        assert "RTX 4090" in said
        assert "RTX 3060" in said
        assert said.index("Plan ") < said.index("[2/5]"), "the plan comes before anything is changed"
        assert said.splitlines()[-1].startswith("This node is online and takes requests for shark-sim.")
        assert "shrk doctor --quick: nothing failed" in said
        assert token not in said
        assert all(mode & 0o055 == 0o055 for mode in programs(machine)), "the service's user may read what it runs"
        await until(lambda: offering.serving("shark-sim") == 1, "the coordinator knows the node")
        await answers(offering)
        config = machine.root / "etc/shrk/config.toml"
        assert config.stat().st_mode & 0o777 == 0o640
        assert "\ntemp_max = 70\n" in config.read_text()
        assert config.read_text().startswith(commented_file().partition("\n")[0]), "the product's own file"
        assert "\n# name = " in config.read_text(), "with what was not chosen, too"
        assert token not in "".join(p.read_text() for p in (machine.root / "etc").rglob("*") if p.is_file())
        identity = (machine.root / "var/lib/shrk/node/identity/node.json").read_text()
        assert await version_of(machine) == "shrk 0.1.0"

        config.write_text(config.read_text() + "# mine\n")
        before = machine.files()
        status, said = await machine.pipe(script, SHRK_ENGINE="sim")
        assert status == 0, said
        assert "is kept as it is" in said
        assert machine.files() == before, "a second run changes nothing"
        assert config.read_text().endswith("# mine\n")
        assert (machine.root / "var/lib/shrk/node/identity/node.json").read_text() == identity
    finally:
        kept_status, kept_said = await machine.pipe(script, "--uninstall", "--yes", "--keep-config")
    assert kept_status == 0, kept_said
    files = [name for name in machine.files() if (machine.root / name).is_file()]
    assert {name.rpartition("/")[0] for name in files} == {"etc/shrk", "var/lib/shrk/node/identity"}
    await until(lambda: offering.serving("shark-sim") == 0, "the node is gone")

    status, said = await machine.pipe(script, "--uninstall", "--yes", "--purge")
    assert (status, said.splitlines()[-1]) == (0, "shrk is uninstalled")
    assert machine.files() == clean()


@pytest.mark.timeout(300)
async def test_one_user_installs_it_below_their_home_and_removes_it_by_the_command(
    offering: Network, machine: Machine
) -> None:
    script, token = await script_of(offering), await offering.token("me")
    home = machine.root / "me"
    theirs = at_home_in("/me")
    shrk = home / ".local/bin/shrk"

    # A first try whose link is blocked, after its enrolment: that is what the token was good for.
    blocked, enrolled = re.sub(r"link='[^']*'", "link='tcp://127.0.0.1:1'", script), identity_of(home)
    said = await machine.pipe_until(enrolled.exists, blocked, "--user", "--token", token, SHRK_ENGINE="sim", **theirs)
    assert "run this again without one" in said
    assert {path.parent for path in home.rglob("*") if path.is_file()} == {enrolled.parent, enrolled.parents[2]}
    identity = enrolled.read_text()

    status, said = await machine.pipe(script, "--user", SHRK_ENGINE="sim", **theirs)
    assert status == 0, said
    try:
        assert said.splitlines()[-1].startswith("This node is online and takes requests for shark-sim.")
        assert f"{shrk.parent} is not in your PATH" in said
        assert [name for name in machine.files() if name != "me" and not name.startswith("me/")] == clean(), (
            "all of it is below HOME"
        )
        await until(lambda: offering.serving("shark-sim") == 1, "the coordinator knows the node")
        assert enrolled.read_text() == identity, "it is the node that was enrolled"

        before = machine.files()
        status, said = await machine.pipe(script, "--user", SHRK_ENGINE="sim", **theirs)
        assert (status, "is kept as it is" in said, machine.files()) == (0, True, before), said
        status, said = await machine.type(shrk, "start", **theirs)
        assert (status, "runs already" in said) == (0, True), said
    finally:
        kept_status, kept_said = await machine.type(shrk, "uninstall", "--yes", "--keep-config", **theirs)
    assert kept_status == 0, kept_said
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert {str(path.parent) for path in files} == {".config/shrk", ".local/state/shrk/node/identity"}
    await until(lambda: offering.serving("shark-sim") == 0, "the node is gone")

    status, said = await machine.pipe(script, "--user", "--uninstall", "--yes", **theirs)
    assert (status, said.splitlines()[-1]) == (0, "shrk is uninstalled"), said
    assert machine.files() == clean(), "the folders that the first installation made are gone, too"


async def test_a_home_too_deep_for_sockets_is_told_so_before_anything_is_changed(machine: Machine) -> None:
    script = SCRIPT.read_text().replace("@SHRK_URL@", "http://127.0.0.1:9")
    status, said = await machine.pipe(script, "--user", SHRK_ENGINE="sim", HOME="/somebody/with/quite/a/long/name")
    assert (status, "56 is the most" in said, "without --user" in said) == (1, True, True), said
    assert machine.files() == clean()
    assert SOCKETS_FOLDER_BYTES_MAX == 56, "what the script says is what the agent holds to"


def programs(machine: Machine) -> list[int]:
    """The modes of the folders that a service's user must come through."""
    folders = [machine.root / "opt/shrk", machine.root / "etc/shrk", *(machine.root / "opt/shrk/versions").iterdir()]
    return [folder.stat().st_mode for folder in folders]


def identity_of(home: Path) -> Path:
    """What is written last of it, where somebody installed a node for themselves."""
    return home / ".local/state/shrk/node/identity/node.json"


def at_home_in(home: str) -> dict[str, str]:
    """The variables of somebody who lives there, and has our settings of pip."""
    ours = Path.home() / ".config/pip/pip.conf"
    return {"HOME": home, "PIP_NO_CACHE_DIR": "1"} | ({"PIP_CONFIG_FILE": str(ours)} if ours.exists() else {})


@pytest.mark.timeout(300)
async def test_without_an_engine_nothing_is_started_and_one_for_processors_is_installed_once(
    offering: Network, dist: Path, machine: Machine
) -> None:
    links = {"PIP_FIND_LINKS": with_ours(machine)}
    with an_altered_release(dist, "engine-cpu.txt", put_torch(machine.folder / "wheels")):
        script = await script_of(offering)
        status, said = await machine.pipe(script, "--engine", "none", **links)
        assert (status, said.splitlines()[-1]) == (0, "shrk 0.1.0 is installed; nothing was started."), said
        assert "shrk set engine_venv DIR" in said
        status, said = await machine.pipe(script, "--engine", "cpu", "--no-service", **links)
        assert status == 0, said
        assert (machine.root / "opt/shrk/engine/bin/python").exists()
        assert f'engine_venv = "{machine.root}/opt/shrk/engine"' in (machine.root / "etc/shrk/config.toml").read_text()
        status, said = await machine.pipe(script, "--no-service", **links)
        assert (status, "the engine is here already" in said) == (0, True), f"GPUs or not, it is this one's: {said}"
    status, said = await machine.type(machine.root / "usr/local/bin/shrk", "uninstall", "--yes")
    assert (status, machine.files()) == (0, clean()), said


async def test_an_engine_that_knows_no_gpus_is_not_taken_for_one_that_does(
    offering: Network, dist: Path, machine: Machine
) -> None:
    with an_altered_release(dist, "engine-cuda.txt", put_torch(machine.folder / "wheels")):
        status, said = await machine.pipe(
            await script_of(offering), "--engine", "vllm", "--no-service", PIP_FIND_LINKS=with_ours(machine)
        )
    assert (status, "knows no GPUs" in said, "PIP_CONFIG_FILE=/dev/null" in said) == (1, True, True), said
    assert machine.files() == clean()


def with_ours(machine: Machine) -> str:
    """Where pip finds wheels: where it does anyhow, and in our own folder."""
    return f"{os.environ.get('PIP_FIND_LINKS', '')} {machine.folder / 'wheels'}".strip()


async def answers(network: Network) -> None:
    """One request, through the coordinator, to the node that was installed."""
    body = {"model": "shark-sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    headers = {"Authorization": f"Bearer {network.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{network.base_url}/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert json.loads(await answer.text())["choices"][0]["message"]["content"]


async def version_of(machine: Machine) -> str:
    process = await asyncio.create_subprocess_exec(
        str(machine.root / "usr/local/bin/shrk"), "--version", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return said.decode().strip()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--engine", "gpu"], "--engine gpu is none of vllm, cpu, sim, none"),
        (["--temp-max", "96"], "40 to 95"),
        (["--temp-max", "39"], "40 to 95"),
        (["--temp-max", "70;id"], "40 to 95"),
        (["--schedule", '22:00-08:00"\nengine = "x'], "such as 22:00-08:00"),
        (["--when", "never"], "always or idle"),
        (["--token", "a b"], "the join token is damaged"),
        (["--tokn", "x"], "--tokn is not an option"),
        (["--token"], "--token needs a value"),
        (["--purge"], "go with --uninstall"),
        (["--uninstall", "--yes", "--purge", "--keep-config"], "choose one"),
    ],
)
async def test_wrong_options_change_nothing_and_end_with_2(machine: Machine, options: list[str], words: str) -> None:
    script = SCRIPT.read_text().replace("@SHRK_URL@", "http://127.0.0.1:9")
    status, said = await machine.pipe(script, *options)
    refused = "not uninstalled" if "--uninstall" in options else "not installed"
    assert (status, words in said, refused in said) == (2, True, True), said
    assert machine.files() == clean()


async def test_a_dry_run_shows_the_plan_and_changes_nothing(offering: Network, machine: Machine) -> None:
    status, said = await machine.pipe(await script_of(offering), "--dry-run", SHRK_ENGINE="sim")
    assert status == 0, said
    assert "temp_max 70" in said
    assert machine.files() == clean()
    assert list((machine.folder / "tmp").iterdir()) == []


async def test_a_payout_address_with_a_wrong_digit_stops_it(offering: Network, machine: Machine) -> None:
    right = "0x52908400098527886E0F7030069857D2E4169EE7"
    script = await script_of(offering)
    status, said = await machine.pipe(script, "--dry-run", "--payout", right.replace("52", "53"), SHRK_ENGINE="sim")
    assert (status, "not installed" in said, "checksum" in said) == (1, True, True), said
    status, said = await machine.pipe(script, "--dry-run", "--payout", right, SHRK_ENGINE="sim")
    assert (status, right in said) == (0, True), said


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("no token", [], "a join token is needed"),
        ("a token of another coordinator", ["--token", "shrk_join_abc.9101.AAAA.00000000"], "another coordinator's"),
        ("another version", ["--version", "9.9.9"], "version 9.9.9 was asked for"),
    ],
)
async def test_what_cannot_work_stops_before_the_download(
    offering: Network, machine: Machine, name: str, options: list[str], words: str
) -> None:
    status, said = await machine.pipe(await script_of(offering), *options, SHRK_ENGINE="sim")
    assert (status, words in said, "not installed" in said, "[1/5]" in said) == (1, True, True, False), (name, said)
    assert machine.files() == clean()


@pytest.mark.parametrize(
    ("program", "says", "words"),
    [
        ("uname", "Darwin", "macOS is not supported yet"),
        ("uname", "MINGW64_NT", "Windows is not supported yet"),
        ("uname", "FreeBSD", "FreeBSD is not supported yet"),
        ("nvidia-smi", "", "--engine cpu serves from the processor"),
    ],
)
async def test_a_machine_that_is_not_for_it_is_told_so(
    offering: Network, machine: Machine, program: str, says: str, words: str
) -> None:
    (machine.folder / "bin" / program).write_text(f"#!/bin/sh\n{f'echo {says}' if says else 'exit 9'}\n")
    (machine.folder / "bin" / program).chmod(0o755)
    status, said = await machine.pipe(await script_of(offering), "--token", await offering.token("x"))
    assert (status, words in said, "not installed" in said) == (1, True, True), said
    assert machine.files() == clean()


@pytest.mark.parametrize(("path", "words"), [(".dockerenv", "Docker"), ("run/openrc", "OpenRC")])
async def test_docker_and_openrc_are_not_supported_yet(
    offering: Network, machine: Machine, path: str, words: str
) -> None:
    (machine.root / path).mkdir(parents=True)
    before = machine.files()
    status, said = await machine.pipe(await script_of(offering), SHRK_ENGINE="sim")
    assert (status, words in said, "not supported yet" in said, "not installed" in said) == (1, True, True, True), said
    assert machine.files() == before


async def test_files_that_the_release_key_did_not_sign_are_not_installed(
    offering: Network, dist: Path, machine: Machine
) -> None:
    script = await script_of(offering)
    await asyncio.to_thread(make_release, machine.folder / "other" / "dist")
    signature = dist / "SHA256SUMS.sig"
    right = signature.read_bytes()
    signature.write_bytes((machine.folder / "other" / "dist" / "SHA256SUMS.sig").read_bytes())
    try:
        status, said = await machine.pipe(script, SHRK_ENGINE="sim", SHRK_JOIN_TOKEN=await offering.token("x"))
    finally:
        signature.write_bytes(right)
    assert (status, "not by the release key" in said, "not installed" in said) == (1, True, True), said
    assert machine.files() == clean()


async def test_a_failure_half_way_leaves_nothing(offering: Network, machine: Machine) -> None:
    (machine.folder / "empty").mkdir()
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(machine.folder / "empty"), "PIP_CONFIG_FILE": "/dev/null"}
    token = await offering.token("x")
    status, said = await machine.pipe(await script_of(offering), "--engine", "sim", "--token", token, **nowhere)
    assert (status, "[2/5]" in said) == (1, True), said
    assert said.splitlines()[-1].startswith("shrk: not installed: pip could not install")
    assert machine.files() == clean()
    assert list((machine.folder / "tmp").iterdir()) == []


async def test_a_copy_that_no_coordinator_served_says_how_to_get_one(machine: Machine) -> None:
    status, said = await machine.pipe(SCRIPT.read_text(), SHRK_ENGINE="sim")
    assert (status, "not installed" in said, "COORDINATOR/install" in said) == (1, True, True), said
    assert machine.files() == clean()
