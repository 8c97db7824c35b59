"""A finished release has the forms that serve it, and computes what it did."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.finish import finish
from export.graphs import encoder_model
from export.int8 import int8_of
from export.layers import Floats
from export.release import Release, read_release
from export.steps import step_of
from export.trial import LEAST_WINDOWS, Trial, embeddings, following, its_own
from mekt.errors import ReleaseError
from mekt.plan import Architecture
from mekt.scores import Indexes
from tests.export.small import ACC, DEPTH, FUSED, GYRO, LABELS, embeddings_of, parts_of, random_windows

WINDOWS = 90


# What each window is; those in which it changes are nothing.
TRUTH: Indexes = np.array([-1 if row % 10 == 9 else row // 10 % 2 for row in range(WINDOWS)])


@cache
def streams() -> dict[str, Floats]:
    """Windows of one second, every half of one, of a stream that is wild and calm in turns."""
    windows = {}
    for modality in (ACC, GYRO, DEPTH):
        half = round(modality.rate_hz / 2)
        rng = np.random.default_rng(half)
        calm = np.repeat(np.arange(WINDOWS + 1) // 10 % 2, half).reshape(-1, *[1] * len(modality.shape))
        stream = rng.normal(2 * calm, np.where(calm, 0.2, 1.0), (half * (WINDOWS + 1), *modality.shape)).astype(
            np.float32
        )
        windows[modality.name] = np.stack([stream[half * i : half * (i + 2)] for i in range(WINDOWS)])
    return windows


def fit(x_NF: Floats) -> tuple[Floats, Floats]:
    """A classifier by the distance to each class's mean: weight (K, F) and bias (K)."""
    means_KF = np.stack([x_NF[each == TRUTH].mean(axis=0) for each in (0, 1)])
    bias_K = -np.square(means_KF).sum(axis=1) / 2
    never = np.full((1, x_NF.shape[1]), 0.0), np.full(1, -1e3)
    return np.concatenate([means_KF, never[0]]).astype(np.float32), np.concatenate([bias_K, never[1]]).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[Architecture, Release]:
    folder = tmp_path_factory.mktemp("releases")
    made: dict[Architecture, Release] = {}
    architectures: tuple[Architecture, ...] = ("conv", "lstm")
    for architecture in architectures:
        parts = parts_of(ACC, *([DEPTH] if architecture == "conv" else [GYRO]), architecture=architecture)
        given = embeddings_of(parts.plan, parts.encoders, streams())
        fitted = {
            name: (modalities, *fit(np.concatenate([given[each] for each in modalities], axis=1)))
            for name, (modalities, _, _) in parts.classifiers.items()
        }
        replace(parts, classifiers=fitted).write(folder / architecture)
        made[architecture] = read_release(folder / architecture)
    return made


@pytest.fixture(scope="module")
def finished(releases: dict[Architecture, Release]) -> dict[Architecture, Release]:
    return {each: finish(release, streams(), streams(), TRUTH, its_own(release)) for each, release in releases.items()}


def test_what_a_release_has_stays_as_it_is(
    releases: dict[Architecture, Release], finished: dict[Architecture, Release]
) -> None:
    for architecture, release in releases.items():
        made = finished[architecture].manifest
        assert release.models.items() <= finished[architecture].models.items()
        bare = tuple(replace(each, int8=None, step=None) for each in made.encoders)
        files = {name: made.files[name] for name in release.manifest.files}
        assert replace(made, encoders=bare, files=files, measured=None) == release.manifest


