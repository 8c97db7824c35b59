"""A release in words: every form of an encoder has its line, and what a difference is not about is not in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.finish import finish
from export.manifest import FileEntry, Int8Form, Manifest, Measured, StepForm
from export.release import read_release
from export.trial import its_own
from export.words import Change, difference, difference_lines, kilobytes, manifest_lines
from tests.export.small import ACC, GYRO, parts_of, random_windows


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A round's own release."""
    return parts_of(ACC, GYRO).write(tmp_path_factory.mktemp("release") / "release.zip")


def with_forms(manifest: Manifest) -> Manifest:
    """The same with every form of its first encoder, by hand."""
    first, *others = manifest.encoders
    lost = dict.fromkeys(manifest.users(first.modality.name), 0.004)
    int8 = Int8Form(file="acc-int8.onnx", how="static", f1_lost=lost)
    step = StepForm(
        file="acc-step.onnx",
        samples=25,
        takes=25,
        history=50,
        state={"s": (2, 3)},
        operations=700,
        f1_lost=lost,
    )
    files = manifest.files | {each.file: FileEntry(sha256="0" * 64, size_bytes=1500) for each in (int8, step)}
    latency_ms = dict.fromkeys(files, 0.25) | {int8.file: 0.125}
    return replace(
        manifest,
        encoders=(replace(first, int8=int8, step=step), *others),
        files=files,
        measured=Measured(machine="a board", onnxruntime="1.2.3", latency_ms=latency_ms),
    )


def test_every_form_of_an_encoder_has_its_line(plain: Manifest) -> None:
    lines = manifest_lines(with_forms(plain))
    assert "measured     on a board, onnxruntime 1.2.3" in lines
    assert "  acc-int8.onnx: 1.5 kB, 0.125 ms, int8 (static); F1 lost: acc +0.0040, fused +0.0040" in lines
    assert "  acc-step.onnx: 1.5 kB, 0.250 ms, for streams: 25 samples and 700 multiply-adds a step" in lines
    assert "  by default wearables take acc-int8.onnx for whole windows" in lines
    assert not any("measured" in line or "int8" in line for line in manifest_lines(plain))


def test_before_the_first_round_and_without_labels_it_says_so(plain: Manifest) -> None:
    bare = replace(
        plain,
        round=0,
        classifiers={},
        labels=(),
        metrics={},
        files={each.file: plain.files[each.file] for each in plain.encoders},
        parity={each.file: 0.0 for each in plain.encoders},
    )
    lines = manifest_lines(bare)
    assert lines[0].endswith("before the first round") and "classes      none" in lines
    assert not any("classifier" in line for line in lines)


def test_a_difference_holds_what_differs_and_no_more(plain: Manifest) -> None:
    assert difference_lines(difference(plain, plain)) == ["no difference"]
    found = difference(plain, with_forms(plain))
    assert found.models == {"acc-int8.onnx": "added", "acc-step.onnx": "added"}
    assert found.sizes == {name: Change(before=None, after=1500) for name in found.models}
    assert found.scores == {} and found.window_s is None
    assert "acc-int8.onnx                added, - -> 1.5 kB, - -> 0.125 ms" in difference_lines(found)
    back = difference(with_forms(plain), plain)
    assert set(back.models.values()) == {"removed"}
    longer = replace(plain, window=replace(plain.window, window_s=2.0, stride_s=1.0))
    lines = difference_lines(difference(plain, longer))
    assert lines == ["window in s                  1 -> 2", "stride in s                  0.5 -> 1"]


def test_a_finished_release_can_be_told(tmp_path: Path) -> None:
    parts = parts_of(ACC)
    parts.write(tmp_path / "release.zip")
    release = read_release(tmp_path / "release.zip")
    windows = random_windows(parts.plan, 40, seed=3)
    lines = manifest_lines(finish(release, windows, windows, np.arange(40) % 3, its_own(release)).manifest)
    assert any(line.startswith("measured     on ") for line in lines)


def test_sizes_are_in_kilobytes_of_a_thousand() -> None:
    assert [kilobytes(size) for size in (1, 1500, 12_345_678)] == ["0.0 kB", "1.5 kB", "12,345.7 kB"]
