"""Wire messages to the words of `terms` and back: the only module that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from shrk_contract.terms import (
    Device,
    Endpoint,
    EngineReport,
    Fault,
    Host,
    Pin,
    Rejection,
    Report,
    ResumeMethod,
    State,
    Status,
    Terms,
)
from shrk_contract.v1 import link_pb2, report_pb2

Word = TypeVar("Word")

_STATE_TO_WIRE = {s: report_pb2.State.Value(f"STATE_{s.name}") for s in State}
_STATE_FROM_WIRE = {number: s for s, number in _STATE_TO_WIRE.items()}
_ENDPOINT_TO_WIRE = {e: report_pb2.Endpoint.Value(f"ENDPOINT_{e.name}") for e in Endpoint}
_ENDPOINT_FROM_WIRE = {number: e for e, number in _ENDPOINT_TO_WIRE.items()}
_FAULT_TO_WIRE = {f: link_pb2.Fault.Value(f"FAULT_{f.name}") for f in Fault}
_FAULT_FROM_WIRE = {number: f for f, number in _FAULT_TO_WIRE.items()}
_REJECTION_TO_WIRE = {r: link_pb2.RejectionReason.Value(f"REJECTION_REASON_{r.name}") for r in Rejection}
_REJECTION_FROM_WIRE = {number: r for r, number in _REJECTION_TO_WIRE.items()}
_RESUME_TO_WIRE = {m: link_pb2.ResumeMethod.Value(f"RESUME_METHOD_{m.name}") for m in ResumeMethod}
_RESUME_FROM_WIRE = {number: m for m, number in _RESUME_TO_WIRE.items()}


def _known(words: Mapping[Any, Word], number: int) -> Word | None:
    """The word for a number; None where a newer peer sends one that this side does not know."""
    return words.get(number)


def endpoint_to_wire(endpoint: Endpoint) -> report_pb2.Endpoint.ValueType:
    """The wire's number for an endpoint."""
    return _ENDPOINT_TO_WIRE[endpoint]


def endpoint_from_wire(number: int) -> Endpoint | None:
    """The endpoint, or None where a newer peer names one that this side does not know."""
    return _known(_ENDPOINT_FROM_WIRE, number)


def fault_to_wire(fault: Fault) -> link_pb2.Fault.ValueType:
    """The wire's number for a fault."""
    return _FAULT_TO_WIRE[fault]


def fault_from_wire(number: int) -> Fault:
    """Whose fault; an unknown number is the node's, which sent it."""
    return _known(_FAULT_FROM_WIRE, number) or Fault.NODE


def resume_method_to_wire(method: ResumeMethod) -> link_pb2.ResumeMethod.ValueType:
    """The wire's number for a way of going on."""
    return _RESUME_TO_WIRE[method]


def resume_method_from_wire(number: int) -> ResumeMethod | None:
    """How to go on, or None where a newer peer names a way that this side does not know."""
    return _known(_RESUME_FROM_WIRE, number)


def rejection_to_wire(reason: Rejection) -> link_pb2.RejectionReason.ValueType:
    """The wire's number for a rejection."""
    return _REJECTION_TO_WIRE[reason]


def rejection_from_wire(number: int) -> Rejection:
    """The reason; an unknown number reads as `unsupported`."""
    return _known(_REJECTION_FROM_WIRE, number) or Rejection.UNSUPPORTED


def status_to_wire(status: Status) -> report_pb2.Status:
    """A status as it travels."""
    return report_pb2.Status(
        state=_STATE_TO_WIRE[status.state],
        reason=status.reason,
        next_action=status.next_action,
        since_unix_ms=status.since_unix_ms,
    )


def status_from_wire(message: report_pb2.Status) -> Status:
    """A status; an unknown state reads as `starting`, in which nothing is placed."""
    return Status(
        state=_known(_STATE_FROM_WIRE, message.state) or State.STARTING,
        reason=message.reason,
        next_action=message.next_action,
        since_unix_ms=message.since_unix_ms,
    )


