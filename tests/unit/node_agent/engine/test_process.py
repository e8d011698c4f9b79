"""One life of an engine, with real processes: events in order, an end exactly once, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from shrk_contract.terms import Endpoint, Pin
from shrk_node_agent.engine.engine import EngineExited, EngineReady, EngineSpec, Task
from shrk_node_agent.engine.launch import Launch, Launcher, engine_environment
from shrk_node_agent.engine.process import OWN_ERROR, SOCKETS_FOLDER_BYTES_MAX, StartLimits
from shrk_node_agent.engine.sweep import sweep
from shrk_node_agent.engine.warden import read_process
from support.engine_lives import living, make_folders, scripted, short_home
from support.processes import alive, wait_until, wait_until_gone
from support.wardens import wait_for_file

SPEC = EngineSpec(id="org/tiny", model="tiny", source="unused", slots=3)

#: An agent of its own: starts a scripted engine with relatives, and tells all pids once it is ready.
_AGENT = """
import asyncio, sys, uvloop
from pathlib import Path
from support.engine_lives import living, scripted
from shrk_node_agent.engine.engine import EngineSpec
async def main():
    spec = EngineSpec(id="org/tiny", model="tiny", source="unused")
    async with living(Path(sys.argv[1]), spec, scripted("--family")) as life:
        await life.ready()
        Path(sys.argv[1], "told").write_text(" ".join(map(str, life.pids())) + "\\n")
        await asyncio.sleep(600)
