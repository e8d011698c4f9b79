"""What `shrk setup` finds: the settings as they are, whether this machine is a node already, and what fits on it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shrk_contract.settings import SettingsError, located
from shrk_contract.settings_files import Files, read_files
from shrk_node_agent.commands import models_suggest, setup_answers
from shrk_node_agent.commands.catalogued import read_settings
from shrk_node_agent.config import ConfigUnchanged
from shrk_node_agent.control_client import running_in
from shrk_node_agent.engine import vllm
from shrk_node_agent.known_models import Suggestion
from shrk_node_agent.sensors.gpu import SensorsFailed
from shrk_node_agent.settings import AgentSettings, EngineKind

_FROM = "the coordinator's operator has it, from: shrk coordinator tokens create --owner YOU"


@dataclass(frozen=True, slots=True)
class Present:
    """What there is before a question is asked."""

    file: Path
    #: What the settings files say.
    values: Mapping[str, Any] = field(default_factory=dict)
    #: It has a certificate, and needs no join token.
    has_joined: bool = False
    host: str = ""
    settings: AgentSettings | None = None
    #: Why they are not known.
    why: str = ""

    def text(self, key: str) -> str:
        """One setting as one would type it; "": the files do not have it."""
        value = self.values.get(key, "")
        return f"{value:g}" if isinstance(value, float) else str(value)

    def differs(self, key: str, text: str) -> bool:
        """Whether the answer is to be written: not what is there, and not nothing in place of nothing."""
        return text != self.text(key) and not (key in ("controller", "join_token", "name") and not text)

    @property
    def sources(self) -> Mapping[str, str]:
        """The catalogue: names, and where each model is."""
        tables = self.values.get("catalogue")
        found = tables.items() if isinstance(tables, dict) else ()
        return {name: str(entry.get("source", "")) for name, entry in found if isinstance(entry, dict)}

    @property
    def served(self) -> Sequence[str]:
        """The setting `models`, where it names some."""
        models = self.values.get("models", ())
        return [word.strip() for word in models.split(",")] if isinstance(models, str) else list(models)

    @property
    def memory_gb(self) -> float | None:
        """For all models together."""
        return self.values.get("memory_gb")

    @property
    def simulated(self) -> bool:
        """Whether the engine only pretends."""
        return self.settings is not None and self.settings.engine is EngineKind.SIM

    def joining(self, text: str) -> str:
        """A coordinator's address or a join line. Raises AnswerWrong."""
        if not text and self.has_joined:
            return ""
        if not text:
            raise setup_answers.AnswerWrong(f"it is missing: this machine is not a node yet; {_FROM}")
        setup_answers.joining(text)
        return text

    def token(self, text: str) -> str:
        """A join token; none where this machine needs none. Raises AnswerWrong."""
        if not text and (self.has_joined or self.text("join_token")):
            return ""
        if not text:
            raise setup_answers.AnswerWrong(f"it is missing: this machine is not a node yet; {_FROM}")
        return setup_answers.join_token(text)

    def suggested(self) -> tuple[Sequence[Suggestion], str]:
        """What fits here; or nothing, and why."""
        if self.settings is None:
            return (), self.why
        try:
            return models_suggest.look(self.settings)[1], ""
        except SensorsFailed as error:
            return (), f"What fits here is not known: {error}"

    def engine_missing(self) -> str:
        """What to do where there is no engine yet; "": there is."""
        if self.settings is None or self.simulated or vllm.installed(self.settings.engine_venv) is not None:
            return ""
        return (
            f"There is no vLLM in {self.settings.engine_venv} yet: install it (make engine), or name its environment "
            "(shrk set engine_venv DIR)"
        )


def present() -> Present:
    """Reads the files; they need not be valid, but TOML. Raises SettingsError, and ConfigUnchanged where they could not
    be written at the end."""
    location = located(AgentSettings)
    file = location.main
    files: Files = read_files(location, instead=None if file.exists() else "")
    _check_writable(file)
    settings, why = None, ""
    try:
        settings = read_settings(files=files)
    except SettingsError as error:
        why = f"What fits here is not known, for {error}"
    folder = running_in(None) / "identity"
    joined = os.access(folder, os.X_OK) and (folder / "node.pem").exists()
    return Present(file, files.values, joined, socket.gethostname(), settings, why)


def _check_writable(file: Path) -> None:
    """Before ten questions are asked for nothing. Raises ConfigUnchanged."""
    nearest = next(folder for folder in file.absolute().resolve().parents if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigUnchanged(f"{file} cannot be written by this user; try it with sudo, or name another: SHRK_CONFIG")
