"""Every decoder that sees bytes from the network, and the laws that it keeps whatever the bytes are.

A broken law is an AssertionError; an exception that is not documented comes out as it is. Both the tests and the fuzzer
run these, and the fuzzer has neither torch nor pytest.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.delivery import MOST_DAMAGED, Incoming, Unusable, Whole, offer_problem
from mekt import catalogue
from mekt.arrays import Floats, pack_knowledge, pack_windows, unpack_knowledge, unpack_windows
from mekt.blobs import CHUNKS_IN_FLIGHT, Fetch, blob_ref, chunk_count, proxy_hash, read_chunk
from mekt.errors import SettingsError, WireError
from mekt.link import Received
from mekt.messages import (
    CHUNK_BYTES,
    KINDS,
    Chunk,
    Envelope,
    Offer,
    RoundOpen,
    Status,
    Want,
    decode,
    encode,
    unpack,
)
from mekt.plan import BlobRef, Encoding, Plan
from mekt.post import LONGEST_CAUSE, MOST_CAUSES, Post
from mekt.schema import plain
from mekt.signature import SIGNATURE_BYTES, Trust
from mekt.token import Token, read_token, spelled
from mekt.topics import Topic, parse_topic
from sensors.columns import cells, labelled
from sensors.columns import number as as_number
from sensors.dropped import Dropped, MisfitError
from sensors.intake import MOST_SAMPLES, Intake
from sensors.lines import LONGEST_LINE_BYTES, Lines
from sensors.payloads import Form, samples_of, unpacked
from sensors.signals import Signal, TimeField
from sensors.source import Block, Item
from tests.hostile.mutants import pack, spoiled

GOLDEN = Path(__file__).parents[1] / "mekt" / "golden"
FEDERATION, DEVICE = "home", "pi-3"
LONGEST_ERROR = 700
ENCODINGS: tuple[Encoding, ...] = ("float32", "float16", "int8", "int4")
ROWS, EMBEDDING, HIDDEN = 3, 2, 5
WINDOWS_SHAPE = (2, 4, 3)
MOST_STEPS = 24
FETCH_BYTES = 4 * CHUNK_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder:
    """`decode` gives a value or raises WireError; `check` asserts what holds for a value; `seeds` are valid.

    `wrapping` is how many bytes stand before the msgpack, None where there is no msgpack.
    """

    decode: Callable[[bytes], Any]
    check: Callable[[Any], None]
    seeds: tuple[bytes, ...]
    wrapping: Callable[[bytes], int] | None = lambda raw: 0

    def accepts(self, raw: bytes) -> bool:
        """Whether these bytes are valid, with every law checked."""
        try:
            value = self.decode(raw)
        except WireError as error:
            assert 0 < len(str(error)) <= LONGEST_ERROR
            return False
        self.check(value)
        return True

    def mutant(self, raw: bytes, chance: random.Random) -> bytes:
        """These bytes with changes to what they say, or to the bytes where they say nothing in msgpack."""
        if self.wrapping is None:
            at = chance.randrange(len(raw) + 1)
            return raw[:at] + chance.randbytes(chance.randrange(6)) + raw[at + chance.randrange(6) :]
        start = self.wrapping(raw)
        return raw[:start] + spoiled(raw[start:], chance)


def golden(kind: str) -> bytes:
    """A valid message of this kind, as devices in the field know it."""
    lines = (GOLDEN / f"{kind}.hex").read_text(encoding="ascii").splitlines()
    return bytes.fromhex("".join(line[:47] for line in lines))


def topic_of(kind: str) -> Topic:
    """Where the golden message of this kind travels."""
    direction = KINDS[kind][2][0]
    return Topic(federation=FEDERATION, direction=direction, kind=kind, device="" if direction == "all" else DEVICE)


def plan() -> Plan:
    """The plan of the golden round."""
    body = decode(golden("round")).body
    assert isinstance(body, RoundOpen)
    return body.plan


PLAN = plan()
SMALL = replace(
    PLAN, proxy_windows=ROWS, method=replace(PLAN.method, embedding=EMBEDDING, hidden=HIDDEN, knowledge_rows=ROWS)
)
SMALL_WITH_HIDDEN = replace(SMALL, method=replace(SMALL.method, gamma=1.0))
PIECES = tuple(bytes(range(256)) * (size // 256) + b"end" for size in (0, CHUNK_BYTES, 2 * CHUNK_BYTES - 256))
REFS = tuple(blob_ref(data) for data in PIECES)
CHUNKS = tuple(
    tuple(read_chunk(data, ref, index) for index in range(chunk_count(ref)))
    for data, ref in zip(PIECES, REFS, strict=True)
)


def comes_back(envelope: Envelope, topic: Topic | None = None) -> None:
    """It can be sent, and is read as an equal message with the same bytes."""
    try:
        raw = encode(envelope)
    except WireError as error:
        # A number without a fraction may have come in one byte and is sent in nine; what is left out is sent as well.
        assert "over this kind's limit" in str(error)
        return
    again = decode(raw, topic)
    assert again == envelope and encode(again) == raw
    can_be_used(envelope)


def can_be_used(envelope: Envelope) -> None:
    """What its receiver computes from a valid message, apart from learning, comes to an end."""
    match envelope.body:
        case RoundOpen() as word:
            assert 0 < word.plan.knowledge_rows < 2**15 and word.plan.identity
            assert 0 <= word.plan.local_rate(envelope.round) <= word.plan.method.local_rate
            assert len(proxy_hash(word.plan.proxy)) == 32
            assert all(word.plan.window.values(each) > 0 for each in word.plan.modalities)
        case Offer() as offer:
            for each in (PLAN, SMALL_WITH_HIDDEN):
                if offer_problem(offer, each) is None:
                    assert 0 < sum(len(want.chunks) for want in Incoming(offer, each).due(0.0)) <= CHUNKS_IN_FLIGHT
        case Want() as want:
            ref = replace(REFS[1], sha256=want.sha256)
            served = [read_chunk(PIECES[1], ref, index) for index in want.chunks]
            assert sum(chunk is not None for chunk in served) <= chunk_count(ref)
        case Chunk() as chunk:
            assert len(chunk.data) <= CHUNK_BYTES
        case Status() as status:
            assert all(str(finding) for report in status.reports for finding in report.findings)
        case _:
            pass


def message(kind: str) -> Decoder:
    """The messages that arrive on the topic of one kind."""
    topic = topic_of(kind)

    def check(envelope: Envelope) -> None:
        assert (envelope.kind, envelope.federation, envelope.device) == (kind, FEDERATION, topic.device)
        comes_back(envelope, topic)

    return Decoder(decode=lambda raw: decode(raw, topic), check=check, seeds=(golden(kind),))


def read_topic(raw: bytes) -> tuple[str, Topic | None]:
    text = raw.decode("utf-8", "replace")
    return text, parse_topic(text)


def is_spelled_so(pair: tuple[str, Topic | None]) -> None:
    text, topic = pair
    assert topic is None or str(topic) == text


POST = Post(FEDERATION)


def read_post(raw: bytes) -> None:
    """A topic's length, the topic and the payload, through the post of a side that has received all the others too."""
    length = raw[0] if raw else 0
    topic, payload = raw[1 : 1 + length].decode("utf-8", "replace"), raw[1 + length :]
    before = POST.rejected.total()
    envelope = POST.open(Received(topic=topic, payload=payload, retained=False))
    assert POST.rejected.total() - before == (envelope is None)
    assert len(POST.rejected) <= MOST_CAUSES + 1
    assert all(len(cause) <= LONGEST_CAUSE and cause.isprintable() for cause in list(POST.rejected)[-1:])


