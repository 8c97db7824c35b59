"""Messages: bytes pinned in tests/mekt/golden, limits, and garbage that is always a WireError.

A golden file that no longer fits means that devices in the field no longer understand the coordinator: that needs a new
wire version. `python -m tests.mekt.test_messages` writes the files anew.
"""

import dataclasses
import itertools
import math
import struct
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import WireError
from mekt.messages import (
    CHUNK_BYTES,
    KIND_OF,
    KINDS,
    LARGEST_MESSAGE,
    LARGEST_ROUND,
    MOST_ENTRIES,
    VERSION,
    Answer,
    Body,
    Chunk,
    Envelope,
    Finding,
    Fitness,
    Keys,
    Offer,
    Presence,
    Privacy,
    PublicKeys,
    Receipt,
    Renewal,
    Request,
    Rollout,
    RoundOpen,
    RoundReport,
    Shares,
    Status,
    Summing,
    Unmasking,
    Want,
    decode,
    encode,
    unpack,
)
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan
from mekt.schema import Bounds
from mekt.topics import Direction, Topic

GOLDEN = Path(__file__).parent / "golden"


def blob(letter: bytes, size_bytes: int) -> BlobRef:
    return BlobRef(sha256=letter * 32, size_bytes=size_bytes)


PLAN = Plan(
    run="0af3",
    seed=7,
    rounds=5,
    window=WindowSpec(window_s=2.5, stride_s=1.25),
    modalities=(
        Modality(name="acc", shape=(3,), rate_hz=50.0, unit="g"),
        Modality(name="depth", shape=(24, 32), rate_hz=10.0, unit="m"),
    ),
    scaling={"acc": Scaling(mean=(0.0, 0.0, 1.0), std=(1.0, 1.0, 1.0)), "depth": Scaling(mean=(2.0,), std=(0.5,))},
    proxy={"acc": blob(b"a", 1000), "depth": blob(b"d", 100_000)},
    proxy_windows=16,
    # Written out, so that these bytes do not change with the defaults.
    method=Method(
        embedding=32,
        hidden=64,
        fusion="separate",
        reconstruction="spectral",
        transfer="mse",
        temperature=3.0,
        alpha=1.0,
        beta=0.0,
        eta=1.0,
        gamma=0.0,
        contrast=0.5,
        contrast_temperature=0.1,
        decorrelate=1.0,
        augment=1.0,
        knowledge_rows=32,
        follow_epochs=1,
        local_epochs=2,
        local_rate=1e-3,
        distil_epochs=10,
        distil_rate=3e-3,
        batch=64,
        encoding="float16",
    ),
)
BODIES: dict[str, Body] = {
    "round": RoundOpen(
        state="open",
        deadline_s=60.5,
        participants=("pi-3", "pi-4"),
        plan=PLAN,
        knowledge={"acc": blob(b"k", 1500), "depth": blob(b"l", 1500)},
    ),
    "presence": Presence(
        state="online",
        session=12,
        activity="training",
        progress=0.5,
        modalities={"acc": "conv", "depth": "lstm"},
        windows=640,
        up_bytes=123_456,
        down_bytes=2**40,
    ),
    "offer": Offer(knowledge={"acc": blob(b"k", 1500)}, windows=640, metrics={"reconstruction": 0.25, "transfer": 0.0}),
    "want": Want(sha256=b"k" * 32, chunks=(0, 3, 70_000)),
    "chunk": Chunk(sha256=b"k" * 32, index=1, count=2, data=b"\x00\xffdata"),
    "receipt": Receipt(state="refused", reason="round 2 is over"),
    "request": Request(token=b"t" * 16, csr=b"\x30\x82 a request"),
    "renewal": Renewal(csr=b"\x30\x82 a request"),
    "keys": Keys(keys={"acc": PublicKeys(seal=b"s" * 32, mask=b"m" * 32)}),
    "shares": Shares(sealed={"acc": {"pi-4": b"x" * 82, "pi-5": b"y" * 82}}),
    "unmasking": Unmasking(
        seeds={"acc": {"pi-3": b"s" * 33, "pi-4": b"t" * 33}}, mask_keys={"acc": {"pi-5": b"m" * 33}}
    ),
    "answer": Answer(state="issued", certificate=b"\x30\x82 a certificate", time_s=1.75e9),
    "rollout": Rollout(release="home-0002", blob=blob(b"z", 180_000), number=3, share=0.25),
    "fitness": Fitness(
        running=b"z" * 32,
        number=3,
        state="rolled-back",
        why="slow",
        agreement_percent=97,
        latency_us=1850,
        memory_mb=61,
    ),
    "status": Status(
        phase="collecting",
        rounds=5,
        online=("pi-3",),
        waiting_for=("pi-4",),
        received=("pi-3",),
        reports=(
            RoundReport(
                round=0,
                devices=("pi-3", "pi-4"),
                metrics={"f1": 0.75},
                seconds={"distil": 1.5},
                release="r0",
                findings=(
                    Finding(name="odd-device", modality="acc", device="pi-3", evidence="seen", remedy="mend it"),
                ),
                disagreement={"pi-3": 2.5, "pi-4": 1.0},
            ),
        ),
        text="waiting for 1 of 2: pi-4 (last seen 41 s ago)",
    ),
}
TO_ALL = ("round", "status", "rollout")


