"""Why a model has fewer replicas than it should, and why it is not on one node: in words, for people.

The reconciler decides without them: they are made when somebody looks, so that what they say is true then. Each names
what holds, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from shrk_coordinator.state.events import NodeId
from shrk_coordinator.state.phrases import counted, gigabytes, lasting, named
from shrk_coordinator.state.replicas.domains import Tally
from shrk_coordinator.state.replicas.facts import RESIDENT, Condition
from shrk_coordinator.state.replicas.failures import Failures
from shrk_coordinator.state.replicas.places import Place
from shrk_coordinator.state.replicas.replicas import SICK_REPLACED_MAX, Replicas, Standing

#: What people call a node.
NodeName = Callable[[NodeId], str]
#: Nodes that are looked at for one model's reason: among so many are those that explain it.
LOOKED_AT_MAX = 256
#: Of a node's own words.
WORDS_LENGTH_MAX = 200

IDLE = "idle: loaded again when somebody asks"


def why_short(now: float, known: Replicas, settles_in: float, name: NodeName) -> str:
    """What keeps a model from having what it should have; empty where nothing does.

    `settles_in`: seconds until a coordinator that has just started takes it that all of its nodes are back.
    """
    if not known.wanted and known.candidates:
        return IDLE
    return "; ".join(_shortage(now, known, known.standing(now), settles_in, name))


def _shortage(now: float, known: Replicas, standing: Standing, settles_in: float, name: NodeName) -> Iterator[str]:
    wanted = max(1, known.wanted)
    if len(standing.serving) < wanted:
        yield from _under_way(now, known, standing, wanted, name)
    if known.held(now, standing):
        yield f"no more than {SICK_REPLACED_MAX} nodes at which its requests fail are replaced in an hour"
    elif known.eligible.nodes < wanted:
        there = counted(known.eligible.nodes, "node")
        yield f"{there} that may have it {'are' if known.eligible.nodes > 1 else 'is'} linked, and {wanted} are needed"
    elif standing.count < wanted:
        waits = settles_in > 0 and standing.count > 0 and any(known.open_places(now))
        yield from (_just_started(settles_in),) if waits else _no_more(now, known, name)
    elif not standing.coming and Tally(p.domains for p in standing.serving).count(known.level) < wanted:
        yield _shared(known, standing, wanted)


def _under_way(now: float, known: Replicas, standing: Standing, wanted: int, name: NodeName) -> Iterator[str]:
    """Who has gone, who goes, and who comes."""
    gone = [place for place in standing.going if not place.facts.linked]
    stopped = [place for place in gone if place.facts.draining]
    away = [place for place in standing.coming if not place.facts.linked]
    if stopped:
        yield f"{_were(stopped, wanted, 'stopped')} {_since(now, stopped)} ago"
    if lost := [place for place in gone if not place.facts.draining]:
        yield f"{_were(lost, wanted, 'lost')} {_since(now, lost)} ago"
    if away:
        yield f"{_were(away, wanted, 'lost')} {_since(now, away)} ago and may be back"
    # Of those that still serve the roster knows as much.
    unloaded = [p for p in standing.going if p.facts.linked and p.condition(known.name) is not Condition.SERVING]
    if leaving := [place for place in unloaded if known.takes(place)]:
        yield named([f"{name(place.facts.node_id)} {_leaving(now, place)}" for place in leaving])
    if loading := len(standing.coming) - len(away):
        yield f"{loading} of {wanted} {'is' if loading == 1 else 'are'} loading"
    if late := [place for place in standing.late if place.condition(known.name) is Condition.LOADING]:
        longest = now - min(place.facts.engines[known.name].since for place in late)
        have = "has" if len(late) == 1 else "have"
        yield f"{len(late)} of {wanted} {have} been loading for {lasting(longest)}, longer than usual"


def _were(places: list[Place], wanted: int, what: str) -> str:
    return f"{len(places)} of {wanted} {'was' if len(places) == 1 else 'were'} {what}"


def _since(now: float, places: list[Place]) -> str:
    return lasting(now - max(place.facts.since for place in places))


def _just_started(settles_in: float) -> str:
    return f"the coordinator has just started: for another {settles_in:.0f} s it waits for nodes that have it loaded"


def _shared(known: Replicas, standing: Standing, wanted: int) -> str:
    word, possible = known.level.word, known.eligible.count(known.level)
    apart = Tally(place.domains for place in standing.serving).count(known.level)
    spread = f"those that may have it are on no more than {possible}"
    no_more = spread if possible < wanted else f"none on another {word} has room"
    return f"its nodes share {counted(apart, word)}, where {wanted} are wanted, and {no_more}"


def _no_more(now: float, known: Replicas, name: NodeName) -> Iterator[str]:
    """What is the matter with the nodes that could have it, and do not."""
    failed: list[tuple[float, Place, Failures]] = []
    leaving: list[Place] = []
    full: list[tuple[int, NodeId, Place]] = []
    for place in islice(known.candidates.values(), LOOKED_AT_MAX):
        if known.name in place.assigned or not known.takes(place):
            continue
        if (failures := place.failures.get(known.name)) is not None and failures.until > now:
            failed.append((failures.until, place, failures))
        elif place.leaves(now, known.facts.load_seconds):
            leaving.append(place)
        else:
            full.append((place.size(known.name) - place.free, place.facts.node_id, place))
    if failed:
        until, first, how = min(failed, key=lambda one: (one[0], one[1].facts.node_id))
        others = f" and {counted(len(failed) - 1, 'other node')}" if failed[1:] else ""
        yield f"{_failed(how)} on {name(first.facts.node_id)}{others}, tried again in {lasting(until - now)}"
    if leaving:
        yield named([f"{name(place.facts.node_id)} {_leaving(now, place)}" for place in leaving])
    if full:
        missing, _, best = min(full)
        yield _room(known, best, missing, len(full), name)


def _failed(failures: Failures) -> str:
    return "requests kept failing" if failures.served else "loading failed"


def _room(known: Replicas, best: Place, missing: int, count: int, name: NodeName) -> str:
    """How far from enough the best of so many nodes is."""
    node = name(best.facts.node_id)
    if missing <= 0:
        return f"{node} has room for it and is about to be asked"
    most = " and the others no more" if count > 1 else ""
    return f"it needs {gigabytes(best.size(known.name))}; {node} has {gigabytes(best.free)} free{most}"


def _leaving(now: float, place: Place) -> str:
    facts = place.facts
    if facts.draining:
        return "is stopping"
    if not facts.linked:
        return f"was lost {lasting(now - facts.since)} ago"
    if place.hot or facts.closes_at is None:
        return "is too hot"
    return f"closes in {lasting(facts.closes_at - now)}"


def why_not_there(now: float, known: Replicas, place: Place, settles_in: float) -> str:
    """Why a node is not to load a model; empty where it is."""
    model = known.name
    if model in place.assigned:
        return ""
    if not place.permits(model):
        return _forbidden(place, model)
    if (failures := place.failures.get(model)) is not None and failures.until > now:
        engine = place.facts.engines[model]
        why = f": {engine.reason[:WORDS_LENGTH_MAX]}" if engine.reason and engine.condition is Condition.FAILED else ""
        return f"{_failed(failures)} here{why}; tried again in {lasting(failures.until - now)}"
    if place.leaves(now, known.facts.load_seconds):
        return f"the node {_leaving(now, place)}"
    if not known.takes(place):
        return IDLE
    # Not how they stand: of many nodes each would count all the others.
    copies = len(known.places)
    if copies >= known.target:
        return f"{copies} {'copy is' if copies == 1 else 'copies are'} elsewhere"
    if settles_in > 0 and copies:
        return f"the coordinator has just started; other copies are given in {settles_in:.0f} s"
    if place.engine(model) and place.condition(model) not in RESIDENT and place.size(model) > place.free:
        return f"memory is taken{_taken_by(place)}: it needs {_needs(place, model)}"
    return ""


def _forbidden(place: Place, model: str) -> str:
    size = place.size(model)
    if size > place.facts.memory:
        return f"it needs {gigabytes(size)}, and the node has {gigabytes(place.facts.memory)} for models"
    return "the node's owner does not allow it"


def _taken_by(place: Place) -> str:
    resident = {model for model, engine in place.facts.engines.items() if engine.condition in RESIDENT}
    others = sorted(place.assigned.keys() | place.unloading.keys() | resident)
    return f" by {named(others)}" if others else ""


def _needs(place: Place, model: str) -> str:
    return f"{gigabytes(place.size(model))}, and {gigabytes(place.free)} are free"
