"""Bad input of callers: the union error body and its status, before any node is touched."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp.test_utils import make_mocked_request

from shrk_contract.terms import BODY_BYTES_MAX
from support.network import Network, a_network

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(autouse=True)
async def no_node_is_touched(network: Network) -> AsyncIterator[None]:
    """However wrong a request is, no attempt is made for it."""

    def placed() -> int:
        return sum(offer.placed for _, offer in network.coordinator.driver.state.roster.offers("m"))

    before = placed()
    yield
    assert placed() == before


def check(body: dict[str, Any], headers: Any, status: int, code: str, param: str | None = None) -> None:
    """The union error body, whatever went wrong."""
    error = body["error"]
    assert (body["code"], error["code"], error["param"]) == (status, code, param)
    assert error["message"]
    assert error["type"]
    assert body["message"] == code.replace("_", " ")
    assert body["request_id"] == headers["x-request-id"] == headers["request-id"] == headers["x-shiver-request-id"]
    assert "x-shiver-node" not in headers, "no node answered"


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/chat/completions", b"{", 400, "invalid_json", None),
        ("/chat/completions", b"", 400, "invalid_json", None),
        ("/chat/completions", b"[1]", 400, "invalid_json", None),
        ("/chat/completions", b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "invalid_json", None),
        ("/chat/completions", b'{"model":"m","x":"\xff"}', 400, "invalid_json", None),
        ("/chat/completions", {"messages": CHAT["messages"]}, 400, "missing_field", "model"),
        ("/chat/completions", {"model": "m"}, 400, "missing_field", "messages"),
        ("/chat/completions", CHAT | {"messages": []}, 400, "invalid_value", "messages"),
        ("/chat/completions", CHAT | {"messages": ["hi"]}, 400, "invalid_value", "messages[0]"),
        ("/chat/completions", CHAT | {"model": 7}, 400, "invalid_value", "model"),
        ("/chat/completions", CHAT | {"stream": "yes"}, 400, "invalid_value", "stream"),
        ("/chat/completions", CHAT | {"stream_options": {}, "stream": [1]}, 400, "invalid_value", "stream"),
        (
            "/chat/completions",
            CHAT | {"stream_options": {"include_usage": True}},
            400,
            "invalid_value",
            "stream_options",
        ),
        ("/chat/completions", CHAT | {"n": 1_000_000}, 400, "invalid_value", "n"),
        ("/chat/completions", CHAT | {"n": True}, 400, "invalid_value", "n"),
        ("/chat/completions", CHAT | {"chat_template": "{{ 7 }}"}, 400, "field_not_allowed", "chat_template"),
        ("/chat/completions", CHAT | {"model": "mm"}, 400, "model_not_found", "model"),
        ("/completions", {"model": "m"}, 400, "missing_field", "prompt"),
        ("/completions", {"model": "m", "prompt": []}, 400, "invalid_value", "prompt"),
        ("/embeddings", {"model": "m"}, 400, "missing_field", "input"),
        ("/embeddings", {"model": "m", "input": "x", "stream": True}, 400, "invalid_value", "stream"),
        ("/embeddings", {"model": "m", "input": "x"}, 400, "endpoint_not_served", "model"),
        ("/embeddings", {"model": "m", "input": ["x"] * 2049}, 400, "invalid_value", "input"),
        ("/completions", {"model": "m", "prompt": [[1]] * 65, "n": 2}, 400, "invalid_value", "prompt"),
    ],
)
async def test_a_wrong_body_is_refused_with_the_field_that_is_wrong(
    network: Network, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with network.session() as session, session.post(network.base_url + path, data=raw) as answer:
        assert answer.status == status
        check(await answer.json(), answer.headers, status, code, param)


async def test_an_unknown_model_is_answered_with_the_nearest_names(network: Network) -> None:
    async with (
        network.session() as session,
        session.post(f"{network.base_url}/chat/completions", json=CHAT | {"model": "m-embedd"}) as answer,
    ):
        assert "'m-embed'" in (await answer.json())["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer "}, "missing_api_key"),
        ({"Authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"Authorization": "Basic dXNlcg=="}, "invalid_api_key"),
        ({"x-api-key": "wrong"}, "invalid_api_key"),
        ({"X-User-Key": "x" * 5000}, "invalid_api_key"),
    ],
)
async def test_a_wrong_or_missing_key_is_refused(network: Network, headers: dict[str, str], code: str) -> None:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{network.base_url}/chat/completions", json=CHAT) as answer,
    ):
        assert answer.status == 401
        check(await answer.json(), answer.headers, 401, code)


async def test_a_body_that_is_not_what_its_headers_say_is_refused(network: Network) -> None:
    async with (
        network.session() as session,
        session.post(
            f"{network.base_url}/chat/completions", data=b"no gzip at all", headers={"Content-Encoding": "gzip"}
        ) as answer,
    ):
        assert answer.status == 400
        check(await answer.json(), answer.headers, 400, "invalid_body")


async def test_two_credentials_that_differ_are_refused_and_two_that_agree_are_not(network: Network) -> None:
    for other, status in ((network.admin_key, 401), (network.api_key, 200)):
        async with (
            network.session() as session,
            session.get(f"{network.base_url}/models", headers={"x-api-key": other}) as answer,
        ):
            assert answer.status == status


async def test_a_body_over_one_mebibyte_is_refused_before_it_is_read(network: Network) -> None:
    async with network.session() as session:
        padding = BODY_BYTES_MAX - len(json.dumps(CHAT | {"model": "mm", "pad": ""}))
        for extra, status in ((0, 400), (1, 413)):
            body = json.dumps(CHAT | {"model": "mm", "pad": "x" * (padding + extra)}).encode()
            assert len(body) == BODY_BYTES_MAX + extra
            async with session.post(f"{network.base_url}/chat/completions", data=io.BytesIO(body)) as answer:
                assert answer.status == status
                refusal = await answer.json()
        check(refusal, answer.headers, 413, "request_too_large")


async def test_a_body_that_grows_beyond_the_limit_while_it_comes_is_refused(network: Network) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    async with network.session() as session:
        async with session.post(f"{network.base_url}/chat/completions", data=endless()) as answer:
            assert answer.status == 413
        bomb = gzip.compress(b"x" * 50_000_000)
        async with session.post(
            f"{network.base_url}/chat/completions", data=bomb, headers={"Content-Encoding": "gzip"}
        ) as answer:
            assert answer.status == 413


async def test_a_caller_that_announces_too_much_and_waits_is_answered_without_sending(network: Network) -> None:
    assert network.coordinator.ports is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", network.coordinator.ports.listen)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {network.api_key}\r\n"
    writer.write(f"{head}Content-Length: 8000000\r\nExpect: 100-continue\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/images/generations", 404, "unsupported_endpoint"),
        ("GET", "/nowhere", 404, "unsupported_endpoint"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/m", 405, "method_not_allowed"),
        ("GET", "/v1/models/nobody/knows", 400, "model_not_found"),
    ],
)
async def test_errors_of_the_framework_have_the_same_body(
    network: Network, method: str, path: str, status: int, code: str
) -> None:
    async with network.session() as session, session.request(method, network.root_url + path) as answer:
        assert answer.status == status
        check(await answer.json(), answer.headers, status, code, "model" if code == "model_not_found" else None)


async def test_metrics_need_an_admin_key_and_health_needs_none(network: Network) -> None:
    async with network.session() as session, session.get(f"{network.root_url}/metrics") as answer:
        assert answer.status == 403
        check(await answer.json(), answer.headers, 403, "admin_key_required")
    async with network.session(network.admin_key) as session, session.get(f"{network.root_url}/metrics") as answer:
        assert "shrk_links_open 3.0" in await answer.text()
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz", "/"):
            async with session.get(network.root_url + path) as answer:
                assert answer.status == 200


async def test_the_official_sdk_raises_its_own_error_types(network: Network) -> None:
    async with openai.AsyncOpenAI(base_url=network.base_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="not valid"):
            await client.models.list()
    async with openai.AsyncOpenAI(base_url=network.base_url, api_key=network.api_key, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="does not exist here") as caught:
            await client.chat.completions.create(model="mm", messages=[{"role": "user", "content": "hi"}])
        assert caught.value.code == "model_not_found"
        assert caught.value.request_id.startswith("req_")


async def test_a_callers_own_request_id_is_echoed_unless_it_could_harm(network: Network) -> None:
    async with network.session() as session:
        async with session.get(f"{network.root_url}/healthz", headers={"X-Client-Request-Id": "mine-1"}) as answer:
            assert answer.headers["X-Client-Request-Id"] == "mine-1"
        async with session.get(f"{network.root_url}/healthz", headers={"X-Client-Request-Id": "x" * 500}) as answer:
            assert "X-Client-Request-Id" not in answer.headers


async def test_requests_past_the_proxy_are_refused_when_there_is_one(network: Network) -> None:
    async with a_network(behind_proxy=("10.0.0.0/8",)) as guarded:
        # This machine itself may always ask; whoever else is not the proxy may not.
        async with guarded.session() as session, session.get(f"{guarded.base_url}/models") as answer:
            assert answer.status == 200
        http = guarded.coordinator._http
        assert http is not None
        for address, admitted in (("10.1.2.3", True), ("192.168.1.1", False), ("127.0.0.1", True)):
            request = make_mocked_request("GET", "/", transport=PeerAt(address))
            assert http._came_through_proxy(request) is admitted


class PeerAt(asyncio.Transport):
    """A connection from somewhere."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
