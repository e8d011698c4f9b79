"""What an owner answers to `shrk setup`, judged at once by the settings' own validators. Asks and writes nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tomlkit

from shrk_contract.settings import SettingsError, load, located, variables
from shrk_contract.settings_files import Files
from shrk_node_agent.engine.launch import is_path
from shrk_node_agent.known_models import Suggestion
from shrk_node_agent.link.join_token import JoinTokenInvalid, parse_join_token
from shrk_node_agent.settings import AgentSettings

#: Where a coordinator listens for nodes unless it is told otherwise.
LINK_PORT = 9100
#: Stands in the join line of a coordinator that does not know its own address.
_HOST = "tcp://HOST:"
#: Words for nothing, beside an empty text.
NOTHING = frozenset({"-", "none", "no", "always"})

_TOKEN = re.compile(r"shrk_join_\S+")
_ADDRESS = re.compile(r"tcp://[^\s'\"]+")
_WEB = re.compile(r"https?://(\[[^\]\s]+\]|[^/:\s'\"]+)")
_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: Stands in, so that one setting can be judged before there is a model.
_SOME_MODEL: Mapping[str, object] = {"-": {"source": "-", "memory_gb": 1e-9}}


class AnswerWrong(Exception):
    """It cannot be meant; the words are for the owner."""


@dataclass(frozen=True, slots=True)
class Joining:
    """What a pasted line tells of a coordinator; "": not in it."""

    controller: str = ""
    token: str = ""
    #: An address that the line makes likely.
    likely: str = ""


def joining(text: str) -> Joining:
    """Of `tcp://HOST:PORT`, a join token, or any line that has them in it. Raises AnswerWrong."""
    token, address, web = _TOKEN.search(text), _ADDRESS.search(text), _WEB.search(text)
    if token is None and address is None and web is None:
        raise AnswerWrong(
            f"{text!r} is neither an address, such as tcp://10.0.0.1:{LINK_PORT}, nor the join line with one in it"
        )
    controller = checked("controller", address[0]) if address and not address[0].startswith(_HOST) else ""
    likely = f"tcp://{web[1]}:{LINK_PORT}" if web and not address else ""
    return Joining(controller, join_token(token[0]) if token else "", likely)


def controller(text: str) -> str:
    """An address, where a line did not tell it. Raises AnswerWrong."""
    if not text:
        raise AnswerWrong(
            f"it does not tell where the coordinator is: say that as tcp://10.0.0.1:{LINK_PORT}, and the token apart"
        )
    return checked("controller", text)


def join_token(text: str) -> str:
    """The token in a token or a join line. Raises AnswerWrong, whose words never repeat it."""
    found = _TOKEN.search(text)
    token = (found[0] if found else text).strip("'\"")
    try:
        parse_join_token(token)
    except JoinTokenInvalid as error:
        raise AnswerWrong(str(error)) from error
    return token


def checked(key: str, text: str) -> str:
    """A setting's text that the settings take. Raises AnswerWrong with what they say."""
    _judge({key: text, "catalogue": _SOME_MODEL}, key)
    return text


def optional(key: str, text: str) -> str:
    """The same, of one that may be nothing."""
    return "" if text.lower() in NOTHING else checked(key, text)


@dataclass(frozen=True, slots=True)
class Models:
    """What the catalogue gets: of each name what its table says."""

    added: Mapping[str, Mapping[str, object]]

    def changes(self, served: Sequence[str]) -> dict[str, str]:
        """For `config.set_values`. `served`: the setting `models`, which names all there are where it is empty."""
        changes = {
            f"catalogue.{tomlkit.key(name).as_string()}.{key}": str(value)
            for name, entry in self.added.items()
            for key, value in entry.items()
        }
        if served and self.added:
            changes["models"] = ",".join((*served, *self.added))
        return changes


def models(
    text: str,
    offered: Sequence[Suggestion],
    has: Collection[str],
    *,
    memory_gb: float | None = None,
    simulated: bool = False,
) -> Models:
    """Numbers and names of what is offered, ORG/NAME of the hub, folders of this machine; with commas or spaces.

    `has`: names in the catalogue already, which stay. `memory_gb`: as it is set. Raises AnswerWrong.
    """
    added: dict[str, Mapping[str, object]] = {}
    by_name = {one.known.name: one for one in offered}
    for word in re.split(r"[,\s]+", text.strip()):
        if word in has or not word or word.lower() in NOTHING:
            continue
        chosen = by_name.get(word)
        if word.isdecimal():
            if not 1 <= int(word) <= len(offered):
                numbers = f"1 to {len(offered)}" if offered else "none, for nothing is offered"
                raise AnswerWrong(f"{word} is not in the list: its numbers are {numbers}")
            chosen = offered[int(word) - 1]
        name, entry = (chosen.known.name, chosen.entry()) if chosen else _own(word, simulated=simulated)
        if name in has:
            raise AnswerWrong(f"{name} is in the catalogue already, with what `shrk get catalogue` shows")
        if name in added and added[name] != entry:
            raise AnswerWrong(_one_name(name, str(entry["source"]), str(added[name]["source"]), {*has, *added}))
        added[name] = entry
    if added:
        _judge({"catalogue": {name: dict(entry) for name, entry in added.items()}, "memory_gb": memory_gb}, "catalogue")
    return Models(added)


def _one_name(name: str, source: str, other: str, taken: Collection[str]) -> str:
    """Why a model cannot be added beside one of its name, and how it can be under another."""
    free = next(new for n in count(2) if (new := f"{name}-{n}") not in taken)
    key = shlex.quote(f"catalogue.{tomlkit.key(free).as_string()}.source")
    return (
        f"{source} and {other} would both be called {name}: take one of them now, and add the other afterwards under a "
        f"name of its own, such as: shrk set {key} {shlex.quote(source)}"
    )


def _own(word: str, *, simulated: bool) -> tuple[str, Mapping[str, object]]:
    """A model that is not in our list."""
    if is_path(word):
        folder = Path(word).expanduser().absolute()
        if not folder.is_dir():
            raise AnswerWrong(f"{folder} is no folder of this machine")
        return folder.name.lower(), {"source": str(folder)}
    if not simulated and not _ON_HUB.fullmatch(word):
        raise AnswerWrong(f"{word!r} is no number of the list, no ORG/NAME of a model on the hub, and no folder here")
    return word.rpartition("/")[2].lower(), {"source": word}


def _judge(values: Mapping[str, object], key: str) -> None:
    """What the settings say of these alone, whatever file and environment have. Raises AnswerWrong."""
    try:
        load(AgentSettings, Files(located(AgentSettings).main), ignoring=variables(AgentSettings), **values)
    except SettingsError as error:
        flag = f"--{key.replace('_', '-')}"
        if said := [problem for problem in error.problems if problem.startswith(flag)]:
            # As it was typed, it has no flag.
            words = said[0].removeprefix(f"{flag}: ").removeprefix("--")
            raise AnswerWrong(words) from error
