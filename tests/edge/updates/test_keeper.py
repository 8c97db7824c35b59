"""A wearable's updates over a real broker, from an announcement to a verdict, with everything that can go wrong."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.audit import content, segments
from edge.runtime import Runtime
from edge.updates.keeper import Keeper
from edge.updates.settings import Limits, TrialSettings, UpdateSettings
from export.release import Release
from mekt.blobs import blob_ref, chunk_count
from mekt.login import BrokerSettings
from mekt.messages import CHUNK_BYTES, Body, Chunk, Fitness, Rollout
from tests.edge.conftest import DEVICE, FEDERATION, HandMade
from tests.edge.updates.shipped import PARTS, permuted, public_key, shipped, sign, surer
from tests.export.small import random_windows
from tests.waiting import WAIT_S, until

WINDOWS = random_windows(PARTS.plan, 60, seed=5)
FIRST, BETTER, LATER = shipped(1), shipped(2, surer), shipped(5, surer)


def settings(port: int, **changes: object) -> UpdateSettings:
    usual: dict[str, object] = {
        "federation": FEDERATION,
        "device": DEVICE,
        "broker": BrokerSettings(port=port),
        "trust": "coordinator.pub",
        "self_test": Limits(windows=20, classes=1),
        "trial": TrialSettings(hours=0.05),
    }
    return UpdateSettings(**{**usual, **changes})  # type: ignore[arg-type]


class Wearable:
    """The loop of a wearable: windows, one a second by its own clock, and what the keeper says is run."""

    def __init__(self, base: Path, port: int, **changes: object) -> None:
        public_key(base)
        self.keeper = Keeper(settings(port, **changes), base)
        self.now_s = 0.0
        self.release: Release | None = None
        self.runtime: Runtime | None = None
        self._take(self.keeper.look(self.now_s))

    @property
    def round(self) -> int | None:
        """Which release is at work."""
        return None if self.release is None else self.release.manifest.round

    def work(self, windows: int = 1, latency_ms: float = 1.0) -> None:
        """Classify so many windows."""
        for _ in range(windows):
            self.now_s += 1.0
            self._take(self.keeper.look(self.now_s))
            if self.runtime is not None:
                row = int(self.now_s) % len(WINDOWS["acc"])
                arrays = {name: each[row : row + 1] for name, each in WINDOWS.items()}
                self.keeper.saw(arrays, self.runtime.classify(arrays), latency_ms)

    def round_after_work(self, latency_ms: float = 1.0) -> int | None:
        """Which release is at work after one more window."""
        self.work(latency_ms=latency_ms)
        return self.round

    def _take(self, release: Release | None) -> None:
        if release is not None:
            self.release, self.runtime = release, Runtime(release)


@pytest.fixture
def wearable(tmp_path: Path, coordinator: HandMade) -> Iterator[Callable[..., Wearable]]:
    """Starts it on the state that is there."""
    made: list[Wearable] = []

    def start(**changes: object) -> Wearable:
        made.append(Wearable(tmp_path, coordinator.port, **changes))
        return made[-1]

    coordinator.post.sign = sign
    yield start
    for each in made:
        each.keeper.close()


class Shipping:
    """What a coordinator does for wearables."""

    def __init__(self, coordinator: HandMade, wearable: Wearable) -> None:
        self.coordinator, self.wearable = coordinator, wearable

    def announce(self, number: int, data: bytes, share: float = 1.0) -> None:
        """Say that this is to be run, and have it ready."""
        self.coordinator.blobs[blob_ref(data).sha256] = data
        body = Rollout(release=f"ward-{number}", blob=blob_ref(data), number=number, share=share)
        self.coordinator.post.send(body, "all", retain=True)

    def until(self, state: str, number: int) -> Fitness:
        """Have the wearable work on until it says that it is there."""
        said: list[Fitness] = []
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s and (not said or said[-1].state not in ("refused", "rolled-back")):
            self.wearable.work(5)
            envelope = self.coordinator.hear(0.02)
            if envelope is not None and isinstance(envelope.body, Fitness) and envelope.body.number == number:
                said.append(envelope.body)
                if envelope.body.state == state:
                    return envelope.body
        raise AssertionError(f"no {state} in rollout {number}, but {said}")


def test_an_update_from_its_announcement_over_a_restart_and_a_trial_to_good(
    tmp_path: Path, coordinator: HandMade, wearable: Callable[..., Wearable]
) -> None:
    body = wearable()
    assert body.round is None
    shipping = Shipping(coordinator, body)
    # The first one, which there is nothing to compare with.
    shipping.announce(1, FIRST)
    fitness = shipping.until("good", 1)
    assert fitness.running == blob_ref(FIRST).sha256 and body.round == 1
    assert fitness.agreement_percent is None and fitness.memory_mb is not None

    # All but the last chunk of the next one arrive, then the wearable is switched off.
    chunks = chunk_count(blob_ref(BETTER))
    assert chunks >= 2
    served: list[int] = []

    def all_but_the_last(chunk: Chunk) -> Iterable[Body]:
        served.append(chunk.index)
        return () if chunk.index == chunks - 1 else (chunk,)

    coordinator.mangle = all_but_the_last
    shipping.announce(2, BETTER)
    shipping.until("fetching", 2)
    arriving = tmp_path / "state" / "arriving"
    kept = (chunks - 1) * CHUNK_BYTES
    until(lambda: coordinator.hear(0.05) is None and arriving.exists() and arriving.stat().st_size > kept)
    body.keeper.close()

    # It goes on where it was: only the last chunk crosses the network again.
    served.clear()

    def every_one(chunk: Chunk) -> Iterable[Body]:
        served.append(chunk.index)
        return (chunk,)

    coordinator.mangle = every_one
    body = wearable()
    shipping = Shipping(coordinator, body)
    assert body.round == 1
    fitness = shipping.until("trial", 2)
    assert set(served) == {chunks - 1}
    assert fitness.running == blob_ref(BETTER).sha256
    assert fitness.agreement_percent is not None and fitness.agreement_percent > 90
    assert shipping.until("good", 2).running == blob_ref(BETTER).sha256
    assert body.round == 2
    assert {each.name for each in (tmp_path / "state" / "releases").iterdir()} == {
        blob_ref(data).sha256.hex() for data in (FIRST, BETTER)
    }


def test_bad_releases_are_refused_and_one_that_fails_in_its_trial_is_rolled_back_by_itself(
    tmp_path: Path, coordinator: HandMade, wearable: Callable[..., Wearable]
) -> None:
    body = wearable()
    shipping = Shipping(coordinator, body)
    shipping.announce(1, FIRST)
    shipping.until("good", 1)

    # What takes every class for the next one.
    shipping.announce(2, shipped(3, permuted))
    fitness = shipping.until("refused", 2)
    assert fitness.why == "disagrees" and fitness.agreement_percent is not None and fitness.agreement_percent < 35
    # What somebody made who has the broker, but not the coordinator's key.
    shipping.announce(3, shipped(4, signed=False))
    assert shipping.until("refused", 3).why == "unsigned"
    # More than fits.
    coordinator.post.send(
        Rollout(release="ward-4", blob=replace(blob_ref(b"large"), size_bytes=10**9), number=4, share=1.0), "all"
    )
    assert shipping.until("refused", 4).why == "too-large"
    assert body.round == 1

    # What works on the windows of before, and then does not any more.
    shipping.announce(5, BETTER)
    shipping.until("trial", 5)
    until(lambda: body.round_after_work() == 2)
    body.keeper.failed(RuntimeError("a window that it cannot take"))
    body.work()
    assert body.round == 1
    assert shipping.until("rolled-back", 5).why == "does-not-run"

    # What ends the process: the board does not come back without its watchdog, and then runs the former one.
    shipping.announce(6, LATER)
    shipping.until("trial", 6)
    # What is slower at work than in its test.
    until(lambda: body.round_after_work(latency_ms=5000) == 1)
    fitness = shipping.until("rolled-back", 6)
    assert (fitness.why, fitness.running) == ("slow", blob_ref(FIRST).sha256)

    # Told again, nothing of this is tried again; the number of a rollout that is over tells nothing.
    body.keeper.close()
    body = wearable()
    shipping = Shipping(coordinator, body)
    assert shipping.until("rolled-back", 6).why == "slow"
    shipping.announce(5, BETTER)
    shipping.announce(7, FIRST)
    assert shipping.until("good", 7).why == ""
    assert body.round == 1

    # All that has left was asked for chunks, or told how it is; each is in the log, which was written before.
    body.keeper.close()
    heard = Counter(each.kind for each in coordinator.heard)
    logged = Counter(
        entry.kind for segment in segments(tmp_path / "state" / "audit") for entry in content(segment.read()).entries
    )
    assert set(heard) == {"want", "fitness"} and all(logged[kind] >= heard[kind] for kind in heard)