def envelope(kind: str, **changes: Any) -> Envelope:
    whole = Envelope(
        federation="home",
        round=2,
        device="" if kind in TO_ALL else "pi-3",
        sequence=9,
        proxy=b"p" * 32,
        body=BODIES[kind],
    )
    return dataclasses.replace(whole, **changes)


def topic(kind: str, **changes: Any) -> Topic:
    direction: Direction = KINDS[kind][2][0]
    whole = Topic(federation="home", direction=direction, kind=kind, device="" if kind in TO_ALL else "pi-3")
    return dataclasses.replace(whole, **changes)


def table(kind: str, **changes: Any) -> dict[str, Any]:
    """A message as plain data, to be spoiled."""
    data: dict[str, Any] = msgpack.unpackb(encode(envelope(kind)))
    return data | changes


def dump(raw: bytes) -> str:
    """Sixteen bytes a line, as hex and as text."""
    lines = []
    for start in range(0, len(raw), 16):
        part = raw[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{part.hex(' '):<47}  |{text}\n")
    return "".join(lines)


def golden(kind: str) -> bytes:
    lines = (GOLDEN / f"{kind}.hex").read_text(encoding="ascii").splitlines()
    return bytes.fromhex("".join(line[:47] for line in lines))


def refused(raw: bytes, *, on: Topic | None = None) -> str:
    with pytest.raises(WireError) as caught:
        decode(raw, on)
    return str(caught.value)


def test_a_presence_may_say_what_was_given_away_and_one_without_is_as_before() -> None:
    plain = BODIES["presence"]
    assert isinstance(plain, Presence)
    privacy = Privacy(epsilon=3.5, delta=1e-5, budget=8.0, is_spent=True)
    told = dataclasses.replace(plain, privacy=privacy)
    raw = encode(dataclasses.replace(envelope("presence"), body=told))
    assert decode(raw).body == told and len(raw) > len(golden("presence"))
    for epsilon in (-1.0, math.inf, math.nan):
        worse = dataclasses.replace(told, privacy=dataclasses.replace(privacy, epsilon=epsilon))
        with pytest.raises(WireError, match="epsilon"):
            encode(dataclasses.replace(envelope("presence"), body=worse))


def test_a_round_may_be_one_whose_knowledge_is_summed_in_secret_and_any_other_is_as_before() -> None:
    plain = BODIES["round"]
    assert isinstance(plain, RoundOpen)
    keys = {f"pi-{number}": PublicKeys(seal=b"s" * 32, mask=bytes([number]) * 32) for number in range(31)}
    summing = Summing(step="unmasking", members={"acc": keys}, survivors=tuple(keys))
    raw = encode(dataclasses.replace(envelope("round"), body=dataclasses.replace(plain, summing=summing)))
    read = decode(raw).body
    assert isinstance(read, RoundOpen) and read.summing == summing and len(raw) > len(golden("round"))
    for spoil, says in (
        ({"step": "guessing"}, "step"),
        ({"members": {"acc": keys | {"pi-31": keys["pi-0"]}}}, "at most 31"),
        ({"members": {"acc": {"pi-0": PublicKeys(seal=b"s", mask=b"m" * 32)}}}, "seal"),
    ):
        worse = dataclasses.replace(summing, **spoil)
        with pytest.raises(WireError, match=says):
            encode(dataclasses.replace(envelope("round"), body=dataclasses.replace(plain, summing=worse)))


def test_the_largest_words_of_a_secure_sum_are_within_their_limits() -> None:
    modalities = [f"m{number:015}" for number in range(16)]
    devices = [f"{number:064}" for number in range(31)]
    shares = {name: dict.fromkeys(devices, b"s" * 33) for name in modalities}
    for body in (
        Keys(keys=dict.fromkeys(modalities, PublicKeys(seal=b"s" * 32, mask=b"m" * 32))),
        Shares(sealed={name: dict.fromkeys(devices[1:], b"x" * 82) for name in modalities}),
        Unmasking(seeds=shares, mask_keys={name: {} for name in modalities}),
    ):
        largest = envelope(KIND_OF[type(body)], body=body, device="d" * 64, federation="f" * 64)
        assert decode(encode(largest)) == largest


def test_an_offer_that_says_nothing_of_masks_is_of_knowledge_as_it_is() -> None:
    offer = BODIES["offer"]
    assert isinstance(offer, Offer) and offer.masked is None
    masked = dataclasses.replace(offer, masked=True)
    assert decode(encode(envelope("offer", body=masked))).body == masked
    data = table("offer")
    data["body"]["masked"] = False
    assert "masked" in refused(msgpack.packb(data))


def test_there_is_a_golden_message_of_every_kind_and_no_other() -> None:
    assert set(BODIES) == set(KINDS) == {path.stem for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_the_bytes_that_devices_in_the_field_know(kind: str) -> None:
    assert dump(encode(envelope(kind))) == (GOLDEN / f"{kind}.hex").read_text(encoding="ascii")
    assert decode(golden(kind)) == envelope(kind)
    assert decode(golden(kind), topic(kind)) == envelope(kind)
    assert envelope(kind).kind == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_message_cut_anywhere_is_refused(kind: str) -> None:
    raw = golden(kind)
    for length in range(len(raw)):
        assert "not msgpack" in refused(raw[:length])
    assert "ExtraData" in refused(raw + b"\0")
    assert "ExtraData" in refused(raw * 2)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_message_with_any_bit_flipped_is_a_valid_one_or_refused(kind: str) -> None:
    raw = golden(kind)
    valid = 0
    for at, bit in itertools.product(range(len(raw)), range(8)):
        if len(raw) > 600 and (at + bit) % 4:
            continue  # a quarter of a long message's bits, spread evenly: it repeats itself
        flipped = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
        try:
            read = decode(flipped, topic(kind))
        except WireError:
            continue
        valid += 1
        assert read.kind == kind and decode(encode(read)) == read
    assert 0 < valid < 8 * len(raw)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_wire_error(raw: bytes) -> None:
    for on in (None, topic("offer")):
        try:
            assert isinstance(decode(raw, on), Envelope)
        except WireError as error:
            assert str(error)


keys = st.sampled_from([*table("want"), *(field.name for body in KIND_OF for field in dataclasses.fields(body))])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(keys, values), st.dictionaries(keys, values))
def test_any_plain_data_in_a_message_is_valid_or_a_wire_error(
    kind: str, header: dict[str, Any], body: dict[str, Any]
) -> None:
    data = table(kind)
    raw = msgpack.packb(data | header | {"body": data["body"] | body})
    try:
        assert isinstance(decode(raw), Envelope)
    except WireError as error:
        assert len(str(error)) <= 600


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_has_its_own_limit_of_size(kind: str) -> None:
    largest = KINDS[kind][1]
    spoiled = msgpack.packb(table(kind) | {"more": bytes(largest)})
    assert f"over this kind's limit of {largest} bytes" in refused(spoiled, on=topic(kind))
    if len(spoiled) <= LARGEST_MESSAGE:
        assert "more: unknown key" in refused(spoiled)
        without = msgpack.packb(table(kind) | {"body": bytes(largest)})
        assert f"a {kind} message of {len(without)} bytes is over" in refused(without)
    else:
        assert f"over the limit of {LARGEST_MESSAGE} bytes" in refused(spoiled)


def test_a_sender_finds_out_what_no_receiver_would_accept() -> None:
    status, offer = BODIES["status"], BODIES["offer"]
    assert isinstance(status, Status) and isinstance(offer, Offer)
    names = tuple(f"{number:064}" for number in range(4096))
    for bad, says in (
        (envelope("status", body=dataclasses.replace(status, text="t" * 501)), "status.text: expected at most 500"),
        (envelope("offer", body=dataclasses.replace(offer, metrics={"transfer": float("nan")})), "metrics.transfer"),
        (envelope("want", body=Want(sha256=b"short", chunks=(1,))), "want.sha256"),
        (envelope("want", device="pi 3"), "device"),
        (envelope("want", round=-1), "round"),
        (envelope("want", federation="a/b"), "federation"),
    ):
        with pytest.raises(WireError, match=says):
            encode(bad)
    reports = status.reports * 5
    large = dataclasses.replace(
        status, reports=tuple(dataclasses.replace(report, devices=names) for report in reports), online=names
    )
    with pytest.raises(WireError, match=r"a status message of \d+ bytes is over this kind's limit of 1048576 bytes"):
        encode(envelope("status", body=large))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"why": ""}, "why: '' does not go with 'rolled-back'"),
        ({"state": "good"}, "why: 'slow' does not go with 'good'"),
        ({"why": "the patient fell"}, "fitness.why: expected one of"),
        ({"state": "well"}, "fitness.state: expected one of"),
        ({"latency_us": 1850.25}, "fitness.latency_us: expected a whole number"),
        ({"latency_us": 10_000_001}, "fitness.latency_us"),
        ({"agreement_percent": 101}, "fitness.agreement_percent"),
        ({"memory_mb": 65_536}, "fitness.memory_mb"),
        ({"running": b"z" * 33}, "fitness.running"),
        ({"text": "well"}, "fitness.text: unknown key"),
    ],
)
def test_a_wearable_says_of_itself_a_few_whole_numbers_and_words_of_closed_lists(
    change: dict[str, Any], says: str
) -> None:
    data = table("fitness")
    data["body"] |= change
    assert says in refused(msgpack.packb(data))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"share": 1.01}, "rollout.share"),
        ({"share": -0.01}, "rollout.share"),
        ({"share": float("nan")}, "rollout.share"),
        ({"number": 0}, "rollout.number"),
        ({"release": "../home"}, "rollout.release"),
        ({"release": ""}, "rollout.release"),
    ],
)
def test_a_rollout_is_of_a_named_release_to_a_share(change: dict[str, Any], says: str) -> None:
    data = table("rollout")
    data["body"] |= change
    assert says in refused(msgpack.packb(data))


