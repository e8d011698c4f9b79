"""Whose turn it is to change a node's models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shrk_node_agent.engine.turn import Turn

_TAKES = """
import sys
from pathlib import Path
from shrk_node_agent.engine.turn import Turn
turn = Turn(Path(sys.argv[1]))
print(turn.take(), flush=True)
sys.stdin.read()
"""


def test_one_at_a_time_has_it(tmp_path: Path) -> None:
    first, second = Turn(tmp_path / "node" / "models.turn"), Turn(tmp_path / "node" / "models.turn")
    assert first.take()
    assert not second.take()
    assert not second.take(), "asking leaves nothing behind"
    first.let_go()
    assert second.take()
    second.let_go()


def test_a_process_that_is_killed_has_it_no_more(tmp_path: Path) -> None:
    path = tmp_path / "models.turn"
    with subprocess.Popen(
        [sys.executable, "-c", _TAKES, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        turn = Turn(path)
        assert not turn.take()
        other.kill()
        other.wait()
    assert turn.take()
    turn.let_go()


def test_a_folder_that_it_makes_is_closed_to_others(tmp_path: Path) -> None:
    turn = Turn(tmp_path / "node" / "models.turn")
    assert turn.take()
    turn.let_go()
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o700
