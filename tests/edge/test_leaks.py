"""What devices are made to learn from is marked, and every byte that leaves them is searched for the marks."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgpack
import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from edge.lessons import Late, Learned, Lesson
from edge.memory import Memory
from edge.presence import Presences
from edge.stock import InMemory
from edge.upstream import Upstream
from mekt.arrays import largest_knowledge_bytes, pack_knowledge
from mekt.blobs import CHUNKS_IN_FLIGHT, Fetch, blob_ref, chunk_count
from mekt.broker import Broker
from mekt.files import BlobStore
from mekt.link import Received
from mekt.messages import CHUNK_BYTES, KINDS, Body, Chunk, Learning, Offer, Presence, Receipt, Renewal, Want, decode
from mekt.plan import LARGEST_BLOB_BYTES, BlobRef, Encoding
from mekt.post import Post
from mekt.traffic import WireBytes
from sensors.recording import write_recording
from sensors.source import Floats
from sensors.stream import Recording, Segment, Stream
from tests.edge.conftest import (
    ACC,
    BOTH,
    DEVICE,
    FEDERATION,
    GYRO,
    SPEC,
    HandMade,
    Running,
    knowledge_blobs,
    plan_of,
    proxy_blob,
    refs_of,
)
from tests.edge.test_audit import entries
from tests.edge.test_audit import heard as heard  # a fixture

ENCODINGS: tuple[Encoding, ...] = ("float32", "float16", "int8", "int4")
FORMS = ("<f8", ">f8", "<f4", ">f4", "<f2", ">f2")
# Of a mark, so many bytes in a row are no accident in the kilobytes that leave.
TELLING_BYTES = 6
# A sample's values, one after the other: what a sensor could have given, and no round number that a message could have.
VALUES = (
    st.integers(-(2**22), 2**22)
    .map(lambda number: float(np.float32((number + 0.3711) * 4.3e-5)))
    .filter(lambda value: len(set(np.float32(value).tobytes())) == 4)
)


def rows_of(channels: int) -> st.SearchStrategy[list[float]]:
    """Samples that could not be a pattern of two bytes, not even in the shortest format."""
    rows = st.lists(VALUES, min_size=channels, max_size=channels, unique=True)
    return rows.filter(lambda row: len(set(np.array(row).astype("<f2").tobytes())) > 2)


MARKS = st.fixed_dictionaries({"acc": rows_of(3), "gyro": rows_of(2)})
Marks = dict[str, list[float]]


def forms_of(marks: Marks) -> list[bytes]:
    """Every way in which a marked window would show: in six formats of numbers, as msgpack has them, as text."""
    found: list[bytes] = []
    for values in marks.values():
        # Two samples, as they follow each other in a window; and a channel by itself.
        for row in (values * 2, *([value] * 3 for value in values)):
            for dtype in FORMS:
                found.append(np.array(row).astype(dtype).tobytes())
            found += [b"".join(msgpack.packb(value, use_single_float=single) for value in row) for single in (0, 1)]
            found.append(repr(row)[1:-1].encode())
        for value in values:
            found += [np.array([value]).astype(dtype).tobytes() for dtype in ("<f8", ">f8")]
            found += [msgpack.packb(value), repr(value).encode()]
    return [each for each in found if len(each) >= TELLING_BYTES and len(set(each)) > 2]


def windows_of_marks(marks: Marks, count: int = 9) -> dict[str, Floats]:
    shapes = {each.name: SPEC.shape(each) for each in (ACC, GYRO)}
    return {
        name: np.tile(np.array(values, dtype=np.float32), (count, shapes[name][0], 1)) for name, values in marks.items()
    }


def blobs_of(bodies: list[Body]) -> list[bytes]:
    """What the chunks among these are parts of, put together."""
    parts: dict[bytes, dict[int, bytes]] = {}
    for each in bodies:
        if isinstance(each, Chunk):
            parts.setdefault(each.sha256, {})[each.index] = each.data
    return [b"".join(data for _, data in sorted(found.items())) for found in parts.values()]


def search(payloads: list[bytes], marks: Marks) -> None:
    """No message has a mark, nor has any blob that they are chunks of, nor any number in it."""
    bodies = [decode(each).body for each in payloads]
    blobs = blobs_of(bodies)
    haystack = b"\n".join([*payloads, *blobs])
    for form in forms_of(marks):
        assert form not in haystack, form
    numbers = {float(np.float32(value)) for values in marks.values() for value in values}
    for each in (*payloads, *blobs):
        assert not numbers & set(floats_in(msgpack.unpackb(each)))


def floats_in(data: Any) -> Iterator[float]:
    """Every fraction in plain data, at any depth."""
    if isinstance(data, float):
        yield float(np.float32(data))
    elif isinstance(data, dict):
        for value in data.values():
            yield from floats_in(value)
    elif isinstance(data, list):
        for value in data:
            yield from floats_in(value)


class Lines:
    """All that a device can say in some rounds, without a broker: the parts that make its messages, put in a row."""

    def __init__(self, folder: Path, marks: Marks, encoding: Encoding, *, hidden: bool) -> None:
        method = {"encoding": encoding, "beta": 1.0 if hidden else 0.0}
        self.plan = plan_of(ACC, GYRO, method=method)
        self.memory = Memory(folder)
        self.memory.begin("plan")
        self.upstream = Upstream(self.memory)
        self.payloads: list[bytes] = []
        self._post = Post(FEDERATION)
        self._blobs = BlobStore(folder / "blobs")
        self._windows = windows_of_marks(marks)
        self._presences = Presences(5, BOTH)

    def say(self, body: Body, number: int) -> None:
        self.payloads.append(self._post.seal(body, "up", device=DEVICE, round=number)[1])

    def lesson(self, number: int) -> Lesson:
        knowledge = knowledge_blobs(self.plan)
        for data in (*knowledge.values(), proxy_blob(ACC), proxy_blob(GYRO)):
            self._blobs.put(data)
        return Lesson(device=DEVICE, round=number, plan=self.plan, architectures=BOTH, knowledge=refs_of(knowledge))

    def learn(self, number: int) -> Learned:
        """Fetching, training and offering."""
        lesson = self.lesson(number)
        fetch = Fetch()
        for ref in lesson.refs:
            fetch.want(ref)
        for phase in ("fetching", "sensing", "training", "sending"):
            self.present(phase, number)
        for want in fetch.due(0.0):
            self.say(want, number)
        learned = lesson.learn(InMemory(self._windows), self.memory.weights(), self._blobs, lambda done, whole: None)
        metrics: dict[Learning, float] = {
            "reconstruction": learned.loss.reconstruction,
            "transfer": learned.loss.transfer,
        }
        self.memory.trained(number, learned.weights, learned.knowledge, learned.windows, metrics)
        return learned

    def present(self, phase: Any, number: int) -> None:
        presence = self._presences.due(
            0.0, activity=phase, share_done=0.5, windows=9, lost=(), wire=WireBytes(up=1, down=2)
        )
        if presence is not None:
            self.say(presence, number)

    def deliver(self, offer: Offer | None, number: int) -> None:
        """Offer, and serve whatever is asked for, by whatever name."""
        assert offer is not None
        self.say(offer, number)
        names = [ref.sha256 for ref in offer.knowledge.values()]
        names += [blob_ref(self.memory.weights() or b"").sha256, bytes(32)]
        names += [blob_ref(array.tobytes()).sha256 for array in self._windows.values()]
        for sha256 in names:
            for chunk in self.upstream.chunks(Want(sha256=sha256, chunks=(0, 1, 2**24)), 0) or ():
                self.say(chunk, number)


@examples(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(marks=MARKS, encoding=st.sampled_from(ENCODINGS), hidden=st.booleans())
def test_no_mark_of_a_window_is_in_any_byte_of_any_phase(marks: Marks, encoding: Encoding, hidden: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder), marks, encoding, hidden=hidden)
        with contextlib.closing(lines.memory):
            lines.learn(0)
            lines.deliver(lines.upstream.offer(0, 0.0), 0)
            learned = lines.learn(1)
            lines.deliver(lines.upstream.offer(1, 0.0), 1)
            assert lines.upstream.make_ready(Late(round=2, knowledge=learned.knowledge))
            lines.deliver(lines.upstream.late_offer(0.0), 2)
            lines.say(Renewal(csr=b"a public key"), 2)
            lines.present("idle", 2)
            search(lines.payloads, marks)
            kinds = {type(decode(each).body) for each in lines.payloads}
            assert kinds == {Presence, Want, Offer, Chunk, Renewal}


@given(marks=MARKS)
def test_the_search_finds_a_window_in_every_encoding_it_could_leave_in(marks: Marks) -> None:
    ref = bytes(32)
    for array in windows_of_marks(marks).values():
        leaks = [array.astype(dtype).tobytes() for dtype in FORMS]
        leaks += [msgpack.packb(array.ravel()[:48].tolist()), repr(array.ravel().tolist()).encode()]
        leaks += [pack_knowledge(array.reshape(len(array), -1), None, each) for each in ("float32", "float16")]
        for leak in leaks:
            post = Post(FEDERATION)
            half = len(leak) // 2 + 3
            for parts in ([leak], [leak[:half], leak[half:]]):
                bodies = [Chunk(sha256=ref, index=at, count=len(parts), data=each) for at, each in enumerate(parts)]
                payloads = [post.seal(each, "up", device=DEVICE)[1] for each in bodies]
                haystack = b"\n".join([*payloads, *blobs_of([decode(each).body for each in payloads])])
                assert any(form in haystack for form in forms_of(marks))


# A whole device


def marked_device(base: Path, marks: Marks) -> None:
    """The recording of a person who does nothing, with these values."""
    count = 121
    streams = {
        each.name: Stream(
            modality=each,
            t_s=np.arange(count) / each.rate_hz,
            values=np.tile(np.array(marks[each.name], dtype=np.float32), (count, 1)),
        )
        for each in (ACC, GYRO)
    }
    recording = Recording(name="private", segments=(Segment(name="s", streams=streams),), label_names={})
    base.mkdir()
    write_recording(base / "private.npz", recording)


def test_no_mark_leaves_a_whole_device_in_any_encoding(
    broker: Broker, coordinator: HandMade, start: Callable[..., Running], heard: Any, tmp_path: Path
) -> None:
    folders = itertools.count()
    received: list[Received] = []

    @examples(max_examples=6, suppress_health_check=list(HealthCheck))
    @given(marks=MARKS, encoding=st.sampled_from(ENCODINGS))
    def law(marks: Marks, encoding: Encoding) -> None:
        base = tmp_path / f"device-{next(folders)}"
        marked_device(base, marks)
        plan = plan_of(ACC, GYRO, method={"encoding": encoding})
        coordinator.knowledge = knowledge_blobs(plan)
        coordinator.serve(plan)
        before = len(received)
        with start(base):
            coordinator.announce(0, plan=plan)
            coordinator.collect(coordinator.until(Offer, 0))
            # No receipt: what was learned comes too late, and is offered to the next round.
            coordinator.announce(1, plan=plan, late="carry")
            coordinator.collect(coordinator.until(Offer, 1, age=1))
            coordinator.send(Receipt(state="accepted", age=1), 1)
            coordinator.collect(coordinator.until(Offer, 1, age=0))
            coordinator.receipt(1)
            coordinator.until(Presence, activity="idle")
        logged = [str(each.says["sha256"]) for each in entries(base / "state") if "sha256" in each.says]
        last = logged[-1]
        received[:] = heard(lambda event: blob_ref(event.payload).sha256.hex() == last)
        payloads = [each.payload for each in received[before:]]
        assert [blob_ref(each).sha256.hex() for each in payloads] == logged[1:], "the will alone was not heard"
        assert {decode(each).kind for each in payloads} == {"presence", "want", "offer", "chunk"}
        search(payloads, marks)

    law()
    assert next(folders) >= 6


# What a device could send at most


@given(
    encoding=st.sampled_from(ENCODINGS),
    rows=st.integers(1, 16_384),
    embedding=st.integers(1, 1024),
    hidden=st.none() | st.integers(1, 1024),
    modalities=st.integers(1, 16),
)
def test_whatever_the_plan_all_of_a_rounds_bytes_are_its_knowledge_and_little_more(
    encoding: Encoding, rows: int, embedding: int, hidden: int | None, modalities: int
) -> None:
    """Each message is at its largest: an envelope's names at their longest, numbers at their widest."""
    size = largest_knowledge_bytes(rows, embedding, hidden, encoding)
    if size > LARGEST_BLOB_BYTES:
        return
    post = Post("f" * 64, bytes(32))
    post._sequence = 2**53 - 2
    device, number = "d" * 64, 2**31 - 1
    ref = BlobRef(sha256=bytes(32), size_bytes=size)
    chunk = Chunk(sha256=bytes(32), index=2**24, count=2**24, data=bytes(CHUNK_BYTES))
    over = len(post.seal(chunk, "up", device=device, round=number)[1]) - CHUNK_BYTES
    assert over <= 512, "what a chunk's message adds to its bytes"
    count = chunk_count(ref)
    numbers = rows * (embedding + (hidden or 0))
    bits = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}[encoding]
    scales = 4 * (embedding + (hidden or 0))
    assert size <= numbers * bits / 8 + scales + 130
    names = [f"m{at:02d}" + "x" * 13 for at in range(modalities)]
    losses: dict[Learning, float] = dict.fromkeys(get_args(Learning), 1.5)
    offer = Offer(knowledge=dict.fromkeys(names, ref), windows=10**9, metrics=losses)
    offered = len(post.seal(offer, "up", device=device, round=number)[1])
    total = modalities * (size + count * over) + offered
    assert total <= modalities * (numbers * bits / 8 + scales + 130 + 512 * count) + KINDS["offer"][1]


