"""`shrk setup`: this machine's first settings, asked one by one; later, another look at them.

Everything is asked and judged before anything is written, and what is written is written at once: an interruption
leaves the file as it was. Exit codes: 0 written, 1 not written, 2 nobody can be asked, 5 an answer is not valid, 130
interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Annotated

import typer

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands import polling
from shrk_node_agent.commands.ending import Exit, WrongUsage, said_plainly
from shrk_node_agent.commands.typed import verb
from shrk_node_agent.control_client import NotAllowed, NotRunning, ask, running_in

if TYPE_CHECKING:  # Settings load slowly, and --help needs none.
    from shrk_node_agent.commands.setup_answers import Models
    from shrk_node_agent.commands.setup_present import Present
    from shrk_node_agent.reload import Changes

app = verb()

#: Models that are offered; the others are in `shrk models suggest --all`.
OFFERED_MAX = 5
_FLAGS = "--controller, --join-token, --name, --temp-max, --schedule, --payout-address, --model"


class NotWritten(Trouble):
    """The owner said no, or went away."""


class FlagWrong(Trouble):
    """An answer that was given as an option is not valid, or one is missing. `str()` says what is."""

    exit_code = Exit.CONFIG_INVALID


@dataclass(slots=True)
class Person:
    """Who answers: reads a line, and is told things."""

    reads: IO[str]
    writes: IO[str]

    def say(self, text: str = "") -> None:
        """A line."""
        print(text, file=self.writes, flush=True)

    def ask(self, what: str, proposed: str, take: Callable[[str], str]) -> str:
        """An answer that `take` takes; nothing typed is what is proposed. Raises NotWritten at the end of all input."""
        from shrk_node_agent.commands.setup_answers import AnswerWrong

        while True:
            self.writes.write(f"{what}{f' [{proposed}]' if proposed else ''}: ")
            self.writes.flush()
            line = self.reads.readline()
            if not line:
                self.say()
                raise NotWritten("nothing is written: the answers ended too early")
            try:
                return take(line.strip() or proposed)
            except AnswerWrong as error:
                self.say(f"  {error}")


@dataclass(frozen=True, slots=True)
class Given:
    """What was given as an option: it is not asked. None: it was not given."""

    controller: str | None = None
    join_token: str | None = None
    name: str | None = None
    temp_max: str | None = None
    schedule: str | None = None
    payout_address: str | None = None
    models: tuple[str, ...] = ()


@dataclass(slots=True)
class Answers:
    """All of them, as texts for `config.set_values`; and the new tables of the catalogue."""

    changes: dict[str, str] = field(default_factory=dict)
    catalogue: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@app.command()
def setup(
    controller: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="The coordinator, or the whole join line.")
    ] = None,
    join_token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="What admits this machine.  [env: SHRK_JOIN_TOKEN]")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What this machine is called in lists.")] = None,
    temp_max: Annotated[str | None, typer.Option(metavar="CELSIUS", help="How warm a GPU may become.")] = None,
    schedule: Annotated[str | None, typer.Option(metavar="HOURS", help="When to serve; always: at any time.")] = None,
    payout_address: Annotated[
        str | None, typer.Option(metavar="0x...", help="Where earnings go; none: nowhere.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="To serve: of shrk models suggest, ORG/NAME or a folder. Repeatable."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: what is proposed, and the options.")] = False,
) -> None:
    """Write this node's first settings, or change them: asks one by one, and writes them all at the end."""
    with said_plainly():
        person = Person(sys.stdin, sys.stdout)
        if not yes and not sys.stdin.isatty():
            raise WrongUsage(f"nobody can be asked: this is no terminal. Say --yes, and what it would ask: {_FLAGS}")
        given = Given(controller, join_token, name, temp_max, schedule, payout_address, tuple(model or ()))
        try:
            run(person, given, ask=not yes)
        except KeyboardInterrupt:
            person.say("\nNothing is written.")
            raise


def run(person: Person, given: Given, *, ask: bool) -> None:
    """Ask what is not given, show what comes of it, write it. Raises Trouble; then the file is as it was."""
    from shrk_node_agent.commands.setup_present import present

    now = present()
    answers = _answers(person if ask else None, given, now)
    if not answers.changes:
        person.say(f"Nothing changes: {now.file} says all of this already.")
        return
    person.say(f"\nThis goes into {now.file}:")
    for line in _shown(answers):
        person.say(f"  {line}")
    if ask and person.ask("Write it?", "yes", str).lower() not in ("y", "yes"):
        raise NotWritten(f"nothing is written; {now.file} is as it was")
    _write(person, answers, now)


