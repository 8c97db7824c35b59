"""Messages that are wrong, late, doubled or of others, at a device in the middle of a round."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgpack

from mekt.arrays import pack_knowledge
from mekt.blobs import blob_ref
from mekt.messages import Body, Chunk, Offer, Presence, Receipt, RoundOpen, Want
from mekt.post import Post
from mekt.topics import Direction
from tests.edge.conftest import (
    ACC,
    DEVICE,
    FEDERATION,
    GYRO,
    PLAN,
    HandMade,
    Running,
    noise,
    plan_of,
    proxy_blob,
    refs_of,
)
from tests.waiting import until


def confuse(coordinator: HandMade) -> int:
    """Send a device what it must not heed; how many of these it drops and counts."""

    def seal(body: Body, federation: str = FEDERATION, device: str = DEVICE, number: int = 0) -> bytes:
        direction: Direction = "all" if isinstance(body, RoundOpen) else "down"
        post = Post(federation, coordinator.post.proxy)
        return post.seal(body, direction, device="" if direction == "all" else device, round=number)[1]

    def on(kind: str, raw: bytes) -> None:
        coordinator.link.publish(f"mekt/1/{FEDERATION}/down/{DEVICE}/{kind}", raw)

    accepted, nobodys = Receipt(state="accepted"), Chunk(sha256=b"s" * 32, index=0, count=1, data=b"x")
    elsewhere = RoundOpen(
        state="open", deadline_s=60, participants=(DEVICE,), plan=PLAN, knowledge=refs_of(coordinator.knowledge)
    )
    on("receipt", seal(accepted, federation="elsewhere"))
    on("receipt", seal(accepted, device="other"))
    on("receipt", msgpack.packb({**msgpack.unpackb(seal(accepted)), "v": 2}))
    on("chunk", bytes(200_000))
    on("chunk", seal(nobodys))
    on("want", seal(Want(sha256=b"s" * 32, chunks=(0,))))
    coordinator.link.publish(f"mekt/1/{FEDERATION}/round", seal(elsewhere, federation="elsewhere", number=7))
    # Of rounds that are not its own: no answer to what it offers.
    on("receipt", seal(accepted, number=5))
    return 7


def test_a_round_gives_the_same_whatever_else_arrives(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start() as running:
        coordinator.announce(0)
        first = coordinator.collect(coordinator.until(Offer, 0))
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        assert running.rejected == {}
    # The same once more, on a device that remembers nothing, with everything that must not count between.
    coordinator.announce(0, state="closed")
    coordinator.heard.clear()
    with start(tmp_path / "again") as running:
        # Not by the farewell of the device before.
        coordinator.until(Presence, state="online", activity="idle")
        count = confuse(coordinator)
        coordinator.announce(0)
        # Every announcement twice, every chunk three times.
        coordinator.announce(0)
        coordinator.mangle = lambda chunk: (chunk, chunk, chunk)
        offer = coordinator.until(Offer, 0)
        count += confuse(coordinator)
        again = coordinator.collect(offer)
        count += confuse(coordinator)
        coordinator.until(Offer, 0)
        for _ in range(2):
            coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")
        assert again == first
        assert sum(running.rejected.values()) == count, running.rejected


def test_a_receipt_about_another_proxy_set_is_no_answer(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    """A broker keeps messages for days: such a one is of a federation that began anew since."""
    with start() as running:
        coordinator.announce(0)
        offer = coordinator.until(Offer, 0)
        sound, coordinator.post.proxy = coordinator.post.proxy, bytes(32)
        coordinator.receipt(0)
        coordinator.post.proxy = sound
        until(lambda: any("another proxy set" in cause for cause in running.rejected))
        # It goes on to offer, and to serve: what it sent before does not count.
        sent = running.device._post._sequence
        again = coordinator.until(Offer, 0)
        while coordinator.heard[-1].sequence <= sent:
            again = coordinator.until(Offer, 0)
        assert again == offer
        coordinator.collect(offer)
        coordinator.receipt(0)
        coordinator.until(Presence, activity="idle")


def test_an_announcement_of_an_old_round_leads_nowhere_new(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    with start():
        for number in (0, 1):
            coordinator.round(number)
            coordinator.until(Presence, activity="idle")
        # One that was on its way for long: it is learned from anew at worst, and the next round follows.
        coordinator.announce(0)
        coordinator.round(2)
        coordinator.until(Presence, activity="idle")


def test_shuffled_and_damaged_chunks_give_the_same_proxy_set(
    coordinator: HandMade, start: Callable[..., Running], tmp_path: Path
) -> None:
    proxy = refs_of({each.name: proxy_blob(each, count=1024) for each in (ACC, GYRO)})
    plan = plan_of(ACC, GYRO, proxy_windows=1024, proxy=proxy)
    coordinator.knowledge = {name: pack_knowledge(noise(1024, 4), None, "float16") for name in proxy}
    coordinator.serve(plan)
    late: list[Chunk] = []

    def shuffle(chunk: Chunk) -> list[Chunk]:
        """Each chunk comes behind the one that was asked for after it, and a damaged copy comes first."""
        late.append(chunk)
        damaged = replace(chunk, data=chunk.data[:-1])
        return [damaged] if len(late) == 1 else [damaged, chunk, late.pop(0)]

    coordinator.mangle = shuffle
    with start() as running:
        coordinator.announce(0, plan=plan)
        coordinator.until(Offer, 0)
        assert sum(running.rejected.values()) > 0
    for modality in (ACC, GYRO):
        data = proxy_blob(modality, count=1024)
        assert (tmp_path / "state" / "blobs" / blob_ref(data).sha256.hex()).read_bytes() == data
