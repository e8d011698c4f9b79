"""The words and bounds that coordinator and node agents share. Pure: no IO, no wire types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: (major, minor). Majors must be equal; a newer minor only adds frames and fields.
PROTOCOL = (1, 1)
#: From this minor on agents renew their certificates by themselves, and coordinators answer.
RENEWS_SINCE_MINOR = 1
#: How long after its end a certificate is still renewed, by proof of the node's key: rigs sleep over weekends, and over
#: a season in which they are not wanted. Who is away for longer is asked anew.
LATE_RENEWAL_DAYS_MAX = 180
#: From this minor on a coordinator tells a node its verdict, and probes it, when it is asked to.
VERDICT_MINOR = 1

#: Every coordinator certificate carries this DNS name and every agent checks for it: then addresses,
#: NAT and the world's DNS do not matter.
COORDINATOR_TLS_NAME = "shrk-coordinator"

#: Bytes of one piece or one part of a body. Larger things travel in parts: no request blocks the link.
PART_BYTES_MAX = 64 * 1024
#: Bytes of pieces a node may have under way for one attempt before it waits for credit.
CREDIT_BYTES = 256 * 1024
#: Soft cap of one batch: the writer starts another message beyond it.
BATCH_BYTES_MAX = 1024 * 1024
#: Hard cap of one gRPC message, enforced by gRPC itself on both sides.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
#: A caller's request body; 1,048,576 bytes pass.
BODY_BYTES_MAX = 1024 * 1024
#: Token ids in one frame, and tokens in one piece: four bytes each, so that no request blocks the link.
IDS_PER_FRAME = 16 * 1024
#: Token ids of one prompt, tokens of one answer, and both together where an answer goes on by ids: the largest context
#: of today's models.
IDS_MAX = 1_048_576
#: One event of a streamed answer; vLLM's largest are log-probabilities, some tens of kilobytes.
EVENT_BYTES_MAX = 8 * 1024 * 1024
#: An answer in one document. The coordinator holds it until it is complete: it may still come from elsewhere.
ANSWER_BYTES_MAX = 32 * 1024 * 1024
#: How often a node reports, and how long silence may last before the node counts as unreachable.
REPORT_INTERVAL_SECONDS = 5.0
SILENCE_SECONDS_MAX = 15.0
#: A node with attempts under way says something at least this often, if only by an empty batch: a long prompt is
#: silent for minutes, and a dead line must not pass for one. An empty batch costs some 60 bytes.
HEARTBEAT_SECONDS = 1.0

#: What a node is told of itself (`shrk why`), at most so often; and how long the one token may take that is asked of it
#: on its owner's behalf (`shrk doctor`): a full context is read before it, on a slow home GPU with a queue.
VERDICT_INTERVAL_SECONDS = 1.0
PROBE_SECONDS_MAX = 60.0

#: HTTP/2 keepalive of the link, sent by the agent so that NAT tables keep the path open.
KEEPALIVE_INTERVAL_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000
#: The coordinator lets agents ping this often; gRPC's own default (300 s) would answer GOAWAY.
KEEPALIVE_INTERVAL_MS_MIN = 10_000


#: Fields that reach into the machine that serves: each would let a caller run templates, read files or
#: fetch addresses on a stranger's computer, or crash its engine. The coordinator refuses them before any node
#: is asked, and the agent again, since it is the last authority. Each with the reason that a caller reads.
DENIED_FIELDS: Mapping[str, str] = {
    "chat_template": "nodes use the model's own template",
    "chat_template_kwargs": "nodes use the model's own template",
    "mm_processor_kwargs": "it configures the engine's process",
    "media_io_kwargs": "it configures the engine's process",
    "prompt_embeds": "it is read by an unsafe loader",
    "kv_transfer_params": "it addresses other engines",
    "vllm_xargs": "it configures the engine's process",
    "logits_processors": "it names code to run",
    "cache_salt": "the coordinator sets it",
    "priority": "the coordinator sets it",
    "request_id": "the coordinator sets it",
}


class Endpoint(StrEnum):
    """What a caller can ask an engine for; the value is the engine's own path. A closed list."""

    CHAT_COMPLETIONS = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"
    RERANK = "/v1/rerank"
    SCORE = "/v1/score"