uvloop.run(main())
"""


@pytest.fixture
async def home() -> AsyncIterator[Path]:
    async with short_home() as folder:
        yield folder


def left_files(home: Path) -> list[Path]:
    """Everything but logs."""
    return [*(home / "run").iterdir(), *(home / "s").iterdir()]


async def test_a_ready_engine_tells_what_it_can_do_and_leaves_nothing_after_its_stop(home: Path) -> None:
    async with living(home, SPEC, scripted()) as life:
        ready = await life.ready()
        assert ready.endpoints == (Endpoint.COMPLETIONS, Endpoint.CHAT_COMPLETIONS)
        assert (ready.slots, ready.context_tokens) == (3, 4096)
        assert (ready.pin.engine, ready.pin.engine_version, ready.pin.tool_parser) == ("scripted", "1.2.3", "hermes")
        assert life.engine is not None
        socket = life.engine.socket
        assert stat.S_ISSOCK(socket.stat().st_mode)
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert (socket.parent / "left-behind").exists(), "its TMPDIR is its own folder"
        pids = life.pids()
        assert alive(pids) == [*pids]
        await life.engine.stop(grace_seconds=5)
        assert not alive(pids)
        assert life.pids() == ()
        assert isinstance(life.events[-1], EngineExited)
        assert (life.events[-1].reason, life.events[-1].incompatible) == ("Stopped", False)
    assert not left_files(home)


async def test_an_end_is_told_exactly_once_and_last(home: Path) -> None:
    async with living(home, SPEC, scripted()) as life:
        await life.ready()
        assert life.engine is not None
        await asyncio.gather(*(life.engine.stop(grace_seconds=5) for _ in range(3)))
        await life.engine.stop(grace_seconds=5)
    kinds = [type(event) for event in life.events]
    assert (kinds.count(EngineReady), kinds.count(EngineExited), kinds[-1]) == (1, 1, EngineExited)


async def test_loading_is_told_in_the_engines_words_with_its_progress(home: Path) -> None:
    bars = ("--say", "Loading shards:  50% Completed | 1/2 [0:01<?]", "--say", "(W pid=1) KV cache size: 12")
    async with living(home, SPEC, scripted(*bars)) as life:
        await life.ready()
    told = [(step.detail, step.progress) for step in life.loading()]
    assert told == [
        ("starting", None),
        ("loading weights", 0.5),
        ("warming up", None),
        ("asking for the first token", None),
    ]
    elapsed = [step.elapsed_seconds for step in life.loading()]
    assert elapsed == sorted(elapsed)


async def test_an_embedding_engine_is_ready_by_an_embedding(home: Path) -> None:
    spec = EngineSpec(id="e", model="tiny-embed", source="unused", task=Task.EMBED)
    async with living(home, spec, scripted()) as life:
        assert (await life.ready()).endpoints == (Endpoint.EMBEDDINGS,)


async def test_a_model_without_a_chat_template_offers_no_chat(home: Path) -> None:
    async with living(home, SPEC, scripted("--refuse", "/v1/chat/completions")) as life:
        assert (await life.ready()).endpoints == (Endpoint.COMPLETIONS,)


async def test_an_engine_that_refuses_every_first_request_is_incompatible(home: Path) -> None:
    refuse = ("--refuse", "/v1/chat/completions", "--refuse", "/v1/completions")
    async with living(home, SPEC, scripted(*refuse)) as life:
        exited = await life.exited()
    assert exited.incompatible
    assert "not for this model" in exited.reason


async def test_an_engine_that_is_healthy_and_gives_no_token_never_becomes_ready(home: Path) -> None:
    limits = StartLimits(look_interval_seconds=0.01, first_token_attempts=2)
    async with living(home, SPEC, scripted("--fail", "500"), limits) as life:
        exited = await life.exited()
    assert not exited.incompatible
    assert exited.reason == (
        'The engine gives no first token: /v1/completions answers 500: {"error": {"message": "out of order"}}'
    )


async def test_an_engine_that_falls_silent_on_the_way_up_is_ended(home: Path) -> None:
    limits = StartLimits(look_interval_seconds=0.01, silence_seconds=0.2)
    async with living(home, SPEC, scripted("--deaf", "--family"), limits) as life:
        exited = await life.exited()
    assert exited.reason == "The engine wrote nothing for 0.2 s while starting"
    assert not exited.incompatible
    assert not left_files(home)


async def test_an_engine_that_cannot_load_is_incompatible_with_its_own_last_lines(home: Path) -> None:
    lines = ["(W pid=9) ERROR 11-20 12:15:04 [x.py:95] safetensors.SafetensorError: invalid header", "  and more"]
    says = [flag for line in lines for flag in ("--say", line)]
    async with living(home, SPEC, scripted(*says, "--exit", "1")) as life:
        exited = await life.exited()
    assert (exited.returncode, exited.incompatible, exited.tail) == (1, True, tuple(lines))
    assert exited.reason == "The engine ended with status 1 before it was ready: SafetensorError: invalid header"
    assert (home / "logs" / "org%2Ftiny.log").read_text().splitlines() == lines
    assert not left_files(home)


async def test_a_path_with_nothing_at_it_is_named_in_the_reason(home: Path) -> None:
    async with living(home, SPEC, scripted("--say", "no such thing", "--exit", "1", source="/no/where")) as life:
        exited = await life.exited()
    assert exited.incompatible
    assert exited.reason == "There is nothing at /no/where; the engine says: no such thing"


async def test_running_out_of_memory_on_the_way_up_is_not_incompatible(home: Path) -> None:
    says = ("--say", "torch.OutOfMemoryError: CUDA out of memory.", "--exit", "1")
    async with living(home, SPEC, scripted(*says)) as life:
        assert not (await life.exited()).incompatible


async def test_an_engine_killed_before_it_was_ready_is_not_incompatible(home: Path) -> None:
    async with living(home, SPEC, scripted("--deaf", "--family")) as life:
        await asyncio.to_thread(wait_until, lambda: len(life.pids()) == 3, "engine and relatives run")
        pids = life.pids()
        os.kill(pids[0], signal.SIGKILL)
        exited = await life.exited()
        assert not alive(pids)
    assert (exited.returncode, exited.incompatible) == (-signal.SIGKILL, False)
    assert "killed by SIGKILL before it was ready" in exited.reason


async def test_a_killed_engine_leaves_no_process_behind(home: Path) -> None:
    async with living(home, SPEC, scripted("--family")) as life:
        await life.ready()
        pids = life.pids()
        assert len(pids) == 3
        os.kill(pids[0], signal.SIGKILL)
        exited = await life.exited()
        assert not alive(pids)
    assert exited.reason.startswith("The engine was killed by SIGKILL;")
    assert not left_files(home)


@pytest.mark.parametrize(
    ("number", "crash"),
    [
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1}"),
        (signal.SIGKILL, ""),
        (signal.SIGTERM, ""),
    ],
)
async def test_an_end_by_a_signal_is_a_crash_unless_somebody_else_sent_it(home: Path, number: int, crash: str) -> None:
    async with living(home, SPEC, scripted("--family")) as life:
        await life.ready()
        assert life.engine is not None
        asked = asyncio.create_task(life.engine.crash())
        os.kill(life.pids()[0], number)
        assert await asked == crash
        await life.exited()
        assert await life.engine.crash() == crash, "it can be asked for at any time"


async def test_an_engine_that_ends_with_a_status_has_crashed(home: Path) -> None:
    async with living(home, SPEC, scripted("--exit", "3")) as life:
        assert life.engine is not None
        assert await life.engine.crash() == "exit status 3"


async def test_an_engine_that_we_end_or_that_we_cannot_start_has_not_crashed(home: Path) -> None:
    limits = StartLimits(look_interval_seconds=0.01, silence_seconds=0.2)
    async with living(home, SPEC, scripted("--deaf", "--stopped", "3"), limits) as given_up:
        assert given_up.engine is not None
        assert await given_up.engine.crash() == ""
    async with living(home, SPEC, scripted("--stopped", "3")) as stopped:
        await stopped.ready()
        assert stopped.engine is not None
        await stopped.engine.stop(grace_seconds=5)
        assert (await stopped.exited()).returncode == 3
        assert await stopped.engine.crash() == ""
    (home / "run").rmdir()
    (home / "run").write_text("a file in the way")
    async with living(home, SPEC, scripted()) as never:
        assert never.engine is not None
        assert await never.engine.crash() == ""


async def test_a_killed_warden_leaves_no_process_of_the_session_behind(home: Path) -> None:
    async with living(home, SPEC, scripted("--family")) as life:
        await life.ready()
        head, *relatives = life.pids()
        near = next(pid for pid in relatives if os.getsid(pid) == head)
        entry = read_process(head)
        assert entry is not None
        os.kill(entry.parent, signal.SIGKILL)  # The warden.
        exited = await life.exited()
        assert not alive([head, near])
        assert (exited.returncode, exited.incompatible) == (-signal.SIGKILL, False)
        assert life.engine is not None
        assert await life.engine.crash() == ""
        for pid in alive(relatives):  # The one that left the session: only a living warden finds that one.
            os.kill(pid, signal.SIGKILL)
    assert not left_files(home)


async def test_a_killed_agent_leaves_no_process_no_socket_and_no_record_behind(home: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", _AGENT, str(home), env=environment)
    told = await asyncio.to_thread(wait_for_file, home / "told")
    pids = [int(pid) for pid in told.split()]
    assert len(pids) == 3
    agent.kill()
    await agent.wait()
    await asyncio.to_thread(wait_until_gone, pids)
    await asyncio.to_thread(wait_until, lambda: not left_files(home), "the warden has removed its files")
    assert sweep(home / "run") == ()


async def test_a_stop_while_coming_up_ends_the_way_up(home: Path) -> None:
    async with living(home, SPEC, scripted("--deaf")) as life:
        pass
    assert isinstance(life.events[-1], EngineExited)
    assert life.events[-1].reason == "Stopped"
    assert not left_files(home)


async def test_a_folder_too_long_for_sockets_is_refused_with_its_length() -> None:
    home = Path("/tmp") / ("x" * SOCKETS_FOLDER_BYTES_MAX)
    async with living(home, SPEC, scripted()) as life:
        exited = await life.exited()
    assert (exited.returncode, exited.incompatible) == (None, True)
    assert f"leaves {SOCKETS_FOLDER_BYTES_MAX}: choose a shorter folder" in exited.reason
    assert not home.exists()


async def test_folders_that_cannot_be_made_are_told_as_an_end(home: Path) -> None:
    make_folders(home).run.write_text("a file in the way")
    async with living(home, SPEC, scripted()) as life:
        exited = await life.exited()
    assert (exited.returncode, exited.incompatible) == (None, False)
    assert "File exists" in exited.reason


async def test_an_end_is_told_though_its_files_cannot_be_removed(home: Path) -> None:
    async with living(home, SPEC, scripted()) as life:
        await life.ready()
        for folder in ("run", "s"):
            (home / folder).rename(home / f"{folder}-elsewhere")
            (home / folder).write_text("a file in the way")
        os.kill(life.pids()[0], signal.SIGKILL)
        exited = await life.exited()
    assert exited.reason.startswith("The engine was killed by SIGKILL;")
    assert f"{home / 'run' / 'org%2Ftiny.json'} cannot be removed: Not a directory" in exited.reason
    assert [type(event) for event in life.events].count(EngineExited) == 1


async def test_an_engine_killed_by_a_signal_without_a_name_is_told_with_its_number(home: Path) -> None:
    async with living(home, SPEC, scripted()) as life:
        await life.ready()
        os.kill(life.pids()[0], signal.SIGRTMIN + 1)
        exited = await life.exited()
    assert exited.reason == f"The engine was killed by signal {signal.SIGRTMIN + 1}"
    assert not left_files(home)


def misled(*command: str) -> Launcher:
    """A launcher with a bug: its pattern has no first group, so that a matching line is an error of ours."""

    def launcher(_spec: EngineSpec, _socket: Path) -> Launch:
        pattern = ("engine_version", re.compile("version"))
        return Launch(command, engine_environment(), Pin(engine="misled"), pin_patterns=(pattern,))

    return launcher


async def test_an_error_of_ours_at_the_end_is_told_as_an_end(home: Path) -> None:
    # Without a newline the line is looked at when all is over.
    async with living(home, SPEC, misled("/bin/sh", "-c", "printf version")) as life:
        exited = await life.exited()
    assert (exited.reason, exited.incompatible) == (OWN_ERROR, False)
    assert [type(event) for event in life.events].count(EngineExited) == 1
    assert not left_files(home)


async def test_an_error_of_ours_while_the_engine_runs_ends_the_engine(home: Path) -> None:
    async with living(home, SPEC, misled("/bin/sh", "-c", "echo version; sleep 600")) as life:
        exited = await life.exited()
    assert (exited.reason, exited.incompatible) == (OWN_ERROR, False)
    assert life.pids() == ()
    assert not left_files(home)


async def test_an_error_of_ours_on_the_way_up_ends_the_engine_and_its_stop_does_not_fail(home: Path) -> None:
    def launcher(spec: EngineSpec, socket: Path) -> Launch:
        unknown = ("no_part_of_a_pin", re.compile("(version)"))
        return replace(scripted("--say", "version")(spec, socket), pin_patterns=(unknown,))

    async with living(home, SPEC, launcher) as life:
        exited = await life.exited()
    assert (exited.reason, exited.incompatible) == (OWN_ERROR, False)
    assert not left_files(home)


async def test_an_error_of_ours_before_there_is_an_engine_is_told_as_an_end(home: Path) -> None:
    async with living(home, SPEC, misled("/bin/sh", "-c", "a null byte: \0")) as life:
        exited = await life.exited()
    assert (exited.returncode, exited.reason) == (None, OWN_ERROR)
    assert not left_files(home)
