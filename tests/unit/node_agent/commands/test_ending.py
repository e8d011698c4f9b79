"""How verbs end: with a sentence and a code, never with a traceback for what a person can mend."""

from __future__ import annotations

import pytest
import typer

from shrk_contract.trouble import Trouble
from shrk_node_agent.commands.ending import Exit, WrongUsage, said_plainly
from shrk_node_agent.control_client import NoAnswer, Refused


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        (Trouble("no"), Exit.ERROR, "shrk: no\n"),
        (WrongUsage("what?"), Exit.USAGE, "shrk: what?\n"),
        (NoAnswer("/status", 10), Exit.TIMEOUT, "did not answer /status within 10 s"),
        (Refused(400, {"error": "seconds is 0"}), Exit.ERROR, "shrk: seconds is 0\n"),
        (Refused(404, {}), Exit.ERROR, "the agent that runs is older than this command"),
    ],
)
def test_what_a_person_can_mend_is_a_sentence(
    trouble: Trouble, code: Exit, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, said_plainly():
        raise trouble
    assert ended.value.exit_code == code
    assert said in capsys.readouterr().err


def test_ctrl_c_ends_it_as_a_shell_expects() -> None:
    with pytest.raises(typer.Exit) as ended, said_plainly():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), said_plainly():
        raise ZeroDivisionError
