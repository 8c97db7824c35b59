"""A manifest is accepted to the byte or refused, whatever was done to it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.manifest import (
    FORMAT,
    LARGEST_MANIFEST_BYTES,
    ClassifierEntry,
    EncoderEntry,
    FileEntry,
    Int8Form,
    Manifest,
    Measured,
    StepForm,
    pack_manifest,
    unpack_manifest,
)
from mekt.errors import ReleaseError
from mekt.modality import Modality, Scaling, WindowSpec

Body = dict[str, Any]


def encoder(name: str) -> EncoderEntry:
    return EncoderEntry(
        modality=Modality(name=name, shape=(3,), rate_hz=50.0, unit="g"),
        scaling=Scaling(mean=(0.0, 0.5, 1.0), std=(1.0, 2.0, 0.25)),
        architecture="conv",
        embedding=4,
        parameters=100,
        operations=2000,
        file=f"encoder-{name}.onnx",
    )


FILES = ("encoder-acc.onnx", "encoder-gyro.onnx", "classifier-fused.onnx")
MANIFEST = Manifest(
    federation="ward-3",
    round=7,
    opset=17,
    window=WindowSpec(window_s=1.0, stride_s=0.5),
    encoders=(encoder("acc"), encoder("gyro")),
    classifiers={"fused": ClassifierEntry(modalities=("acc", "gyro"), file="classifier-fused.onnx")},
    labels=("sit", "Treppe hinab ↓"),
    files={name: FileEntry(sha256="5" * 64, size_bytes=10) for name in FILES},
    metrics={"weighted_f1/fused": 0.75},
    parity=dict.fromkeys(FILES, 3e-8),
)
PACKED = pack_manifest(MANIFEST)

LOST = {"fused": 0.001}
INT8 = Int8Form(file="encoder-acc-int8.onnx", how="static", f1_lost=LOST)
STEP = StepForm(
    file="encoder-acc-step.onnx",
    samples=8,
    takes=23,
    history=71,
    state={"features": (64, 7)},
    operations=300,
    f1_lost=LOST,
)
FORMS = (*FILES, INT8.file, STEP.file)
FINISHED = replace(
    MANIFEST,
    encoders=(replace(encoder("acc"), int8=INT8, step=STEP), encoder("gyro")),
    files={name: FileEntry(sha256="5" * 64, size_bytes=10 if name in FILES else 4) for name in FORMS},
    measured=Measured(machine="2 cores", onnxruntime="1.32.0", latency_ms=dict.fromkeys(FORMS, 0.5)),
)


def body_of(raw: bytes = PACKED) -> Body:
    body: Body = json.loads(raw)
    del body["digest"]
    return body


def sealed(body: Body) -> bytes:
    """The bytes that a manifest of this body would have, with the right digest: what a forger would write."""

    def text(table: Body) -> bytes:
        return (json.dumps(table, indent=2, sort_keys=True) + "\n").encode()

    return text(body | {"digest": hashlib.sha256(text(body)).hexdigest()})


def test_what_was_packed_is_read_back() -> None:
    assert unpack_manifest(PACKED) == MANIFEST


def test_the_forgers_seal_is_the_real_one_so_that_what_follows_is_refused_for_other_reasons() -> None:
    assert sealed(body_of()) == PACKED


def test_equal_manifests_have_equal_bytes_in_whatever_order_they_were_made() -> None:
    turned = replace(
        MANIFEST, files=dict(reversed(MANIFEST.files.items())), parity=dict.fromkeys(reversed(FILES), 3e-8)
    )
    assert pack_manifest(turned) == PACKED


def test_a_whole_number_as_a_metric_is_read_back_as_equal() -> None:
    manifest = replace(MANIFEST, metrics={"reconstruction": 1})
    assert unpack_manifest(pack_manifest(manifest)) == manifest


def test_any_changed_bit_is_found() -> None:
    for bit in range(8 * len(PACKED)):
        changed = bytearray(PACKED)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ReleaseError):
            unpack_manifest(bytes(changed))


def test_any_cut_is_found() -> None:
    for length in range(len(PACKED)):
        with pytest.raises(ReleaseError):
            unpack_manifest(PACKED[:length])


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_release_error(raw: bytes) -> None:
    with pytest.raises(ReleaseError):
        unpack_manifest(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(body_of())), JSON)
def test_no_json_in_any_field_raises_anything_but_a_release_error(field: str, value: object) -> None:
    try:
        accepted = unpack_manifest(sealed(body_of() | {field: value}))
    except ReleaseError:
        return
    assert pack_manifest(accepted) == sealed(body_of() | {field: value})


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps(json.loads(PACKED)).encode(),
        PACKED + b"\n",
        b" " + PACKED,
        PACKED.replace(b'"format": 2,', b'"format": 2,\n  "format": 2,'),
        PACKED.replace(b"0.75", b"7.5e-1"),
        PACKED.replace(b"\\u2193", "↓".encode()),
    ],
    ids=["compact", "longer", "indented", "key twice", "other notation", "not escaped"],
)
def test_the_same_content_in_other_bytes_is_refused(raw: bytes) -> None:
    assert raw != PACKED
    with pytest.raises(ReleaseError, match="copy the release again"):
        unpack_manifest(raw)


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"1" * 10_000, b"[]", b"null", b"\xff", b""])
def test_what_is_no_table_is_refused(raw: bytes) -> None:
    with pytest.raises(ReleaseError, match="copy the release again"):
        unpack_manifest(raw)


def test_text_that_is_longer_than_any_manifest_is_not_even_read() -> None:
    """Of lists in lists JSON makes thirty times as many bytes."""
    with pytest.raises(ReleaseError, match=f"more than {LARGEST_MANIFEST_BYTES} bytes"):
        unpack_manifest(b"[" + b"[]," * (LARGEST_MANIFEST_BYTES // 3) + b"[]]")


def test_a_newer_format_asks_for_a_newer_mekt() -> None:
    with pytest.raises(ReleaseError, match=rf"format {FORMAT + 1} is newer than {FORMAT}.*install a newer Mekt"):
        unpack_manifest(sealed({"format": FORMAT + 1, "of": "which nothing is known"}))


TRICKS = [
    "../escaped.onnx",
    "/etc/passwd",
    "a/b",
    ".",
    "..",
    "",
    ".hidden",
    "a\x00b",
    "C:\\x",
    "a\nb",
    "x" * 65,
    "\uff41",
]


@pytest.mark.parametrize("name", TRICKS)
@pytest.mark.parametrize("place", ["files", "encoder", "classifier"])
def test_a_file_name_that_leads_elsewhere_is_refused(name: str, place: str) -> None:
    body = body_of()
    if place == "files":
        body["files"][name] = body["files"].pop(FILES[0])
        body["parity"][name] = body["parity"].pop(FILES[0])
    if place in ("files", "encoder"):
        body["encoders"][0]["file"] = name
    if place == "classifier":
        body["classifiers"]["fused"]["file"] = name
    with pytest.raises(ReleaseError, match="expected text like"):
        unpack_manifest(sealed(body))


def test_the_manifest_does_not_name_itself_as_a_model() -> None:
    body = body_of()
    for table in ("files", "parity"):
        body[table]["manifest.json"] = body[table].pop(FILES[0])
    body["encoders"][0]["file"] = "manifest.json"
    with pytest.raises(ReleaseError, match="files: expected exactly one entry"):
        unpack_manifest(sealed(body))


def without(table: str, key: str) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        del body[table][key]

    return change


def put(value: object, *path: str | int) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        place: Any = body
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put("gyro", "encoders", 0, "modality", "name"), "encoders: a modality occurs twice"),
        (put([0.0], "encoders", 0, "scaling", "mean"), "scaling: expected 3 means and deviations"),
        (
            put([1.0, 1.0, 0.0], "encoders", 0, "scaling", "std"),
            r"scaling.std\[2\]: expected more than 0",
        ),
        (put({"window_s": 1e6, "stride_s": 1e6}, "window"), "a window of acc holds more than"),
        (put(["acc", "acc"], "classifiers", "fused", "modalities"), "a name occurs twice"),
        (put(["acc", "rgb"], "classifiers", "fused", "modalities"), "one has no encoder here"),
        (put([], "classifiers", "fused", "modalities"), "expected at least 1 entries"),
        (put(["sit", "sit"], "labels"), "labels: a name occurs twice"),
        (put([], "labels"), "labels: the classifiers have none"),
        (put(["si\nt"], "labels"), r"labels\[0\]: expected text like"),
        (put(["\ud800"], "labels"), r"labels\[0\]: expected text like"),
        (put({"a b": 1.0}, "metrics"), "metrics, key: expected text like"),
        (put({"f1": float("nan")}, "metrics"), "metrics.f1: expected a number"),
        (put("encoder-acc.onnx", "encoders", 1, "file"), "files: expected exactly one entry"),
        (put({"sha256": "5" * 64, "size_bytes": 1}, "files", "more.onnx"), "files: expected exactly one entry"),
        (put("A" * 64, "files", FILES[0], "sha256"), "sha256: expected text like"),
        (put(0, "files", FILES[0], "size_bytes"), "size_bytes: expected at least 1"),
        (put(1 << 40, "files", FILES[0], "size_bytes"), "size_bytes: expected at most"),
        (put(-1e-9, "parity", FILES[0]), "expected at least 0"),
        (without("files", FILES[0]), "files: expected exactly one entry"),
        (without("parity", FILES[0]), "parity: expected exactly one number for each encoder"),
        (put(1, "format"), "format: expected at least 2"),
        (put("x", "more"), "more: unknown key"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_by_name(change: Callable[[Body], None], problem: str) -> None:
    body = body_of()
    change(body)
    with pytest.raises(ReleaseError, match=problem):
        unpack_manifest(sealed(body))


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ReleaseError, match=r"federation: .*\n.*round: .*\n.*metrics\.f1: "):
        pack_manifest(replace(MANIFEST, federation="a b", round=-1, metrics={"f1": float("inf")}))


def test_an_encoder_is_found_by_its_modality() -> None:
    assert MANIFEST.encoder("gyro") == encoder("gyro")
    assert MANIFEST.encoder("depth") is None
    assert [each.name for each in MANIFEST.modalities] == ["acc", "gyro"]


# Finished releases


def test_a_finished_release_says_all_about_its_other_forms() -> None:
    packed = pack_manifest(FINISHED)
    assert unpack_manifest(packed) == FINISHED
    assert FINISHED.encoders[0].files == (FILES[0], INT8.file, STEP.file)
    assert sealed(body_of(packed)) == packed


@pytest.mark.parametrize(
    ("int8_ms", "file"), [(0.4, INT8.file), (0.5, INT8.file), (0.6, FILES[0])], ids=["faster", "as fast", "slower"]
)
def test_the_smallest_form_that_is_not_slower_is_run(int8_ms: float, file: str) -> None:
    assert FINISHED.measured is not None
    latency_ms = {**FINISHED.measured.latency_ms, INT8.file: int8_ms}
    finished = replace(FINISHED, measured=replace(FINISHED.measured, latency_ms=latency_ms))
    assert finished.file_to_run(finished.encoders[0]) == file
    assert finished.file_to_run(finished.encoders[1]) == FILES[1]


def test_a_small_form_that_is_larger_is_not_run() -> None:
    files = {**FINISHED.files, INT8.file: FileEntry(sha256="5" * 64, size_bytes=11)}
    finished = replace(FINISHED, files=files)
    assert finished.file_to_run(finished.encoders[0]) == FILES[0]


def test_without_figures_an_encoder_is_run_as_it_was_trained() -> None:
    unmeasured = replace(FINISHED, measured=None)
    assert unmeasured.file_to_run(unmeasured.encoders[0]) == FILES[0]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put(0.006, "encoders", 0, "int8", "f1_lost", "fused"), "f1_lost.fused: expected at most 0.005"),
        (put({}, "encoders", 0, "step", "f1_lost"), "f1_lost: expected at least 1 entries"),
        (put({"other": 0.0}, "encoders", 0, "step", "f1_lost"), "f1_lost: expected exactly one number for each of"),
        (put("none", "encoders", 0, "int8", "how"), "how: expected one of"),
        (put(INT8.file, "encoders", 0, "step", "file"), "files: expected exactly one entry"),
        (put(FILES[0], "encoders", 0, "int8", "file"), "files: expected exactly one entry"),
        (put([1 << 20, 1 << 20], "encoders", 0, "step", "state", "features"), "state: holds more than"),
        (put([0], "encoders", 0, "step", "state", "features"), r"state.features\[0\]: expected at least 1"),
        (put([], "encoders", 0, "step", "state", "features"), "expected at least 1 entries"),
        (put({f"s{i}": [1] for i in range(9)}, "encoders", 0, "step", "state"), "expected at most 8 entries"),
        (put(7, "encoders", 0, "step", "takes"), "takes: expected at least the samples that are new"),
        (put(22, "encoders", 0, "step", "history"), "takes: expected at least the samples that are new"),
        (put(51, "encoders", 0, "step", "takes"), "takes more samples than a window has"),
        (put(0, "encoders", 0, "operations"), "operations: expected at least 1"),
        (put({}, "measured", "latency_ms"), "latency_ms: expected exactly one number for each file"),
        (put(0, "measured", "latency_ms", FILES[0]), "expected more than 0"),
        (put("a\nb", "measured", "machine"), "machine: expected text like"),
    ],
)
def test_forms_that_contradict_the_release_are_refused_by_name(change: Callable[[Body], None], problem: str) -> None:
    body = body_of(pack_manifest(FINISHED))
    change(body)
    with pytest.raises(ReleaseError, match=problem):
        unpack_manifest(sealed(body))