@given(
    rows=st.integers(1, 300), embedding=st.integers(1, 64), encoding=st.sampled_from(ENCODINGS), times=st.integers(1, 5)
)
def test_a_device_serves_what_it_offered_and_nothing_else_however_it_is_asked(
    rows: int, embedding: int, encoding: Encoding, times: int
) -> None:
    data = pack_knowledge(np.random.default_rng(rows).normal(size=(rows, embedding)).astype(np.float32), None, encoding)
    assert len(data) <= largest_knowledge_bytes(rows, embedding, None, encoding)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Memory(Path(folder))) as memory:
        memory.begin("plan")
        weights = b"weights" * 100
        memory.trained(0, weights, {"acc": data}, 9, {})
        upstream = Upstream(memory)
        for foreign in (weights, data + b"\0", b""):
            assert upstream.chunks(Want(sha256=blob_ref(foreign).sha256, chunks=(0,)), 0) is None
        for leaving in range(times):
            chunks = upstream.chunks(Want(sha256=blob_ref(data).sha256, chunks=tuple(range(64))), leaving)
            # Asked again while they are still on their way out, the same chunks are not sent again.
            assert chunks is not None and len(chunks) <= (CHUNKS_IN_FLIGHT if leaving == 0 else 0)
            assert b"".join(each.data for each in chunks) == (data if leaving == 0 else b"")


def test_what_a_device_sends_beside_chunks_is_a_few_kilobytes_at_most() -> None:
    sizes = {kind: largest for kind, (_, largest, directions) in KINDS.items() if {"up", "enroll"} & set(directions)}
    # Shares of secrets, of one length each: of sixteen modalities for thirty-one devices with the longest names.
    assert (sizes.pop("shares"), sizes.pop("unmasking")) == (81920, 65536)
    assert max(largest for kind, largest in sizes.items() if kind != "chunk") <= 8192
    assert sizes["chunk"] == CHUNK_BYTES + 1024
