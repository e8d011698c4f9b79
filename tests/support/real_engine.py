"""A real vLLM on a unix socket, serving shark-tiny: what the simulated engine is compared with.

Started directly, without the agent's supervision, so that the contract test needs nothing but an engine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv-engine" / "bin" / "python"
BUILDER = ROOT / "node_agent" / "shrk_node_agent" / "engine" / "tiny_model.py"
#: The Makefile's TINY: built once, by whoever comes first.
TINY = ROOT / ".cache" / "models" / "shark-tiny"

#: vLLM needs 25 to 40 s on two idle cores; a busy machine many times as long.
READY_SECONDS_MAX = 480.0
#: The builder takes about 20 s on two idle cores.
BUILD_SECONDS_MAX = 300.0

GENERATE_FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enable-scale-out")
EMBED_FLAGS = ("--runner", "pooling", "--convert", "embed")


def tiny_model() -> Path:
    """The folder of shark-tiny, built first where it is missing or older than its builder."""
    if not ENGINE_PYTHON.exists():
        raise RuntimeError("these tests need vLLM in .venv-engine: run `make engine`, then this again")
    config = TINY / "config.json"
    if not config.exists() or config.stat().st_mtime < BUILDER.stat().st_mtime:
        subprocess.run([str(ENGINE_PYTHON), str(BUILDER), str(TINY)], check=True, timeout=BUILD_SECONDS_MAX)
    return TINY


@asynccontextmanager
async def vllm(model: str, *flags: str, context_tokens: int = 65_536) -> AsyncIterator[Path]:
    """Serve shark-tiny under the name `model`; yields the socket once it answers, and leaves nothing behind."""
    source = tiny_model()
    # Short, as a unix socket's path holds 107 bytes; vLLM also leaves files in TMPDIR, so it gets its own.
    home = Path(tempfile.mkdtemp(prefix="shrk-vllm-"))
    socket = home / "engine.sock"
    process = _launch(source, home, socket, model, context_tokens, flags)
    try:
        await _until_ready(process, socket, home / "log")
        yield socket
    finally:
        _end_session(process)
        shutil.rmtree(home, ignore_errors=True)


def _launch(
    source: Path, home: Path, socket: Path, model: str, context_tokens: int, flags: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    command = [str(ENGINE_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(source)]
    command += ["--served-model-name", model, "--uds", str(socket), "--enforce-eager", "--dtype", "float32"]
    command += ["--max-model-len", str(context_tokens), *flags]
    environment = os.environ | {
        "TMPDIR": str(home),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


async def _until_ready(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
    while not await _answers(socket):
        late = asyncio.get_running_loop().time() > deadline
        if late or process.poll() is not None:
            state = "is not ready after its time" if late else f"ended with status {process.returncode}"
            raise RuntimeError(f"vLLM {state}; its last words:\n{_last_lines(log)}")
        await asyncio.sleep(0.2)  # vLLM tells nobody when it is ready; asking is the only way.


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


async def _answers(socket: Path) -> bool:
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket))) as session,
            session.get("http://engine/v1/models") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL everything of the engine's session: its core and its tracker outlive a mere SIGTERM."""
    for pid in _session_members(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(timeout=30)


def _session_members(session: int) -> list[int]:
    """Process ids whose session is `session`, the leader's own among them."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) == session:
                members.append(int(entry.name))
        except ProcessLookupError:
            continue
    return members