@pytest.mark.parametrize(("architecture", "how"), [("conv", "static"), ("lstm", "dynamic")])
def test_encoders_are_there_in_whole_numbers_and_a_fraction_of_the_size(
    finished: dict[Architecture, Release], architecture: Architecture, how: str
) -> None:
    made = finished[architecture]
    acc = made.manifest.encoder("acc")
    assert acc is not None and acc.int8 is not None
    assert acc.int8.how == how
    assert set(acc.int8.f1_lost) == {"acc", FUSED}
    assert max(acc.int8.f1_lost.values()) <= 0.005
    assert made.manifest.files[acc.int8.file].size_bytes < 0.5 * made.manifest.files[acc.file].size_bytes
    onnx.checker.check_model(onnx.load_model_from_string(made.models[acc.int8.file]))
    x = acc.scaling.normalise(streams()["acc"])
    exact, rounded = (embeddings(made.models[each], x) for each in (acc.file, acc.int8.file))
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


def test_every_file_is_measured_and_the_best_one_chosen_by_that(finished: dict[Architecture, Release]) -> None:
    for release in finished.values():
        assert release.manifest.measured is not None
        latency_ms = release.manifest.measured.latency_ms
        assert set(latency_ms) == set(release.models)
        for each in release.manifest.encoders:
            assert latency_ms[release.manifest.file_to_run(each)] <= latency_ms[each.file]
            assert each.step is None or latency_ms[each.step.file] <= 0.8 * latency_ms[each.file]


def test_a_finished_release_is_finished_again_from_its_own_models(finished: dict[Architecture, Release]) -> None:
    release = finished["lstm"]
    again = finish(release, streams(), streams(), TRUTH, its_own(release))
    acc = release.manifest.encoder("acc")
    assert acc is not None and acc.int8 is not None
    assert again.models[acc.int8.file] == release.models[acc.int8.file]


