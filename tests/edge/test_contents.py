"""Words for what leaves: for every kind that may, and none for what may not."""

import pytest

from edge.contents import read, words
from mekt.errors import WireError
from mekt.messages import (
    KINDS,
    Body,
    Chunk,
    Fitness,
    Keys,
    Offer,
    Presence,
    PublicKeys,
    Renewal,
    Request,
    Shares,
    Unmasking,
    Want,
)
from mekt.plan import BlobRef
from mekt.post import Post
from mekt.topics import Direction

SHA256 = bytes(range(32))
REF = BlobRef(sha256=SHA256, size_bytes=20_000)
SAID: list[tuple[Body, Direction, str]] = [
    (
        Presence(state="online", session=1, activity="training", progress=0.4, modalities={"acc": "conv"}, windows=640),
        "up",
        "presence: training 40%; has acc; 640 windows; 0 bytes up and 0 down",
    ),
    (
        Presence(state="offline", session=1, activity="idle", modalities={"acc": "conv", "gyro": "lstm"}),
        "up",
        "presence: offline; has acc, gyro",
    ),
    (
        Offer(knowledge={"acc": REF}, windows=640, metrics={"transfer": 0.5}, age=1),
        "up",
        "offer of acc (blob 000102030405) from 640 windows, learned 1 round before; numbers on learning: transfer",
    ),
    (
        Keys(keys={"acc": PublicKeys(seal=bytes(32), mask=bytes(32))}),
        "up",
        "public keys of one round, for a secure sum of acc",
    ),
    (
        Shares(sealed={"acc": {"pi-2": bytes(82), "pi-3": bytes(82)}, "gyro": {"pi-4": bytes(82)}}),
        "up",
        "shares of one round's secrets, sealed to pi-2, pi-3, pi-4",
    ),
    (
        Unmasking(seeds={"acc": {"pi": bytes(33), "pi-2": bytes(33)}}, mask_keys={"acc": {"pi-3": bytes(33)}}),
        "up",
        "shares that unmask the sum of the words of pi, pi-2, without those of pi-3",
    ),
    (Want(sha256=SHA256, chunks=(0, 1)), "up", "request for 2 chunks of blob 000102030405"),
    (
        Chunk(sha256=SHA256, index=0, count=2, data=b"x"),
        "up",
        "knowledge of acc: chunk 1 of 2 of blob 000102030405",
    ),
    (
        Request(token=bytes(16), csr=b"x"),
        "enroll",
        "certificate request: this device's public key, and the token's secret",
    ),
    (
        Fitness(running=SHA256, number=3, state="trial", agreement_percent=97, latency_us=1850, memory_mb=61),
        "up",
        "fitness: runs release 000102030405; rollout 3: trial; 97% of windows as before; 1850 us for a window; "
        "61 MB of memory",
    ),
    (Renewal(csr=b"x"), "up", "certificate request: this device's public key, for a new certificate"),
]


@pytest.mark.parametrize(("body", "direction", "said"), SAID, ids=[type(body).__name__ for body, _, _ in SAID])
def test_what_is_said_of_a_message_is_what_its_bytes_contain(body: Body, direction: Direction, said: str) -> None:
    topic, raw = Post("ward").seal(body, direction, device="pi", round=3)
    envelope = read(topic, raw, "pi")
    assert envelope.body == body and envelope.round == 3
    assert words(envelope, {SHA256.hex(): "acc"}) == said


def test_masked_words_are_not_taken_for_knowledge() -> None:
    masked = Offer(knowledge={"acc": REF}, windows=1, metrics={}, masked=True)
    envelope = read(*Post("ward").seal(masked, "up", device="pi"), "pi")
    assert words(envelope, {}) == (
        "offer of masked words of acc (blob 000102030405), of which only the sum says something"
    )


def test_every_kind_that_a_device_may_send_has_words_of_its_own() -> None:
    may = {body for body, _, directions in KINDS.values() if {"up", "enroll"} & set(directions)}
    # A device hears an answer on its topic of enrolment, and sends none.
    assert {type(body) for body, _, _ in SAID} == {body for body in may if body.__name__ != "Answer"}


def test_what_a_wearable_did_not_measure_is_not_said() -> None:
    refused = Fitness(number=1, state="refused", why="unsigned")
    envelope = read(*Post("ward").seal(refused, "up", device="pi"), "pi")
    assert words(envelope, {}) == "fitness: runs no release; rollout 1: refused (unsigned)"


def test_a_will_is_told_from_a_presence_and_a_chunk_of_an_unknown_blob_has_its_hash() -> None:
    post = Post("ward")
    will = read(*post.seal(SAID[1][0], "up", device="pi"), "pi")
    assert words(will, {}, is_will=True) == (
        "last will, said by the broker when this device is gone: offline; has acc, gyro"
    )
    chunk = read(*post.seal(Chunk(sha256=SHA256, index=0, count=2, data=b"x"), "up", device="pi"), "pi")
    assert words(chunk, {}) == "knowledge: chunk 1 of 2 of blob 000102030405"


def test_bytes_that_are_no_message_of_this_device_are_refused() -> None:
    topic, raw = Post("ward").seal(SAID[0][0], "up", device="pi")
    for where, what, device in (
        (topic, raw, "other"),
        (topic.replace("/up/", "/down/"), raw, "pi"),
        ("mekt/1/ward/round", raw, "pi"),
        ("sensors/acc", raw, "pi"),
        (topic, raw[:-1], "pi"),
        (topic, b"window" * 100, "pi"),
        (topic.replace("presence", "offer"), raw, "pi"),
    ):
        with pytest.raises(WireError):
            read(where, what, device)
