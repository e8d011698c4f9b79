"""An agent to talk to, and verbs that find it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.asked_agent import PlayedAgent, an_agent
from support.status_documents import healthy


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedAgent]:
    """One that is healthy, until the test says otherwise."""
    with an_agent(healthy()) as played:
        monkeypatch.setenv("SHRK_STATE_DIR", str(played.folder))
        yield played
