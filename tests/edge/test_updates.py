"""A wearable's updates over a real broker, from an announcement to a verdict, with everything that can go wrong."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.runtime import Runtime
from edge.selftest import Limits
from edge.slots import Slots
from edge.trial import TrialSettings
from edge.updates import Keeper
from edge.updating import UpdateSettings
from export.release import Release
from mekt.blobs import blob_ref
from mekt.login import BrokerSettings
from mekt.messages import Body, Chunk, Fitness, Rollout, Want
from mekt.plan import BlobRef
from mekt.signature import Purpose, joined, to_sign
from tests.edge.conftest import DEVICE, FEDERATION, HandMade
from tests.export.small import ACC, FUSED, GYRO, Parts, parts_of, random_windows
from tests.waiting import WAIT_S, until

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
NUMBERS = itertools.count(1)
PARTS = parts_of(ACC, GYRO)
WINDOWS = random_windows(PARTS.plan, 60, seed=5)


def sign(purpose: Purpose, content: bytes) -> bytes:
    number = next(NUMBERS)
    return joined(number, SIGNER.sign(to_sign(purpose, number, content)))


def parts(round: int, change: Callable[[np.ndarray], np.ndarray] = lambda weight: weight) -> Parts:
    """Parts of a release whose fused classifier was changed so."""
    modalities, weight_KD, bias_K = PARTS.classifiers[FUSED]
    classifiers = {**PARTS.classifiers, FUSED: (modalities, change(weight_KD), bias_K)}
    return replace(PARTS, round=round, classifiers=classifiers)


def written(folder: Path, parts: Parts, *, signed: bool = True) -> bytes:
    path = folder / f"{parts.round}.zip"
    parts.write(path, sign=(lambda content: sign("release", content)) if signed else None)
    return path.read_bytes()


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A first one, one that learned a little more, others that are broken in their ways."""
    folder = tmp_path_factory.mktemp("releases")
    return {
        "first": written(folder, parts(1)),
        "better": written(folder, parts(2, lambda weight: weight * np.float32(1.1))),
        "permuted": written(folder, parts(3, lambda weight: np.roll(weight, 1, axis=0))),
        "unsigned": written(folder, parts(4), signed=False),
        "later": written(folder, parts(5, lambda weight: weight * np.float32(1.2))),
    }


def settings(port: int, **changes: object) -> UpdateSettings:
    usual: dict[str, object] = {
        "federation": FEDERATION,
        "device": DEVICE,
        "broker": BrokerSettings(port=port),
        "trust": "coordinator.pub",
        "self_test": Limits(windows=20),
        "trial": TrialSettings(hours=0.05),
    }
    return UpdateSettings(**{**usual, **changes})  # type: ignore[arg-type]


class Wearable:
    """The loop of a wearable: windows, one a second by its own clock, and what the keeper says is run."""

    def __init__(self, base: Path, port: int, **changes: object) -> None:
        (base / "coordinator.pub").write_text(SIGNER.public_key().public_bytes_raw().hex())
        self.keeper = Keeper(settings(port, **changes), base)
        self.now_s = 0.0
        self.release: Release | None = None
        self.runtime: Runtime | None = None
        self._take(self.keeper.current())

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
            self.wearable.work()
            envelope = self.coordinator.hear(0.02)
            if envelope is not None and isinstance(envelope.body, Fitness) and envelope.body.number == number:
                said.append(envelope.body)
                if envelope.body.state == state:
                    return envelope.body
        raise AssertionError(f"no {state} in rollout {number}, but {said}")


def test_an_update_from_its_announcement_over_a_restart_and_a_trial_to_good(
    tmp_path: Path, coordinator: HandMade, wearable: Callable[..., Wearable], releases: dict[str, bytes]
) -> None:
    first, better = releases["first"], releases["better"]
    body = wearable()
    assert body.round is None
    shipping = Shipping(coordinator, body)
    # The first one, which there is nothing to compare with.
    shipping.announce(1, first)
    fitness = shipping.until("good", 1)
    assert fitness.running == blob_ref(first).sha256 and body.round == 1
    assert fitness.agreement_percent is None and fitness.memory_mb is not None

    # All but the last chunk of the next one arrive, then the wearable is switched off.
    chunks = -(-len(better) // (96 * 1024))
    assert chunks >= 2
    served: list[int] = []

    def all_but_the_last(chunk: Chunk) -> Iterable[Body]:
        served.append(chunk.index)
        return () if chunk.index == chunks - 1 else (chunk,)

    coordinator.mangle = all_but_the_last
    shipping.announce(2, better)
    shipping.until("fetching", 2)
    arriving = tmp_path / "state" / "arriving"
    until(lambda: coordinator.hear(0.05) is None and arriving.exists() and arriving.stat().st_size > (chunks - 1) * 96 * 1024)
    body.keeper.close()

    # It goes on where it was: only the last chunk crosses the network again.
    served.clear()
    coordinator.mangle = lambda chunk: (served.append(chunk.index), (chunk,))[1]
    body = wearable()
    shipping = Shipping(coordinator, body)
    assert body.round == 1
    fitness = shipping.until("trial", 2)
    assert set(served) == {chunks - 1}
    assert fitness.running == blob_ref(better).sha256
    assert fitness.agreement_percent is not None and fitness.agreement_percent > 90
    assert shipping.until("good", 2).running == blob_ref(better).sha256
    assert body.round == 2
    assert {each.name for each in (tmp_path / "state" / "releases").iterdir()} == {
        blob_ref(data).sha256.hex() for data in (first, better)
    }
