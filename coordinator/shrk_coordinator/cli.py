"""`shrk coordinator`: run the coordinator, and give out what others need to join and to ask.

Only typer is imported up here, so that --help is quick. Exit codes: 0 ok, 1 error, 2 usage, 5 settings invalid.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from shrk_contract.terms import State
from shrk_contract.trouble import Trouble
from shrk_coordinator import arguments
from shrk_coordinator.records import Scope, Visibility

if TYPE_CHECKING:
    from shrk_coordinator.admin import Administration
    from shrk_coordinator.settings import CoordinatorSettings

# Plain help: the same in a terminal, a pipe and a bug report.
app = typer.Typer(
    help="Run a coordinator: callers in front, nodes behind.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tokens_app = typer.Typer(help="Join tokens: each admits one machine as a node.", no_args_is_help=True)
keys_app = typer.Typer(help="API keys: what callers authenticate with.", no_args_is_help=True)
nodes_app = typer.Typer(invoke_without_command=True)
app.add_typer(tokens_app, name="tokens")
app.add_typer(keys_app, name="keys")
app.add_typer(nodes_app, name="nodes")


def _setting(name: str, metavar: str | None, text: str, default: str) -> Any:
    """An option that is a setting, too. The default is written out here: the settings themselves load slowly."""
    variable = f"SHRK_COORDINATOR_{name.upper()}"
    help_text = f"{text}  [default: {default}; env: {variable}]"
    return typer.Option(f"--{name.replace('_', '-')}", metavar=metavar, help=help_text)


_STATE_DIR_DEFAULT = "/var/lib/shrk/coordinator for root, else ~/.local/state/shrk/coordinator"
StateDir = Annotated[
    Path | None, _setting("state_dir", "DIR", "The coordinator's folder: CA and database.", _STATE_DIR_DEFAULT)
]
PublicUrl = Annotated[
    str | None, _setting("public_url", "URL", "Where GET /install sends machines.", "the address asked at")
]
DistDir = Annotated[Path | None, _setting("dist_dir", "DIR", "What GET /install serves: a release.", "none")]
LogFormat = Annotated[
    str | None, _setting("log_format", "auto|console|json", "auto: for people on a terminal, JSON elsewhere.", "auto")
]
#: Where a coordinator with default settings listens, and `shrk dev`.
DEFAULT_BASE_URL = "http://127.0.0.1:8080/v1"
AsJson = Annotated[bool, typer.Option("--json", help='Print one JSON object with "schema": 1.')]

_T = TypeVar("_T")


@app.command()
def serve(
    state_dir: StateDir = None,
    listen: Annotated[str | None, _setting("listen", "HOST:PORT", "For callers (HTTP).", "127.0.0.1:8080")] = None,
    link_listen: Annotated[
        str | None, _setting("link_listen", "HOST:PORT", "For nodes (mTLS).", "0.0.0.0:9100")
    ] = None,
    enrolment_listen: Annotated[
        str | None,
        _setting(
            "enrolment_listen", "HOST:PORT", "For machines with a join token (TLS).", "the port after --link-listen's"
        ),
    ] = None,
    public_link_address: Annotated[
        str | None,
        _setting(
            "public_link_address",
            "tcp://HOST:PORT",
            "What nodes are told to connect to.",
            "the host they enrolled with",
        ),
    ] = None,
    public_url: PublicUrl = None,
    dist_dir: DistDir = None,
    database_url: Annotated[
        str | None,
        _setting("database_url", "URL", "Where keys and nodes are kept.", "sqlite:///STATE_DIR/coordinator.db"),
    ] = None,
    tls_cert: Annotated[
        Path | None, _setting("tls_cert", "FILE", "Certificate for callers, PEM.", "none, plain HTTP")
    ] = None,
    tls_key: Annotated[Path | None, _setting("tls_key", "FILE", "Its key, PEM.", "none")] = None,
    behind_proxy: Annotated[
        list[str] | None, _setting("behind_proxy", "CIDR", "A proxy's network; may be repeated.", "none")
    ] = None,
    insecure_http: Annotated[
        bool | None, _setting("insecure_http", None, "Allow plain HTTP beyond this machine.", "no")
    ] = None,
    drain_seconds: Annotated[
        float | None, _setting("drain_seconds", "N", "How long requests may finish when it stops.", "120")
    ] = None,
    structured_output: Annotated[
        str | None,
        _setting(
            "structured_output",
            "stream|buffer",
            "Send answers that follow a grammar as they come, or hold each back until it is whole.",
            "stream",
        ),
    ] = None,
    log_format: LogFormat = None,
) -> None:
    """Run the coordinator in the foreground.

    Settings are also read from the file /etc/shrk/coordinator.toml, or the one that SHRK_COORDINATOR_CONFIG names,
    under the options' names with _ for -. An option wins over a variable, and that over the file.
    """
    flags = dict(locals())  # every option is a setting of the same name
    flags["behind_proxy"] = behind_proxy or None  # typer gives an empty list for none

    def run() -> None:
        import uvloop

        from shrk_contract.settings import load
        from shrk_coordinator.settings import CoordinatorSettings

        uvloop.run(_serve(load(CoordinatorSettings, **flags)))

    _or_exit(run)


async def _serve(settings: CoordinatorSettings) -> None:
    import structlog

    from shrk_contract.service import configure_logs
    from shrk_coordinator.admin import Administration
    from shrk_coordinator.app import serve as serve_app

    configure_logs(settings.log_format)
    if not await Administration(settings, _now, os.urandom).has_usable_key():
        # It may be meant, and keys can be made while it runs: but nothing else would tell why every caller gets 401.
        structlog.get_logger("shrk.coordinator").warning(
            "no valid API key exists yet, so every caller is refused",
            remedy=f"shrk coordinator keys create --name me{settings.state_dir_option}",
        )
    await serve_app(settings)


@app.command()
def init(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Make CA, database and the first keys; a second run changes nothing."""
    done = _administer(state_dir, lambda admin: admin.initialise())
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.initialised_json(done))
    else:
        settings = _settings(state_dir)
        typer.echo(rendering.initialised_text(done, str(settings.state_dir), settings.state_dir_option))


