"""A made-up person with sensors on the waist and a depth camera in the room: recordings that need no download.

One body model drives all modalities: which way the trunk leans (posture), how high the hip is, the phase and strength
of the gait. `acc` is gravity in the body's frame plus movement (g), `gyro` the trunk's rotation (rad/s), `depth` an
image of a figure in front of a wall (m). Persons differ in gait, build and how the sensor is worn; every activity is entered
and left by a movement, as people do. Shapes: n samples at 50 Hz, f frames at 10 Hz of 24 x 32 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mekt.modality import Modality
from sensors.recording import ACC, GYRO, Labels, Recording, Segment, Stream

Array = NDArray[np.float64]
DEPTH = Modality(name="depth", shape=(24, 32), rate_hz=10.0, unit="m")
MODALITIES = {"acc": ACC, "gyro": GYRO, "depth": DEPTH}
WALL_M = 3.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Activity:
    """Trunk lean (rad from upright), hip height (share of standing), gait strength and relative frequency."""

    name: str
    lean: float
    hip: float
    gait: float = 0.0
    pace: float = 1.0
    climb: float = 0.0


ACTIVITIES = (
    _Activity(name="walk", lean=0.05, hip=1.0, gait=0.30),
    _Activity(name="climb", lean=0.16, hip=1.0, gait=0.26, pace=0.85, climb=0.6),
    _Activity(name="descend", lean=-0.02, hip=1.0, gait=0.38, pace=1.05, climb=-0.5),
    _Activity(name="sit", lean=0.20, hip=0.55),
    _Activity(name="stand", lean=0.03, hip=1.0),
    _Activity(name="lie", lean=1.52, hip=0.18),
    _Activity(name="fall", lean=1.35, hip=0.12),
)
CLASSES = tuple(activity.name for activity in ACTIVITIES)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Person:
    step_hz: float
    vigour: float
    height_m: float
    distance_m: float
    mounting: Array
    noise_g: float
    sway: float


def simulate(
    subject: int, seed: int, duration_s: float, modalities: Sequence[str] = ("acc", "gyro", "depth")
) -> Recording:
    """A labelled recording of `duration_s` of person `subject`; the same for the same subject and seed.

    Raises:
        ValueError: for a modality that the simulator does not have.
    """
    unknown = sorted(set(modalities) - set(MODALITIES))
    if unknown:
        raise ValueError(f"the simulator has no {', '.join(unknown)}; it has {', '.join(MODALITIES)}")
    # The body's own generator comes first, so that a recording does not depend on which modalities are asked for.
    body, acc_noise, gyro_noise, depth_noise = (np.random.default_rng((seed, subject, part)) for part in range(4))
    person = _person(body)
    t_s = np.arange(int(duration_s * ACC.rate_hz)) / ACC.rate_hz
    label, lean, hip, gait, pace, climb = _story(body, t_s)
    phase = 2 * np.pi * np.cumsum(person.step_hz * pace) / ACC.rate_hz
    sway = person.sway * np.sin(2 * np.pi * 0.23 * t_s + body.uniform(0, 6)) + 0.02 * np.sin(2 * np.pi * 0.07 * t_s)
    lean = lean + sway + 0.06 * gait * person.vigour * np.sin(phase)
    streams: dict[str, Stream] = {}
    if "acc" in modalities:
        values = _acceleration(person, lean, hip, gait, climb, phase) @ person.mounting.T
        values += acc_noise.normal(0, person.noise_g, values.shape)
        streams["acc"] = Stream(modality=ACC, t_s=t_s, values=np.clip(values, -4, 4).astype(np.float32))
    if "gyro" in modalities:
        values = _rotation(person, lean, gait, climb, phase) @ person.mounting.T
        values += gyro_noise.normal(0, 0.03, values.shape) + gyro_noise.normal(0, 0.02, 3)
        streams["gyro"] = Stream(modality=GYRO, t_s=t_s, values=np.clip(values, -17, 17).astype(np.float32))
    if "depth" in modalities:
        every = int(ACC.rate_hz / DEPTH.rate_hz)
        frames = _frames(person, lean[::every], hip[::every], gait[::every], phase[::every], t_s[::every], depth_noise)
        streams["depth"] = Stream(modality=DEPTH, t_s=t_s[::every], values=frames)
    segment = Segment(name="day", streams=streams, labels=Labels(t_s=t_s, values=label))
    return Recording(name=f"simulated-{subject}", segments=(segment,), classes=CLASSES)


def _person(rng: np.random.Generator) -> _Person:
    tilt, turn = rng.normal(0, 0.12), rng.normal(0, 0.25)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    return _Person(
        step_hz=rng.uniform(1.6, 2.1),
        vigour=rng.uniform(0.7, 1.3),
        height_m=rng.uniform(1.55, 1.9),
        distance_m=rng.uniform(1.8, 2.6),
        mounting=about_x @ about_y,
        noise_g=rng.uniform(0.01, 0.03),
        sway=rng.uniform(0.01, 0.05),
    )


def _story(rng: np.random.Generator, t_s: Array) -> tuple[NDArray[np.int64], Array, Array, Array, Array, Array]:
    """What the person does at each instant: class, and the body's parameters with smooth changes between."""
    count = len(t_s)
    label = np.empty(count, dtype=np.int64)
    parameters = np.empty((5, count))
    at = 0
    while at < count:
        for index in rng.permutation(len(ACTIVITIES)):
            activity = ACTIVITIES[index]
            until = min(count, at + int(rng.uniform(8, 16) * ACC.rate_hz))
            label[at:until] = index
            lean = activity.lean + rng.normal(0, 0.05)
            values = (lean, activity.hip, activity.gait, activity.pace * rng.normal(1, 0.05), activity.climb)
            parameters[:, at:until] = np.array(values)[:, None]
            at = until
    # A change of posture takes about a second: a moving mean makes it, the steeper for a fall.
    kernel = np.hanning(int(1.2 * ACC.rate_hz))
    kernel /= kernel.sum()
    smooth = np.array(
        [np.convolve(np.pad(row, len(kernel) // 2, mode="edge"), kernel, mode="same") for row in parameters]
    )
    smooth = smooth[:, len(kernel) // 2 : len(kernel) // 2 + count]
    return label, smooth[0], smooth[1], smooth[2], smooth[3], smooth[4]


def _acceleration(person: _Person, lean: Array, hip: Array, gait: Array, climb: Array, phase: Array) -> Array:
    """Body-frame acceleration (n, 3) in g: x up along the trunk, y to the side, z to the front."""
    strength = gait * person.vigour
    bounce = strength * (np.sin(2 * phase) + 0.35 * np.sin(4 * phase + 0.6) + 0.25 * climb * np.sin(phase))
    side = 0.5 * strength * np.sin(phase + 0.4)
    front = strength * (0.45 * np.sin(2 * phase + 1.1) + 0.3 * climb * np.sin(2 * phase))
    # The hip's own acceleration: what makes sitting down soft and a fall hard.
    drop = np.gradient(np.gradient(hip * person.height_m * 0.55)) * ACC.rate_hz**2 / 9.81
    up = np.cos(lean) + bounce + drop
    return np.stack([up, side, np.sin(lean) + front], axis=1)


def _rotation(person: _Person, lean: Array, gait: Array, climb: Array, phase: Array) -> Array:
    """Body-frame rotation (n, 3) in rad/s: about the trunk, about the side axis (leaning), about the front axis."""
    strength = gait * person.vigour
    return np.stack(
        [
            2.2 * strength * np.sin(phase + 0.3),
            np.gradient(lean) * ACC.rate_hz + 1.2 * strength * np.sin(2 * phase) * (1 + 0.4 * climb),
            1.4 * strength * np.sin(phase + 1.5),
        ],
        axis=1,
    )


def _frames(
    person: _Person, lean: Array, hip: Array, gait: Array, phase: Array, t_s: Array, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Depth images (f, 24, 32): an ellipse for the trunk and a disc for the head, in front of wall and floor."""
    rows, columns = DEPTH.shape
    y, x = np.meshgrid(np.linspace(2.2, 0.0, rows), np.linspace(-1.6, 1.6, columns), indexing="ij")
    away = person.distance_m + 0.3 * np.sin(2 * np.pi * 0.05 * t_s) * (gait > 0.1)
    place = 0.5 * np.sin(2 * np.pi * 0.04 * t_s) + 0.05 * np.sin(phase) * gait
    hip_m = np.maximum(0.15, hip * 0.53 * person.height_m)
    trunk_m = 0.30 * person.height_m
    centre_x = place + np.sin(lean) * trunk_m * 0.5
    centre_y = hip_m + np.cos(lean) * trunk_m * 0.5
    along = (x - centre_x[:, None, None]) * np.sin(lean)[:, None, None]
    along = along + (y - centre_y[:, None, None]) * np.cos(lean)[:, None, None]
    across = (x - centre_x[:, None, None]) * np.cos(lean)[:, None, None]
    across = across - (y - centre_y[:, None, None]) * np.sin(lean)[:, None, None]
    trunk = (along / (trunk_m * 0.75)) ** 2 + (across / 0.22) ** 2 < 1
    head = (along - trunk_m * 0.95) ** 2 + across**2 < 0.13**2
    stride = 0.18 * (gait * np.sin(phase))[:, None, None]
    legs = (np.abs(np.abs(x - place[:, None, None]) - 0.09 - np.abs(stride)) < 0.08) & (y < hip_m[:, None, None])
    images = np.where(y < 0.25, 2.8, WALL_M) * np.ones((len(t_s), 1, 1))
    images = np.where(trunk | head | legs, away[:, None, None], images)
    images = images + rng.normal(0, 0.02, images.shape)
    images[rng.random(images.shape) < 0.01] = 0.0
    return images.astype(np.float32)
