"""The same requests for embeddings to the simulated engine and to shark-tiny in a real vLLM."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shrk_node_agent.engine.engine import Task
from shrk_node_agent.engine.simulated.server import Plan, serving
from support.real_engine import EMBED_FLAGS, vllm
from support.shapes import ask, differences, shape

#: A cold engine, on a busy machine, with the model to be built first.
pytestmark = pytest.mark.timeout(600)

MODEL = "shark-tiny-embed"
CONTEXT_TOKENS = 65_536
EMBEDDINGS = "/v1/embeddings"

ANSWERS: dict[str, tuple[str, Any]] = {
    "one text": (EMBEDDINGS, {"model": MODEL, "input": "hello"}),
    "two texts": (EMBEDDINGS, {"model": MODEL, "input": ["hello", "hi"]}),
    "base64": (EMBEDDINGS, {"model": MODEL, "input": ["hello"], "encoding_format": "base64"}),
    "token ids": (EMBEDDINGS, {"model": MODEL, "input": [300, 301]}),
    "lists of token ids": (EMBEDDINGS, {"model": MODEL, "input": [[300, 301], [302]]}),
    "no model named": (EMBEDDINGS, {"input": "hello"}),
}
REFUSALS: dict[str, tuple[str, Any]] = {
    "unknown model": (EMBEDDINGS, {"model": "nope", "input": "x"}),
    "empty text": (EMBEDDINGS, {"model": MODEL, "input": ""}),
    "no texts": (EMBEDDINGS, {"model": MODEL, "input": []}),
    "other dimensions": (EMBEDDINGS, {"model": MODEL, "input": "x", "dimensions": 4}),
    "context exceeded": (EMBEDDINGS, {"model": MODEL, "input": "y z " * 70_000}),
    "chat": ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}),
    "completion": ("/v1/completions", {"model": MODEL, "prompt": "x"}),
    "generate": ("/inference/v1/generate", {"token_ids": [300], "sampling_params": {}}),
}
#: vLLM tries the body as each of seven kinds of request and tells of all; which comes first is its own affair.
LOOSE_REFUSALS: dict[str, tuple[str, Any]] = {
    "no input": (EMBEDDINGS, {"model": MODEL}),
    "unknown encoding": (EMBEDDINGS, {"model": MODEL, "input": "x", "encoding_format": "hex"}),
    "input of a wrong type": (EMBEDDINGS, {"model": MODEL, "input": 5}),
}


@pytest.fixture(scope="module")
async def real() -> AsyncIterator[Path]:
    async with vllm(MODEL, *EMBED_FLAGS, context_tokens=CONTEXT_TOKENS) as socket:
        yield socket


@pytest.fixture(scope="module")
async def simulated(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    socket = tmp_path_factory.mktemp("sim") / "engine.sock"
    plan = Plan(MODEL, Task.EMBED, context_tokens=CONTEXT_TOKENS)
    async with serving(plan, socket, clock=lambda: 1_700_000_000.0, crash=lambda: None):
        yield socket


@pytest.fixture(scope="module")
def sockets(real: Path, simulated: Path) -> dict[str, Path]:
    return {"real": real, "simulated": simulated}


@pytest.mark.parametrize("name", [*ANSWERS, *LOOSE_REFUSALS])
async def test_both_engines_answer_alike(name: str, real: Path, simulated: Path) -> None:
    path, body = (ANSWERS | LOOSE_REFUSALS)[name]
    one, other = await ask(real, "POST", path, body), await ask(simulated, "POST", path, body)
    assert (other.status, other.content_type) == (one.status, one.content_type), one.document
    assert list(differences(shape(one.document), shape(other.document))) == []


@pytest.mark.parametrize("name", REFUSALS)
async def test_both_engines_refuse_in_the_same_words(name: str, real: Path, simulated: Path) -> None:
    path, body = REFUSALS[name]
    one, other = await ask(real, "POST", path, body), await ask(simulated, "POST", path, body)
    assert other == one


@pytest.mark.parametrize("engine", ["real", "simulated"])
async def test_vectors_are_of_one_size_and_length_and_of_their_text(engine: str, sockets: dict[str, Path]) -> None:
    socket = sockets[engine]
    body = {"model": MODEL, "input": ["hello", "hi", "hello"]}
    plain = (await ask(socket, "POST", EMBEDDINGS, body)).document["data"]
    packed = (await ask(socket, "POST", EMBEDDINGS, body | {"encoding_format": "base64"})).document["data"]
    one, two, three = (entry["embedding"] for entry in plain)
    assert len(one) == len(two) == 128
    assert sum(value * value for value in one) == pytest.approx(1, abs=1e-3)
    assert one == pytest.approx(three, abs=1e-3) != two
    assert struct.unpack("<128f", base64.b64decode(packed[0]["embedding"])) == pytest.approx(one, abs=1e-3)