def test_a_status_from_before_there_were_findings_is_read() -> None:
    data = table("status")
    del data["body"]["reports"][0]["findings"]
    read = decode(msgpack.packb(data)).body
    assert isinstance(read, Status) and read.reports[0].findings == ()


def test_a_status_from_before_there_were_scores_of_devices_is_read() -> None:
    data = table("status")
    del data["body"]["reports"][0]["disagreement"]
    read = decode(msgpack.packb(data)).body
    assert isinstance(read, Status) and read.reports[0].disagreement == {}


@pytest.mark.parametrize(("name", "score"), [("../pi", 1.0), ("pi-3", -0.1), ("pi-3", float("inf")), ("pi-3", "1")])
def test_scores_are_of_devices_and_numbers_from_zero_on(name: str, score: Any) -> None:
    data = table("status")
    data["body"]["reports"][0]["disagreement"] = {name: score}
    assert "disagreement" in refused(msgpack.packb(data))
    data["body"]["reports"][0]["disagreement"] = {f"pi-{n}": 1.0 for n in range(65)}
    assert "disagreement: expected at most 64 entries" in refused(msgpack.packb(data))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "bad-luck"}, "findings[0].name: expected one of 'unrepresentative-proxy', 'too-little-transfer'"),
        ({"modality": "no modality"}, "findings[0].modality"),
        ({"device": "../pi"}, "findings[0].device"),
        ({"evidence": "e" * 241}, "findings[0].evidence: expected at most 240"),
        ({"remedy": "r" * 241}, "findings[0].remedy: expected at most 240"),
        ({"values": [0.5]}, "findings[0].values: unknown key"),
    ],
)
def test_a_finding_is_of_a_known_kind_and_short(change: dict[str, Any], says: str) -> None:
    data = table("status")
    report = data["body"]["reports"][0]
    report["findings"][0].update(change)
    assert says in refused(msgpack.packb(data))
    report["findings"] = table("status")["body"]["reports"][0]["findings"] * 17
    assert "findings: expected at most 16" in refused(msgpack.packb(data))


