"""Recordings in files: written and read again, and whatever is wrong with a file, one clear sentence."""

import json
import pickle  # only to write what must never be read
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import plain
from sensors.recording import read_recording, write_recording
from sensors.stream import Labels, Recording, Segment, Stream

ACC = Modality(name="acc", shape=(2,), rate_hz=10, unit="g")
DEPTH = Modality(name="depth", shape=(2, 3), rate_hz=5, unit="m")
# A modality may have any name, that of another part of the file too.
LABELS = Modality(name="labels", shape=(1,), rate_hz=1, unit="")


def stream(modality: Modality, t_s: list[float], seed: int = 0) -> Stream:
    values = np.random.default_rng(seed).normal(size=(len(t_s), *modality.shape)).astype(np.float32)
    return Stream(modality=modality, t_s=np.array(t_s), values=values)


def small() -> Recording:
    first = {"acc": stream(ACC, [0, 0.1, 0.1, 0.05]), "depth": stream(DEPTH, [0.2])}
    second = {"acc": stream(ACC, [5], 1), "depth": stream(DEPTH, [0, 1], 1)}
    labels = Labels(t_s=np.array([0, 0.1]), values=np.array([-1, 3]))
    return Recording(
        name="äpfel",
        segments=(Segment(name="a", streams=first, labels=labels), Segment(name="b", streams=second)),
        label_names={-1: "still", 3: "walk"},
    )


def written(folder: Path) -> Path:
    path = folder / "small.npz"
    write_recording(path, small())
    return path


def damaged(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The small recording's file after `change` of its arrays."""
    with np.load(written(folder), allow_pickle=False) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / "damaged.npz", **arrays)
    return folder / "damaged.npz"


def meta(**change: object) -> Callable[[dict[str, Any]], object]:
    def changed(arrays: dict[str, Any]) -> None:
        arrays["meta"] = np.array(json.dumps(json.loads(str(arrays["meta"])) | change))

    return changed


def problem(path: Path, modalities: list[str] | None = None) -> str:
    """What is said about the file, behind its path."""
    with pytest.raises(SensorError) as caught:
        read_recording(path, modalities)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def assert_same(recording: Recording, other: Recording) -> None:
    assert (recording.name, recording.label_names) == (other.name, other.label_names)
    assert recording.modalities == other.modalities
    for segment, twin in zip(recording.segments, other.segments, strict=True):
        assert segment.name == twin.name
        for name in segment.streams:
            np.testing.assert_array_equal(segment.streams[name].t_s, twin.streams[name].t_s)
            np.testing.assert_array_equal(segment.streams[name].values, twin.streams[name].values)
        assert (segment.labels is None) == (twin.labels is None)
        if segment.labels is not None and twin.labels is not None:
            np.testing.assert_array_equal(segment.labels.t_s, twin.labels.t_s)
            np.testing.assert_array_equal(segment.labels.values, twin.labels.values)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    assert_same(read_recording(written(tmp_path)), small())


@given(st.data())
def test_any_recording_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from([ACC, DEPTH, LABELS]), min_size=1, unique=True))
    finite = st.floats(-1e9, 1e9)
    segments = []
    for name in data.draw(st.lists(st.text(max_size=5), min_size=1, max_size=3)):
        streams = {each.name: stream(each, data.draw(st.lists(finite, min_size=1, max_size=4))) for each in kinds}
        marks = data.draw(st.none() | st.lists(st.tuples(finite, st.integers(-(2**63), 2**63 - 1)), max_size=4))
        labels = None
        if marks is not None:
            t_s, values = np.array([t for t, _ in marks], dtype=np.float64), [value for _, value in marks]
            labels = Labels(t_s=t_s, values=np.array(values, dtype=np.int64))
        segments.append(Segment(name=name, streams=streams, labels=labels))
    names = data.draw(st.dictionaries(st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), max_size=4))
    recording = Recording(name=data.draw(st.text(max_size=5)), segments=tuple(segments), label_names=names)
    path = tmp_path_factory.mktemp("any") / "any.npz"
    write_recording(path, recording)
    assert_same(read_recording(path), recording)


def test_the_same_recording_is_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == first


def test_only_the_modalities_named_are_read_in_their_order(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read_recording(path, ["depth"]).modalities == (DEPTH,)
    assert read_recording(path, ["depth", "acc"]).modalities == (DEPTH, ACC)


def test_a_modality_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    assert problem(written(tmp_path), ["gyro", "acc"]) == "has no modality gyro; it has acc, depth: name these"


def test_a_missing_file_is_named_with_what_its_folder_holds(tmp_path: Path) -> None:
    missing = tmp_path / "user1.npz"
    assert problem(missing) == f"no such recording in {tmp_path}, which holds no .npz file; mend the path"
    for number in range(10):
        (tmp_path / f"s{number}.npz").touch()
    listed = ", ".join(f"s{number}.npz" for number in range(8))
    assert problem(missing) == f"no such recording in {tmp_path}, which holds {listed} and 2 more; mend the path"
    assert problem(tmp_path) == "a folder, expected a recording; name an .npz file in it"
    nowhere = tmp_path / "nowhere" / "s1.npz"
    assert problem(nowhere).startswith(f"there is no folder {nowhere.parent}; mend the path, or name the recordings'")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"time,x,y,z\n0,0,0,1\n", b"\x93NUMPY", b"\x80\x04."])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.npz"
    path.write_bytes(content)
    assert problem(path) == (
        "not a readable recording, it is no .npz archive, or only a part of one; record or fetch the file again"
    )


