"""Why an agent cannot run, for the owner who must mend it."""

from __future__ import annotations

from shrk_contract.trouble import Trouble


class AgentCannotRun(Trouble):
    """`str()` says what is wrong and what to do."""
