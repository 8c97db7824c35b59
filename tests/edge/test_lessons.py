"""A round for a device: which blobs it needs and which it refuses, and the bytes that come of learning."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.lessons import Learned, Lesson, odd_scales
from edge.stock import InMemory, Scale
from mekt.arrays import largest_knowledge_bytes, pack_knowledge, pack_windows, unpack_knowledge
from mekt.augment import view
from mekt.blobs import blob_ref
from mekt.errors import StateError, WireError
from mekt.files import BlobStore
from mekt.learning import Arrays
from mekt.modality import Modality, Scaling, WindowSpec
from mekt.plan import LARGEST_BLOB_BYTES, Architecture, BlobRef, Encoding, Plan
from sensors.seal import Seal
from sensors.store import WindowStore
from sensors.windows import Window
from tests.edge.conftest import ACC, DEPTH, GYRO, PROXY, SPEC, knowledge_blobs, noise, plan_of, proxy_blob, refs_of

FLEET: list[dict[str, Architecture]] = [
    {"acc": "conv"},
    {"gyro": "lstm"},
    {"depth": "conv"},
    {"acc": "lstm", "gyro": "conv"},
    {"acc": "conv", "depth": "lstm"},
]
ACC_ONLY: dict[str, Architecture] = {"acc": "conv"}


def lesson_of(plan: Plan, architectures: Mapping[str, Architecture], number: int = 0, **changes: Any) -> Lesson:
    usual = {"device": "pi", "knowledge": refs_of(knowledge_blobs(plan))}
    return Lesson(round=number, plan=plan, architectures=architectures, **{**usual, **changes})


def private_of(lesson: Lesson, count: int = 10) -> Arrays:
    kinds = [each for each in lesson.plan.modalities if each.name in lesson.architectures]
    return {each.name: noise(count, *lesson.plan.window.shape(each), seed=3) for each in kinds}


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """A store that has the proxy set of every modality."""
    store = BlobStore(tmp_path / "blobs")
    for modality in (ACC, GYRO, DEPTH):
        store.put(proxy_blob(modality))
    return store


def learned(lesson: Lesson, blobs: BlobStore, weights: bytes | None = None) -> Learned:
    """The outcome of the lesson, whose global knowledge is put into the store."""
    for data in knowledge_blobs(lesson.plan).values():
        blobs.put(data)
    return lesson.learn(InMemory(private_of(lesson)), weights, blobs, lambda done, whole: None)


def test_only_the_blobs_of_ones_own_modalities_are_needed() -> None:
    plan = plan_of(ACC, GYRO, DEPTH)
    lesson = lesson_of(plan, {"acc": "conv", "depth": "conv"})
    assert set(lesson.refs) == {
        *(plan.proxy["acc"], plan.proxy["depth"], lesson.knowledge["acc"], lesson.knowledge["depth"])
    }
    assert set(lesson_of(plan, ACC_ONLY, knowledge={}).refs) == {plan.proxy["acc"]}


@pytest.mark.parametrize("architectures", FLEET)
@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_equal_inputs_give_equal_bytes_of_exactly_the_plans_size(
    architectures: dict[str, Architecture], encoding: Encoding, blobs: BlobStore
) -> None:
    plan = plan_of(ACC, GYRO, DEPTH, method={"encoding": encoding})
    lesson = lesson_of(plan, architectures)
    first, second = learned(lesson, blobs), learned(lesson, blobs)
    assert first.weights == second.weights and first.knowledge == second.knowledge
    assert set(first.knowledge) == set(architectures) and first.windows == 10 and first.round == 0
    exact = len(pack_knowledge(noise(PROXY, 4), None, encoding))
    for data in first.knowledge.values():
        assert len(data) == exact <= largest_knowledge_bytes(PROXY, 4, None, encoding)
        unpack_knowledge(data, windows=PROXY, embedding=4, hidden=None)


@pytest.mark.parametrize("method", [{"beta": 0.5}, {"gamma": 0.5}])
def test_the_hidden_layer_is_sent_when_the_plan_says_so(method: dict[str, float], blobs: BlobStore) -> None:
    plan = plan_of(ACC, GYRO, method=method)
    outcome = learned(lesson_of(plan, {"acc": "conv", "gyro": "lstm"}), blobs)
    for data in outcome.knowledge.values():
        assert len(data) == len(pack_knowledge(noise(PROXY, 4), noise(PROXY, 6), "float16"))
        _, hidden = unpack_knowledge(data, windows=PROXY, embedding=4, hidden=6)
        assert hidden is not None and hidden.shape == (PROXY, 6)


def test_rounds_and_devices_learn_in_different_orders(blobs: BlobStore) -> None:
    plan = plan_of(ACC, method={"local_epochs": 2})
    lessons = [lesson_of(plan, ACC_ONLY, 0), lesson_of(plan, ACC_ONLY, 1), lesson_of(plan, ACC_ONLY, device="other")]
    assert len({learned(each, blobs).weights for each in lessons}) == 3


def test_learning_goes_on_from_the_weights(blobs: BlobStore) -> None:
    plan = plan_of(ACC)
    first = learned(lesson_of(plan, ACC_ONLY), blobs)
    second = learned(lesson_of(plan, ACC_ONLY, 1), blobs, first.weights)
    assert second.weights != first.weights != learned(lesson_of(plan, ACC_ONLY, 1), blobs).weights


def test_the_global_knowledge_is_followed_and_may_be_missing(blobs: BlobStore) -> None:
    plan = plan_of(ACC, GYRO)
    with_it = learned(lesson_of(plan, ACC_ONLY), blobs)
    without = learned(lesson_of(plan, ACC_ONLY, knowledge={}), blobs)
    assert with_it.weights != without.weights
    assert with_it.loss.transfer > 0 == without.loss.transfer


def test_windows_are_normalised_as_the_plan_says(blobs: BlobStore) -> None:
    scaling = {"acc": Scaling(mean=(1, 2, 3), std=(2, 2, 4))}
    unchanged = {"augment": 0.0}
    lesson = lesson_of(plan_of(ACC, scaling=scaling, method=unchanged), ACC_ONLY)
    plain = lesson_of(plan_of(ACC, method=unchanged), ACC_ONLY).proxy(blobs)["acc"]
    assert np.allclose(lesson.proxy(blobs)["acc"], (plain - [1, 2, 3]) / [2, 2, 4], atol=1e-6)


def test_a_round_looks_at_its_own_view_which_is_the_coordinators(blobs: BlobStore) -> None:
    plan = plan_of(ACC, GYRO, method={"augment": 1.0})
    unchanged = plan_of(ACC, GYRO, method={"augment": 0.0})
    both: dict[str, Architecture] = {"acc": "conv", "gyro": "conv"}
    whole = lesson_of(unchanged, both).proxy(blobs)
    looked_at = []
    for number in (0, 1):
        own = lesson_of(plan, ACC_ONLY, number).proxy(blobs)
        assert list(own) == ["acc"]
        assert np.array_equal(own["acc"], view(plan, whole, number)["acc"])
        looked_at.append(own["acc"])
    assert not np.allclose(looked_at[0], looked_at[1], atol=1e-2)


@pytest.mark.parametrize("architectures", FLEET)
def test_lost_knowledge_is_recalled_to_the_byte(architectures: dict[str, Architecture], blobs: BlobStore) -> None:
    lesson = lesson_of(plan_of(ACC, GYRO, DEPTH, method={"beta": 0.5}), architectures)
    outcome = learned(lesson, blobs)
    assert lesson.recall(outcome.weights, blobs) == outcome.knowledge


def test_what_the_plan_implies_is_no_problem() -> None:
    for encoding in ("float32", "float16", "int8"):
        for beta in (0.0, 0.5):
            plan = plan_of(ACC, GYRO, DEPTH, method={"encoding": encoding, "beta": beta})
            for architectures in FLEET:
                assert lesson_of(plan, architectures).size_problem() is None


def ref(size_bytes: int) -> BlobRef:
    return BlobRef(sha256=b"x" * 32, size_bytes=size_bytes)


def test_a_proxy_set_larger_than_its_windows_is_refused() -> None:
    most = 2 * PROXY * SPEC.values(ACC) + 128
    plan = plan_of(ACC, GYRO)
    fits, too_large = ({**plan.proxy, "acc": ref(size)} for size in (most, most + 1))
    assert lesson_of(replace(plan, proxy=fits), ACC_ONLY).size_problem() is None
    assert lesson_of(replace(plan, proxy=too_large), ACC_ONLY).size_problem() == (
        "the proxy set's acc is larger than its windows"
    )
    assert lesson_of(replace(plan, proxy=too_large), {"gyro": "conv"}).size_problem() is None


def test_knowledge_larger_than_its_embeddings_is_refused() -> None:
    plan = plan_of(ACC)
    most = largest_knowledge_bytes(PROXY, 4, None, "float16")
    assert lesson_of(plan, ACC_ONLY, knowledge={"acc": ref(most)}).size_problem() is None
    assert lesson_of(plan, ACC_ONLY, knowledge={"acc": ref(most + 1)}).size_problem() == (
        "the global knowledge of acc is larger than its embeddings"
    )


def large_plan(*modalities: Modality, windows: int, window_s: float) -> Plan:
    """A plan whose proxy set is as large as its windows are."""
    spec = WindowSpec(window_s=window_s, stride_s=window_s)
    proxy = {each.name: ref(min(LARGEST_BLOB_BYTES, 2 * windows * spec.values(each))) for each in modalities}
    return plan_of(*modalities, proxy=proxy, proxy_windows=windows, window=spec)


def test_more_than_is_ever_fetched_at_a_time_is_refused() -> None:
    plan = large_plan(ACC, GYRO, windows=16_384, window_s=1000.0)
    problem = lesson_of(plan, {"acc": "conv", "gyro": "conv"}).size_problem()
    assert problem == f"proxy set and global knowledge are over {LARGEST_BLOB_BYTES} bytes together"


def test_a_proxy_set_that_no_memory_holds_is_refused() -> None:
    plan = large_plan(ACC, windows=16_384, window_s=130_000.0)
    problem = lesson_of(plan, ACC_ONLY, knowledge={}).size_problem()
    assert problem is not None and problem.startswith("learning takes over 2052")


def test_a_model_counts_as_well_as_the_proxy_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.lessons.memory_bytes", lambda: 10**9)
    modest, wide = (large_plan(ACC, windows=2, window_s=each) for each in (100.0, 130_000.0))
    assert lesson_of(modest, ACC_ONLY, knowledge={}).size_problem() is None
    problem = lesson_of(wide, ACC_ONLY, knowledge={}).size_problem()
    assert problem == "learning takes over 8237 MB of memory, and there are 1000"


def test_a_missing_or_damaged_blob_is_a_wire_error(blobs: BlobStore) -> None:
    plan = plan_of(ACC)
    lesson = lesson_of(plan, ACC_ONLY)
    with pytest.raises(WireError, match=f"the blob {lesson.knowledge['acc'].sha256.hex()[:12]} is not here"):
        lesson.learn(InMemory(private_of(lesson)), None, blobs, lambda done, whole: None)
    weights = learned(lesson, blobs).weights
    (blobs.folder / plan.proxy["acc"].sha256.hex()).write_bytes(b"damaged")
    for attempt in (lambda: learned(lesson, blobs), lambda: lesson.recall(weights, blobs)):
        with pytest.raises(WireError, match="is not here"):
            attempt()


@pytest.mark.parametrize(
    "blob",
    [b"\xc1", b"\x80", pack_windows(noise(PROXY, 19, 3)), pack_windows(noise(PROXY - 1, 20, 3)), b"\x01" * 100],
)
def test_a_proxy_set_that_is_not_what_the_plan_says_is_a_wire_error(blob: bytes, blobs: BlobStore) -> None:
    blobs.put(blob)
    lesson = lesson_of(plan_of(ACC, proxy={"acc": blob_ref(blob)}), ACC_ONLY)
    with pytest.raises(WireError):
        learned(lesson, blobs)


def test_knowledge_that_is_not_what_the_plan_says_is_a_wire_error(blobs: BlobStore) -> None:
    other = pack_knowledge(noise(PROXY, 5), None, "float16")
    blobs.put(other)
    lesson = lesson_of(plan_of(ACC), ACC_ONLY, knowledge={"acc": blob_ref(other)})
    with pytest.raises(WireError):
        learned(lesson, blobs)


def test_weights_of_another_model_are_a_state_error(blobs: BlobStore) -> None:
    weights = learned(lesson_of(plan_of(ACC), {"acc": "lstm"}), blobs).weights
    for bad in (weights, weights[:-1], b""):
        with pytest.raises(StateError):
            learned(lesson_of(plan_of(ACC), ACC_ONLY), blobs, bad)


@pytest.mark.parametrize("rate", [1e3, 1e9])
@pytest.mark.parametrize("encoding", ["float32", "float16", "int8"])
def test_a_model_that_has_diverged_is_an_error(rate: float, encoding: Encoding, blobs: BlobStore) -> None:
    method = {"local_rate": rate, "local_epochs": 20, "encoding": encoding, "reconstruction": "waveform"}
    with pytest.raises(ValueError, match=r"diverged|too large|above 65504"):
        learned(lesson_of(plan_of(ACC, method=method), ACC_ONLY), blobs)


def test_a_private_window_with_an_infinite_value_does_not_reach_the_wire(blobs: BlobStore) -> None:
    lesson = lesson_of(plan_of(ACC), ACC_ONLY, knowledge={})
    windows = {"acc": noise(10, 20, 3)}
    windows["acc"][4, 5, 1] = np.inf
    with pytest.raises(ValueError, match="diverged"):
        lesson.learn(InMemory(windows), None, blobs, lambda done, whole: None)


def test_progress_is_told_and_what_it_raises_ends_the_lesson(blobs: BlobStore) -> None:
    lesson = lesson_of(plan_of(ACC, method={"local_epochs": 3}), ACC_ONLY, knowledge={})
    told: list[tuple[int, int]] = []
    lesson.learn(InMemory(private_of(lesson)), None, blobs, lambda done, whole: told.append((done, whole)))
    assert told == [(done, 6) for done in range(1, 7)]

    def enough(done: int, whole: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        lesson.learn(InMemory(private_of(lesson)), None, blobs, enough)


def test_windows_in_another_unit_or_of_a_sensor_that_stands_still_are_remarked_on() -> None:
    usual = Scale(mean=0.1, deviation=0.9)
    assert odd_scales({"acc": usual, "gyro": Scale(mean=-1, deviation=1)}) == {}
    in_other_units, still = Scale(mean=0.9, deviation=8.83), Scale(mean=0, deviation=0)
    odd = {"acc": in_other_units, "gyro": still, "mag": Scale(mean=-9, deviation=1)}
    assert set(odd_scales(odd)) == {"acc", "gyro", "mag"}
    assert "0.9 deviations of the proxy set off and are 8.83 as wide" in odd_scales(odd)["acc"]


def test_what_a_lesson_remarks_on_is_of_all_windows_once(blobs: BlobStore) -> None:
    lesson = lesson_of(plan_of(ACC, method={"local_epochs": 3}), ACC_ONLY, knowledge={})
    windows = {"acc": 9.81 * noise(20, 20, 3, seed=1)}
    windows["acc"][13] += 100
    remark = lesson.learn(InMemory(windows), None, blobs, lambda done, whole: None).remarks["acc"]
    mean, spread = windows["acc"].mean(dtype=np.float64), windows["acc"].std(dtype=np.float64)
    assert f"lie {mean:.1f} deviations of the proxy set off and are {spread:.2f} as wide" in remark


def test_without_a_window_nothing_is_learned(blobs: BlobStore) -> None:
    with pytest.raises(ValueError, match="none of the private windows that were kept is whole"):
        lesson_of(plan_of(ACC), ACC_ONLY).learn(InMemory({"acc": noise(0, 20, 3)}), None, blobs, lambda *_: None)


@pytest.mark.parametrize("sealed", [False, True])
def test_windows_held_on_the_disk_give_the_bytes_that_they_give_in_memory(
    sealed: bool, blobs: BlobStore, tmp_path: Path
) -> None:
    """Though others come meanwhile, in more than there is room for."""
    if sealed:
        pytest.importorskip("cryptography")
    plan = plan_of(ACC, GYRO, method={"local_epochs": 2})
    lesson = lesson_of(plan, {"acc": "conv", "gyro": "lstm"}, knowledge={})
    windows = private_of(lesson, 21)
    shapes = {name: array.shape[1:] for name, array in windows.items()}
    store = WindowStore(tmp_path / "store", shapes, 21, seal=Seal(b"k" * 32) if sealed else None)
    for row in range(21):
        store.add(Window(start_s=row, values={name: array[row] for name, array in windows.items()}))
    in_memory = lesson.learn(InMemory(windows), None, blobs, lambda *_: None)

    def meanwhile(done: int, whole: int) -> None:
        for number in range(4):
            arrays = {name: np.full(shape, number, np.float32) for name, shape in shapes.items()}
            store.add(Window(start_s=100 * done + number, values=arrays))

    with store.hold() as held:
        learned_ = lesson.learn(held.check(), None, blobs, meanwhile)
    assert learned_.weights == in_memory.weights and learned_.knowledge == in_memory.knowledge
    assert learned_.loss == in_memory.loss and learned_.windows == 21
    store.close()


def test_memory_does_not_grow_with_the_windows_that_are_learned_from(blobs: BlobStore, tmp_path: Path) -> None:
    spec = WindowSpec(window_s=20.0, stride_s=10.0)
    plan = plan_of(ACC, window=spec, method={"batch": 64})
    lesson = lesson_of(plan, ACC_ONLY, knowledge={})
    blobs.put(proxy_blob(ACC, spec))
    store = WindowStore(tmp_path / "store", {"acc": spec.shape(ACC)}, 2000)

    def peak_bytes(count: int) -> int:
        while len(store) < count:
            store.add(Window(start_s=0, values={"acc": noise(*spec.shape(ACC), seed=len(store))}))
        with store.hold() as held:
            tracemalloc.start()
            try:
                assert lesson.learn(held.check(), None, blobs, lambda *_: None).windows == count
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak_bytes(100)
    few, many = peak_bytes(100), peak_bytes(2000)
    stored = 1900 * 4 * spec.values(ACC)
    assert many - few < stored / 10
    store.close()


def test_of_a_modality_that_is_lost_no_knowledge_is_made_and_its_encoder_is_kept(blobs: BlobStore) -> None:
    plan = plan_of(ACC, GYRO)
    lesson = lesson_of(plan, {"acc": "conv", "gyro": "conv"})
    before = learned(lesson, blobs)
    windows = {"acc": private_of(lesson)["acc"]}
    without = lesson.learn(InMemory(windows), before.weights, blobs, lambda done, whole: None)
    assert set(without.knowledge) == {"acc"} and without.knowledge["acc"] != before.knowledge["acc"]
    again = lesson.learn(InMemory(private_of(lesson)), without.weights, blobs, lambda done, whole: None)
    assert set(again.knowledge) == {"acc", "gyro"}
