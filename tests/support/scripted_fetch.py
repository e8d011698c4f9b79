"""Stands in for engine/fetch.py: says the lines that it is given, and then ends or stays. Standard library only."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """What SAY, TOLD, STAY and STATUS tell it."""
    for line in json.loads(os.environ["SAY"]):
        print(line, flush=True)
    if told := os.environ.get("TOLD"):
        Path(told).write_text(" ".join(sys.argv[1:]) + "\n")
    if "STAY" in os.environ:
        signal.pause()  # Until it is ended: a download that is under way.
    return int(os.environ.get("STATUS", "0"))


if __name__ == "__main__":
    sys.exit(main())