@tokens_app.command("create")
def tokens_create(
    owner: Annotated[list[str], typer.Option(metavar="NAME", help="Whose node; repeat for a token each.")],
    ttl: Annotated[str, typer.Option(metavar="TIME", help="Valid for so long: 90s, 15m, 2h, 7d.")] = "15m",
    visibility: Annotated[
        Visibility, typer.Option(help="public: serves everybody's keys. private is not available yet.")
    ] = Visibility.PUBLIC,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a single-use join token for each --owner, and print the line that uses it."""
    owners = arguments.owners(owner)
    ttl_ms = arguments.duration_ms(ttl, "--ttl", arguments.TTL_MS_MAX)
    labels = arguments.labels(label or [])
    if visibility is Visibility.PRIVATE:
        # Keys have no owners yet, so nothing could keep other callers away: better no promise than a false one.
        raise typer.BadParameter(
            "private nodes are not available yet: every key reaches every node. Leave the option out.",
            param_hint="--visibility",
        )
    made = _administer(state_dir, lambda admin: admin.create_join_tokens(owners, ttl_ms, visibility, labels))
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.invitations_json(made))
    else:
        typer.echo(rendering.invitations_text(made))


@tokens_app.command("list")
def tokens_list(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List join tokens, used and unused; their secrets are not kept."""
    tokens = _administer(state_dir, lambda admin: admin.join_tokens())
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.join_tokens_json(tokens))
    else:
        typer.echo(rendering.join_tokens_text(tokens, _now()))


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is for; any text of up to 128 characters.")],
    admin: Annotated[bool, typer.Option("--admin", help="May administer the coordinator.")] = False,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="After so long: 12h, 90d.")] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown once."""
    if not 0 < len(name) <= 128 or not name.isprintable():
        raise typer.BadParameter("--name must have 1 to 128 printable characters")
    expires_in = None if expires is None else arguments.duration_ms(expires, "--expires", arguments.EXPIRY_MS_MAX)
    scope = Scope.ADMIN if admin else Scope.CALLER
    minted, row = _administer(state_dir, lambda a: a.create_key(name, scope, expires_in))
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.new_key_json(minted, row))
    else:
        typer.echo(rendering.new_key_text(minted, row))


@keys_app.command("list")
def keys_list(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List keys; their texts are not kept."""
    keys = _administer(state_dir, lambda admin: admin.keys())
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.keys_json(keys))
    else:
        typer.echo(rendering.keys_text(keys, _now(), _settings(state_dir).state_dir_option))


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key void; a running coordinator refuses it within 5 seconds."""
    key, already = _administer(state_dir, lambda admin: admin.revoke_key(key_id))
    from shrk_coordinator import rendering

    if as_json:
        _print_json({"schema": 1, **rendering.key_json(key)})
    else:
        typer.echo(rendering.revoked_text(key, already))


@nodes_app.callback()
def nodes_now(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only nodes that have this model.")] = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help=f"Only nodes in this state: {', '.join(State)}.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show them again every two seconds; end with Ctrl-C.")] = False,
    base_url: Annotated[
        str, typer.Option(envvar="SHRK_BASE_URL", metavar="URL", help="Where callers connect.")
    ] = DEFAULT_BASE_URL,
    as_json: AsJson = False,
) -> None:
    """Nodes: who serves what now, who does not, why, and what to do.

    Asks a running coordinator, with the key in SHRK_API_KEY: an admin's shows everything, a caller's states and models.
    """
    if context.invoked_subcommand is None:
        wanted = {name: value for name, value in (("model", model), ("state", state)) if value is not None}
        from shrk_coordinator import nodes_command

        key = os.environ.get("SHRK_API_KEY", "")
        look = nodes_command.Look(base_url, key, wanted, watch=watch, as_json=as_json)
        _or_exit(lambda: nodes_command.show(look, time.time))


@nodes_app.command("list")
def nodes_list(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List the nodes that have enrolled, running now or not."""
    nodes = _administer(state_dir, lambda admin: admin.nodes())
    revoked = _administer(state_dir, lambda admin: admin.revoked_nodes())
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.nodes_json(nodes, revoked))
    else:
        typer.echo(rendering.nodes_text(nodes, _settings(state_dir).state_dir_option, revoked))