def read_knowledge(raw: bytes) -> tuple[Floats, Floats | None]:
    """Whether there is a hidden layer, and a knowledge blob."""
    hidden = HIDDEN if raw[:1] > b"\0" else None
    return unpack_knowledge(raw[1:], windows=ROWS, embedding=EMBEDDING, hidden=hidden)


def is_knowledge(pair: tuple[Floats, Floats | None]) -> None:
    embedding, hidden = pair
    assert embedding.shape == (ROWS, EMBEDDING) and (hidden is None or hidden.shape == (ROWS, HIDDEN))
    for array in (embedding,) if hidden is None else (embedding, hidden):
        assert array.dtype == np.float32 and np.isfinite(array).all()
    again = unpack_knowledge(
        pack_knowledge(embedding, hidden, "float32"),
        windows=ROWS,
        embedding=EMBEDDING,
        hidden=None if hidden is None else HIDDEN,
    )
    assert np.array_equal(again[0], embedding)


def knowledge_seeds() -> tuple[bytes, ...]:
    chance = np.random.default_rng(1)
    x_ND, x_NH = (chance.normal(0, 1, (ROWS, width)).astype(np.float32) for width in (EMBEDDING, HIDDEN))
    bare = (b"\0" + pack_knowledge(x_ND, None, encoding) for encoding in ENCODINGS)
    full = (b"\1" + pack_knowledge(x_ND, x_NH, encoding) for encoding in ENCODINGS)
    return (*bare, *full)


