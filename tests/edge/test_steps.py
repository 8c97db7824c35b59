"""A stream in steps gives what its step model gives, at the instants of windows, and begins anew where it has to."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.steps import Steps
from edge.wearable.recogniser import Recognised, Recogniser
from export.release import Release, read_release
from export.session import session
from mekt.errors import ReleaseError, SettingsError
from sensors.source import Block, Floats, Gap, Item
from tests.export.small import ACC, FUSED, GYRO, parts_of, with_steps

PARTS = parts_of(ACC, GYRO)
STEP_S = 8 / 50
SECONDS = 6
STREAM = np.random.default_rng(2).normal(0.2, 1, (SECONDS * 50, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Release:
    path = tmp_path_factory.mktemp("steps") / "release"
    PARTS.write(path)
    return read_release(path)


@pytest.fixture(scope="module")
def release(plain: Release) -> Release:
    """One in which a step of acc takes less than a third of a window's time; gyro has none."""
    manifest, models = with_steps(plain.manifest, plain.models, takes=0.3)
    form = manifest.encoders[0].step
    assert form is not None and (form.samples, form.takes) == (8, 23)
    return replace(plain, manifest=manifest, models=models)


def recognised(
    release: Release, every_s: float, items: Sequence[Item], modalities: Sequence[str] = ("acc",)
) -> list[Recognised]:
    recogniser = Recogniser(release, modalities, lambda words: None, every_s)
    return [each for item in items for each in recogniser.feed(item)] + list(recogniser.finish())


def blocks(cuts: list[int], begin_s: float = 0.0, stream: Floats = STREAM, modality: str = "acc") -> list[Block]:
    places = [0, *sorted(set(cuts)), len(stream)]
    return [
        Block(modality=modality, t_s=begin_s + np.arange(first, end) / 50, values=stream[first:end])
        for first, end in itertools.pairwise(places)
        if end > first
    ]


def probabilities(embedding_D: Floats, classifier: str = "acc") -> Floats:
    _, weight_KD, bias_K = PARTS.classifiers[classifier]
    scores = embedding_D @ weight_KD.T + bias_K
    shares: Floats = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return shares


def by_hand(release: Release, stream: Floats = STREAM) -> Iterator[tuple[int, Floats]]:
    """How many samples were seen after each step, the first of which ends with the first step that a window has."""
    entry, form = release.manifest.encoders[0], release.manifest.encoders[0].step
    assert form is not None
    run = session(release.models[form.file], "step")
    state = {name: np.zeros((1, *shape), np.float32) for name, shape in form.state.items()}
    scaled = entry.scaling.normalise(stream[None]).astype(np.float32)
    # Steps end where windows of 50 samples do, 8 apart: the first that has all it takes ends at 26.
    for end in range(50 - 3 * 8, len(stream) + 1, 8):
        names = ["embedding", *(f"next_{name}" for name in state)]
        embedding, *new = run.run(names, {"acc": scaled[:, end - form.takes : end], **state})
        state = dict(zip(state, new, strict=True))
        yield end, embedding[0]


