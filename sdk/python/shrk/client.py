"""`Shrk` and `AsyncShrk`: the OpenAI clients, with a coordinator's address and key from the environment."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from openai import AsyncOpenAI, NotGiven, OpenAI, OpenAIError

#: Where `shrk dev` and a coordinator with default settings listen.
DEFAULT_BASE_URL = "http://127.0.0.1:8080/v1"


class Shrk(OpenAI):
    """An `openai.OpenAI` that reads SHRK_BASE_URL and SHRK_API_KEY.

    Takes every option of `openai.OpenAI`. Raises `openai.OpenAIError` when there is no key. A key or
    address meant for OpenAI (OPENAI_API_KEY, OPENAI_BASE_URL) is never sent to a coordinator.
    """

    def __init__(
        self,
        *,
        api_key: str | Callable[[], str] | None = None,
        base_url: str | httpx2.URL | NotGiven | None = None,
        **options: Any,
    ) -> None:
        super().__init__(api_key=api_key or _key(), base_url=base_url or _address(), **options)


class AsyncShrk(AsyncOpenAI):
    """An `openai.AsyncOpenAI` that reads SHRK_BASE_URL and SHRK_API_KEY; otherwise as `Shrk`."""

    def __init__(
        self,
        *,
        api_key: str | Callable[[], Awaitable[str]] | None = None,
        base_url: str | httpx2.URL | NotGiven | None = None,
        **options: Any,
    ) -> None:
        super().__init__(api_key=api_key or _key(), base_url=base_url or _address(), **options)


def _key() -> str:
    key = os.environ.get("SHRK_API_KEY")
    if not key:
        raise OpenAIError(
            "No key for the coordinator: neither api_key= nor SHRK_API_KEY is set. "
            "`shrk dev` prints one; on a coordinator: shrk coordinator keys create --name me"
        )
    return key


def _address() -> str:
    return os.environ.get("SHRK_BASE_URL") or DEFAULT_BASE_URL