class State(StrEnum):
    """States of a node and of an engine: the same words in the command, the API and the metrics."""

    INSTALLING = "installing"
    STARTING = "starting"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    VERIFYING = "verifying"
    ONLINE = "online"
    BUSY = "busy"
    COOLING = "cooling"
    PAUSED = "paused"
    OFF_SCHEDULE = "off-schedule"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
    INCOMPATIBLE = "incompatible"
    UNREACHABLE = "unreachable"
    OFFLINE = "offline"


#: States in which an engine takes work.
SERVING = frozenset({State.ONLINE, State.BUSY})


class Fault(StrEnum):
    """Whose fault a failure is. A caller's own error stops all attempts and counts against nobody."""

    CALLER = "caller"
    NODE = "node"
    ENGINE = "engine"
    COORDINATOR = "coordinator"


class Rejection(StrEnum):
    """Why a node did not take an attempt. Never a failure."""

    BUSY = "busy"
    TERMS = "terms"
    UNSUPPORTED = "unsupported"
    DRAINING = "draining"


class ResumeMethod(StrEnum):
    """How an answer that broke off goes on elsewhere."""

    #: The engine generates on from the ids of prompt and delivered tokens.
    BY_IDS = "by_ids"
    #: The engine answers anew, in silence until all that was delivered has been reproduced.
    REPLAY = "replay"


#: Codes of failures that only mean that this way of going on does not work: an answer cannot be continued by ids
#: here, or a replay said something else than was delivered.
CANNOT_RESUME = "cannot_resume"
DIVERGED = "diverged"


@dataclass(frozen=True, slots=True)
class Status:
    """A state with its reason, since when, and what to do about it."""

    state: State
    reason: str = ""
    next_action: str = ""
    since_unix_ms: int = 0


@dataclass(frozen=True, slots=True)
class Pin:
    """What two engines must share for one to go on exactly where the other broke off."""

    engine: str = ""
    engine_version: str = ""
    model_revision: str = ""
    quantisation: str = ""
    dtype: str = ""
    tokenizer_digest: str = ""
    chat_template_digest: str = ""
    tool_parser: str = ""
    reasoning_parser: str = ""
    #: How noise is drawn: "v2" by position, so that an equal seed goes on equally; else by sequence.
    runner: str = ""


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine on a node, as the node reports it."""

    id: str
    model: str
    status: Status
    pin: Pin = field(default_factory=Pin)
    endpoints: tuple[Endpoint, ...] = ()
    slots: int = 0
    running: int = 0
    waiting: int = 0
    context_tokens: int = 0
    #: 0 to 1 while loading; None where the engine does not tell.
    progress: float | None = None
    #: Counts its starts since the agent's own: what one life could not do, the next may.
    life: int = 0
    #: What it takes of the node's memory for models; 0: not counted.
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, as it names itself."""

    name: str = ""
    operating_system: str = ""
    architecture: str = ""
    cpu_count: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. A figure that the driver does not tell is None."""

    id: str
    name: str = ""
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    temperature_celsius: float | None = None
    power_watts: float | None = None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner allows: hours, heat, models. The agent is the last authority on all of it."""

    temperature_celsius_max: float = 0.0
    schedule: str = ""
    time_zone: str = ""
    models: tuple[str, ...] = ()
    #: Until its owner wants it back; None: open, or not known to close.
    closes_in_seconds: float | None = None
    #: For models, all together; 0: there is no bound.
    memory_bytes: int = 0
    #: Models that nobody asks for may be unloaded here.
    scales_to_zero: bool = False
    #: Why nothing new is taken now, by what the owner allows (heat, hours, own use); empty: it is taken.
    kept_back: str = ""


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """What a node did about one model that it was assigned."""

    model: str
    obeyed: bool
    #: Why not, for operators.
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says about itself every few seconds."""

    host: Host
    status: Status
    engines: tuple[EngineReport, ...] = ()
    devices: tuple[Device, ...] = ()
    terms: Terms = field(default_factory=Terms)
    agent_version: str = ""
    sequence: int = 0
