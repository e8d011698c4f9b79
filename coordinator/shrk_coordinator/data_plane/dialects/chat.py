"""Chat completions."""

from __future__ import annotations

from shrk_contract.terms import Endpoint
from shrk_coordinator.data_plane.dialects.dialect import Body, Dialect, check_choices, check_shared, ending_of
from shrk_coordinator.errors import invalid_value, missing_field


def check(body: Body) -> None:
    """What the coordinator must know before it asks a node; the engine checks the rest. Raises ApiError."""
    check_shared(body, streams=True)
    messages = body.get("messages")
    if messages is None:
        raise missing_field("messages", "a list of messages")
    if not isinstance(messages, list) or not messages:
        raise invalid_value("messages", "a list with at least one message")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid_value(f"messages[{position}]", "an object with a 'role'")
    check_choices(body)


def opening(body: Body) -> object:
    """Everything up to the first user turn, and that turn."""
    messages = body["messages"]
    first = next((at for at, message in enumerate(messages) if message["role"] == "user"), len(messages))
    return messages[: first + 1]


DIALECT = Dialect(
    endpoint=Endpoint.CHAT_COMPLETIONS,
    id_prefix="chatcmpl-",
    streams=True,
    check=check,
    opening=opening,
    ending=ending_of("chat.completion.chunk", {"delta": {}}),
)
