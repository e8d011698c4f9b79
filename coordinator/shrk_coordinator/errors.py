"""What a caller may be refused or told, whose fault it is, and whether trying again helps.

`ApiError` carries everything a rendering needs; `data_plane.errors` turns it into each dialect's body. Outcomes
inside the coordinator are values (`state.effects`); these are raised only at the border to callers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shrk_contract.terms import Fault, State
from shrk_contract.trouble import Trouble
from shrk_coordinator.state.placement import Reason

#: Official SDKs obey Retry-After literally, up to freezing for hours: never send more.
RETRY_AFTER_SECONDS_MAX = 30

#: Why a node that has a model does not take a request for it, after a number of nodes: "2 busy". Some words are both
#: a node's state and placement's reason, and mean the same.
REASON_WORDS: Mapping[str, str] = {
    Reason.CLOSING: "wanted back by the owner soon",
    Reason.HOT: "too hot",
    Reason.KEPT_BACK: "kept back by the owner's terms",
    Reason.ENDPOINT: "without this endpoint",
    Reason.TRIED: "asked in vain already",
    Reason.PIN: "of another kind than this answer needs",
    Reason.EJECTED: "left alone for a while after failures",
    Reason.UNWELL: "stalled or not heard",
    Reason.FULL: "busy",
    Reason.REJECTED: "asked, and not free to take it",
    State.INSTALLING: "installing what the engine needs",
    State.STARTING: "starting",
    State.DOWNLOADING: "downloading the model",
    State.LOADING: "loading the model",
    State.VERIFYING: "checking the model's files",
    State.ONLINE: "about to take requests",
    State.BUSY: "busy",
    State.COOLING: "cooling down",
    State.PAUSED: "not serving the model now",
    State.OFF_SCHEDULE: "outside the owner's hours",
    State.DRAINING: "stopping",
    State.QUARANTINED: "left alone for a while after failures",
    State.INCOMPATIBLE: "unable to run the model",
    State.UNREACHABLE: "out of reach",
    State.OFFLINE: "offline",
}


class DatabaseError(Trouble):
    """The database cannot be used now. `str()` says why and what to do, to the operator and to nobody else.

    It stands here and not in the store, so that rooms which are only handed the store's methods can name it.
    """


@dataclass
class ApiError(Exception):
    """An answer other than success."""

    status: int
    #: Machine-readable, snake_case: `model_not_found`.
    code: str
    #: For the person who reads it: what is wrong and what to do.
    message: str
    type: str = "invalid_request_error"
    #: The field of the body that is wrong.
    param: str | None = None
    fault: Fault = Fault.CALLER
    retry_after_seconds: int | None = None
    #: False tells official SDKs not to retry by themselves; None leaves it to them.
    should_retry: bool | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


def invalid_json(detail: str) -> ApiError:
    """The body is not a JSON object."""
    return ApiError(400, "invalid_json", f"The request body is not valid JSON: {detail}.")


def unreadable_body(detail: str) -> ApiError:
    """The body is not what its headers say."""
    return ApiError(400, "invalid_body", f"The request body cannot be read: {detail}.")


def missing_field(name: str, expected: str) -> ApiError:
    """A required field is absent."""
    return ApiError(400, "missing_field", f"'{name}' is required: {expected}.", param=name)


def invalid_value(name: str, expected: str) -> ApiError:
    """A field has a value it cannot have."""
    return ApiError(400, "invalid_value", f"'{name}' must be {expected}.", param=name)


def unknown_parameter(name: str, known: Sequence[str]) -> ApiError:
    """A parameter in the address that means nothing here: what it was to do would silently not be done."""
    expected = ", ".join(known)
    return ApiError(400, "unknown_parameter", f"There is no '{name[:80]}' here, but {expected}.", param=name[:80])


def field_not_allowed(name: str, reason: str) -> ApiError:
    """A field that would harm the machines of the people who lend them."""
    return ApiError(400, "field_not_allowed", f"'{name}' is not accepted here: {reason}.", param=name)


def body_too_large(limit: int) -> ApiError:
    """The body is over the limit."""
    return ApiError(
        413,
        "request_too_large",
        f"The request body is larger than {limit:,} bytes, the most that is accepted.",
        should_retry=False,
    )


def body_too_slow(seconds: float) -> ApiError:
    """The body did not come in time."""
    return ApiError(408, "request_timeout", f"The request body did not arrive within {seconds:g} seconds.")


def missing_api_key() -> ApiError:
    """No credential came with the request."""
    return ApiError(
        401,
        "missing_api_key",
        "No API key was sent. Send it as 'Authorization: Bearer KEY'.",
        type="authentication_error",
    )


def invalid_api_key() -> ApiError:
    """A credential came, and it is not a valid one."""
    return ApiError(
        401,
        "invalid_api_key",
        "The API key is not valid: it is unknown, expired or revoked, or two different ones were sent.",
        type="authentication_error",
    )


def not_bearer() -> ApiError:
    """A credential of another kind than ours."""
    return ApiError(
        401,
        "invalid_api_key",
        "The Authorization header must be 'Bearer KEY'.",
        type="authentication_error",
    )


def admin_key_needed() -> ApiError:
    """The key is valid, but it is a caller's."""
    return ApiError(403, "admin_key_required", "This needs an admin key.", type="permission_error")