@nodes_app.command("revoke")
def nodes_revoke(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Either of its ids, as `nodes list` shows them.")],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="What its owner is told; up to 200 characters.")
    ] = "no reason was given",
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a node's certificates away; a running coordinator cuts its link within 5 seconds."""
    why = arguments.reason(reason)
    revoked, revocation, already = _administer(state_dir, lambda admin: admin.revoke_node(node, why))
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.node_revoked_json(revoked, revocation, already))
    else:
        option = _settings(state_dir).state_dir_option
        typer.echo(rendering.node_revoked_text(revoked, revocation, already, option))


@nodes_app.command("restore")
def nodes_restore(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Either of its ids, as `nodes list` shows them.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a revocation back: the node comes back with the identity that it has."""
    restored, was_revoked = _administer(state_dir, lambda admin: admin.restore_node(node))
    from shrk_coordinator import rendering

    if as_json:
        _print_json(rendering.node_restored_json(restored, was_revoked))
    else:
        typer.echo(rendering.node_restored_text(restored, was_revoked))


def _administer(state_dir: Path | None, work: Callable[[Administration], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        from shrk_coordinator.admin import Administration

        return await work(Administration(_settings(state_dir), _now, os.urandom))

    return _or_exit(lambda: asyncio.run(run()))


def _settings(state_dir: Path | None) -> CoordinatorSettings:
    from shrk_contract.settings import load
    from shrk_coordinator.settings import CoordinatorSettings

    return load(CoordinatorSettings, state_dir=state_dir)


def _or_exit(run: Callable[[], _T]) -> _T:
    """Run; what the operator can mend is printed as one block, and ends the command."""
    try:
        return run()
    except Trouble as trouble:
        typer.echo(f"shrk: {trouble}", err=True)
        raise typer.Exit(trouble.exit_code) from trouble
    except OSError as error:
        if error.filename is None:
            raise  # not about a file: nothing below would help
        typer.echo(
            f"shrk: {error.filename}: {error.strerror}. Check its owner and rights, or name another folder: "
            "--state-dir DIR",
            err=True,
        )
        raise typer.Exit(1) from error


def _now() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def _print_json(value: dict[str, Any]) -> None:
    import orjson

    typer.echo(orjson.dumps(value).decode())