def pin_to_wire(pin: Pin) -> report_pb2.Pin:
    """A pin as it travels."""
    return report_pb2.Pin(**{name: getattr(pin, name) for name in Pin.__slots__})


def pin_from_wire(message: report_pb2.Pin) -> Pin:
    """A pin."""
    return Pin(**{name: getattr(message, name) for name in Pin.__slots__})


def engine_to_wire(engine: EngineReport) -> report_pb2.Engine:
    """An engine's report as it travels."""
    return report_pb2.Engine(
        id=engine.id,
        model=engine.model,
        status=status_to_wire(engine.status),
        pin=pin_to_wire(engine.pin),
        endpoints=[endpoint_to_wire(e) for e in engine.endpoints],
        slots=engine.slots,
        running=engine.running,
        waiting=engine.waiting,
        context_tokens=engine.context_tokens,
        progress=engine.progress,
        life=engine.life,
        memory_bytes=engine.memory_bytes,
    )


def engine_from_wire(message: report_pb2.Engine) -> EngineReport:
    """An engine's report; endpoints this side does not know are left out."""
    known = (endpoint_from_wire(number) for number in message.endpoints)
    return EngineReport(
        id=message.id,
        model=message.model,
        status=status_from_wire(message.status),
        pin=pin_from_wire(message.pin),
        endpoints=tuple(e for e in known if e is not None),
        slots=message.slots,
        running=message.running,
        waiting=message.waiting,
        context_tokens=message.context_tokens,
        progress=message.progress if message.HasField("progress") else None,
        life=message.life,
        memory_bytes=message.memory_bytes,
    )


def device_to_wire(device: Device) -> report_pb2.Device:
    """A device as it travels."""
    return report_pb2.Device(**{name: getattr(device, name) for name in Device.__slots__})


def device_from_wire(message: report_pb2.Device) -> Device:
    """A device; a figure that was not sent is None."""
    return Device(
        id=message.id,
        name=message.name,
        memory_bytes=message.memory_bytes,
        memory_free_bytes=message.memory_free_bytes,
        temperature_celsius=message.temperature_celsius if message.HasField("temperature_celsius") else None,
        power_watts=message.power_watts if message.HasField("power_watts") else None,
        utilisation=message.utilisation if message.HasField("utilisation") else None,
    )


def report_to_wire(report: Report) -> report_pb2.Report:
    """A report as it travels."""
    return report_pb2.Report(
        host=report_pb2.Host(**{name: getattr(report.host, name) for name in Host.__slots__}),
        devices=[device_to_wire(d) for d in report.devices],
        engines=[engine_to_wire(e) for e in report.engines],
        terms=report_pb2.Terms(
            temperature_celsius_max=report.terms.temperature_celsius_max,
            schedule=report.terms.schedule,
            time_zone=report.terms.time_zone,
            models=report.terms.models,
            closes_in_seconds=report.terms.closes_in_seconds,
            memory_bytes=report.terms.memory_bytes,
            scales_to_zero=report.terms.scales_to_zero,
            kept_back=report.terms.kept_back,
        ),
        status=status_to_wire(report.status),
        agent_version=report.agent_version,
        sequence=report.sequence,
    )


def report_from_wire(message: report_pb2.Report) -> Report:
    """A report."""
    return Report(
        host=Host(**{name: getattr(message.host, name) for name in Host.__slots__}),
        status=status_from_wire(message.status),
        engines=tuple(engine_from_wire(e) for e in message.engines),
        devices=tuple(device_from_wire(d) for d in message.devices),
        terms=Terms(
            temperature_celsius_max=message.terms.temperature_celsius_max,
            schedule=message.terms.schedule,
            time_zone=message.terms.time_zone,
            models=tuple(message.terms.models),
            closes_in_seconds=message.terms.closes_in_seconds if message.terms.HasField("closes_in_seconds") else None,
            memory_bytes=message.terms.memory_bytes,
            scales_to_zero=message.terms.scales_to_zero,
            kept_back=message.terms.kept_back,
        ),
        agent_version=message.agent_version,
        sequence=message.sequence,
    )