def test_a_finding_reads_as_a_line() -> None:
    finding = Finding(name="collapse", modality="acc", evidence="all alike", remedy="mend it")
    assert str(finding) == "collapse (acc): all alike; mend it"
    assert str(dataclasses.replace(finding, device="pi-3")) == "collapse pi-3 (acc): all alike; mend it"


def test_equal_messages_have_equal_bytes_whatever_the_order_of_their_tables() -> None:
    offer = BODIES["offer"]
    assert isinstance(offer, Offer)
    turned = dataclasses.replace(offer, metrics=dict(reversed(offer.metrics.items())))
    assert list(turned.metrics) != list(offer.metrics)
    assert encode(envelope("offer", body=turned)) == encode(envelope("offer"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"v": VERSION + 1}, "wire version 2 is not spoken here, only 1; bring both sides to one release"),
        ({"v": "1"}, "v: expected a whole number"),
        ({"kind": "weights"}, "no message kind is called 'weights'"),
        ({"kind": ["want"]}, "kind: expected text"),
        ({"kind": "offer"}, "offer.knowledge: missing"),
        ({"federation": ""}, "federation: "),
        ({"round": -1}, "round: "),
        ({"round": LARGEST_ROUND + 1}, "round: "),
        ({"device": "../pi"}, "device: "),
        ({"seq": 1.5}, "seq: "),
        ({"proxy": b"p" * 33}, "proxy: "),
        ({"extra": 1}, "extra: unknown key"),
        ({"body": None}, "want: expected a table"),
        ({"body": []}, "want: expected a table"),
        ({"body": {"sha256": b"k" * 32, "chunks": []}}, "want.chunks: expected at least 1"),
        ({"body": {"sha256": b"k" * 32, "chunks": list(range(65))}}, "want.chunks: expected at most 64"),
        ({"body": {"sha256": b"k" * 32, "chunks": [1, 2, 1]}}, "chunks: one is named twice"),
        ({"body": {"sha256": b"k" * 32, "chunks": [True]}}, "want.chunks"),
        ({"body": {"sha256": b"k" * 32, "chunks": b"\1\2"}}, "want.chunks: expected a list"),
        ({"body": {"sha256": "k" * 32, "chunks": [1]}}, "want.sha256: expected bytes"),
    ],
)
def test_fields_out_of_bounds_are_named(change: dict[str, Any], says: str) -> None:
    assert says in refused(msgpack.packb(table("want") | change))


