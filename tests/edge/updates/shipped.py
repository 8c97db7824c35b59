"""Releases as a coordinator ships them, signed: small ones, which are made in moments, good and broken."""

import functools
import hashlib
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.classifier import fit_classifier
from export.bundle import pack, unpack
from export.layers import Floats
from export.manifest import MANIFEST, SIGNATURE, FileEntry, pack_manifest, unpack_manifest
from export.writer import Classifier
from mekt.signature import Purpose, joined, to_sign
from tests.export.small import ACC, FUSED, GYRO, embeddings_of, parts_of, random_windows, with_steps

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
NUMBERS = itertools.count(1)
PARTS = parts_of(ACC, GYRO)

Change = Callable[[Floats], Floats]


def sign(purpose: Purpose, content: bytes) -> bytes:
    """The coordinator's signature, with a number that only grows."""
    number = next(NUMBERS)
    return joined(number, SIGNER.sign(to_sign(purpose, number, content)))


def public_key(folder: Path) -> Path:
    """A file in `folder` with the key that checks it."""
    path = folder / "coordinator.pub"
    path.write_text(SIGNER.public_key().public_bytes_raw().hex())
    return path


def same(weight_KD: Floats) -> Floats:
    """The classifier as it is."""
    return weight_KD


def surer(weight_KD: Floats) -> Floats:
    """One that says the same, and is surer of it."""
    return weight_KD * np.float32(1.1)


def permuted(weight_KD: Floats) -> Floats:
    """One that takes every class for the next."""
    return np.roll(weight_KD, 1, axis=0)


def swapped(weight_KD: Floats) -> Floats:
    """One in which the first two classes have changed places."""
    return weight_KD[[1, 0, *range(2, len(weight_KD))]]


def unsure(weight_KD: Floats) -> Floats:
    """One that has hardly an opinion."""
    return weight_KD * np.float32(0.01)


def of_three_kinds(count: int) -> dict[str, Floats]:
    """So many windows of each of three kinds, which classifiers can tell apart: wild, calm and aslant."""
    wild = random_windows(PARTS.plan, 3 * count, seed=5)
    scale, offset = np.repeat([[3.0, 0.1, 0.1], [0.0, 0.0, 2.0]], count, axis=1).astype(np.float32)[..., None, None]
    return {name: each * scale + offset for name, each in wild.items()}


@functools.cache
def taught() -> Classifier:
    """The fused classifier that tells the three kinds apart and is sure of it."""
    embedded_ND = embeddings_of(PARTS.plan, PARTS.encoders, of_three_kinds(30))
    modalities, _, _ = PARTS.classifiers[FUSED]
    joined_NF = np.concatenate([embedded_ND[each] for each in modalities], axis=1)
    made = fit_classifier(joined_NF, np.repeat(np.arange(3), 30), 3)
    return modalities, made.weight, made.bias


@functools.cache
def shipped(
    round: int,
    change: Change = same,
    *,
    signed: bool = True,
    labels: tuple[str, ...] | None = None,
    is_taught: bool = False,
) -> bytes:
    """The release of this round, its fused classifier, random or `taught`, changed so."""
    modalities, weight_KD, bias_K = taught() if is_taught else PARTS.classifiers[FUSED]
    # What the bias says is what a changed weight would be judged by.
    classifiers = {**PARTS.classifiers, FUSED: (modalities, change(weight_KD), change(bias_K[:, None])[:, 0])}
    parts = replace(PARTS, round=round, classifiers=classifiers, labels=labels or PARTS.labels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "release.zip"
        parts.write(path, (lambda content: sign("release", content)) if signed else None)
        return path.read_bytes()


def spoiled(change: Callable[[onnx.GraphProto], None]) -> bytes:
    """A release whose fused classifier no coordinator would write: its graph was changed so."""
    files = unpack(shipped(1))
    files.pop(SIGNATURE)
    manifest = unpack_manifest(files.pop(MANIFEST))
    file = manifest.classifiers[FUSED].file
    model = onnx.load_from_string(files[file])
    change(model.graph)
    files[file] = model.SerializeToString()
    entry = FileEntry(sha256=hashlib.sha256(files[file]).hexdigest(), size_bytes=len(files[file]))
    return pack({**files, MANIFEST: pack_manifest(replace(manifest, files={**manifest.files, file: entry}))})


def stepping(*, broken: bool = False) -> bytes:
    """A release with an encoder in steps too, whose model is none where it is `broken`."""
    files = unpack(shipped(1))
    files.pop(SIGNATURE)
    manifest = unpack_manifest(files.pop(MANIFEST))
    manifest, models = with_steps(manifest, files, takes=0.1, model=b"no model" if broken else None)
    return pack({**models, MANIFEST: pack_manifest(manifest)})


def not_a_number(graph: onnx.GraphProto) -> None:
    """What it says is no number."""
    bias = next(each for each in graph.initializer if each.name.endswith("bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(bias.dims, np.nan, np.float32), bias.name))


def greedy(graph: onnx.GraphProto) -> None:
    """It wants four gigabytes."""
    shape = onnx.numpy_helper.from_array(np.array([1 << 30]), "shape")
    nodes = [
        onnx.helper.make_node("ConstantOfShape", ["shape"], ["plenty"]),
        onnx.helper.make_node("ReduceMax", ["plenty"], ["most"], keepdims=0),
    ]
    _add_before_the_end(graph, [shape], nodes, "most")


def endless(graph: onnx.GraphProto) -> None:
    """It does not come to an end in this century."""
    body = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["going"], ["goes"]),
            onnx.helper.make_node("Sin", ["x"], ["y"]),
        ],
        "body",
        [
            onnx.helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, []),
        ],
        [
            onnx.helper.make_tensor_value_info("goes", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, []),
        ],
    )
    tensors = [
        onnx.numpy_helper.from_array(np.array(1 << 60), "turns"),
        onnx.numpy_helper.from_array(np.array(True), "always"),
        onnx.numpy_helper.from_array(np.array(0, np.float32), "begin"),
    ]
    node = onnx.helper.make_node("Loop", ["turns", "always", "begin"], ["end"], body=body)
    _add_before_the_end(graph, tensors, [node], "end")


def _add_before_the_end(
    graph: onnx.GraphProto, tensors: list[onnx.TensorProto], nodes: list[onnx.NodeProto], scalar: str
) -> None:
    """Have the last node take what it took plus `scalar`, which these compute."""
    last = graph.node.pop()
    graph.initializer.extend(tensors)
    graph.node.extend([*nodes, onnx.helper.make_node("Add", [last.input[0], scalar], ["all"])])
    last.input[0] = "all"
    graph.node.append(last)