def _answers(person: Person | None, given: Given, now: Present) -> Answers:
    """`person` None: what is given, and what is proposed. Raises FlagWrong, NotWritten."""
    from shrk_node_agent.commands import setup_answers as answer

    def one(what: str, flag: str, said: str | None, proposed: str, take: Callable[[str], str]) -> str:
        if person is not None and said is None:
            return person.ask(what, proposed, take)
        try:
            return take(proposed if said is None else said)
        except answer.AnswerWrong as error:
            raise FlagWrong(f"--{flag}: {error}") from error

    found = Answers()
    said = one("Coordinator, or the join line", "controller", given.controller, now.text("controller"), now.joining)
    joining = answer.joining(said) if said else answer.Joining()
    controller = joining.controller
    if said and not controller:
        what = "The coordinator's address, tcp://HOST:PORT"
        controller = one(what, "controller", None if person else joining.likely, joining.likely, answer.controller)
    token = given.join_token or (os.environ.get("SHRK_JOIN_TOKEN") if person is None else None) or joining.token or None
    hint = " (Enter: this machine's own stays)" if now.has_joined or now.text("join_token") else ""
    token = one(f"Join token{hint}", "join-token", token, "", now.token)
    where = "" if now.text("name") else now.host
    name = one("This machine's name in lists", "name", given.name, now.text("name") or where, _taking("name"))
    heat = one(
        "No GPU warmer than, in °C", "temp-max", given.temp_max, now.text("temp_max") or "70", _taking("temp_max")
    )
    hours = "Hours, such as 22:00-08:00 or mon-fri 22:00-08:00 (always: at any time)"
    schedule = one(hours, "schedule", given.schedule, now.text("schedule") or "always", _taking("schedule"))
    payout = "Payout address, 0x... (none: decide later)"
    address = now.text("payout_address") or "none"
    address = one(payout, "payout-address", given.payout_address, address, _taking("payout_address"))
    texts = {"controller": controller, "join_token": token, "name": "" if name == where else name}
    texts |= {"temp_max": heat, "schedule": schedule, "payout_address": address}
    found.changes = {key: text for key, text in texts.items() if now.differs(key, text)}
    chosen = _models(person, given.models, now)
    found.catalogue = chosen.added
    found.changes |= chosen.changes(now.served)
    return found


def _taking(key: str) -> Callable[[str], str]:
    from shrk_node_agent.commands.setup_answers import checked, optional

    judge = optional if key in ("schedule", "payout_address") else checked
    return lambda text: judge(key, text)


def _models(person: Person | None, given: tuple[str, ...], now: Present) -> Models:
    """Raises FlagWrong, NotWritten."""
    from shrk_node_agent.commands import setup_answers as answer

    found, why = now.suggested()
    offered = [one for one in found if one.fits and one.known.source not in now.sources.values()]
    chosen = answer.Models({})

    def take(text: str) -> str:
        nonlocal chosen
        numbered = offered[:OFFERED_MAX] if person and not given else offered
        chosen = answer.models(text, numbered, now.sources, memory_gb=now.memory_gb, simulated=now.simulated)
        if not chosen.added and not now.sources:
            raise answer.AnswerWrong("a node without a model has nothing to serve: name one, as ORG/NAME or a folder")
        return text

    proposed = "" if now.sources else next((one.known.name for one in offered), "")
    if person is None or given:
        try:
            take(",".join(given) or proposed)
        except answer.AnswerWrong as error:
            raise FlagWrong(f"--model: {error}") from error
        return chosen
    if now.sources:
        person.say(f"Models in the catalogue: {', '.join(now.sources)}")
    if why:
        person.say(why)
    for number, one in enumerate(offered[:OFFERED_MAX], 1):
        gated = "; gated: needs HF_TOKEN" if one.known.gated else ""
        size = f"{one.bytes_needed / 1e9:.1f} GB"
        person.say(f"  {number}. {one.known.name} ({size}, {one.known.licence}{gated}): {one.known.good_for}")
    more = " (none: no other)" if now.sources else ""
    person.ask(f"Models to serve: numbers, ORG/NAME of the hub, or a folder{more}", proposed or "none", take)
    return chosen


def _shown(answers: Answers) -> list[str]:
    """As the file will have it; the token is a secret."""
    return [
        f"{key} = {'********' if key == 'join_token' else text or '(nothing)'}" for key, text in answers.changes.items()
    ]


def _write(person: Person, answers: Answers, now: Present) -> None:
    """Raises SettingsError, ConfigUnchanged."""
    from shrk_node_agent.config import ConfigUnchanged, set_values
    from shrk_node_agent.default_file import commented_file

    try:
        now.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigUnchanged(f"{now.file.parent} cannot be made: {error.strerror}; try it with sudo") from error
    written = set_values(answers.changes, blank=commented_file(catalogue=answers.catalogue))
    person.say(f"Written: {written.file}")
    for name, variable in written.outdone_by.items():
        person.say(f"{variable} is set in this shell and wins over the file's {name} where the agent has it, too.")
    if missing := now.engine_missing():
        person.say(missing)
    _tell_agent(person, written.changes)


def _tell_agent(person: Person, changes: Changes) -> None:
    """Raises Refused where it runs with other settings than the file's, and they contradict what is new."""
    folder = running_in(None)
    try:
        polling.status(folder)
    except (NotRunning, NotAllowed):
        person.say("Next: shrk start")
        return
    if changes.needs_restart:
        person.say(f"The agent runs; {changes.sentence()}. Next: shrk stop, then shrk start")
    else:
        ask(folder, "POST", "/reload")
        person.say("The agent, which runs, has taken it in.")
