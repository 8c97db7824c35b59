"""What is written computes what was trained, and is whole or not there at all."""

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from export.bundle import unpack
from export.layers import Floats
from export.manifest import MANIFEST, unpack_manifest
from export.release import read_release
from export.writer import LARGEST_DIFFERENCE, difference
from mekt.encoders import Encoder, SignalConv
from mekt.errors import ReleaseError, StateError
from mekt.plan import Architecture
from tests.export.small import ACC, DEPTH, FUSED, GYRO, LABELS, Parts, embeddings_of, parts_of, random_windows

torch.set_num_threads(1)

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PARTS = parts_of(ACC, GYRO)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def turned(table: Mapping[str, T]) -> dict[str, T]:
    return {name: table[name] for name in sorted(table, reverse=True)}


def run(model: bytes, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [result] = session.run(None, {session.get_inputs()[0].name: x})
    output: Floats = result
    return output


@pytest.mark.parametrize("architecture", ["conv", "lstm"])
def test_a_release_computes_what_was_trained_on_batches_of_a_size_not_tried_before(
    tmp_path: Path, architecture: Architecture
) -> None:
    parts = parts_of(ACC, GYRO, DEPTH, architecture=architecture)
    parts.write(tmp_path / "release")
    release = read_release(tmp_path / "release")
    windows = random_windows(parts.plan, 7, seed=8)
    embeddings = embeddings_of(parts.plan, parts.encoders, windows)
    for entry in release.manifest.encoders:
        x = entry.scaling.normalise(windows[entry.modality.name])
        np.testing.assert_allclose(run(release.models[entry.file], x), embeddings[entry.modality.name], atol=1e-5)
    for name, classifier in release.manifest.classifiers.items():
        joined = np.concatenate([embeddings[each] for each in classifier.modalities], axis=1)
        expected = torch.softmax(torch.from_numpy(parts.scores(name, windows)), dim=1).numpy()
        np.testing.assert_allclose(run(release.models[classifier.file], joined), expected, atol=1e-5)


def test_the_manifest_says_all_about_the_release(tmp_path: Path) -> None:
    manifest = PARTS.write(tmp_path / "release")
    assert read_release(tmp_path / "release").manifest == manifest
    assert (manifest.federation, manifest.round, manifest.labels) == ("ward-3", 7, LABELS)
    assert manifest.window == PARTS.plan.window
    assert manifest.metrics == PARTS.metrics
    assert {name: each.modalities for name, each in manifest.classifiers.items()} == {
        "acc": ("acc",),
        "gyro": ("gyro",),
        FUSED: ("acc", "gyro"),
    }
    acc = manifest.encoder("acc")
    assert acc is not None
    assert (acc.modality, acc.scaling, acc.architecture, acc.embedding) == (ACC, PARTS.plan.scaling["acc"], "conv", 4)
    assert acc.parameters == sum(each.numel() for each in PARTS.encoders["acc"].parameters())
    assert 0 <= max(manifest.parity.values()) <= LARGEST_DIFFERENCE
    assert min(manifest.parity[name] for name in ("encoder-acc.onnx", "encoder-gyro.onnx")) > 0


def test_encoders_alone_are_a_release_too(tmp_path: Path) -> None:
    manifest = replace(PARTS, classifiers={}, labels=(), metrics={}).write(tmp_path / "release")
    assert read_release(tmp_path / "release").manifest == manifest
    assert manifest.classifiers == {}


def test_the_models_are_left_as_they_are(tmp_path: Path) -> None:
    parts = parts_of(ACC)
    encoder = parts.encoders["acc"].train()
    parts.write(tmp_path / "release")
    assert encoder.training
    assert all(each.requires_grad for each in encoder.parameters())


def test_equal_parts_give_equal_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    PARTS.write(tmp_path / "one")
    again = parts_of(ACC, GYRO)
    other = replace(
        again,
        encoders=turned(again.encoders),
        classifiers=turned(again.classifiers),
        windows=turned(again.windows),
        metrics=turned(again.metrics),
    )
    other.write(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


# Unfaithful exports


def convolution(encoder: Encoder) -> nn.Conv1d:
    assert isinstance(encoder.backbone, SignalConv)
    layer = encoder.backbone.convolutions[0]
    assert isinstance(layer, nn.Conv1d)
    return layer


def not_a_number(encoder: Encoder) -> None:
    with torch.no_grad():
        convolution(encoder).weight[0, 0, 0] = math.nan


def infinite(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.to_embedding.bias[0] = math.inf


def runs_backwards(encoder: Encoder) -> None:
    encoder.backbone.register_forward_pre_hook(lambda module, args: (args[0].flip(1),))


def a_little_more(encoder: Encoder) -> None:
    encoder.to_embedding.register_forward_hook(lambda module, args, output: output + 2 * LARGEST_DIFFERENCE)


@pytest.mark.parametrize("perturb", [not_a_number, infinite, runs_backwards, a_little_more])
def test_an_unfaithful_export_is_named_and_leaves_nothing(tmp_path: Path, perturb: Callable[[Encoder], None]) -> None:
    parts = parts_of(ACC, GYRO)
    perturb(parts.encoders["gyro"])
    with pytest.raises(ReleaseError, match=r"not written, the exported models differ .*encoder-gyro\.onnx by") as error:
        parts.write(tmp_path / "releases" / "ward-3-00007")
    assert "encoder-acc.onnx" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_that_is_not_finite_leaves_nothing(tmp_path: Path) -> None:
    modalities, weight_KD, bias_K = PARTS.classifiers["acc"]
    broken = weight_KD.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ReleaseError, match=r"classifier-acc\.onnx by nan"):
        replace(PARTS, classifiers={"acc": (modalities, broken, bias_K)}).write(tmp_path / "release")
    assert list(tmp_path.iterdir()) == []


def test_a_difference_worked_by_hand() -> None:
    trained = np.array([[1.0, 0.5], [-1.0, 200.0]], dtype=np.float32)
    exported = np.array([[1.0, 0.25], [-1.5, 202.0]], dtype=np.float32)
    # Dimension 0 stays within 1: |-1.5 + 1| = 0.5. Dimension 1 goes to 200: 2 / 200 = 0.01 and 0.25 / 200.
    assert difference(exported, trained) == pytest.approx(0.5)
    assert difference(exported[:, 1:], trained[:, 1:]) == pytest.approx(0.01)
    assert difference(trained, trained) == 0
    assert math.isnan(difference(np.full_like(trained, np.nan), trained))
    assert difference(exported[:1], trained) == math.inf


# Parts that do not fit


def test_parts_that_do_not_fit_together_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    windows = dict(PARTS.windows)
    fused, weight_KD, bias_K = PARTS.classifiers[FUSED]
    misfits: list[tuple[Parts, str]] = [
        (replace(PARTS, encoders={}), "encoders: there is none"),
        (
            replace(PARTS, encoders={**PARTS.encoders, "depth": PARTS.encoders["acc"]}),
            "encoders.depth: the plan has no",
        ),
        (replace(PARTS, encoders={"acc": parts_of(DEPTH).encoders["depth"]}), "encoders.acc: the plan has no"),
        (replace(PARTS, windows={}), "windows.acc: expected an array"),
        (replace(PARTS, windows={"gyro": windows["gyro"]}), "windows.acc: expected an array"),
        (replace(PARTS, windows={name: each[:0] for name, each in windows.items()}), "windows.acc: expected an array"),
        (replace(PARTS, windows={**windows, "gyro": windows["gyro"][:5]}), "windows.gyro: expected an array"),
        (replace(PARTS, windows={**windows, "gyro": windows["gyro"][:, :5]}), "windows.gyro: expected an array"),
        (replace(PARTS, encoders={"acc": PARTS.encoders["acc"]}), "classifiers.gyro: needs encoders.*lacks gyro"),
        (replace(PARTS, classifiers={"none": ((), weight_KD, bias_K)}), "classifiers.none: needs encoders"),
        (replace(PARTS, classifiers={FUSED: (fused, weight_KD[:, :4], bias_K)}), r"expected weight \(3, 8\)"),
        (replace(PARTS, classifiers={FUSED: (fused, weight_KD, bias_K[:2])}), r"bias \(3,\)"),
        (replace(PARTS, labels=LABELS[:2]), r"expected weight \(2, 4\)"),
        (replace(PARTS, labels=("sit", "sit", "walk")), "labels: a name occurs twice"),
        (replace(PARTS, labels=("sit", "st\nand", "walk")), r"labels\[1\]: expected text like"),
        (replace(PARTS, federation="../ward"), "federation: expected text like"),
        (replace(PARTS, round=-1), "round: expected at least 0"),
        (replace(PARTS, metrics={"f1": math.nan}), "metrics.f1: expected a number"),
        (replace(PARTS, classifiers={"a/b": PARTS.classifiers["acc"]}), "expected text like"),
    ]
    for parts, problem in misfits:
        with pytest.raises(ReleaseError, match=problem):
            parts.write(tmp_path / "releases" / "ward-3-00007")
        assert list(tmp_path.iterdir()) == [], problem


# Disk


def test_writing_again_what_is_there_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "release"
    PARTS.write(out)
    before = out.stat()
    PARTS.write(out)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_another_release_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "release"
    PARTS.write(out)
    before = out.read_bytes()
    with pytest.raises(ReleaseError, match=r"holds another release \(round 7\)"):
        replace(PARTS, metrics={"weighted_f1/acc": 0.9}).write(out)
    assert out.read_bytes() == before


def test_what_is_no_release_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"data")
    for out in (tmp_path, tmp_path / "precious"):
        with pytest.raises(ReleaseError, match=r"expected the file of a release|not a release"):
            PARTS.write(out)
    assert contents(tmp_path) == {"precious": b"data"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r"file: cannot be made a folder"):
        PARTS.write(tmp_path / "file" / "ward-3")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    child = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            PARTS.write(out)
        except StateError as error:
            print(error)
        """
    assert "cannot be written" in in_a_process_of_its_own(child, tmp_path / "release")
    assert list(tmp_path.iterdir()) == []
    PARTS.write(tmp_path / "release")


def test_killed_before_any_step_a_release_is_whole_or_not_there_and_is_written_again(tmp_path: Path) -> None:
    # Each child kills itself, as kill -9 would, when it is about to take its n-th step on the disk.
    child = """
        import os, signal, sys
        STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

        def killed_at(n):
            steps = 0
            def hook(event, args):
                nonlocal steps
                if event in STEPS and str(out.parent) in str(args[0]):
                    steps += 1
                    if steps == n:
                        os.kill(os.getpid(), signal.SIGKILL)
            sys.addaudithook(hook)

        n, kills = 0, {True: 0, False: 0}
        while True:
            n += 1
            child = os.fork()
            if child == 0:
                killed_at(n)
                PARTS.write(out)
                os._exit(0)
            killed = os.waitpid(child, 0)[1] == signal.SIGKILL
            there = out.exists()
            if there:
                read_release(out)
            if not killed:
                break
            kills[there] += 1
            for name in os.listdir(out.parent):
                assert name.startswith(".") or there, name
            if there:
                out.rename(out.with_name(f"whole-{n}"))
        print(kills[False], kills[True], *sorted(os.listdir(out.parent)))
        """
    before, behind, *names = in_a_process_of_its_own(child, tmp_path / "release").split()
    assert int(before) >= 2
    assert int(behind) >= 1
    assert [name for name in names if not name.startswith("whole")] == ["release"]
    read_release(tmp_path / "release")


def in_a_process_of_its_own(code: str, out: Path) -> str:
    """What `code` prints, which finds PARTS and `out`."""
    head = "from pathlib import Path\nimport sys\nfrom tests.export.test_writer import *\nout = Path(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code), str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_in_the_file_is_what_the_manifest_names(tmp_path: Path) -> None:
    manifest = PARTS.write(tmp_path / "release")
    files = unpack((tmp_path / "release").read_bytes())
    assert unpack_manifest(files.pop(MANIFEST)) == manifest
    assert {name: len(data) for name, data in files.items()} == {
        name: each.size_bytes for name, each in manifest.files.items()
    }


def test_what_an_interrupted_write_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".release.4711.tmp"
    left.write_bytes(b"half")
    PARTS.write(tmp_path / "release")
    assert contents(tmp_path).keys() == {"release"}
