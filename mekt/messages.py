"""Every message of wire version 1: its fields, its limits, and the codec that accepts nothing else.

A message is a msgpack map: {"v", "kind", "federation", "round", "device", "seq", "proxy", "body"}, and "sig" where it
is signed. `KINDS` is the whitelist. Whatever bytes arrive, `decode` gives a valid `Envelope` or raises `WireError`, in
bounded time and memory.
No body can hold a window or a weight: the only bulk is `Chunk`, whose content is named beforehand by a `BlobRef` that
the receiver has asked for and whose size it has checked; shares of secrets are of one length, one for each device.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import msgpack

from mekt import catalogue
from mekt.errors import WireError
from mekt.modality import ModalityName
from mekt.plan import BlobRef, Plan
from mekt.schema import NAME_PATTERN, Bounds, Count, Name, SchemaError, build, plain
from mekt.shamir import SHARE_BYTES
from mekt.signature import SIGNATURE_BYTES
from mekt.topics import Direction, Topic

VERSION = 1
CHUNK_BYTES = 96 * 1024
LARGEST_ROUND = 2**31 - 1
REPORTS_KEPT = 50
FINDINGS_KEPT = 16
SCORES_KEPT = 64
RELEASES_TOLD = 16
LONGEST_SENTENCE = 240
# Of a P-256 key, with the longest name: 330 and 700 bytes.
LARGEST_REQUEST, LARGEST_CERTIFICATE = 512, 1024
# Of a list or map: where devices and rounds are listed, and elsewhere. A list takes the memory for the length that it
# declares, before its entries come, and a nest of a thousand is three thousand bytes: 32 MiB, and 1 MiB.
MOST_ENTRIES = 4096
FEW_ENTRIES = 128
PROBLEMS_TOLD = 3
# As many as a secure sum takes; see `mekt.fixedpoint`.
MOST_MEMBERS = 31
# In a secure sum: an X25519 key; two shares under an authenticated cipher.
KEY_BYTES, SEALED_BYTES = 32, 2 * SHARE_BYTES + 16
# Far beyond where it says anything.
LARGEST_EPSILON = 1e12

Sha256 = Annotated[bytes, Bounds(shortest=32, longest=32)]
Label = Annotated[str, Bounds(longest=32)]
Devices = Annotated[tuple[Name, ...], Bounds(longest=MOST_ENTRIES)]
Metrics = Annotated[dict[Label, float], Bounds(longest=64)]
# What a device says of its learning, and all that it can: under names of its own choice it could say anything.
Learning = Literal["reconstruction", "transfer"]
Seconds = Annotated[float, Bounds(low=0, high=1e9)]
# Seconds since 1970 by a coordinator's clock.
Time = Annotated[float, Bounds(low=0, high=1e11)]
Bytes = Annotated[int, Bounds(low=0, high=2**53)]
Csr = Annotated[bytes, Bounds(shortest=1, longest=LARGEST_REQUEST)]
Sentence = Annotated[str, Bounds(longest=LONGEST_SENTENCE)]
Sign = Literal["unrepresentative-proxy", "too-little-transfer", "collapse", "odd-device", "quarantined"]
Late = Literal["drop", "carry"]
# What devices say in turn in a round whose knowledge is summed in secret.
Step = Literal["keys", "shares", "words", "unmasking"]
# What can be wrong with a message: each is counted under its name, and does no harm.
Trouble = Literal[
    "foreign",  # on a topic of another federation, or of another version of the wire
    "malformed",  # not a message, or over its kind's limits
    "misplaced",  # of a kind that this side does not take
    "unannounced",  # from a device that has not said that it is there
    "uninvited",  # from a device that takes no part in the round
    "old-round",  # about a round that is over
    "early-round",  # about a round that has not begun
    "other-proxy-set",  # about other proxy windows
    "repeated",  # a message that has come before
    "out-of-order",  # a message that others have overtaken
    "unfit-offer",  # knowledge that this plan cannot take
    "unfit-plan",  # a plan that this device cannot follow
    "unfit-device",  # a device that has nothing to give
    "too-many-devices",
    "twin",  # two processes say that they are the same device
    "unasked-chunk",
    "damaged-chunk",  # one that does not fit its blob, or the last one of a blob that arrived damaged
    "unknown-blob",  # asked for, and not here
    "unsigned",  # without the coordinator's signature, or with one that is not the coordinator's
    "replayed",  # signed by the coordinator, and older than what it has signed since
    "not-sent",  # over the broker's limit, or too many were waiting
]
PublicKey = Annotated[bytes, Bounds(shortest=KEY_BYTES, longest=KEY_BYTES)]
Sealed = Annotated[bytes, Bounds(shortest=SEALED_BYTES, longest=SEALED_BYTES)]
Share = Annotated[bytes, Bounds(shortest=SHARE_BYTES, longest=SHARE_BYTES)]
# How many rounds ago something was learned; 0 in this one.
Age = Annotated[int, Bounds(low=0, high=LARGEST_ROUND)]
Activity = Literal["idle", "fetching", "sensing", "training", "sending"]
# A federation's name, and the round.
ReleaseName = Annotated[str, Bounds(pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")]
RolloutNumber = Annotated[int, Bounds(low=0, high=2**31 - 1)]
RolloutShare = Annotated[float, Bounds(low=0, high=1)]
# How far a wearable is with a release that was announced; the last three are its last word on it.
FitnessState = Literal["running", "fetching", "testing", "trial", "good", "refused", "rolled-back"]
# To a share of the wearables, or to all; all have said their last word on it; or it was stopped.
RolloutState = Literal["canary", "everybody", "done", "stopped"]
# Why it does not use it, and all that it can say of that.
Unfit = Literal[
    "",
    "damaged",  # not the bytes that were announced, or no release
    "unsigned",  # without the coordinator's signature
    "replayed",  # signed, and older than one that was used here
    "too-new",  # of a format that this Mekt does not know
    "too-large",  # more than may be fetched, or kept, here
    "unfit",  # for other sensors than there are
    "does-not-run",  # an error while it was loaded, or while it worked
    "disagrees",  # with the release before it, on windows of this device
    "unsure",  # of its classes, on windows of this device
    "slow",  # to say what a window shows
    "memory",  # takes too much of it
    "crashed",  # the process ended during the trial
    "silent",  # said nothing during the trial
    "untested",  # too few windows came to test it on
    "disk",  # the disk does not take it
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicKeys:
    """A device's public X25519 keys of one round and modality: to seal shares to, and to agree on masks."""

    seal: PublicKey
    mask: PublicKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Summing:
    """Where a secure sum stands: the step that is to be taken, by whom, and whose words it will be of.

    `members`: per modality all that have shown keys, from the step after that; a modality of which too few are left is
    not there any more. `survivors`, in the last step: whose masked words are there.
    """

    step: Step
    members: Annotated[
        dict[ModalityName, Annotated[dict[Name, PublicKeys], Bounds(longest=MOST_MEMBERS)]], Bounds(longest=16)
    ] = field(default_factory=dict)
    survivors: Annotated[tuple[Name, ...], Bounds(longest=MOST_MEMBERS)] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundOpen:
    """The coordinator's word on the round: all a device needs to take part, and how many seconds are left for it.

    `late`: whether knowledge that was learned for an earlier round is carried over into this one. `summing` is there
    while a round is open whose knowledge is summed in secret; `deadline_s` and `participants` are then its step's.
    """

    state: Literal["open", "closed", "finished"]
    deadline_s: Seconds
    late: Late = "drop"
    participants: Devices
    plan: Plan
    knowledge: Annotated[dict[ModalityName, BlobRef], Bounds(longest=16)]
    summing: Summing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Privacy:
    """What a device that protects its knowledge has given away of its private data: epsilon at `delta`, of a `budget`.

    `is_spent`: another round would exceed it, and the device takes part in none.
    """

    epsilon: Annotated[float, Bounds(low=0, high=LARGEST_EPSILON)]
    delta: Annotated[float, Bounds(low=0, high=1)]
    budget: Annotated[float, Bounds(low=0, high=LARGEST_EPSILON)]
    is_spent: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Presence:
    """A device's word on itself, retained; with `offline` it is also the last will. `modalities`: name -> encoder.

    `progress` is the share of the activity that is done, `windows` the private windows kept, `up_bytes` and
    `down_bytes` what crossed the device's connection in this session, as its kernel counted it. `privacy` is there
    where the device protects its knowledge.
    """

    state: Literal["online", "offline"]
    session: Annotated[int, Bounds(low=0, high=2**53)]
    activity: Activity
    progress: Annotated[float, Bounds(low=0, high=1)] = 0.0
    modalities: Annotated[dict[ModalityName, Label], Bounds(longest=16)]
    windows: Annotated[int, Bounds(low=0, high=10**9)] = 0
    up_bytes: Bytes = 0
    down_bytes: Bytes = 0
    privacy: Privacy | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A device's knowledge of a round, by name: one blob per modality. `windows` weighs it in the aggregate.

    `metrics`: the losses of its learning. `age`: so many rounds ago the device learned it, for a round that did not
    wait for it. `masked`: the blobs are words under masks, of which only the sum says something; the weight is then
    within them, and `windows` is 1.
    """

    knowledge: Annotated[dict[ModalityName, BlobRef], Bounds(shortest=1, longest=16)]
    windows: Count
    metrics: Annotated[dict[Learning, float], Bounds(longest=2)]
    age: Age = 0
    masked: Literal[True] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """Please send these chunks of a blob. A chunk named twice would only make the answer longer than it need be."""

    sha256: Sha256
    chunks: Annotated[tuple[Annotated[int, Bounds(low=0, high=2**24)], ...], Bounds(shortest=1, longest=64)]

    def __post_init__(self) -> None:
        if len(set(self.chunks)) != len(self.chunks):
            raise ValueError("chunks: one is named twice")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Part `index` of `count` of a blob: all of `CHUNK_BYTES` but the last."""

    sha256: Sha256
    index: Annotated[int, Bounds(low=0, high=2**24)]
    count: Annotated[int, Bounds(low=1, high=2**24)]
    data: Annotated[bytes, Bounds(shortest=1, longest=CHUNK_BYTES)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The coordinator's answer to an offer of knowledge of this age: durable, or refused for good and why.

    `step`: of a secure sum, what it is an answer to.
    """

    state: Literal["accepted", "refused"]
    age: Age = 0
    reason: Annotated[str, Bounds(longest=200)] = ""
    step: Step | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """A device's public keys of this round, for each modality of which it has knowledge to give to a secure sum."""

    keys: Annotated[dict[ModalityName, PublicKeys], Bounds(shortest=1, longest=16)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Shares of secrets, sealed to their holders: up, by whom they are for; down, by whom they are from."""

    sealed: Annotated[
        dict[ModalityName, Annotated[dict[Name, Sealed], Bounds(longest=MOST_MEMBERS)]], Bounds(shortest=1, longest=16)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmasking:
    """What a device holds of others' secrets: of the seeds of survivors, of the mask keys of those that fell silent."""

    seeds: Annotated[
        dict[ModalityName, Annotated[dict[Name, Share], Bounds(longest=MOST_MEMBERS)]], Bounds(shortest=1, longest=16)
    ]
    mask_keys: Annotated[
        dict[ModalityName, Annotated[dict[Name, Share], Bounds(longest=MOST_MEMBERS)]], Bounds(longest=16)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A sign that learning goes wrong, what shows it, and what to do. `device` is "" where it is about all of them."""

    name: Sign
    modality: ModalityName
    device: Annotated[str, Bounds(pattern=f"({NAME_PATTERN})?")] = ""
    evidence: Sentence
    remedy: Sentence

    @property
    def subject(self) -> str:
        """What is wrong where: two findings of one subject differ in their numbers alone."""
        return f"{self.name} {self.device} ({self.modality})" if self.device else f"{self.name} ({self.modality})"

    def __str__(self) -> str:
        return f"{self.subject}: {self.evidence}; {self.remedy}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundReport:
    """A round that is over: who delivered, the metrics of the global encoders after it, the seconds of each phase.

    `findings`: the signs of trouble that were seen when it was learned from. `disagreement`: how far each device's
    knowledge was from the fleet's, 1 as far as usual, where that could be told; of many, those farthest from it.
    """

    round: Annotated[int, Bounds(low=0, high=LARGEST_ROUND)]
    devices: Devices
    metrics: Metrics
    seconds: Annotated[dict[Label, Seconds], Bounds(longest=16)]
    release: Annotated[str, Bounds(longest=128)] = ""
    findings: Annotated[tuple[Finding, ...], Bounds(longest=FINDINGS_KEPT)] = ()
    disagreement: Annotated[dict[Name, Annotated[float, Bounds(low=0)]], Bounds(longest=SCORES_KEPT)] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """The coordinator's word on the release that wearables are to run, retained: the zip of `release` is the `blob`.

    `number` is this rollout's, from 1 on: it stays while the share grows, and the next rollout has a larger one.
    Which wearables take part is what `mekt.share.takes_part` says; with `share` 1.0 it is all of them, with 0 nobody:
    the release was taken back, and there is none before it.
    """

    release: ReleaseName
    blob: BlobRef
    number: Annotated[int, Bounds(low=1, high=2**31 - 1)]
    share: RolloutShare


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitness:
    """A wearable's word on the release that it runs and on the one that rollout `number` brings it, retained.

    `running`: the SHA-256 of the zip at work, if one is; `number`: 0 before the first rollout. `why` is there exactly
    where the release is "refused" or "rolled-back". What was not measured is left out: how many of the windows got the
    same class by both releases, the median time for a window, the resident memory in 1024 * 1024 bytes.
    """

    running: Sha256 | None = None
    number: RolloutNumber
    state: FitnessState
    why: Unfit = ""
    agreement_percent: Annotated[int, Bounds(low=0, high=100)] | None = None
    latency_us: Annotated[int, Bounds(low=0, high=10_000_000)] | None = None
    memory_mb: Annotated[int, Bounds(low=0, high=65_535)] | None = None

    def __post_init__(self) -> None:
        if (self.state in ("refused", "rolled-back")) != bool(self.why):
            raise ValueError(f"why: {self.why!r} does not go with {self.state!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutStatus:
    """Where the newest rollout stands, in words too.

    `wearables`: how many run which release; `states`: how many of those that take part are how far with this one.
    """

    release: ReleaseName
    number: RolloutNumber
    share: RolloutShare
    state: RolloutState
    wearables: Annotated[dict[ReleaseName, Count], Bounds(longest=RELEASES_TOLD)]
    states: Annotated[dict[FitnessState, Count], Bounds(longest=8)]
    text: Annotated[str, Bounds(longest=300)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What an operator wants to know, retained: where the round stands, in words too, and the latest reports.

    `trouble` counts the messages that something was wrong with since the coordinator started. `rollout` is there once a
    release was shipped to wearables.
    """

    phase: Label
    rounds: Count
    online: Devices
    waiting_for: Devices
    received: Devices
    reports: Annotated[tuple[RoundReport, ...], Bounds(longest=REPORTS_KEPT)]
    text: Annotated[str, Bounds(longest=500)]
    trouble: Annotated[dict[Trouble, Count], Bounds(longest=32)] = field(default_factory=dict)
    rollout: RolloutStatus | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Please certify this key under this device's name: a PKCS#10 request in DER, signed with the key.

    `token`: the secret of the token that allows it, as the device has no certificate yet.
    """

    token: Annotated[bytes, Bounds(shortest=16, longest=16)] = field(repr=False)
    csr: Csr


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """The same of a device that has a certificate: that it may ask under its name is what the broker has seen to."""

    csr: Csr


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The coordinator's answer to a request: the certificate in DER, or none and why; or that it is time to ask again.

    `time_s` is for a device that has no clock.
    """

    state: Literal["issued", "refused", "due"]
    certificate: Annotated[bytes, Bounds(longest=LARGEST_CERTIFICATE)] = b""
    reason: Annotated[str, Bounds(longest=200)] = ""
    time_s: Time


Body = (
    RoundOpen
    | Presence
    | Offer
    | Want
    | Chunk
    | Receipt
    | Status
    | Request
    | Renewal
    | Answer
    | Keys
    | Shares
    | Unmasking
    | Rollout
    | Fitness
)

# kind -> body, the largest message in bytes, and the directions in which it may travel.
KINDS: dict[str, tuple[type[Body], int, tuple[Direction, ...]]] = {
    "round": (RoundOpen, 512 * 1024, ("all",)),
    "status": (Status, 1024 * 1024, ("all",)),
    "presence": (Presence, 4096, ("up",)),
    "offer": (Offer, 8192, ("up",)),
    "want": (Want, 2048, ("up", "down")),
    "chunk": (Chunk, CHUNK_BYTES + 1024, ("up", "down")),
    "receipt": (Receipt, 2048, ("down",)),
    "request": (Request, 2048, ("enroll",)),
    "renewal": (Renewal, 2048, ("up",)),
    "answer": (Answer, 2048, ("down", "enroll")),
    "keys": (Keys, 4096, ("up",)),
    # Of 16 modalities with 31 devices of the longest names.
    "shares": (Shares, 80 * 1024, ("up", "down")),
    "unmasking": (Unmasking, 64 * 1024, ("up",)),
    "rollout": (Rollout, 2048, ("all",)),
    "fitness": (Fitness, 2048, ("up",)),
}
KIND_OF: dict[type[Body], str] = {body: kind for kind, (body, _, _) in KINDS.items()}
LONG_KINDS = ("round", "status")
LARGEST_MESSAGE = max(size for _, size, _ in KINDS.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A message and where it belongs. `device` is the one it comes from or goes to, "" for all; `proxy` its hash.

    `signature`: of `unsigned(envelope)`, as `mekt.signature` makes it, or b"".
    """

    federation: str
    round: int
    device: str
    sequence: int
    proxy: bytes
    body: Body
    signature: bytes = b""

    @property
    def kind(self) -> str:
        """The name of the body's kind, as in the topic."""
        return KIND_OF[type(self.body)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    v: Annotated[int, Bounds(low=0, high=2**31)]
    kind: Label
    federation: Name
    round: Annotated[int, Bounds(low=0, high=LARGEST_ROUND)]
    device: Annotated[str, Bounds(pattern=f"({NAME_PATTERN})?")]
    seq: Annotated[int, Bounds(low=0, high=2**53)]
    proxy: Annotated[bytes, Bounds(longest=32)]
    sig: Annotated[bytes, Bounds(longest=SIGNATURE_BYTES)] = b""


def unsigned(envelope: Envelope) -> bytes:
    """What is signed of a message: its bytes, all but the signature."""
    return encode(replace(envelope, signature=b""))


def encode(envelope: Envelope) -> bytes:
    """The bytes of a message; equal messages have equal bytes.

    Raises:
        WireError: when no receiver would accept it: a field out of bounds, or more bytes than its kind allows.
    """
    header = {
        "v": VERSION,
        "kind": envelope.kind,
        "federation": envelope.federation,
        "round": envelope.round,
        "device": envelope.device,
        "seq": envelope.sequence,
        "proxy": envelope.proxy,
    }
    if envelope.signature:
        header["sig"] = envelope.signature
    body = plain(envelope.body)
    try:
        build(_Header, header)
        build(type(envelope.body), body, envelope.kind)
    except SchemaError as error:
        raise _wire_error(error) from error
    raw: bytes = msgpack.packb({**header, "body": body})
    _check_size(envelope.kind, raw)
    return raw


def decode(raw: bytes, topic: Topic | None = None) -> Envelope:
    """The message in `raw`, which has to fit the `topic` it arrived on.

    Raises:
        WireError: for any bytes that are not exactly one valid message, and never anything else.
    """
    if topic is not None:
        _check_size(topic.kind, raw)
    elif len(raw) > LARGEST_MESSAGE:
        raise WireError(
            f"a message of {len(raw)} bytes is over the limit of {LARGEST_MESSAGE} bytes", catalogue.WIRE_TOO_LARGE
        )
    data = unpack(raw, MOST_ENTRIES if topic is None or topic.kind in LONG_KINDS else FEW_ENTRIES)
    if not isinstance(data, dict) or "body" not in data:
        raise WireError("a message is a map with a body; this is not", catalogue.NOT_A_MESSAGE)
    body = data.pop("body")
    try:
        header = build(_Header, data, most=PROBLEMS_TOLD)
        if header.v != VERSION:
            raise WireError(
                f"wire version {header.v} is not spoken here, only {VERSION}; bring both sides to one release",
                catalogue.WIRE_OF_ANOTHER_VERSION,
            )
        _check_size(header.kind, raw)
        cls, _, directions = KINDS[header.kind]
        if topic is not None:
            _check_topic(header, topic, directions)
        return Envelope(
            federation=header.federation,
            round=header.round,
            device=header.device,
            sequence=header.seq,
            proxy=header.proxy,
            signature=header.sig,
            body=build(cls, body, header.kind, PROBLEMS_TOLD),
        )
    except SchemaError as error:
        raise _wire_error(error) from error


def unpack(raw: bytes, most_entries: int = MOST_ENTRIES) -> Any:
    """The plain data in msgpack bytes: maps with text keys, each once; no extension types; nothing behind the end.

    No list or map has more than `most_entries`.

    Raises:
        WireError: for anything else.
    """
    try:
        return msgpack.unpackb(
            raw,
            object_pairs_hook=_map_once,
            ext_hook=_no_extension,
            max_ext_len=0,
            max_array_len=most_entries,
            max_map_len=most_entries,
        )
    except WireError:
        raise
    except Exception as error:  # msgpack names a dozen, from ValueError to its own; all mean the same here
        raise WireError(f"not msgpack: {type(error).__name__}: {str(error)[:100]}", catalogue.NOT_A_MESSAGE) from error


def _map_once(pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise WireError("a map's key is not text", catalogue.NOT_A_MESSAGE)
        if key in table:
            raise WireError(f"a map names {key[:64]!r} twice", catalogue.NOT_A_MESSAGE)
        table[key] = value
    return table


def _no_extension(code: int, data: bytes) -> Any:
    """An extension without data is within every length limit, and would pass for a list."""
    raise WireError(f"extension type {code} is not spoken here", catalogue.NOT_A_MESSAGE)


def _check_size(kind: str, raw: bytes) -> None:
    if kind not in KINDS:
        raise WireError(f"no message kind is called {kind[:64]!r}", catalogue.NOT_A_MESSAGE)
    largest = KINDS[kind][1]
    if len(raw) > largest:
        raise WireError(
            f"a {kind} message of {len(raw)} bytes is over this kind's limit of {largest} bytes",
            catalogue.WIRE_TOO_LARGE,
        )


def _wire_error(error: SchemaError) -> WireError:
    return WireError("; ".join(error.problems[:PROBLEMS_TOLD])[:500], catalogue.NOT_A_MESSAGE)


def _check_topic(header: _Header, topic: Topic, directions: tuple[Direction, ...]) -> None:
    if topic.kind != header.kind or topic.direction not in directions:
        raise WireError(f"a {header.kind} message arrived on the topic {topic}", catalogue.NOT_A_MESSAGE)
    if topic.federation != header.federation or topic.device != header.device:
        raise WireError(
            f"the topic {topic} and the message's own words on federation and device disagree", catalogue.NOT_A_MESSAGE
        )
