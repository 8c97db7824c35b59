"""A made-up person with sensors on the waist and a depth camera in the room: recordings that need no download.

One body drives all modalities: which way the trunk leans, how high the hip is, the phase and strength of the gait.
`acc` is gravity in the body's frame plus movement (g), `gyro` the trunk's rotation (rad/s), `depth` an image of a
figure in front of a wall (m, 0 where the camera saw nothing). Persons differ in gait, build and how the sensors are
worn. A spell of an activity begins with the movement into it. No modality alone tells all activities apart: the
gyroscope does not know postures, the camera not stairs, and how the sensors are worn blurs sitting and standing.

Shapes: n samples at 50 Hz, f frames at 10 Hz of 24 x 32 pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import Bounds
from sensors.faults import FaultSettings
from sensors.layouts import ACC, GYRO
from sensors.replay import Speed, in_real_time, playing
from sensors.source import Floats, Seconds, SensedNames, Source, named_once
from sensors.stream import Labels, Recording, Segment, Stream

Doubles = NDArray[np.float64]
DEPTH = Modality(name="depth", shape=(24, 32), rate_hz=10.0, unit="m")
MODALITIES = {each.name: each for each in (ACC, GYRO, DEPTH)}
Number = Annotated[int, Bounds(low=0, high=2**31)]
# Four hours of all modalities are half a gigabyte.
LONGEST_SIMULATION_S = 14_400.0
SAMPLES_PER_FRAME = round(ACC.rate_hz / DEPTH.rate_hz)
GRAVITY_M_S2 = 9.81
# Beyond these a sensor of the kind that people wear gives its largest value.
LARGEST_ACC_G = 8.0
LARGEST_GYRO_RAD_S = 17.0
WALL_M = 3.5
FLOOR_M = 2.8
# Images are made so many at a time: a long recording needs little more memory than its frames.
FRAMES_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class _Activity:
    """How the body is in it, how long the movement into it takes and, from and to, a spell of it.

    Trunk lean (rad from upright), hip height and gait frequency (shares of the person's own when standing and walking),
    gait strength (g), and how much the gait climbs (above 0) or descends.
    """

    name: str
    lean: float
    hip: float
    gait: float = 0.0
    pace: float = 1.0
    climb: float = 0.0
    onset_s: float = 1.2
    spell_s: tuple[float, float] = (8.0, 16.0)


ACTIVITIES = (
    _Activity(name="walk", lean=0.05, hip=1.0, gait=0.30),
    _Activity(name="climb", lean=0.14, hip=1.0, gait=0.24, pace=0.9, climb=0.6),
    _Activity(name="descend", lean=0.0, hip=1.0, gait=0.38, pace=1.05, climb=-0.5),
    _Activity(name="sit", lean=0.28, hip=0.55),
    _Activity(name="stand", lean=0.03, hip=1.0),
    _Activity(name="lie", lean=1.50, hip=0.35, onset_s=2.0),
    _Activity(name="fall", lean=1.35, hip=0.12, onset_s=0.6, spell_s=(4.0, 8.0)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Person:
    """What stays the same in all that a person does; `mounting` (3, 3) turns the body's axes into the sensors'."""

    step_hz: float
    vigour: float
    height_m: float
    distance_m: float
    mounting: Doubles
    noise_g: float
    sway: float
    sway_phase: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Body:
    """The body over time, each (n,): an activity's numbers, and the phase of the gait (rad)."""

    lean: Doubles
    hip: Doubles
    gait: Doubles
    climb: Doubles
    phase: Doubles


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorSettings:
    """A made-up person, number `subject`; `seed` and `duration_s` (of the recording) are the simulator's.

    `speed` is how many times faster than real time; 1e6 is as fast as anything reads. With `live` times are those of
    the playing, so that its windows align with other sensors'; without, they begin at 0. `faults` are what goes wrong.
    """

    kind: Literal["simulator"] = "simulator"
    modalities: SensedNames
    subject: Number
    seed: Number = 0
    duration_s: Annotated[float, Bounds(low=1, high=LONGEST_SIMULATION_S)] = 600.0
    speed: Speed = 1.0
    live: bool = False
    faults: FaultSettings | None = None

    def __post_init__(self) -> None:
        named_once(self.modalities)
        in_real_time(self.speed, live=self.live)
        if unknown := [name for name in self.modalities if name not in MODALITIES]:
            raise ValueError(f"modalities: the simulator has no {', '.join(unknown)}; it has {', '.join(MODALITIES)}")

    def source(self, base: Path) -> Source:
        """The person as a source."""
        recording = simulate(self.subject, seed=self.seed, duration_s=self.duration_s, modalities=self.modalities)
        return playing(recording, self.modalities, speed=self.speed, live=self.live, faults=self.faults)


def simulate(
    subject: int, *, seed: int = 0, duration_s: float, modalities: Sequence[str] = ("acc", "gyro", "depth")
) -> Recording:
    """A labelled recording of person `subject`, one segment; the same for the same subject and seed.

    The values are named as in ACTIVITIES, whose index they are. A modality's samples do not depend on which others are
    asked for, nor what is early on how long the recording is, but for its very end.

    Raises:
        SensorError: for a modality that the simulator does not have, or a time too short for a sample.
    """
    if not modalities or not duration_s * ACC.rate_hz >= 2:
        raise SensorError(
            f"{duration_s:g} s of {len(modalities)} modalities; simulate a second or more of one or more",
            catalogue.SOURCE_MISUSED,
        )
    # Each has its own generator, so that none depends on what else is drawn.
    traits, story, acc_noise, gyro_noise, depth_noise = (np.random.default_rng((seed, subject, n)) for n in range(5))
    person = _person(traits)
    t_s = np.arange(int(duration_s * ACC.rate_hz)) / ACC.rate_hz
    labels, body = _story(story, person, t_s)
    frame_t_s = t_s[::SAMPLES_PER_FRAME]
    streams: dict[str, Stream] = {}
    for name in modalities:
        match name:
            case "acc":
                streams[name] = Stream(modality=ACC, t_s=t_s, values=_acceleration(acc_noise, person, body))
            case "gyro":
                streams[name] = Stream(modality=GYRO, t_s=t_s, values=_rotation(gyro_noise, person, body))
            case "depth":
                frames = _frames(depth_noise, person, body, frame_t_s)
                streams[name] = Stream(modality=DEPTH, t_s=frame_t_s, values=frames)
            case _:
                raise SensorError(
                    f"the simulator has no {name}; it has {', '.join(MODALITIES)}: name these",
                    catalogue.MODALITY_MISSING,
                )
    segment = Segment(name="day", streams=streams, labels=Labels(t_s=t_s, values=labels))
    names = {value: activity.name for value, activity in enumerate(ACTIVITIES)}
    return Recording(name=f"simulated-{subject}", segments=(segment,), label_names=names)


def _person(rng: "np.random.Generator") -> _Person:
    tilt, turn = rng.normal(0, 0.06), rng.normal(0, 0.10)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    return _Person(
        step_hz=rng.uniform(0.8, 1.05),
        vigour=rng.uniform(0.8, 1.2),
        height_m=rng.uniform(1.55, 1.9),
        distance_m=rng.uniform(1.8, 2.6),
        mounting=about_x @ about_y,
        noise_g=rng.uniform(0.01, 0.03),
        sway=rng.uniform(0.01, 0.05),
        sway_phase=rng.uniform(0, 2 * np.pi),
    )


def _story(rng: "np.random.Generator", person: _Person, t_s: Seconds) -> tuple[NDArray[np.int64], _Body]:
    """What the person does at each instant, as the activity's index (n,), and the body: all in turn, shuffled."""
    labels = np.empty(len(t_s), dtype=np.int64)
    numbers = np.empty((5, len(t_s)))
    at = 0
    before: Doubles | None = None
    while at < len(t_s):
        for index in rng.permutation(len(ACTIVITIES)):
            activity = ACTIVITIES[index]
            end = at + int(rng.uniform(*activity.spell_s) * ACC.rate_hz)
            lean, vigour, haste = rng.normal(0, 0.05), rng.normal(1, 0.08), rng.normal(1, 0.04)
            now = np.array(
                [activity.lean + lean, activity.hip, activity.gait * vigour, activity.pace * haste, activity.climb]
            )
            before = now if before is None else before
            # From one to the other along a curve without a jerk at either end.
            share = np.clip((t_s[at:end] - t_s[at : at + 1]) / activity.onset_s, 0, 1)
            share -= np.sin(2 * np.pi * share) / (2 * np.pi)
            numbers[:, at:end] = before[:, None] + (now - before)[:, None] * share
            labels[at:end] = index
            at, before = end, now
    now_lean, hip, gait_g, pace, climb = (row for row in numbers)
    phase: Doubles = 2 * np.pi * np.cumsum(person.step_hz * pace) / ACC.rate_hz
    sway = person.sway * np.sin(2 * np.pi * 0.23 * t_s + person.sway_phase) + 0.02 * np.sin(2 * np.pi * 0.07 * t_s)
    nod = 0.06 * gait_g * person.vigour * np.sin(2 * phase)
    return labels, _Body(lean=now_lean + sway + nod, hip=hip, gait=gait_g, climb=climb, phase=phase)


def _acceleration(rng: "np.random.Generator", person: _Person, body: _Body) -> Floats:
    """Acceleration (n, 3) in g: x up along the trunk, y to the side, z to the front, but for how the sensor is worn."""
    strength, phase, climb = body.gait * person.vigour, body.phase, body.climb
    bounce = strength * (np.sin(2 * phase) + 0.35 * np.sin(4 * phase + 0.6) + 0.25 * climb * np.sin(phase))
    side = 0.5 * strength * np.sin(phase + 0.4)
    front = strength * (0.45 * np.sin(2 * phase + 1.1) + 0.3 * climb * np.sin(4 * phase))
    # The hip's own acceleration: what makes sitting down soft and a fall hard.
    drop = np.gradient(np.gradient(body.hip * person.height_m * 0.53)) * ACC.rate_hz**2 / GRAVITY_M_S2
    worn = np.stack([np.cos(body.lean) * (1 + drop) + bounce, side, np.sin(body.lean) * (1 + drop) + front], axis=1)
    values = worn @ person.mounting.T + rng.normal(0, person.noise_g, worn.shape)
    return np.clip(values, -LARGEST_ACC_G, LARGEST_ACC_G).astype(np.float32)


def _rotation(rng: "np.random.Generator", person: _Person, body: _Body) -> Floats:
    """Rotation (n, 3) in rad/s: about the trunk, about the side axis (leaning), about the front axis; with a bias."""
    strength, phase = body.gait * person.vigour, body.phase
    leaning = np.gradient(body.lean) * ACC.rate_hz + 1.2 * strength * np.sin(2 * phase) * (1 + 0.4 * body.climb)
    turning, rolling = 2.2 * strength * np.sin(phase + 0.3), 1.4 * strength * np.sin(phase + 1.5)
    bias = rng.normal(0, 0.02, 3)
    values = np.stack([turning, leaning, rolling], axis=1) @ person.mounting.T + bias
    values += rng.normal(0, 0.03, values.shape)
    return np.clip(values, -LARGEST_GYRO_RAD_S, LARGEST_GYRO_RAD_S).astype(np.float32)


def _frames(rng: "np.random.Generator", person: _Person, body: _Body, t_s: Seconds) -> Floats:
    """Depth images (f, 24, 32): a figure in front of wall and floor, with noise and pixels without a reading."""
    noise, missing = rng.spawn(2)
    images = np.empty((len(t_s), *DEPTH.shape), dtype=np.float32)
    for first in range(0, len(t_s), FRAMES_AT_ONCE):
        cut = slice(first, first + FRAMES_AT_ONCE)
        lean, hip, gait, phase = (
            each[::SAMPLES_PER_FRAME][cut, None, None] for each in (body.lean, body.hip, body.gait, body.phase)
        )
        images[cut] = _figure(person, lean, hip, gait, phase, t_s[cut, None, None])
        images[cut] += noise.normal(0, 0.02, images[cut].shape)
        images[cut][missing.random(images[cut].shape) < 0.01] = 0
    return images


def _figure(person: _Person, lean: Doubles, hip: Doubles, gait: Doubles, phase: Doubles, t_s: Doubles) -> Doubles:
    """What a perfect camera would see (k, 24, 32), of instants (k, 1, 1)."""
    y, x = np.meshgrid(np.linspace(2.2, 0.0, DEPTH.shape[0]), np.linspace(-1.6, 1.6, DEPTH.shape[1]), indexing="ij")
    away = person.distance_m + 0.3 * np.sin(2 * np.pi * 0.05 * t_s)
    place = 0.5 * np.sin(2 * np.pi * 0.04 * t_s) + 0.05 * np.sin(phase) * gait
    hip_m, trunk_m = np.maximum(0.15, hip * 0.53 * person.height_m), 0.30 * person.height_m
    right, up = x - place - np.sin(lean) * trunk_m * 0.5, y - hip_m - np.cos(lean) * trunk_m * 0.5
    along, across = right * np.sin(lean) + up * np.cos(lean), right * np.cos(lean) - up * np.sin(lean)
    trunk = (along / (trunk_m * 0.75)) ** 2 + (across / 0.22) ** 2 < 1
    head = (along - trunk_m * 0.95) ** 2 + across**2 < 0.13**2
    stride = 0.09 + np.abs(0.18 * gait * np.sin(phase))
    legs = (np.abs(np.abs(x - place) - stride) < 0.08) & (y < hip_m)
    return np.where(trunk | head | legs, away, np.where(y < 0.25, FLOOR_M, WALL_M))
