"""What happens to nodes and models: drawn before a run begins, and all over when its peace begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shrk_coordinator.state.replicas.facts import RESIDENT
from simulation.replicas.node import Node

if TYPE_CHECKING:
    from simulation.replicas.cluster import Cluster

#: A node that is only silent is known to be lost after this.
SILENCE_SECONDS = 15.0
#: A node is as cool as this, in degrees below its cap, where nothing heats it; and it stops its engines beyond it.
COOL_MARGIN = 15.0
STOP_MARGIN = -3.0
#: How often a temperature is reported.
HEAT_STEP_SECONDS = 5.0
#: An engine at which all requests fail is found to be sick between so many seconds after it began to serve.
FOUND_SECONDS = (60.0, 240.0)

Drawn = list[tuple[float, Callable[[], None]]]


def draw(cluster: Cluster, seconds: float) -> Drawn:
    """A run's events, as (seconds after the beginning, what)."""
    rng = cluster.rng
    kinds = (_kill, _blip, _window, _heat, _crash, _terms, _shrink, _demand, _quiet, _sicken, _sicken)
    calm = rng.random() < 0.15
    count = 0 if calm else rng.randint(1, 6 + int(seconds / 200.0))
    drawn: Drawn = []
    for _ in range(count):
        kind = rng.choice(kinds)
        drawn.append((60.0 + rng.random() * (seconds - 60.0), partial(kind, cluster)))
    for _ in range(rng.choice((0, 0, 1, 5))):
        drawn.append((rng.random() * seconds, cluster.join))
    if rng.random() < 0.25:
        drawn.append((60.0 + rng.random() * (seconds - 60.0), partial(_go_bad, cluster)))
    return sorted(drawn, key=lambda one: one[0])


def heal(cluster: Cluster) -> None:
    """All is as well as it will ever be: nodes are up, cool and open; loads that fail every time still do."""
    cluster.bad.clear()
    for node in cluster.nodes.values():
        for name, engine in node.engines.items():
            engine.fails = 0.0 if engine.fails < 1.0 else 1.0
            _recover(cluster, node, name, engine.serial)
        _open(cluster, node)
        node.margin = None if node.margin is None else COOL_MARGIN
        if not (node.up and node.linked):
            _back(cluster, node)
        cluster.report_soon(node)
    # In every other run people go on asking for all models, a little; in the others they fall idle once more.
    asked_at = cluster.clock.now + cluster.rng.choice((0.0, 1e6))
    for model in cluster.models.values():
        cluster.set_model(replace(model, waiting=0, under_way=0, asked_at=asked_at))


def _some(cluster: Cluster) -> Node | None:
    """A node that is well; busy ones more often than others."""
    well = [node for node in cluster.nodes.values() if node.up and node.linked and not node.closed]
    busy = [node for node in well if node.wanted]
    chosen = busy if busy and cluster.rng.random() < 0.8 else well
    return cluster.rng.choice(chosen) if chosen else None


def _lasts(cluster: Cluster) -> float:
    return cluster.rng.choice((20.0, 120.0, 900.0, 5_000.0)) * (0.5 + cluster.rng.random())


def _kill(cluster: Cluster) -> None:
    """Its process ends, and with it all engines; it may be back."""
    if (node := _some(cluster)) is not None:
        cluster.cause("is killed", node)
        node.stop_all()
        node.up = False
        node.wanted, node.revision = set(), 0
        for engine in node.engines.values():
            engine.given_up = False
        cluster.lost(node, cluster.rng.choice((0.0, SILENCE_SECONDS)))
        if cluster.rng.random() < 0.8:
            cluster.clock.after(_lasts(cluster), partial(_back, cluster, node))


def _blip(cluster: Cluster) -> None:
    """Its link is lost for a while; its engines go on."""
    if (node := _some(cluster)) is not None:
        cluster.cause("loses its link", node)
        cluster.lost(node, cluster.rng.choice((0.0, SILENCE_SECONDS)))
        cluster.clock.after(cluster.rng.choice((1.0, 5.0, 40.0, 400.0)), partial(_back, cluster, node))


def _back(cluster: Cluster, node: Node) -> None:
    if node.up and node.linked:
        return
    cluster.cause("is back", node)
    node.up = True
    cluster.hello(node)
    node.work()


def _window(cluster: Cluster) -> None:
    """Its hours will end: it says when, then closes, and opens again later."""
    node = _some(cluster)
    if node is None or node.closes_at is not None:
        return
    cluster.cause("will close", node)
    seconds = cluster.rng.choice((30.0, 300.0, 600.0, 1_500.0))
    node.closes_at = cluster.clock.now + seconds
    cluster.report_soon(node)
    cluster.clock.after(seconds, partial(_close, cluster, node, node.closes_at))


def _close(cluster: Cluster, node: Node, due: float) -> None:
    if node.closes_at != due:
        return
    cluster.cause("closes", node)
    cluster.laws.leaves(node)
    node.closed, node.closes_at = True, None
    node.stop_all()
    cluster.report_soon(node)
    cluster.clock.after(_lasts(cluster), partial(_open, cluster, node))


def _open(cluster: Cluster, node: Node) -> None:
    if node.closed or node.closes_at is not None:
        cluster.cause("is open", node)
        node.closed, node.closes_at = False, None
        node.work()
        cluster.report_soon(node)


def _heat(cluster: Cluster) -> None:
    """It becomes hotter, quickly or slowly; it may stop just short of its limit, or stop its engines."""
    node = _some(cluster)
    if node is None or (node.margin is not None and node.margin < COOL_MARGIN):
        return
    cluster.cause("heats up", node)
    node.margin = COOL_MARGIN
    lowest = cluster.rng.choice((1.0, -4.0, -4.0))
    step = cluster.rng.choice((1.0, 0.2, 0.05, 0.03))
    _hotter(cluster, node, step, lowest)


