"""The layouts of public sets of recordings: HAPT, UTD-MHAD and UR Fall Detection, each as one `.npz` file a subject.

Rates and units are those that the rest of Mekt uses, so that recordings of different sets make one federation.
"""

from collections.abc import Callable

import numpy as np

from mekt.modality import Modality
from sensors.stream import Array, Arrays, Recording, Segment, Stream, as_labels, as_stream, stretches

# A reader takes the file's name, its arrays and the modalities that are wanted (None: all); it loads no others.
Reader = Callable[[str, Arrays, frozenset[str] | None], Recording]

ACC = Modality(name="acc", shape=(3,), rate_hz=50.0, unit="g")
GYRO = Modality(name="gyro", shape=(3,), rate_hz=50.0, unit="rad/s")
UTD_DEPTH = Modality(name="depth", shape=(48, 64), rate_hz=30.0, unit="m")
# Eight numbers that describe the figure in a depth camera's view; each has its own unit.
URFALL_CAMERA = Modality(name="camera", shape=(8,), rate_hz=30.0, unit="mixed")
HAPT_UNLABELLED = 0


def _hapt(name: str, arrays: Arrays, wanted: frozenset[str] | None) -> Recording:
    y, exp, rate_hz = arrays["y"], arrays["exp"], _rate(arrays)
    signals = {each: arrays[each.name] for each in (ACC, GYRO) if wanted is None or each.name in wanted}
    for array in (exp, *signals.values()):
        _same_length("y", y, array)
    segments = []
    for first, last in stretches(exp):
        t_s = np.arange(last - first) / rate_hz
        streams = {each.name: as_stream(each, t_s, array[first:last]) for each, array in signals.items()}
        labels = as_labels(t_s, y[first:last])
        segments.append(Segment(name=f"exp{int(exp[first]):02d}", streams=streams, labels=labels))
    return Recording(name=name, segments=tuple(segments), label_names=_label_names(arrays, HAPT_UNLABELLED))


def _utd_mhad(name: str, arrays: Arrays, wanted: frozenset[str] | None) -> Recording:
    """The clocks of sensor and camera disagree, so a trial's frames are spread evenly over its inertial time."""
    y, rate_hz, trials = arrays["y"], _rate(arrays), arrays["trials"]
    if trials.ndim != 2 or trials.shape[1] != 8 or trials.dtype.kind not in "iu":
        raise ValueError(f"trials are {trials.dtype} {trials.shape}, expected whole numbers (k, 8)")
    signals = {each: arrays[each.name] for each in (ACC, GYRO) if wanted is None or each.name in wanted}
    for array in signals.values():
        _same_length("y", y, array)
    depth = arrays["depth"] if wanted is None or "depth" in wanted else None
    m_per_unit = np.float32(float(arrays["depth_mm_per_unit"]) / 1000)
    segments = []
    for action, trial, first, last, first_frame, last_frame, *_ in trials.tolist():
        frames = last_frame if depth is None else len(depth)
        if not 0 <= first < last <= len(y) or not 0 <= first_frame < last_frame <= frames:
            raise ValueError(f"trial {trial} of action {action} lies outside of the recording")
        t_s = np.arange(last - first) / rate_hz
        streams: dict[str, Stream] = {}
        for each, array in signals.items():
            values = array[first:last]
            streams[each.name] = as_stream(each, t_s, np.deg2rad(values) if each is GYRO else values)
        if depth is not None:
            frame_t_s = np.linspace(0, t_s[-1], last_frame - first_frame)
            streams["depth"] = as_stream(UTD_DEPTH, frame_t_s, depth[first_frame:last_frame] * m_per_unit)
        labels = as_labels(t_s, y[first:last])
        segments.append(Segment(name=f"a{action}t{trial}", streams=streams, labels=labels))
    return Recording(name=name, segments=tuple(segments), label_names=_label_names(arrays))


def _urfall(name: str, arrays: Arrays, wanted: frozenset[str] | None) -> Recording:
    """Labels are per frame. Frames in which nobody was found are missing: a hole where there are many."""
    streams: dict[str, Stream] = {}
    if wanted is None or "acc" in wanted:
        values, t_ms, good = arrays["acc"], arrays["acc_t_ms"], arrays["acc_t_ok"].astype(bool)
        for array in (t_ms, good):
            _same_length("acc", values, array)
        streams["acc"] = as_stream(ACC, t_ms[good] / 1000, values[good])
    frame_t_s = arrays["feat_t_ms"].astype(np.float64) / 1000
    if wanted is None or "camera" in wanted:
        streams["camera"] = as_stream(URFALL_CAMERA, frame_t_s, arrays["feat"])
    segment = Segment(name=name, streams=streams, labels=as_labels(frame_t_s, arrays["y"]))
    return Recording(name=name, segments=(segment,), label_names=_label_names(arrays))


LAYOUTS: tuple[tuple[str, set[str], Reader], ...] = (
    ("UTD-MHAD", {"acc", "gyro", "depth", "trials"}, _utd_mhad),
    ("HAPT", {"acc", "gyro", "y", "exp"}, _hapt),
    ("UR Fall", {"acc", "acc_t_ms", "feat", "feat_t_ms"}, _urfall),
)


def _label_names(arrays: Arrays, unlabelled: int | None = None) -> dict[int, str]:
    values, names = arrays["label_values"], arrays["label_names"]
    if values.shape != names.shape or values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"label_values {values.shape} and label_names {names.shape} do not belong together")
    pairs = zip(values.tolist(), names.tolist(), strict=True)
    return {int(value): str(name) for value, name in pairs if value != unlabelled}


def _rate(arrays: Arrays) -> float:
    rate_hz = float(arrays["hz"])
    if not 0 < rate_hz < 1e6:
        raise ValueError(f"hz is {rate_hz}, expected a rate in samples per second")
    return rate_hz


def _same_length(name: str, array: Array, other: Array) -> None:
    if array.ndim == 0 or other.ndim == 0 or len(array) != len(other):
        raise ValueError(f"{name} has shape {array.shape}, another array of the same rows {other.shape}")
