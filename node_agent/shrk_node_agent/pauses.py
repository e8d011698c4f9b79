"""How long a pause may be: one bound for the command that asks for it and for the agent that is asked."""

from __future__ import annotations

#: A pause is for an evening or a holiday. Who wants longer stops the agent.
PAUSE_SECONDS_MAX = 30 * 86_400
#: Below this a pause ends before what runs has ended.
PAUSE_SECONDS_MIN = 60
