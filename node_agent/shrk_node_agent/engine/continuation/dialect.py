"""What differs between ways of asking, and of reading ids, when an answer is continued by ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reading:
    """One way in which an engine turns ids into events."""

    path: str
    #: Under this name the caller's request goes along, for parsers; empty where there are none.
    request_field: str
    #: Of the endpoint's own events.
    object: str
    #: A choice as `path` answers it, as the endpoint's own events have it.
    as_streamed: Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One endpoint."""

    #: Turns a request into ids and sampling.
    render: str
    #: What that answered, as one request for `generate`.
    single: Callable[[Any], dict[str, Any]]
    #: Ways to read the ids of a request's answer, given the request and its rendering; the first that reads what was
    #: delivered as the caller has it is taken.
    readings: Callable[[dict[str, Any], dict[str, Any]], tuple[Reading, ...]]
