"""The house's rules that no other tool holds. Each takes one module and yields its offences, as `path:line: what`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from support.house import Module, words_of

#: A reader keeps a file of this size in mind; beyond it, its entry below says why it may be larger.
MODULE_LINES_ASK = 400
#: h11's largest file has 659 lines and httpcore's 592: nothing needs more.
MODULE_LINES_MAX = 600
#: What a screen shows.
FUNCTION_LINES_MAX = 70

#: Modules between the two, each with the reason why splitting it would make it harder to read.
LARGE_MODULES: Mapping[str, str] = {}

#: They say nothing about what a thing does.
EMPTY_WORDS = frozenset({"manager", "handler", "handlers", "helper", "helpers", "util", "utils", "worker", "workers"})
#: Empty as a module, a class or a function of their own; `base_url` and `data_plane` are words of the trade.
VAGUE_NAMES = frozenset({"common", "base", "core", "data", "misc"})

#: Where time and randomness come from. The event loop's own clock is not here: it only measures waits.
CLOCKS_AND_DICE = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time)(_ns)?"
    r"|datetime\.(datetime|date)\.(now|utcnow|today)"
    r"|random\..+|secrets\..+|uuid\.uuid[14]|os\.(urandom|getrandom)"
)
#: Product modules, and whole folders, that may look at a clock or roll dice. All others are given both.
CLOCK_OWNERS: Mapping[str, str] = {
    "coordinator/shrk_coordinator/app.py": "composition root: hands clocks and randomness to what it builds",
    "coordinator/shrk_coordinator/cli.py": "composition root of the one-off commands",
    "coordinator/shrk_coordinator/driver.py": "owns the clock that the state is given",
    "coordinator/shrk_coordinator/data_plane/http.py": "a request begins here: its id, its start and its `created`",
    "node_agent/shrk_node_agent/app.py": "composition root",
    "node_agent/shrk_node_agent/driver.py": "owns the clock that the state is given",
    "node_agent/shrk_node_agent/doctor.py": "composition root of `shrk doctor`",
    "node_agent/shrk_node_agent/netcheck.py": "composition root of `shrk netcheck`",
    "node_agent/shrk_node_agent/commands/pause.py": "`until 08:00` is a time of this machine's day",
    "node_agent/shrk_node_agent/commands/polling.py": "the verbs' deadlines, beside no event loop",
    "node_agent/shrk_node_agent/link/session.py": "measures how long an attempt took, for the finish frame",
    "node_agent/shrk_node_agent/engine/process.py": "names the folder of an engine's socket",
    "node_agent/shrk_node_agent/engine/sweep.py": "waits for processes to die, beside no event loop",
    "node_agent/shrk_node_agent/engine/warden.py": "a program of its own, without an event loop",
    "node_agent/shrk_node_agent/engine/tiny_model.py": "a program of its own; its dice are seeded",
    "node_agent/shrk_node_agent/engine/simulated/": "a program of its own: ids and times as vLLM gives them",
    "cli/shrk_cli/chaos/cli.py": "composition root: seeds the dice of jitter",
    "cli/shrk_cli/dev/foreground.py": "tells how long starting took",
    "cli/shrk_cli/dev/progress.py": "the default of a clock that tests replace",
    "cli/shrk_cli/dev/engines.py": "names a folder that no other process may have",
    "cli/shrk_cli/dev/janitor.py": "waits for processes to die, beside no event loop",
}
#: Modules that may block in `time.sleep`, beside no event loop: they wait for other processes, which tell nobody.
SLEEPERS = frozenset(
    {
        "node_agent/shrk_node_agent/engine/sweep.py",
        "node_agent/shrk_node_agent/engine/warden.py",
        "node_agent/shrk_node_agent/commands/polling.py",
        "cli/shrk_cli/dev/janitor.py",
        "bench/network.py",
        "tests/support/processes.py",
    }
)

#: What a bound or a deadline is called.
BOUND = re.compile(r"[A-Z][A-Z_]*_(MAX|MIN|LIFE|BYTES|SECONDS|MS)(_MAX|_MIN)?")

_IGNORE = re.compile(r"#\s*(type:\s*ignore|noqa|pragma)\b[^#]*(?P<reason>#\s*\w.*)?")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_opens_with_its_purpose(module: Module) -> Iterator[str]:
    """Every module says what it is for."""
    if not ast.get_docstring(module.tree):
        yield f"{module.path}:1: no docstring; say what the module is for"


def docstrings_stand_first(module: Module) -> Iterator[str]:
    """A string behind a function's first statement is nobody's docstring."""
    for node in module.nodes:
        for statement in node.body[1:] if isinstance(node, Function) else ():
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield f"{module.path}:{statement.lineno}: a docstring stands first in {node.name}, or is a comment"


def module_is_small(module: Module) -> Iterator[str]:
    """A module is at most 400 lines; with a reason, 600."""
    lines = module.source.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"{module.path}: {lines} lines, more than {MODULE_LINES_MAX}; split it"
    elif lines > MODULE_LINES_ASK and module.path not in LARGE_MODULES:
        yield f"{module.path}: {lines} lines, more than {MODULE_LINES_ASK}; split it, or say why in LARGE_MODULES"


def functions_are_short(module: Module) -> Iterator[str]:
    """A function is at most 70 lines, its docstring included."""
    for node in module.nodes:
        if isinstance(node, Function):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{module.path}:{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def names_say_something(module: Module) -> Iterator[str]:
    """No module, class or function is named for nothing in particular."""
    folders = module.path.removesuffix(".py").split("/")
    named = [(1, part) for part in folders]
    named += [(n.lineno, n.name) for n in module.nodes if isinstance(n, Function | ast.ClassDef)]
    for line, name in named:
        words = words_of(name)
        vague = [name] if name.lower().strip("_") in VAGUE_NAMES else []
        if name[:1].isupper():
            vague = [word for word in words if word in VAGUE_NAMES]
        if empty := vague + [word for word in words if word in EMPTY_WORDS]:
            yield f"{module.path}:{line}: {name!r} says {empty[0]!r}; name what it does (STYLE.md, glossary)"


def time_and_dice_are_given(module: Module) -> Iterator[str]:
    """Only the modules in CLOCK_OWNERS read a clock or draw a random number."""
    if not module.in_product or module.path.startswith(tuple(CLOCK_OWNERS)):
        return
    for line, name in uses(module, CLOCKS_AND_DICE):
        yield f"{module.path}:{line}: {name}; take the time or the value as an argument"


def nobody_sleeps(module: Module) -> Iterator[str]:
    """`time.sleep` blocks the event loop, and in a test it guesses."""
    if module.path in SLEEPERS:
        return
    for line, name in uses(module, re.compile(r"time\.sleep")):
        yield f"{module.path}:{line}: {name}; wait for the event itself"


def our_own_code_is_not_patched(module: Module) -> Iterator[str]:
    """Fakes ship with the product; a patched module tests something that nobody runs."""
    for line, name in uses(module, re.compile(r"(unittest\.)?mock(\..+)?|unittest\.mock.*")):
        yield f"{module.path}:{line}: {name}; use one of the fakes that ship (STYLE.md)"
    for node in module.nodes:
        if isinstance(node, ast.arg) and node.arg == "mocker":
            yield f"{module.path}:{node.lineno}: mocker; use one of the fakes that ship (STYLE.md)"


def surprises_are_not_swallowed(module: Module) -> Iterator[str]:
    """Whoever catches everything raises it again, or logs it with its traceback."""
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node.type):
            if node.type is None:
                yield f"{module.path}:{node.lineno}: a bare except; name what may happen"
            elif not any(map(_raises_or_logs, ast.walk(node))):
                yield f"{module.path}:{node.lineno}: swallows every exception; raise it again or log it"
        elif isinstance(node, ast.Call) and _suppresses_everything(module, node):
            yield f"{module.path}:{node.lineno}: suppresses every exception; name what may happen"


def bounds_have_a_reason(module: Module) -> Iterator[str]:
    """Every bound and deadline has a `#:` comment above it; those in a row may share the first one's."""
    if not module.in_product:
        return
    lines = ["", *module.source.splitlines()]
    documented_until = -1
    for node in module.tree.body:
        name = _assigned(node)
        if lines[node.lineno - 1].startswith("#:") or documented_until == node.lineno - 1:
            documented_until = node.end_lineno or node.lineno
        elif name and BOUND.fullmatch(name):
            yield f"{module.path}:{node.lineno}: {name}; say above it, after #:, why it is what it is"


