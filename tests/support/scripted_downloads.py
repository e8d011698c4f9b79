"""Downloads whose program is tests/support/scripted_fetch.py, and what it can be told to say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from shrk_node_agent.engine.download import Downloads
from shrk_node_agent.engine.engine import EngineSpec
from shrk_node_agent.engine.fetch import MARK
from shrk_node_agent.engine.revisions import RevisionLock
from support.scripted_fetch import __file__ as SCRIPTED_FETCH

SPEC = EngineSpec(id="org/tiny", model="tiny", source="org/tiny")
FOUND = {"event": "found", "commit": "c" * 40, "bytes": 2_000_000_000, "here": 0}


def downloads(home: Path, *said: object, **env: str) -> Downloads:
    """Those of a program that says these words; what is no text is an event for the agent."""
    lines = [one if isinstance(one, str) else MARK + json.dumps(one) for one in said]
    return Downloads(
        python=Path(sys.executable),
        cache=home / "models",
        lock=RevisionLock(home / "models.lock"),
        run=home / "run",
        program=Path(SCRIPTED_FETCH),
        env={"SAY": json.dumps(lines), **env},
    )


def a_snapshot(home: Path, commit: str = "c" * 40) -> Path:
    """The folder of a model that is whole."""
    folder = home / "models" / "models--org--tiny" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"1234")
    return folder
