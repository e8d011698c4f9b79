"""The coordinator's settings: flag > environment > file > default, and one clear block when they are wrong.

`shrk_contract.settings.load(CoordinatorSettings, **flags)` is the only way in. Times are seconds; addresses are
`host:port`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from shrk_contract.settings import ServiceSettings

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every address of this machine, so that it names none to others."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


#: A host name or an address, as URLs have them; what is written into a script is nothing else.
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
LINK_ADDRESS = re.compile(rf"tcp://{HOST}:\d{{1,5}}")
_PUBLIC_URL = re.compile(rf"https?://{HOST}(?::\d{{1,5}})?")
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>\d{1,5})")


def _to_address(value: object) -> object:
    """An Address from `host:port` or `[v6]:port`; values of other kinds are left to pydantic."""
    if not isinstance(value, str):
        return value
    match = _ADDRESS.fullmatch(value.strip())
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{value!r} is not host:port with a port of 0 to 65535, such as 127.0.0.1:8080 or [::]:8080")
    return Address(match["six"] or match["host"], int(match["port"]))


def _to_networks(value: object) -> object:
    """Networks from a list of CIDRs, or from one comma-separated string, as the environment gives it."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        return value
    networks = []
    for part in filter(None, (str(p).strip() for p in parts)):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError as error:
            raise ValueError(f"{part!r} is not a network such as 10.0.0.0/8 or fd00::/8 ({error})") from error
    return tuple(networks)


def _to_folder(value: object) -> object:
    """An absolute path: what is written there must not depend on where one stood."""
    if not isinstance(value, (str, Path)):
        return value
    folder = Path(value).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder, which is made if it does not exist")
    return folder


def _to_link_address(value: object) -> object:
    if isinstance(value, str):
        address = _to_address(value.removeprefix("tcp://")) if LINK_ADDRESS.fullmatch(value) else None
        if not isinstance(address, Address) or address.port == 0:
            raise ValueError(f"{value!r} is not tcp://host:port, such as tcp://shrk.example.org:9100")
    return value


def _to_public_url(value: object) -> object:
    if isinstance(value, str) and not _PUBLIC_URL.fullmatch(value):
        raise ValueError(f"{value!r} is not http(s)://host or http(s)://host:port, such as https://shrk.example.org")
    return value


def _to_release(value: object) -> object:
    """A folder that holds a release."""
    if not isinstance(value, (str, Path)):
        return value
    folder = Path(value).expanduser().absolute()
    if not (folder / "SHA256SUMS").is_file():
        raise ValueError(f"{folder} has no SHA256SUMS: name the folder that make release has made, such as dist")
    return folder


def _default_state_dir() -> Path:
    # Root runs it as a service; anybody else gets a folder of their own without asking for rights.
    if os.geteuid() == 0:
        return Path("/var/lib/shrk/coordinator")
    state_home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state_home).expanduser() / "shrk" / "coordinator"


def _default_enrolment_listen(validated: dict[str, Any]) -> Address:
    # Next to the link's port, so that one rule "9100-9101" opens a firewall; its own, since gRPC knows no
    # optional client certificates.
    link: Address = validated["link_listen"]
    return Address(link.host, link.port + 1 if link.port else 0)


def _default_database_url(validated: dict[str, Any]) -> str:
    # One file beside the CA: a backup of the state folder is a backup of everything.
    return f"sqlite:///{validated['state_dir'] / 'coordinator.db'}"


class CoordinatorSettings(ServiceSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(env_prefix="SHRK_COORDINATOR_")

    whose: ClassVar[str] = "the coordinator"
    file_variable: ClassVar[str] = "SHRK_COORDINATOR_CONFIG"
    file_default: ClassVar[Path] = Path("/etc/shrk/coordinator.toml")

    #: CA, database, run files. Holds secrets: made with mode 0700.
    state_dir: Annotated[Path, BeforeValidator(_to_folder)] = Field(default_factory=_default_state_dir)
    #: Callers (HTTP). Loopback: a first start must not expose anything.
    listen: Annotated[Address, BeforeValidator(_to_address)] = Address("127.0.0.1", 8080)
    #: Nodes (mTLS). Every address: only certified nodes get past the handshake, and they come from elsewhere.
    link_listen: Annotated[Address, BeforeValidator(_to_address)] = Address("0.0.0.0", 9100)
    #: Machines with a join token (TLS, no client certificate).
    enrolment_listen: Annotated[Address, BeforeValidator(_to_address)] = Field(
        default_factory=_default_enrolment_listen
    )
    #: What nodes are told to dial; None: the host they enrolled with, on the link's port, which is right
    #: without a port mapping in between.
    public_link_address: Annotated[str | None, BeforeValidator(_to_link_address)] = None
    #: This coordinator as installers and people reach it; None: the address under which they asked for the installer.
    public_url: Annotated[str | None, BeforeValidator(_to_public_url)] = None
    #: A release to install nodes from, as `make release` leaves it; None: GET /install says that there is none.
    dist_dir: Annotated[Path | None, BeforeValidator(_to_release)] = None
    database_url: str = Field(default_factory=_default_database_url)
    #: Certificate chain and key for callers, PEM. None: plain HTTP, see `insecure_http`.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: Networks of the proxies that terminate TLS in front; only they may say who the caller is. None by
    #: default: any other sender of X-Forwarded-For would be believed.
    behind_proxy: Annotated[tuple[IpNetwork, ...], BeforeValidator(_to_networks)] = ()
    #: Lets callers' keys and prompts travel unencrypted beyond this machine.
    insecure_http: bool = False
    #: How long a stopping coordinator lets requests finish: most answers end within two minutes, and
    #: service managers lose patience soon after.
    drain_seconds: float = Field(default=120.0, ge=0, le=3600)
    #: Answers that must follow a grammar: stream them as they come, or hold each back until it is whole. A stream that
    #: loses its node is continued by a replay that is verified, and unlike GPUs cannot always reproduce it; one that
    #: was held back is simply begun again. A request may choose for itself: X-Shrk-Structured-Output.
    structured_output: Literal["stream", "buffer"] = "stream"
    #: auto: for people on a terminal, JSON lines elsewhere.
    log_format: Literal["auto", "console", "json"] = "auto"

    @property
    def state_dir_option(self) -> str:
        """What a command for people to type needs to find this state folder: ` --state-dir DIR`, or nothing."""
        return "" if self.state_dir == _default_state_dir() else f" --state-dir {shlex.quote(str(self.state_dir))}"

    @model_validator(mode="after")
    def _refuse_secrets_in_clear(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            raise ValueError(f"{given} is set without {missing}: set both, or neither")
        if self.tls_cert or self.behind_proxy or self.insecure_http or self.listen.is_loopback:
            return self
        raise ValueError(
            f"listen = {self.listen} would carry keys and prompts unencrypted over the network. Either give "
            "a certificate (--tls-cert and --tls-key), or name the proxy that terminates TLS in front "
            "(--behind-proxy CIDR), or accept it (--insecure-http)"
        )

    @model_validator(mode="after")
    def _refuse_a_port_beyond_the_last(self) -> Self:
        if self.enrolment_listen.port > 65535:
            raise ValueError("enrolment_listen would be the port after link_listen's, which is the last: set it")
        return self

    @model_validator(mode="after")
    def _refuse_other_databases(self) -> Self:
        if not self.database_url.startswith("sqlite:///"):
            scheme = self.database_url.partition(":")[0]
            raise ValueError(f"database_url: {scheme!r} is not supported; use sqlite:///PATH or leave it out")
        return self