def test_of_an_encoder_of_frames_only_linear_layers_are_in_whole_numbers() -> None:
    parts = parts_of(DEPTH)
    model = encoder_model("depth", parts.encoders["depth"], parts.plan.window.samples(DEPTH))
    x = random_windows(parts.plan, 16)["depth"]
    how, made = int8_of(model, "depth", x)
    assert how == "static" and len(made) < 0.8 * len(model)
    weights = {each.name for each in onnx.load_model_from_string(made).graph.initializer if len(each.dims) > 1}
    layers = ("backbone.to_features", "to_hidden", "to_embedding")
    assert {each for each in weights if each.endswith("_quantized")} == {f"{each}.weight_quantized" for each in layers}
    exact, rounded = (embeddings(each, x) for each in (model, made))
    assert 0 < np.abs(rounded - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("architecture", ["conv", "lstm"])
def test_equal_windows_give_equal_bytes(releases: dict[Architecture, Release], architecture: Architecture) -> None:
    entry = releases[architecture].manifest.encoders[0]
    model = releases[architecture].models[entry.file]
    x = entry.scaling.normalise(streams()["acc"])
    assert int8_of(model, "acc", x) == int8_of(model, "acc", x.copy())


def test_without_labels_no_other_form_is_kept(
    releases: dict[Architecture, Release], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bare = releases["conv"]
    made = finish(bare, streams(), streams(), np.full(WINDOWS, -1), its_own(bare))
    assert all((each.int8, each.step) == (None, None) for each in made.manifest.encoders)
    assert set(made.models) == set(releases["conv"].models)
    assert "depth in 8 bits is left out: no labelled windows can judge it" in caplog.text


# What is lost


def test_another_encoder_is_found_to_lose_and_the_same_one_not(releases: dict[Architecture, Release]) -> None:
    release = releases["conv"]
    trial = Trial(release, streams(), TRUTH, its_own(release))
    acc = release.manifest.encoders[0]
    assert trial.of_model("acc", release.models[acc.file]) == {"acc": 0.0, FUSED: 0.0}
    other = onnx.load_model_from_string(release.models[acc.file])
    [weight] = [each for each in other.graph.initializer if each.name == "to_embedding.weight"]
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    assert trial.of_model("acc", other.SerializeToString())[FUSED] > 0.1


def test_what_costs_a_classifier_too_much_is_left_out(
    releases: dict[Architecture, Release], caplog: pytest.LogCaptureFixture
) -> None:
    release = releases["conv"]
    # Labels that nothing of a window decides but the last digits of its embedding.
    rng = np.random.default_rng(0)
    still = {
        name: (each[:1] + 1e-3 * rng.normal(0, 1, each.shape)).astype(np.float32) for name, each in streams().items()
    }
    [acc, _] = release.manifest.encoders
    x = acc.scaling.normalise(still["acc"])
    of_class = embeddings(release.models[acc.file], x)[:, 0]
    weight = np.zeros((len(LABELS), 4), np.float32)
    weight[0, 0], bias = 1e6, np.array([-1e6 * np.median(of_class), 0, -1e9], np.float32)
    model = onnx.load_model_from_string(release.models["classifier-acc.onnx"])
    for tensor, values in zip(model.graph.initializer, (weight, bias), strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    fine = replace(release, models={**release.models, "classifier-acc.onnx": model.SerializeToString()})
    labels = np.where(of_class > np.median(of_class), 0, 1)
    trial = Trial(fine, still, labels, its_own(fine))
    assert trial.of_model("acc", int8_of(release.models[acc.file], "acc", x)[1])["acc"] > 0.005
    caplog.set_level("INFO")
    made = finish(fine, still, still, labels, its_own(fine))
    assert made.manifest.encoders[0].int8 is None
    assert re.search(r"acc in 8 bits is left out: it costs acc 0\.\d{4} of weighted F1, more than 0\.005", caplog.text)


def test_a_step_is_judged_on_windows_of_which_the_time_before_is_known(releases: dict[Architecture, Release]) -> None:
    release = releases["conv"]
    acc = release.manifest.encoders[0]
    step = step_of(acc, release.manifest.window, release.models[acc.file])
    assert step is not None
    assert max(Trial(release, streams(), TRUTH, its_own(release)).of_step(acc, step).values()) < 0.05
    apart = {name: each[:: 2 if name == "acc" else 1][: WINDOWS // 2] for name, each in streams().items()}
    assert Trial(release, apart, TRUTH[::2], its_own(release)).of_step(acc, step) == {}


def test_few_windows_tell_nothing(releases: dict[Architecture, Release]) -> None:
    release = releases["conv"]
    few = {name: each[: LEAST_WINDOWS - 1] for name, each in streams().items()}
    trial = Trial(release, few, TRUTH[: LEAST_WINDOWS - 1], its_own(release))
    assert trial.of_model("acc", release.models["encoder-acc.onnx"]) == {}


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 9))
def test_windows_follow_one_another_where_they_share_samples(follow: list[bool], stride: int) -> None:
    rng = np.random.default_rng(0)
    windows = [rng.normal(size=(10, 2))]
    for each in follow:
        kept = windows[-1][stride:] if each else rng.normal(size=(10 - stride, 2))
        windows.append(np.concatenate([kept, rng.normal(size=(stride, 2))]))
    expected = [0]
    for each in follow:
        expected.append(expected[-1] + 1 if each else 0)
    assert following(np.stack(windows).astype(np.float32), stride).tolist() == expected


def test_windows_that_share_nothing_follow_nothing() -> None:
    assert following(np.zeros((4, 10, 1), np.float32), 10).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("windows", "labels", "problem"),
    [
        ({"acc": np.zeros((4, 50, 3), np.float32)}, np.zeros(4, np.int64), "windows.depth: expected an array"),
        (None, np.zeros(4, np.int64), "labels: expected one for each of 90 windows, got 4"),
        (None, np.full(WINDOWS, 3), "labels: expected classes below 3, got 3"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    releases: dict[Architecture, Release], windows: dict[str, Floats] | None, labels: Indexes, problem: str
) -> None:
    with pytest.raises(ReleaseError, match=problem):
        finish(releases["conv"], streams(), windows or streams(), labels, its_own(releases["conv"]))


def test_a_release_is_finished_without_torch() -> None:
    code = "import sys, export.finish, export.ort; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