def model_not_found(model: str, nearest: tuple[str, ...]) -> ApiError:
    """No node has named this model."""
    hint = f"Did you mean {', '.join(repr(n) for n in nearest)}?" if nearest else "GET /v1/models lists what is here."
    return ApiError(400, "model_not_found", f"The model '{model}' does not exist here. {hint}", param="model")


def endpoint_not_served(model: str, asked: str, served: tuple[str, ...]) -> ApiError:
    """The model is of another kind."""
    what = f"'{model}' answers {', '.join(served)}, not {asked}."
    return ApiError(400, "endpoint_not_served", what, param="model", should_retry=False)


def no_node_available(
    model: str,
    counts: tuple[tuple[str, int], ...],
    retry_after_seconds: float,
    loads_in_seconds: float | None = None,
    *,
    loading: bool = False,
) -> ApiError:
    """The model is known, but nobody can take the request now. `loads_in_seconds`: where nobody has it loaded, when
    somebody should have; `loading`: somebody has begun to."""
    words = ", ".join(f"{count} {REASON_WORDS[reason]}" for reason, count in counts)
    why = f"Of those that have it: {words}." if words else "None that has it is connected."
    seconds = min(max(1, math.ceil(retry_after_seconds)), RETRY_AFTER_SECONDS_MAX)
    then = " It is being loaded, which takes longer than it usually does." if loading else ""
    if loads_in_seconds is not None:
        about = f"about {math.ceil(loads_in_seconds)} s" if loads_in_seconds >= 1 else "no more than a moment"
        then = f" It is being loaded, which should take {about} more."
        if not loading:
            then = f" It is loaded now that somebody asks, as soon as a node has room; that takes {about}."
    return ApiError(
        503,
        "no_node_available",
        f"No node can take a request for '{model}' now. {why}{then} Try again in {seconds} s.",
        type="service_unavailable",
        fault=Fault.NODE,
        retry_after_seconds=seconds,
    )


def request_poisoned(model: str, seconds: float) -> ApiError:
    """Engines crashed of this very request."""
    return ApiError(
        422,
        "request_poisoned",
        f"Two engines of '{model}' crashed while they read this request, so it is sent to no other for the next "
        f"{max(1, math.ceil(seconds / 60))} min. Change it, or ask the coordinator's operator to look at the engines.",
        should_retry=False,
    )


def request_not_found(name: str) -> ApiError:
    """No such request is remembered, or it is somebody else's."""
    return ApiError(
        404,
        "request_not_found",
        f"Nothing is known of the request '{name[:80]}'. Only the key that made it can look it up, by its "
        "x-request-id; the last requests are remembered until the coordinator is restarted.",
        type="not_found_error",
        param="id",
    )


def node_not_found(name: str) -> ApiError:
    """No node of that name was connected since the coordinator started."""
    return ApiError(
        404,
        "node_not_found",
        f"No node is called '{name[:80]}'. GET /v1/nodes lists those that were connected since the coordinator "
        "started.",
        type="not_found_error",
        param="id",
    )


def unsupported_endpoint(method: str, path: str) -> ApiError:
    """Nothing is served there."""
    return ApiError(404, "unsupported_endpoint", f"There is no {method} {path} here.", type="not_found_error")


def method_not_allowed(method: str, path: str, allowed: str) -> ApiError:
    """The path exists, the method does not."""
    return ApiError(405, "method_not_allowed", f"{path} takes {allowed}, not {method}.", headers={"Allow": allowed})


def answer_too_large(limit: int) -> ApiError:
    """The whole answer is larger than may be held."""
    return ApiError(
        413,
        "answer_too_large",
        f"The answer is larger than {limit:,} bytes. Ask for less at once, or set 'stream' to true.",
        should_retry=False,
    )


def overloaded() -> ApiError:
    """More is under way than this process may hold."""
    return ApiError(
        503,
        "overloaded",
        "The coordinator holds as much as it may for other requests. Try again in a moment.",
        type="service_unavailable",
        fault=Fault.COORDINATOR,
        retry_after_seconds=2,
    )


def caller_not_admitted() -> ApiError:
    """The request came past the proxy that it must come through."""
    return ApiError(
        403,
        "proxy_required",
        "Requests reach this coordinator through its proxy only.",
        type="permission_error",
        should_retry=False,
    )


def stream_lost(why: str) -> ApiError:
    """An answer that had begun could not go on from any node. Only ever an event: the status is out already."""
    return ApiError(
        502,
        "stream_lost",
        f"This answer could not be continued: {why}. What came so far is valid; nothing is charged for it.",
        type="server_error",
        fault=Fault.NODE,
        should_retry=True,
    )


def stopping() -> ApiError:
    """The coordinator lets running answers end and takes nothing new."""
    return ApiError(
        503,
        "coordinator_stopping",
        "The coordinator is being restarted and takes no new requests. Try again in a moment.",
        type="service_unavailable",
        fault=Fault.COORDINATOR,
        retry_after_seconds=5,
    )


def database_failed() -> ApiError:
    """A DatabaseError, as callers hear of it; the log has the rest."""
    return ApiError(
        503,
        "database_unavailable",
        "The coordinator's database does not answer now. Try again in a moment.",
        type="service_unavailable",
        fault=Fault.COORDINATOR,
        retry_after_seconds=5,
    )


def internal() -> ApiError:
    """A surprise of ours; the log has it."""
    return ApiError(
        500,
        "internal_error",
        "The coordinator failed on this request; its log has the details under the request id.",
        type="api_error",
        fault=Fault.COORDINATOR,
    )