def whole(release: Release, start: int, stream: Floats = STREAM, encoder: int = 0) -> Floats:
    """What the encoder of whole windows gives of that which starts at this sample."""
    entry = release.manifest.encoders[encoder]
    x = entry.scaling.normalise(stream[None, start : start + 50]).astype(np.float32)
    [embedding] = session(release.models[entry.file], "whole").run(["embedding"], {entry.modality.name: x})
    found: Floats = embedding[0]
    return found


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, len(STREAM) - 1), max_size=12), every=st.sampled_from([1, 2, 3]))
def test_windows_of_a_stream_are_classified_by_its_steps_however_it_is_cut(
    release: Release, cuts: list[int], every: int
) -> None:
    found = recognised(release, every * STEP_S, blocks(cuts))
    assert [each.start_s for each in found] == pytest.approx(
        [every * STEP_S * index for index in range((len(STREAM) - 50) // (8 * every) + 1)]
    )
    stepped = dict(by_hand(release))
    for each in found:
        start = round(each.start_s * 50)
        # 71 samples make a history; a stream's first window goes back to its fourth sample.
        known = start + 50 - 3 >= 71
        expected = probabilities(stepped[start + 50] if known else whole(release, start))
        np.testing.assert_allclose(each.decisions.probabilities[0], expected, atol=1e-5)
    assert any(round(each.start_s * 50) + 50 - 3 >= 71 for each in found)


# The second begins where the next window of the first would have, had there been no gap.
@pytest.mark.parametrize("begin_s", [100.0, ((len(STREAM) - 50) // 8 + 1) * STEP_S])
def test_behind_a_gap_a_stream_begins_anew(release: Release, begin_s: float) -> None:
    found = recognised(release, STEP_S, [*blocks([]), Gap(modalities=("acc",)), *blocks([], begin_s=begin_s)])
    before, behind = found[: len(found) // 2], found[len(found) // 2 :]
    assert len(before) == len(behind) > 30
    assert behind[0].start_s == pytest.approx(begin_s)
    for one, other in zip(before, behind, strict=True):
        np.testing.assert_allclose(one.decisions.probabilities, other.decisions.probabilities, atol=1e-5)


def test_behind_windows_that_are_missing_a_stream_begins_anew(release: Release) -> None:
    hole = [each for each in blocks(list(range(10, 300, 10))) if not 2 <= each.t_s[0] < 2.5]
    found = recognised(release, STEP_S, hole)
    behind = next(each for each in found if each.start_s > 2)
    expected = probabilities(whole(release, round(behind.start_s * 50)))
    np.testing.assert_allclose(behind.decisions.probabilities[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("stride_s", "steps"), [(0.16, 1), (0.1601, 1), (0.161, 0), (0.32, 2), (0.48, 3), (0.5, 0), (0.64, 0), (0.08, 0)]
)
def test_steps_are_run_where_some_make_a_stride_and_take_less_time_than_a_window(
    release: Release, stride_s: float, steps: int
) -> None:
    # Four steps take 1.2 ms, a window 1.
    entry, _ = release.manifest.encoders
    assert release.manifest.steps_to_run(entry, stride_s) == steps
    assert replace(release.manifest, measured=None).steps_to_run(entry, stride_s) == 0


def test_windows_that_share_no_sample_are_computed_as_a_whole(release: Release) -> None:
    # Between two of them there may be a gap that nobody sees.
    entry, gyro = release.manifest.encoders
    assert entry.step is not None and release.manifest.measured is not None
    form = replace(entry.step, samples=10, takes=10)
    fast = replace(release.manifest.measured, latency_ms={**release.manifest.measured.latency_ms, form.file: 0.01})
    manifest = replace(release.manifest, encoders=(replace(entry, step=form), gyro), measured=fast)
    assert [manifest.steps_to_run(manifest.encoders[0], each) for each in (0.8, 1.0)] == [4, 0]


def test_windows_that_are_too_close_are_refused(release: Release) -> None:
    with pytest.raises(SettingsError, match=r"every_s: the release's windows are 1 s long: .* expected at least"):
        recognised(release, 0.001, [])


def test_without_steps_windows_come_as_often_all_the_same(plain: Release) -> None:
    found = recognised(plain, STEP_S, blocks([]))
    assert len(found) == (len(STREAM) - 50) // 8 + 1
    for each in found:
        expected = probabilities(whole(plain, round(each.start_s * 50)))
        np.testing.assert_allclose(each.decisions.probabilities[0], expected, atol=1e-5)


def test_one_encoder_goes_in_steps_beside_one_that_does_not_and_both_do_without_each_other(release: Release) -> None:
    other = STREAM[::-1].copy()
    cuts = list(range(10, len(STREAM), 10))
    # From 3 s on acc is away for 0.6 s, and until it has a whole window again they are of gyro alone.
    acc = [each for each in blocks(cuts) if not 3 <= each.t_s[0] < 3.6]
    items = sorted([*acc, *blocks(cuts, stream=other, modality="gyro")], key=lambda each: float(each.t_s[0]))
    found = recognised(release, STEP_S, items, ("acc", "gyro"))
    assert [each.start_s for each in found] == pytest.approx([STEP_S * index for index in range(len(found))])
    # Behind the hole acc begins anew, on the grid that there is.
    first = next(round(each.start_s * 50) for each in found if each.start_s >= 3.6)
    stepped = {0: dict(by_hand(release)), first: dict(by_hand(release, STREAM[first:]))}
    classifiers = []
    for each in found:
        start, name = round(each.start_s * 50), each.decisions.classifier
        anew = max(begin for begin in stepped if begin <= start)
        known = start - anew + 50 - 3 >= 71
        of_acc = stepped[anew][start - anew + 50] if known else whole(release, start)
        of_gyro = whole(release, start, other, encoder=1)
        expected = probabilities(of_gyro if name == "gyro" else np.concatenate([of_acc, of_gyro]), name)
        np.testing.assert_allclose(each.decisions.probabilities[0], expected, atol=1e-5)
        classifiers.append((name, known))
    assert [kind for kind, _ in itertools.groupby(classifiers)] == [
        *((FUSED, False), (FUSED, True), ("gyro", True), (FUSED, False), (FUSED, True))
    ]


def test_a_step_model_that_does_not_fit_the_manifest_is_refused_at_the_start(release: Release) -> None:
    acc, gyro = release.manifest.encoders
    assert acc.step is not None
    for entry in (replace(acc, step=replace(acc.step, state={})), replace(acc, step=replace(acc.step, takes=24))):
        manifest = replace(release.manifest, encoders=(entry, gyro))
        with pytest.raises(ReleaseError, match=r"encoder-acc-step\.onnx does not run"):
            recognised(replace(release, manifest=manifest), STEP_S, [])
    wider = replace(acc, embedding=acc.embedding + 1)
    steps = Steps(wider, acc.step, session(release.models[acc.step.file], "step"), 1)
    with pytest.raises(ValueError, match=r"gives \[\(1, 4\), .*, its manifest says \[\(1, 5\)"):
        steps.try_out()