def test_a_single_array_is_no_recording(tmp_path: Path) -> None:
    np.save(tmp_path / "acc.npy", np.zeros((4, 3)))
    assert "no .npz archive" in problem(tmp_path / "acc.npy")


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    path = tmp_path / "cut.npz"
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert "only a part of one" in problem(path)


def test_a_file_with_a_flipped_bit_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    whole = written(tmp_path).read_bytes()
    path, refused = tmp_path / "flipped.npz", 0
    for at in range(0, len(whole), 5):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            read_recording(path)
        except SensorError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 50


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (tmp_path / "exploded",)

    path = damaged(tmp_path, lambda arrays: arrays.update({"0/acc/values": np.array([Bomb()], dtype=object)}))
    assert problem(path) == (
        "not a readable recording, holds pickled objects, which are never loaded; record or fetch the file again"
    )
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    assert "no .npz archive" in problem(tmp_path / "pickle.npz")
    assert not (tmp_path / "exploded").exists()


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    path = damaged(tmp_path, lambda arrays: arrays.pop("1/depth/t_s"))
    assert problem(path).startswith("an array is missing, 1/depth/t_s")
    assert problem(path).endswith("; record or fetch the file again")


def test_unknown_arrays_are_named_with_those_of_the_layouts(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=np.zeros(3), y=np.zeros(3))
    said = problem(tmp_path / "own.npz")
    assert said.startswith("of no known layout, its arrays are x, y (Mekt needs meta; UTD-MHAD needs acc, depth, ")


@pytest.mark.parametrize(
    ("array", "value", "said"),
    [
        ("0/acc/values", np.full((4, 2), np.nan, np.float32), "acc holds values that are not finite (NaN or infinity)"),
        ("0/acc/t_s", np.full(4, np.inf), "acc holds values that are not finite (NaN or infinity)"),
        ("0/acc/t_s", np.zeros(3), "acc has times (3,) and values (4, 2), expected (n,) and (n, 2)"),
        (
            "0/depth/values",
            np.zeros((1, 3, 2)),
            "depth has times (1,) and values (1, 3, 2), expected (n,) and (n, 2, 3)",
        ),
        ("0/acc/values", np.full((4, 2), "1.0"), "acc holds float64 and <U3 instead of numbers"),
        (
            "0/label_values",
            np.array([0.5, 1]),
            "labels are float64 at times float64, expected whole numbers at numbers",
        ),
        ("0/label_values", np.array([1]), "labels are (1,) at times (2,), expected (n,) and (n,)"),
        ("0/label_t_s", np.array([0, np.nan]), "labels have times that are not finite (NaN or infinity)"),
        ("meta", np.array("{"), "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("meta", np.array("[]"), "meta: expected a table, got a list"),
    ],
)
def test_an_array_that_cannot_be_is_named(tmp_path: Path, array: str, value: np.ndarray[Any, Any], said: str) -> None:
    path = damaged(tmp_path, lambda arrays: arrays.update({array: value}))
    assert problem(path) == f"not a readable recording, {said}; record or fetch the file again"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segments": []}, "meta.segments: expected at least 1 entries, got 0"),
        ({"modalities": []}, "meta.modalities: expected at least 1 entries, got 0"),
        ({"modalities": [plain(ACC) | {"rate_hz": 0}]}, "meta.modalities[0].rate_hz: expected more than 0, got 0.0"),
        ({"label_names": {"one": "walk"}}, "meta.label_names, key: expected text like -?[0-9]{1,19}, got 'one'"),
        ({"version": 2}, "meta.version: unknown key (known here: "),
    ],
)
def test_a_head_that_cannot_be_is_explained(tmp_path: Path, change: dict[str, object], said: str) -> None:
    assert problem(damaged(tmp_path, meta(**change))).startswith(f"not a readable recording, {said}")


def test_a_recording_is_written_into_a_new_folder_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.npz"
    write_recording(path, small())
    assert [each.name for each in path.parent.iterdir()] == ["a.npz"]
    with pytest.raises(SensorError, match=r"cannot be written"):
        write_recording(path / "b.npz", small())
    (tmp_path / "taken.npz").mkdir()
    with pytest.raises(SensorError, match=r"cannot be written"):
        write_recording(tmp_path / "taken.npz", small())
