"""`shrk chaos`: run a proxy that makes a line bad, and steer it while it runs.

Only typer is imported up here, so that --help is quick.
"""

from __future__ import annotations

import asyncio
import json as encoding
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from shrk_cli.chaos.address import Address, parse_address
from shrk_cli.chaos.faults import COUNT_BYTES_MAX, DELAY_MS_MAX, RATE_BYTES_PER_SECOND_MAX, Cut, Direction
from shrk_cli.errors import Exit, Trouble

_BYTES_PER_KBIT = 125
#: The line's own bound, in the unit that lines are sold in.
RATE_KBIT_MAX = RATE_BYTES_PER_SECOND_MAX // _BYTES_PER_KBIT

# Plain help: the same in a terminal, a pipe and a bug report.
app = typer.Typer(
    help="A bad line to order: a TCP proxy between two programs, steered while it runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Control = Annotated[
    Path | None,
    typer.Option(
        metavar="SOCKET",
        help="The proxy's control socket.  [default: shrk-chaos-UID.sock in $XDG_RUNTIME_DIR, or else in /tmp]",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help='Print one line of JSON with "schema": 1.')]
DelayMs = Annotated[int | None, typer.Option(min=0, max=DELAY_MS_MAX, help="Every byte arrives so much later.")]
JitterMs = Annotated[int | None, typer.Option(min=0, max=DELAY_MS_MAX, help="Up to so much more delay, at random.")]
RateKbit = Annotated[
    int | None, typer.Option(min=0, max=RATE_KBIT_MAX, help="For all connections together; 0 is no limit.")
]
TruncateAfter = Annotated[
    int | None,
    typer.Option(
        metavar="BYTES", min=0, max=COUNT_BYTES_MAX, help="Reset each connection after its first so many bytes."
    ),
]


@app.command()
def proxy(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where diallers connect; port 0 takes any.")],
    to: Annotated[str, typer.Option(metavar="HOST:PORT", help="The target: whom the proxy dials for them.")],
    delay_ms: DelayMs = None,
    jitter_ms: JitterMs = None,
    rate_kbit: RateKbit = None,
    truncate_after: TruncateAfter = None,
    seed: Annotated[int, typer.Option(help="For the jitter: the same seed draws the same delays.")] = 1,
    control: Control = None,
    json: AsJson = False,
) -> None:
    """Forward TCP connections, over a line that is as bad as asked. Runs until Ctrl-C."""
    from shrk_cli.chaos import foreground

    wish = foreground.Wish(
        listen=_address("--listen", listen, port_min=0),
        to=_address("--to", to, port_min=1),
        control=_control(control),
        faults=_changes(delay_ms, jitter_ms, rate_kbit, truncate_after),
        json=json,
        option=foreground.option_for(control) if control else "",
    )
    if wish.listen == wish.to:
        raise Trouble(
            f"--listen and --to are both {wish.to}",
            why="the proxy would dial itself",
            remedy="leave --to as it is, choose another --listen, and point the dialler at that",
            code=Exit.USAGE,
        )
    asyncio.run(foreground.run(wish, random.Random(seed)))


@app.command("set")
def set_faults(
    delay_ms: DelayMs = None,
    jitter_ms: JitterMs = None,
    rate_kbit: RateKbit = None,
    truncate_after: TruncateAfter = None,
    direction: Annotated[
        Direction, typer.Option(help="up: from the dialler to the target; down: back.")
    ] = Direction.BOTH,
    control: Control = None,
    json: AsJson = False,
) -> None:
    """Make the line slow or short. What is not named stays as it was."""
    changes = _changes(delay_ms, jitter_ms, rate_kbit, truncate_after)
    if not changes:
        raise Trouble(
            "nothing to set",
            remedy="name a setting, such as --delay-ms 300; `shrk chaos heal` ends all faults",
            code=Exit.USAGE,
        )
    _ask(control, json, "POST", "/faults", {"direction": direction, "changes": changes})


@app.command()
def cut(
    how: Annotated[
        Cut,
        typer.Argument(
            help="rst: reset all connections. close: end them with FIN. black-hole: swallow all bytes, keep "
            "connections open. half-open: the same in one direction. freeze: hold all bytes until heal. refuse: reset "
            "new connections."
        ),
    ],
    direction: Annotated[
        Direction | None,
        typer.Option(
            help="Of close, black-hole, freeze, half-open, and rst with --after-bytes.  "
            "[default: both; half-open: down]"
        ),
    ] = None,
    after_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES", min=0, max=COUNT_BYTES_MAX, help="rst: only when a connection has delivered so many more."
        ),
    ] = None,
    control: Control = None,
    json: AsJson = False,
) -> None:
    """Cut what is connected, at once."""
    _ask(control, json, "POST", "/cut", {"how": how, "direction": direction, "after_bytes": after_bytes})


@app.command()
def heal(control: Control = None, json: AsJson = False) -> None:
    """End all faults. What was frozen is delivered; connections that lost bytes to a black hole are reset."""
    _ask(control, json, "POST", "/heal", {})


@app.command()
def status(control: Control = None, json: AsJson = False) -> None:
    """What is wrong with the line now, and what has passed."""
    _ask(control, json, "GET", "/status", None)


def _ask(control: Path | None, as_json: bool, method: str, path: str, body: Mapping[str, object] | None) -> None:
    from shrk_cli.chaos.steering import ask, status_text

    answer = asyncio.run(ask(_control(control), method, path, body))
    print(encoding.dumps(answer) if as_json else status_text(answer))


def _changes(
    delay_ms: int | None, jitter_ms: int | None, rate_kbit: int | None, truncate_after: int | None
) -> dict[str, object]:
    """The settings of a line that options name."""
    changes: dict[str, object] = {
        "delay_ms": delay_ms,
        "jitter_ms": jitter_ms,
        "truncate_after_bytes": truncate_after,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if rate_kbit is not None:
        changes["rate_bytes_per_second"] = rate_kbit * _BYTES_PER_KBIT or None
    return changes


def _address(option: str, written: str, port_min: int) -> Address:
    try:
        address = parse_address(written)
    except ValueError as error:
        raise Trouble(
            f"{option} is no address", why=str(error), remedy=f"{option} HOST:PORT", code=Exit.USAGE
        ) from error
    if address.port < port_min:
        raise Trouble(f"{option} {written} names no port", remedy=f"{option} HOST:PORT", code=Exit.USAGE)
    return address


def _control(given: Path | None) -> Path:
    if given is not None:
        return given
    return Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"shrk-chaos-{os.getuid()}.sock"
