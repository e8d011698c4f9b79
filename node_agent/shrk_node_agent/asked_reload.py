"""What a running agent makes of a settings file that has just been changed: asked through its control socket."""

from __future__ import annotations

import http
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from shrk_contract.trouble import Trouble
from shrk_node_agent.control_client import NotRunning, Refused, ask

#: Settings are a page, and what the agent looks up for them is on its own disk.
RELOAD_SECONDS_MAX = 30.0


class ReloadRefused(Trouble):
    """The agent that runs does not take the file as it is; what it had before holds. `str()` says why."""

    exit_code: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Reloaded:
    """An agent has read its settings again, or there is none."""

    running: bool
    applied: tuple[str, ...] = ()
    #: All that was changed since it started and waits for a restart: not only by the last change.
    needs_restart: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {"running": self.running, "applied": list(self.applied), "needs_restart": list(self.needs_restart)}

    def sentences(self) -> list[str]:
        """For people."""
        if not self.running:
            return ["No agent runs here: it holds from the next start on (shrk start)."]
        said = []
        if self.applied:
            said.append(f"The running agent has taken it in: {', '.join(self.applied)}.")
        if self.needs_restart:
            them = ", ".join(self.needs_restart)
            said.append(f"After a restart only: {them}. When it suits you: shrk stop, then shrk start.")
        return said or ["Nothing changes for the running agent."]


def reload(state_dir: Path) -> Reloaded:
    """Have the agent of this folder read its settings again.

    Raises ReloadRefused, NotAllowed, NoAnswer, and Refused where it is too old to be asked.
    """
    try:
        answer = ask(state_dir, "POST", "/reload", timeout=RELOAD_SECONDS_MAX)
    except NotRunning:
        return Reloaded(running=False)
    except Refused as refused:
        if refused.status != http.HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        raise ReloadRefused(f"the running agent refuses it, and goes on with what it had: {refused}") from refused
    return Reloaded(True, tuple(answer["applied"]), tuple(answer["needs_restart"]))
