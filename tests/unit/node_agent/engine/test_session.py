"""A session that its owner gives up on in the middle."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from shrk_node_agent.engine.session import WardedSession
from support.processes import alive, wait_until
from support.wardens import STUBBORN


async def test_an_abandoned_session_leaves_no_process_and_no_file_behind(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    session = await WardedSession.spawn((sys.executable, *STUBBORN), dict(os.environ), remove=(folder,))
    assert await session.output.readline() == b"up\n"
    await asyncio.to_thread(wait_until, lambda: len(session.pids()) == 1, "the process runs")
    pids = session.pids()
    await session.abandon()
    assert not alive(pids)
    assert session.pids() == ()
    assert not folder.exists()
