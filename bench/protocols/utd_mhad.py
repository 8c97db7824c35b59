"""UTD-MHAD: eight people, 27 actions done four times each, with an inertial sensor and a depth camera.

The roles of people, four clients, one who gives labels, one who gives the proxy set and two who are only tested, move
on by two people with each rotation: 7-8, 1-2, 3-4 and 5-6 are tested. A client is three devices, to which its trials
are dealt in turn: no trial is on two devices, and every action is on each. A device has two of the three modalities, so
every pair of modalities is on four devices, and no device has all.

A window is a whole trial, as is usual with this set, and a score is the share of trials that are right. Trials last
2.5 to 5 s; their time is stretched or pressed to 2.56 s, which also settles that the clocks of the sensors disagree.

Frames are pressed to 12 x 16 pixels and 16 a trial. A step of learning with 24 x 32 and 26 frames takes most of a
second (docs/lab.md), and this is 6.5 times less. A pixel is the mean of 4 x 4 readings where none counts as 0, so it
also says how much of it the figure fills. Ridge classifiers on such pixels of four of subjects 1 to 6 get 0.41 of the
other two's trials right, on means of the readings alone 0.35, on 24 x 32 pixels 0.44 (means over three pairs). The
first rotation tests none of these six; the other rotations do.
"""

from dataclasses import replace
from pathlib import Path

from bench.protocol import ProtocolSpec, Roles
from mekt.modality import Modality, WindowSpec
from sensors.layouts import ACC, GYRO, UTD_DEPTH
from sensors.stream import Recording, Segment, Stream

PEOPLE = 8
SHIFTS = (0, 2, 4, 6)
WINDOW_S = 2.56
FRAMES = 16
SHRINK = 4
DEPTH = Modality(
    name=UTD_DEPTH.name,
    shape=(UTD_DEPTH.shape[0] // SHRINK, UTD_DEPTH.shape[1] // SHRINK),
    rate_hz=FRAMES / WINDOW_S,
    unit=UTD_DEPTH.unit,
)


def people(first: int, last: int, shift: int) -> tuple[str, ...]:
    """The recordings of the subjects at these positions, both counted from 1, moved on by `shift` people."""
    return tuple(f"s{(position - 1 + shift) % PEOPLE + 1}" for position in range(first, last + 1))


def rotated(shift: int) -> Roles:
    """The roles, moved on by `shift` people."""
    return Roles(
        clients=tuple((name,) for name in people(1, 4, shift)),
        labelled=people(5, 5, shift),
        proxy=people(6, 6, shift),
        test=people(7, 8, shift),
    )


def locate(data: Path, name: str) -> Path:
    """The file of a recording below the folder of all data."""
    return data / "utd_mhad" / f"{name}.npz"


def prepare(recording: Recording) -> Recording:
    """The same trials, each of exactly a window's length, with small frames."""
    segments = tuple(_stretched(each) for each in recording.segments)
    return Recording(name=recording.name, segments=segments, label_names=recording.label_names)


def _stretched(trial: Segment) -> Segment:
    """The streams and the labels of a trial all begin with it, at 0, and end with it."""
    assert trial.labels is not None, "the layout gives every trial its label"
    factor = WINDOW_S / float(trial.labels.t_s[-1])
    streams = {
        name: replace(_shrunk(stream) if name == DEPTH.name else stream, t_s=stream.t_s * factor)
        for name, stream in trial.streams.items()
    }
    return replace(trial, streams=streams, labels=replace(trial.labels, t_s=trial.labels.t_s * factor))


def _shrunk(frames: Stream) -> Stream:
    height, width = DEPTH.shape
    values = frames.values.reshape(len(frames.t_s), height, SHRINK, width, SHRINK).mean(axis=(2, 4))
    return Stream(modality=DEPTH, t_s=frames.t_s, values=values)


PROTOCOL = ProtocolSpec(
    name="utd-mhad",
    modalities=(ACC, GYRO, DEPTH),
    window=WindowSpec(window_s=WINDOW_S, stride_s=WINDOW_S),
    classes=(
        "swipe left",
        "swipe right",
        "wave",
        "clap",
        "throw",
        "cross arms",
        "basketball shoot",
        "draw x",
        "draw circle clockwise",
        "draw circle counter-clockwise",
        "draw triangle",
        "bowling",
        "front boxing",
        "baseball swing",
        "tennis forehand",
        "arm curl",
        "tennis serve",
        "two-hand push",
        "knock on door",
        "catch",
        "pick up and throw",
        "jog in place",
        "walk in place",
        "sit to stand",
        "stand to sit",
        "forward lunge",
        "squat",
    ),
    rotations=tuple(rotated(shift) for shift in SHIFTS),
    sets=(("acc", "gyro"), ("gyro", "depth"), ("acc", "depth")),
    parts=3,
    share=1 / 2,
    architecture="ordered",
    # A device has a few dozen windows: with batches of 64 an epoch would be a single step, and of 16 three.
    method={"batch": 16, "local_epochs": 40},
    locate=locate,
    prepare=prepare,
    page="https://personal.utdallas.edu/~kehtar/UTD-MHAD.html, a file for each subject as sensors/recording.py says",
)
