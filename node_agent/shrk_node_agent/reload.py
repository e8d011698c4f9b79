"""What a change of the settings means to an agent that runs: what it takes in, and what waits for a restart. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from shrk_node_agent.settings import AgentSettings, models_wrong

#: What an agent takes in while it runs. The rest decides what it is: where it dials, which engines it starts and how.
RELOADED = frozenset(
    {"temp_max", "schedule", "time_zone", "when", "models", "scale_to_zero", "memory_gb", "drain_seconds"}
)


@dataclass(frozen=True, slots=True)
class Changes:
    """The settings that changed, in the order in which they are declared."""

    applied: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()

    def sentence(self) -> str:
        """For people."""
        said = []
        if self.applied:
            said.append(f"taken in: {', '.join(self.applied)}")
        if self.needs_restart:
            said.append(f"after a restart only: {', '.join(self.needs_restart)}")
        return "; ".join(said) or "nothing changed"


def compare(old: AgentSettings, new: AgentSettings) -> Changes:
    """What the new settings change for an agent that runs with the old ones.

    Models and their memory wait for a restart together with the catalogue where they can do nothing without it.
    """
    changed = [name for name in AgentSettings.model_fields if getattr(old, name) != getattr(new, name)]
    reloaded = RELOADED
    if models_wrong(new.models, new.memory_gb, old.catalogue):
        reloaded = RELOADED - {"models", "memory_gb"}
    return Changes(
        applied=tuple(name for name in changed if name in reloaded),
        needs_restart=tuple(name for name in changed if name not in reloaded),
    )


def merged(old: AgentSettings, new: AgentSettings) -> AgentSettings:
    """The old settings with what can be taken in of the new ones."""
    return old.model_copy(update={name: getattr(new, name) for name in compare(old, new).applied})


@dataclass(slots=True)
class LastReload:
    """What became of the last reload, for the status."""

    #: What was wrong with the new settings; empty: nothing. The settings before them hold.
    problems: tuple[str, ...] = ()
    #: Changed since the start, and not in effect.
    needs_restart: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, object]:
        """As the status has it."""
        return {"problems": list(self.problems), "needs_restart": list(self.needs_restart)}
