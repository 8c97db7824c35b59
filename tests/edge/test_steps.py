"""A stream in steps gives what its step model gives, at the instants of windows, and begins anew where it has to."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.wearable.recogniser import Recognised, Recogniser
from export.manifest import FileEntry, Measured, StepForm
from export.release import Release, read_release
from export.session import session
from export.steps import step_of
from mekt.errors import SettingsError
from sensors.source import Block, Floats, Gap, Item
from tests.export.small import ACC, parts_of

PARTS = parts_of(ACC, groups={"acc": ("acc",)})
STEP_S = 8 / 50
SECONDS = 6
STREAM = np.random.default_rng(2).normal(0.2, 1, (SECONDS * 50, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """One whose step takes less than a third of a window's time."""
    path = tmp_path_factory.mktemp("steps") / "release"
    PARTS.write(path)
    made = read_release(path)
    [entry] = made.manifest.encoders
    step = step_of(entry, made.manifest.window, made.models[entry.file])
    assert step is not None and (step.samples, step.takes) == (8, 23)
    form = StepForm(
        file="encoder-acc-step.onnx",
        samples=step.samples,
        takes=step.takes,
        history=step.history,
        state=dict(step.state),
        operations=1,
        f1_lost={"acc": 0.0},
    )
    digest = hashlib.sha256(step.model).hexdigest()
    files = {**made.manifest.files, form.file: FileEntry(sha256=digest, size_bytes=len(step.model))}
    measured = Measured(machine="-", onnxruntime="-", latency_ms={**dict.fromkeys(files, 1.0), form.file: 0.3})
    manifest = replace(made.manifest, encoders=(replace(entry, step=form),), files=files, measured=measured)
    return replace(made, manifest=manifest, models={**made.models, form.file: step.model})


def recognised(release: Release, every_s: float, items: list[Item]) -> list[Recognised]:
    recogniser = Recogniser(release, ["acc"], lambda words: None, every_s)
    return [each for item in items for each in recogniser.feed(item)] + list(recogniser.finish())


def blocks(cuts: list[int], begin_s: float = 0.0, stream: Floats = STREAM) -> list[Item]:
    places = [0, *sorted(set(cuts)), len(stream)]
    return [
        Block(modality="acc", t_s=begin_s + np.arange(first, end) / 50, values=stream[first:end])
        for first, end in itertools.pairwise(places)
        if end > first
    ]


def probabilities(embedding_D: Floats) -> Floats:
    _, weight_KD, bias_K = PARTS.classifiers["acc"]
    scores = embedding_D @ weight_KD.T + bias_K
    shares: Floats = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    return shares


def by_hand(release: Release, stream: Floats = STREAM) -> Iterator[tuple[int, Floats]]:
    """How many samples were seen after each step, the first of which ends with the first step that a window has."""
    [entry] = release.manifest.encoders
    form = entry.step
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


def whole(release: Release, start: int, stream: Floats = STREAM) -> Floats:
    """What the encoder of whole windows gives of that which starts at this sample."""
    [entry] = release.manifest.encoders
    x = entry.scaling.normalise(stream[None, start : start + 50]).astype(np.float32)
    [embedding] = session(release.models[entry.file], "whole").run(["embedding"], {"acc": x})
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


def test_behind_a_gap_a_stream_begins_anew(release: Release) -> None:
    found = recognised(release, STEP_S, [*blocks([]), Gap(modalities=("acc",)), *blocks([], begin_s=100.0)])
    before, behind = ([each for each in found if (each.start_s < 50) == first] for first in (True, False))
    assert len(before) == len(behind) > 30
    for one, other in zip(before, behind, strict=True):
        np.testing.assert_allclose(one.decisions.probabilities, other.decisions.probabilities, atol=1e-5)


def test_behind_windows_that_are_missing_a_stream_begins_anew(release: Release) -> None:
    hole = [each for each in blocks(list(range(10, 300, 10))) if isinstance(each, Block) and not 2 <= each.t_s[0] < 2.5]
    found = recognised(release, STEP_S, list(hole))
    behind = next(each for each in found if each.start_s > 2)
    expected = probabilities(whole(release, round(behind.start_s * 50)))
    np.testing.assert_allclose(behind.decisions.probabilities[0], expected, atol=1e-5)


@pytest.mark.parametrize(("stride_s", "steps"), [(0.16, 1), (0.32, 2), (0.48, 3), (0.5, 0), (0.64, 0), (0.08, 0)])
def test_steps_are_run_where_some_make_a_stride_and_take_less_time_than_a_window(
    release: Release, stride_s: float, steps: int
) -> None:
    # Four steps take 1.2 ms, a window 1.
    [entry] = release.manifest.encoders
    assert release.manifest.steps_to_run(entry, stride_s) == steps
    assert replace(release.manifest, measured=None).steps_to_run(entry, stride_s) == 0


def test_windows_that_are_too_close_are_refused(release: Release) -> None:
    with pytest.raises(SettingsError, match=r"every_s: the release's windows are 1 s long: .* expected at least"):
        recognised(release, 0.001, [])


def test_without_steps_windows_come_as_often_all_the_same(tmp_path: Path) -> None:
    PARTS.write(tmp_path / "release")
    plain = read_release(tmp_path / "release")
    found = recognised(plain, STEP_S, blocks([]))
    assert len(found) == (len(STREAM) - 50) // 8 + 1
    for each in found:
        expected = probabilities(whole(plain, round(each.start_s * 50)))
        np.testing.assert_allclose(each.decisions.probabilities[0], expected, atol=1e-5)