def _hotter(cluster: Cluster, node: Node, step: float, lowest: float) -> None:
    if node.margin is None or cluster.clock.now >= cluster.faults_end:
        return
    before, node.margin = node.margin, node.margin - step
    if int(before) != int(node.margin):  # Every report tells it; most change nothing.
        cluster.report_soon(node)
    if node.margin <= STOP_MARGIN and not node.closed:
        cluster.cause("is too hot", node)
        cluster.laws.leaves(node)
        node.closed = True
        node.stop_all()
    if node.margin > lowest:
        cluster.clock.after(HEAT_STEP_SECONDS, partial(_hotter, cluster, node, step, lowest))
    else:
        cluster.clock.after(_lasts(cluster), partial(_cooler, cluster, node))


def _cooler(cluster: Cluster, node: Node) -> None:
    if node.margin is not None and node.margin < COOL_MARGIN:
        cluster.cause("is cool", node)
        node.margin = COOL_MARGIN
        _open(cluster, node)
        cluster.report_soon(node)


def _crash(cluster: Cluster) -> None:
    """An engine ends by itself and its node gives it up."""
    node = _some(cluster)
    if node is not None and node.wanted:
        node.crash(cluster.rng.choice(sorted(node.wanted)))


def _sicken(cluster: Cluster) -> None:
    """Requests begin to fail at an engine that runs; it recovers by itself, or not before it is started anew."""
    node = _some(cluster)
    serving = [model for model in sorted(node.wanted) if node.serving(model)] if node is not None else []
    if node is None or not serving:
        return
    model = cluster.rng.choice(serving)
    serial = node.engines[model].serial
    cluster.cause(f"answers no more for {model}", node)
    node.sicken(model, serial)
    if cluster.rng.random() < 0.5:
        cluster.clock.after(_lasts(cluster), partial(_recover, cluster, node, model, serial))


def _recover(cluster: Cluster, node: Node, model: str, serial: int) -> None:
    if node.recover(model, serial):
        cluster.cause(f"answers again for {model}", node)


def _go_bad(cluster: Cluster) -> None:
    """A model's engines fail at all requests, on whatever node; later they are well once more, the old ones or not."""
    model = cluster.rng.choice(sorted(cluster.models))
    cluster.bad.add(model)
    cluster.laws.cause()
    cluster.trace.add(model, "is answered", "nowhere")
    for node in cluster.nodes.values():
        spoil(cluster, node, model)
    cluster.clock.after(_lasts(cluster), partial(_get_good, cluster, model, cluster.rng.random() < 0.5))


def spoil(cluster: Cluster, node: Node, model: str) -> None:
    """An engine of a bad model is found to be sick after a while. That is no cause of its own: the model is."""
    cluster.clock.after(
        cluster.rng.uniform(*FOUND_SECONDS), partial(_found, cluster, node, model, node.engines[model].serial)
    )


def _found(cluster: Cluster, node: Node, model: str, serial: int) -> None:
    if model in cluster.bad and node.sicken(model, serial):
        cluster.trace.add(node.node_id, f"answers nothing for {model}", "")


def _get_good(cluster: Cluster, model: str, by_themselves: bool) -> None:
    if model not in cluster.bad:
        return
    cluster.bad.remove(model)
    cluster.laws.cause()
    cluster.trace.add(model, "is answered", "again")
    for node in cluster.nodes.values() if by_themselves else ():
        _recover(cluster, node, model, node.engines[model].serial)


def _terms(cluster: Cluster) -> None:
    """Its owner changes what may be loaded."""
    if (node := _some(cluster)) is not None:
        cluster.cause("has other terms", node)
        names = sorted(cluster.models)
        node.allowed = frozenset(cluster.rng.sample(names, cluster.rng.randint(1, len(names))))
        cluster.report_soon(node)


def _shrink(cluster: Cluster) -> None:
    """Its owner gives less memory to models, or more; what is loaded beyond that ends."""
    if (node := _some(cluster)) is not None:
        cluster.cause("has other memory", node)
        node.memory = cluster.rng.choice((8, 16, 24, 32)) << 30
        while node.taken() > node.memory:
            node.crash(max(m for m, e in node.engines.items() if e.condition in RESIDENT))
        cluster.report_soon(node)


def _demand(cluster: Cluster) -> None:
    """People come, more than three nodes can serve; and go again."""
    rng, clock = cluster.rng, cluster.clock
    model = rng.choice(sorted(cluster.models))
    people = rng.choice((2, 10, 40, 200))
    cluster.laws.cause()
    ends = clock.now + _lasts(cluster)
    _ask(cluster, model, people, ends)


def _ask(cluster: Cluster, model: str, people: int, ends: float) -> None:
    """They are served four by four, and the rest waits."""
    now = cluster.clock.now
    if now >= min(ends, cluster.faults_end):
        cluster.laws.cause()
        cluster.set_model(replace(cluster.models[model], under_way=0, waiting=0))
        return
    places = 4 * sum(node.serving(model) for node in cluster.nodes.values())
    served = min(people, places)
    cluster.set_model(replace(cluster.models[model], under_way=served, waiting=people - served, asked_at=now))
    cluster.clock.after(10.0, partial(_ask, cluster, model, people, ends))


def _quiet(cluster: Cluster) -> None:
    """Somebody asks once, for something that may have been unloaded long ago."""
    model = cluster.rng.choice(sorted(cluster.models))
    cluster.laws.cause()
    cluster.set_model(replace(cluster.models[model], asked_at=cluster.clock.now))
