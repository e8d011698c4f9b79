"""Wire messages to the words of `terms` and back."""

from __future__ import annotations

import pytest

from shrk_contract import convert
from shrk_contract.terms import (
    Device,
    Endpoint,
    EngineReport,
    Fault,
    Host,
    Pin,
    Rejection,
    Report,
    State,
    Status,
    Terms,
)
from shrk_contract.v1 import report_pb2

REPORT = Report(
    host=Host("rig", "Linux", "x86_64", 8, 64 << 30),
    status=Status(State.COOLING, "71 °C", "wait", 123),
    engines=(
        EngineReport(
            id="e",
            model="m",
            status=Status(State.LOADING),
            pin=Pin("vllm", "0.32", "rev", "awq", "float16", "t", "c", "hermes", "none"),
            endpoints=(Endpoint.CHAT_COMPLETIONS, Endpoint.MESSAGES),
            slots=4,
            running=2,
            waiting=1,
            context_tokens=4096,
            progress=0.5,
        ),
        EngineReport(id="f", model="n", status=Status(State.ONLINE)),
    ),
    devices=(Device("GPU-1", "RTX", 24 << 30, 1 << 30, 71.5, None, 0.25), Device("GPU-2")),
    terms=Terms(68.0, "22:00-08:00", "Europe/Amsterdam", ("m",), 99),
    agent_version="0.1",
    sequence=7,
)


def test_a_report_survives_the_wire_with_every_field() -> None:
    wire = report_pb2.Report.FromString(convert.report_to_wire(REPORT).SerializeToString())
    assert convert.report_from_wire(wire) == REPORT


@pytest.mark.parametrize(
    ("words", "to_wire", "from_wire"),
    [
        (Endpoint, convert.endpoint_to_wire, convert.endpoint_from_wire),
        (Fault, convert.fault_to_wire, convert.fault_from_wire),
        (Rejection, convert.rejection_to_wire, convert.rejection_from_wire),
    ],
)
def test_every_word_of_a_closed_list_has_a_number_of_its_own(words, to_wire, from_wire) -> None:  # type: ignore[no-untyped-def]  # three signatures
    assert [from_wire(to_wire(word)) for word in words] == list(words)
    assert len({to_wire(word) for word in words}) == len(words)


def test_words_of_a_newer_minor_version_read_as_the_careful_choice() -> None:
    assert convert.endpoint_from_wire(99) is None
    assert convert.fault_from_wire(99) is Fault.NODE
    assert convert.rejection_from_wire(99) is Rejection.UNSUPPORTED
    engine = convert.engine_from_wire(report_pb2.Engine(id="e", endpoints=[1, 99]))  # type: ignore[list-item]  # 99 is unknown
    assert engine.endpoints == (Endpoint.CHAT_COMPLETIONS,)
    assert engine.status.state is State.STARTING