GOOD = (knowledge_seeds()[0][1:], knowledge_seeds()[-1][1:])


def are_windows(windows: Floats) -> None:
    assert windows.shape == WINDOWS_SHAPE and windows.dtype == np.float32 and np.isfinite(windows).all()


def read_offered(raw: bytes) -> Whole | Unusable | None:
    """How a device delivers, and a blob of its offer: with a hidden layer, beside another blob, so often damaged."""
    if len(raw) < 2:
        return None
    how, data = raw[0], raw[1:]
    hidden, beside, damaged = how & 1, how & 2, how >> 4
    other = GOOD[hidden] if beside else data
    offer = Offer(knowledge={"acc": blob_ref(data), "depth": blob_ref(other)}, windows=1, metrics={})
    incoming = Incoming(offer, SMALL_WITH_HIDDEN if hidden else SMALL)
    assert sum(len(want.chunks) for want in incoming.due(0.0)) == 1 + (other != data)
    chunk, last = (read_chunk(each, blob_ref(each), 0) for each in (data, other))
    assert chunk is not None and last is not None
    spoiled_chunk = replace(chunk, data=bytes([data[0] ^ 1]) + data[1:])
    for _ in range(damaged):
        try:
            outcome = incoming.take(spoiled_chunk)
        except WireError:
            continue
        assert isinstance(outcome, Unusable) and damaged >= MOST_DAMAGED
        return outcome
    outcome = incoming.take(chunk)
    assert (outcome is None) <= (other != data)
    return incoming.take(last) if outcome is None else outcome


def is_whole_or_told(outcome: Whole | Unusable | None) -> None:
    if isinstance(outcome, Whole):
        assert all(blob_ref(outcome.blobs[name]) == ref for name, ref in outcome.offer.knowledge.items())
    elif outcome is not None:
        assert 0 < len(outcome.reason) <= LONGEST_ERROR