def test_what_is_no_table_with_a_body_is_refused() -> None:
    data = table("want")
    del data["body"]
    for each in (None, 1, "text", [], [1], {}, data):
        assert "a message is a map with a body" in refused(msgpack.packb(each))


def test_chunks_are_as_large_as_they_may_be_and_no_larger() -> None:
    full = Chunk(sha256=b"k" * 32, index=2**24, count=2**24, data=bytes(CHUNK_BYTES))
    names = {"federation": "f" * 64, "device": "d" * 64, "round": LARGEST_ROUND, "sequence": 2**53}
    assert decode(encode(envelope("chunk", body=full, **names))).body == full
    data = table("chunk")
    data["body"]["data"] = bytes(CHUNK_BYTES + 1)
    assert f"chunk.data: expected at most {CHUNK_BYTES} bytes" in refused(msgpack.packb(data))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_message_fits_its_own_topic_alone(kind: str) -> None:
    raw = encode(envelope(kind))
    assert "disagree" in refused(raw, on=topic(kind, federation="away"))
    if kind not in TO_ALL:
        assert "disagree" in refused(raw, on=topic(kind, device="pi-4"))
    directions: tuple[Direction, ...] = ("up", "down", "all")
    for direction in directions:
        if direction in KINDS[kind][2]:
            assert decode(raw, topic(kind, direction=direction)) == envelope(kind)
        else:
            assert "arrived on the topic" in refused(raw, on=topic(kind, direction=direction))
    for other in set(KINDS) - {kind}:
        assert refused(raw, on=dataclasses.replace(topic(kind), kind=other))
    assert "no message kind is called 'weights'" in refused(raw, on=dataclasses.replace(topic(kind), kind="weights"))


