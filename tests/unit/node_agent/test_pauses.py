"""The file that keeps a pause while no agent runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shrk_node_agent.pauses import PauseFile, PauseUnreadable

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


def test_a_pause_goes_on_where_it_was_by_the_owners_clock(tmp_path: Path) -> None:
    file = PauseFile(tmp_path / "pause.json")
    assert file.left(NOON) == 0.0
    file.keep(7_200.0, NOON)
    assert file.left(NOON + timedelta(minutes=30)) == 5_400.0
    assert file.left(NOON + timedelta(hours=3)) == 0.0
    file.keep(None, NOON)
    assert file.left(NOON + timedelta(days=99)) is None
    file.forget()
    file.forget()
    assert file.left(NOON) == 0.0


@pytest.mark.parametrize(
    "content", ["", "{}", '{"until": 7}', '{"until": "soon"}', '{"until": "2026-11-30T12:00:00"}', "[]"]
)
def test_a_file_that_nobody_can_read_says_what_follows(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pause.json"
    path.write_text(content)
    with pytest.raises(PauseUnreadable, match=r"pause\.json cannot be read .*: the node stays paused; `shrk resume`"):
        PauseFile(path).left(NOON)