def read_fetched(raw: bytes) -> None:
    """What a sender and a receiver may do to an assembly of blobs, in any order: five bytes a step."""
    fetch, now_s = Fetch(FETCH_BYTES), 0.0
    for at in range(0, min(len(raw), 5 * MOST_STEPS), 5):
        what, which, index, count, more = raw[at : at + 5].ljust(5, b"\0")
        ref, chunks = REFS[which % len(REFS)], CHUNKS[which % len(REFS)]
        last = ref.size_bytes % CHUNK_BYTES
        if which & 0x80:
            ref = BlobRef(sha256=ref.sha256, size_bytes=1 + count * (CHUNK_BYTES // 3) + more)
        try:
            match what % 6:
                case 0:
                    fetch.want(ref)
                case 1:
                    now_s += more
                    assert sum(len(want.chunks) for want in fetch.due(now_s)) <= CHUNKS_IN_FLIGHT
                case 2:
                    for chunk in chunks:
                        arrives(fetch, chunk)
                case 3:
                    arrives(fetch, chunks[index % len(chunks)])
                case 4:
                    part = bytes((CHUNK_BYTES, last, more)[index % 3] + 1 - (index % 3 < 2))
                    arrives(fetch, Chunk(sha256=ref.sha256, index=index % 5, count=count % 5 + 1, data=part))
                case _:
                    fetch.forget()
        except WireError as error:
            assert 0 < len(str(error)) <= LONGEST_ERROR
        held = sum(len(part) for each in fetch._open.values() for part in each.parts.values())
        assert held <= sum(each.size_bytes for each in fetch.wanted) <= FETCH_BYTES


def arrives(fetch: Fetch, chunk: Chunk | None) -> None:
    if chunk is not None:
        sizes = {ref.sha256: ref.size_bytes for ref in fetch.wanted}
        whole = fetch.take(chunk)
        if whole is not None:
            assert blob_ref(whole) == BlobRef(sha256=chunk.sha256, size_bytes=sizes[chunk.sha256])


TOKEN = Token(
    federation=FEDERATION,
    device=DEVICE,
    host="broker.example",
    port=8883,
    ca=b"ca",
    certificate=b"certificate",
    key=b"key",
    coordinator=bytes(32),
    secret=bytes(16),
    made_s=1.7e9,
    expires_s=1.7e9 + 3600,
)


def read_token_text(raw: bytes) -> Token:
    """The token in a line of text; its one error is the operator's, whose bytes they are."""
    try:
        return read_token(raw.decode("utf-8", "replace"))
    except SettingsError as error:
        raise WireError(str(error), catalogue.NOT_A_MESSAGE) from error


def read_packed_token(raw: bytes) -> Token:
    """The same of what a token holds, with the right sum: so that the checks behind that are reached."""
    return read_token_text(spelled(raw).encode())


def comes_back_as_token(token: Token) -> None:
    assert read_token(token.text()) == token


# Somebody's key, which has signed nothing of ours (RFC 8032, section 7.1, test 2).
SIGNED_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")


def read_signature(raw: bytes) -> None:
    """A signature and what it is on; whatever they are, they are refused and change nothing."""
    trust = Trust(SIGNED_KEY, 5)
    assert trust.refusal("round", raw[SIGNATURE_BYTES:], raw[:SIGNATURE_BYTES]) == "unsigned"
    assert trust.newest == 5


SENSED = (
    Signal(name="acc", fields=("acc.x", "acc.1"), rate_hz=50),
    Signal(name="co2", fields=("ppm",), rate_hz=1, scale=(1e-3,)),
)
SENSED_TIME = TimeField(field="t", unit="ms", bits=32)
SENSED_DATA: tuple[dict[str, Any], ...] = (
    {"acc": {"x": 1, "1": -2.5}, "ppm": "417", "t": 65_000},
    {"acc": {"x": [1, 2, 3], "1": [4, 5, 6]}, "t": [7, 8, 9]},
    {"log": [{"acc": {"x": 1, "1": 2}, "t": 3}, {"ppm": 5, "t": 4}]},
)


def read_sensed(raw: bytes, form: Form) -> list[Item]:
    """A foreign sensor's message as blocks; its one error has no number, as nobody is told of it but the log."""
    items: list[Item] = []
    intake = Intake(SENSED, SENSED_TIME, Dropped("hostile"))
    try:
        data = unpacked(raw, form)
        records = "log" if isinstance(data, dict) and "log" in data else None
        for signal in SENSED:
            samples = samples_of(data, signal, SENSED_TIME, records)
            if samples is not None:
                items += intake.take(signal, samples, 1000.0)
    except MisfitError as misfit:
        raise WireError(f"{misfit.cause}: {misfit.detail}", catalogue.NOT_A_MESSAGE) from misfit
    return items


def are_finite(items: list[Item]) -> None:
    for item in items:
        if isinstance(item, Block):
            assert 0 < len(item.t_s) <= MOST_SAMPLES
            assert np.isfinite(item.t_s).all() and np.isfinite(item.values).all()


def read_lines(raw: bytes) -> list[str]:
    """What a serial port gives, in pieces of 7 bytes: lines of bounded length whose columns are numbers or none."""
    lines = Lines()
    return [line for at in range(0, len(raw), 7) for line in lines.feed(raw[at : at + 7])]


def are_columns(lines: list[str]) -> None:
    for line in lines:
        assert 0 < len(line.encode()) <= LONGEST_LINE_BYTES
        table = labelled(cells(line, ","))
        assert all(number is None or abs(number) < 1e38 for number in map(as_number, table.values()))


def nothing(value: object) -> None:
    """No law beyond that of coming to an end."""


TOPICS = tuple(str(topic_of(kind)).encode() for kind in sorted(KINDS))
DECODERS = {
    **{f"message on {kind}": message(kind) for kind in sorted(KINDS)},
    "message anywhere": Decoder(decode=decode, check=comes_back, seeds=tuple(golden(kind) for kind in sorted(KINDS))),
    "plain data": Decoder(decode=unpack, check=nothing, seeds=tuple(golden(kind) for kind in sorted(KINDS))),
    "topic": Decoder(decode=read_topic, check=is_spelled_so, seeds=TOPICS, wrapping=None),
    "post": Decoder(
        decode=read_post,
        check=nothing,
        wrapping=lambda raw: 1 + raw[0] if raw else 0,
        seeds=tuple(
            bytes([len(topic)]) + topic + golden(kind) for topic, kind in zip(TOPICS, sorted(KINDS), strict=True)
        ),
    ),
    "token": Decoder(decode=read_token_text, check=comes_back_as_token, seeds=(TOKEN.text().encode(),), wrapping=None),
    "token within": Decoder(decode=read_packed_token, check=comes_back_as_token, seeds=(pack(plain(TOKEN)),)),
    "signature": Decoder(
        decode=read_signature, check=nothing, seeds=(bytes(SIGNATURE_BYTES) + b"content",), wrapping=None
    ),
    "sensor's msgpack": Decoder(
        decode=lambda raw: read_sensed(raw, "msgpack"),
        check=are_finite,
        seeds=tuple(pack(each) for each in SENSED_DATA),
    ),
    "sensor's json": Decoder(
        decode=lambda raw: read_sensed(raw, "json"),
        check=are_finite,
        seeds=tuple(json.dumps(each).encode() for each in SENSED_DATA),
        wrapping=None,
    ),
    "serial lines": Decoder(decode=read_lines, check=are_columns, seeds=(b"\n1,2,-3.5\r\nax:1,ay:2\n",), wrapping=None),
    "knowledge": Decoder(decode=read_knowledge, check=is_knowledge, seeds=knowledge_seeds(), wrapping=lambda raw: 1),
    "windows": Decoder(
        decode=lambda raw: unpack_windows(raw, WINDOWS_SHAPE),
        check=are_windows,
        seeds=(pack_windows(np.linspace(-2, 2, 24, dtype=np.float32).reshape(WINDOWS_SHAPE)),),
    ),
    "offered blob": Decoder(
        decode=read_offered,
        check=is_whole_or_told,
        seeds=tuple(
            bytes([seed[0] | how]) + seed[1:]
            for seed, how in zip(knowledge_seeds(), (0, 2, 0x10, 0x72, 0x80) * 2, strict=False)
        ),
        wrapping=lambda raw: 1,
    ),
    "chunks": Decoder(
        decode=read_fetched,
        check=nothing,
        wrapping=None,
        seeds=(
            bytes([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
            bytes([0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 3, 1, 1, 0, 0, 3, 1, 0, 0, 0, 4, 2, 0, 1, 0]),
            bytes([0, 0x82, 0, 5, 0, 4, 2, 1, 2, 0, 1, 0, 0, 0, 60, 1, 0, 0, 0, 60, 5, 0, 0, 0, 0]),
        ),
    ),
}