def test_a_table_that_names_a_key_twice_is_refused() -> None:
    raw = encode(envelope("want"))
    twice = bytes([raw[0] + 1]) + raw[1:] + msgpack.packb("v") + msgpack.packb(1)
    assert "names 'v' twice" in refused(twice)
    assert "names 'a' twice" in refused(b"\x81\xa4body" + b"\x82\xa1a\1\xa1a\2")


@pytest.mark.parametrize("raw", [b"\x81\1\2", b"\x81\xc4\1a\2", b"\x81\xc0\2", b"\x81\x90\2", b"\x81\xc3\2"])
def test_keys_that_are_not_text_are_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        unpack(raw)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\xd4\x05\0", b"\xc7\0\x05", b"\xc7\0\xff", b"\xd6\xff\0\0\0\0", b"\xd7\xff" + bytes(8)),
        *(b"\xc7\x0c\xff" + bytes(12), b"\xc9\xff\xff\xff\xff\x05", b"\x91\xc7\0\x01", b"\x81\xa1a\xc7\0\x01"),
    ],
)
def test_extension_types_and_timestamps_are_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        unpack(raw)


@pytest.mark.parametrize("lead", [b"\x91", b"\x81\xa1a", b"\x81\xa4body", b"\xdc\0\1", b"\xdd\0\0\0\1"])
def test_deep_nests_are_refused(lead: bytes) -> None:
    for depth in (600, 2_000, 100_000):
        assert refused(lead * depth + b"\xc0")


