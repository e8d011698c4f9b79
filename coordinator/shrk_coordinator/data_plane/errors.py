"""Errors as callers read them: one body that satisfies every official SDK.

{"error": {"message", "type", "param", "code": "model_not_found"}, "code": 400,
 "message": "model not found", "request_id": "req_..."}
"""

from __future__ import annotations

import re
from typing import Any, assert_never

import orjson
from aiohttp import web

from shrk_contract.terms import Fault
from shrk_coordinator.data_plane import sse
from shrk_coordinator.errors import (
    RETRY_AFTER_SECONDS_MAX,
    ApiError,
    endpoint_not_served,
    model_not_found,
    no_node_available,
    request_poisoned,
)
from shrk_coordinator.state import effects as do
from shrk_coordinator.state.events import FailureDetail

#: Statuses and codes that an engine may give a caller.
_ABOUT_CONTENT = frozenset({400, 413, 415, 422})
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
#: Codes by which the coordinator speaks for itself.
_OURS = frozenset(
    {
        "missing_api_key",
        "invalid_api_key",
        "admin_key_required",
        "insufficient_balance",
        "rate_limited",
        "internal_error",
    }
)


def request_name(request_id: bytes) -> str:
    """A request's id as callers see it."""
    return f"req_{request_id.hex()}"


def body_of(error: ApiError, request_id: bytes) -> dict[str, Any]:
    """The union error body."""
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
        "code": error.status,
        "message": error.code.replace("_", " "),
        "request_id": request_name(request_id),
    }


def response_of(error: ApiError, request_id: bytes, headers: dict[str, str]) -> web.Response:
    """The whole answer."""
    headers = headers | error.headers
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(min(error.retry_after_seconds, RETRY_AFTER_SECONDS_MAX))
    if error.should_retry is not None:
        headers["x-should-retry"] = str(error.should_retry).lower()
    body = orjson.dumps(body_of(error, request_id))
    return web.Response(status=error.status, body=body, content_type="application/json", headers=headers)


def error_event(error: ApiError, request_id: bytes) -> bytes:
    """The last event of a stream that could not go on; no [DONE] follows."""
    return sse.event(body_of(error, request_id))


def from_refusal(effect: do.RefuseRequest) -> ApiError:
    """Why no node was asked."""
    match effect.why:
        case do.UnknownModel(model, nearest):
            return model_not_found(model, nearest)
        case do.WrongEndpoint(model, asked, served):
            return endpoint_not_served(model, asked, served)
        case do.NoNode(model, counts, retry_after, loads_in, loading):
            return no_node_available(model, counts, retry_after, loads_in, loading=loading)
        case do.Poisoned(model, seconds):
            return request_poisoned(model, seconds)
        case _:
            assert_never(effect.why)


def from_failure(failure: FailureDetail) -> ApiError:
    """What the last attempt said. A caller's own error keeps the engine's status and wording.

    A node's word goes no further than the request's content: keys, money and limits are the coordinator's to speak of.
    """
    code = failure.code if _CODE.fullmatch(failure.code) and failure.code not in _OURS else ""
    if failure.fault is Fault.CALLER:
        return ApiError(
            status=failure.http_status if failure.http_status in _ABOUT_CONTENT else 400,
            code=code or "invalid_request",
            message=failure.message,
            type="invalid_request_error",
            param=failure.param or None,
        )
    return ApiError(
        status=502,
        code=code or "upstream_failed",
        message=f"No node could complete this request: {failure.message}",
        type="api_error",
        fault=failure.fault,
        should_retry=True,
    )
