"""What a person can mend: errors that a command prints as they are, without a traceback."""

from __future__ import annotations

from typing import ClassVar


class Trouble(Exception):
    """`str()` says what is wrong, why, and what to do next. A command ends with `exit_code`."""

    exit_code: ClassVar[int] = 1