@pytest.mark.parametrize("lead", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"])
@pytest.mark.parametrize("length", [MOST_ENTRIES + 1, 2**20, 2**31 - 1, 2**32 - 1])
def test_a_declared_length_beyond_the_message_asks_for_nothing(lead: bytes, length: int) -> None:
    head = lead + struct.pack(">I", length)
    assert refused(head)
    assert refused(head * 200)
    assert refused(b"\x81\xa4body" + head)


def test_text_that_is_not_utf_8_is_refused() -> None:
    for text in (b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xa2\xc0\x80"):
        with pytest.raises(WireError):
            unpack(text)


def test_numbers_that_are_none_are_refused() -> None:
    for number in (float("nan"), float("inf"), -float("inf"), 2**64 - 1):
        data = table("offer")
        data["body"]["metrics"] = {"transfer": number}
        assert "offer.metrics.transfer: expected a number" in refused(msgpack.packb(data))


def hints(hint: Any, bounds: Bounds | None = None) -> Iterator[tuple[Any, Bounds | None]]:
    """Every type within a type, each with the bounds that stand around it."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *limits = get_args(hint)
        yield from hints(inner, next(limit for limit in limits if isinstance(limit, Bounds)))
        return
    yield hint, bounds
    if dataclasses.is_dataclass(hint):
        for each in typing.get_type_hints(hint, include_extras=True).values():
            yield from hints(each)
    elif origin in (tuple, dict, Union, types.UnionType):
        for each in get_args(hint):
            if each is not Ellipsis:
                yield from hints(each)


def holds_numbers(entry: Any) -> bool:
    """Whether a list or table with such entries is one of numbers, at any depth; dataclasses are looked at apart."""
    first = next(hint for hint, _ in hints(entry))
    return not dataclasses.is_dataclass(first) and any(hint in (float, int) for hint, _ in hints(entry))


def test_the_words_of_the_schema_are_few_enough_to_be_looked_through() -> None:
    known = {str, bytes, int, float, bool}
    for body in KIND_OF:
        for hint, _ in hints(body):
            plain = hint in known or hint is type(None) or dataclasses.is_dataclass(hint)
            assert plain or get_origin(hint) in (Literal, tuple, dict, Union, types.UnionType), hint


def test_no_field_of_any_kind_can_hold_windows_or_weights() -> None:
    """Lists of numbers are the channels' means and deviations, and the numbers of chunks; bytes are hashes.

    And what a key is certified by: it is smaller than a window, and the coordinator takes nothing else there. And
    shares of secrets, each of one length and of or for one other device.
    """
    shares = {"shares": (82,), "unmasking": (33,)}
    for kind, (body, _, _) in KINDS.items():
        for hint, bounds in hints(body):
            if get_origin(hint) is tuple and holds_numbers(get_args(hint)[0]):
                assert bounds is not None and bounds.longest is not None and bounds.longest <= 1024, (kind, hint)
            if get_origin(hint) is dict and holds_numbers(get_args(hint)[1]):
                assert bounds is not None and bounds.longest is not None and bounds.longest <= 64, (kind, hint)
            if hint is bytes and kind != "chunk":
                largest = {"request": (16, 512), "renewal": (512,), "answer": (1024,), **shares}.get(kind, (32,))
                assert bounds is not None and bounds.longest in largest, (kind, bounds)
                assert kind not in shares or bounds.shortest == bounds.longest
        if kind == "chunk":
            assert [bounds.longest for hint, bounds in hints(body) if hint is bytes and bounds] == [32, CHUNK_BYTES]


def test_what_devices_send_beside_chunks_is_small_and_holds_no_list_of_fractions() -> None:
    for kind, (body, largest, directions) in KINDS.items():
        if "up" in directions and kind != "chunk":
            # Of every modality a share for every device that a secure sum takes.
            assert largest <= {"shares": 81920, "unmasking": 65536}.get(kind, 8192)
            for hint, _ in hints(body):
                if get_origin(hint) is tuple:
                    assert not any(inner is float for inner, _ in hints(hint)), (kind, hint)


def test_a_device_says_nothing_of_its_learning_but_two_losses() -> None:
    """Under names of its own choice, 64 numbers would be room for a window of samples."""
    losses = {"reconstruction": 0.5, "transfer": -0.5}
    offer = BODIES["offer"]
    assert isinstance(offer, Offer)
    for names in ((), ("reconstruction",), ("transfer",), ("reconstruction", "transfer")):
        said = {name: losses[name] for name in names}
        data = table("offer")
        data["body"]["metrics"] = said
        assert decode(msgpack.packb(data)).body == dataclasses.replace(offer, metrics=said)  # type: ignore[arg-type]
    for others in ({"loss": 0.5}, {"": 0.5}, {"Transfer": 0.5}, {f"m{number}": 0.5 for number in range(65)}):
        data = table("offer")
        data["body"]["metrics"] = losses | others
        assert "offer.metrics, key: expected one of 'reconstruction', 'transfer'" in refused(msgpack.packb(data))
        body = dataclasses.replace(offer, metrics=losses | others)  # type: ignore[arg-type]
        with pytest.raises(WireError, match=r"offer\.metrics, key"):
            encode(envelope("offer", body=body))


if __name__ == "__main__":
    for name in KINDS:
        (GOLDEN / f"{name}.hex").write_text(dump(encode(envelope(name))), encoding="ascii")