def exemptions_have_a_reason(module: Module) -> Iterator[str]:
    """`type: ignore`, `noqa` and `pragma` are followed by a second comment that says why."""
    for line, comment in module.comments():
        found = _IGNORE.match(comment)
        if found and not found["reason"]:
            yield f"{module.path}:{line}: an exemption without a reason; add  # why"


#: All of them, for the test that applies them.
RULES = (
    module_opens_with_its_purpose,
    docstrings_stand_first,
    module_is_small,
    functions_are_short,
    names_say_something,
    time_and_dice_are_given,
    nobody_sleeps,
    our_own_code_is_not_patched,
    surprises_are_not_swallowed,
    bounds_have_a_reason,
    exemptions_have_a_reason,
)


def uses(module: Module, forbidden: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Every mention of an imported thing whose full name matches."""
    for node in module.nodes:
        if isinstance(node, ast.Attribute | ast.Name):
            name = module.full_name(node)
            if name and forbidden.fullmatch(name):
                yield node.lineno, name


def _assigned(node: ast.stmt) -> str | None:
    """The name that a statement gives a value to, where it is one name."""
    if isinstance(node, ast.Assign):
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None
    return target.id if isinstance(target, ast.Name) else None


def _catches_everything(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in kinds)


def _suppresses_everything(module: Module, call: ast.Call) -> bool:
    return module.full_name(call.func) == "contextlib.suppress" and any(map(_catches_everything, call.args))


def _raises_or_logs(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return True
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr in {"exception", "critical"}
