"""HAPT (UCI 341): thirty people with a smartphone at the waist, twelve activities, half of them changes of posture.

Every client is one device with one person's recording: a third of them has acc, a third gyro, a third both. The roles
of people, 23 clients, one who gives labels, one who gives the proxy set and five who are only tested, move on by five
people with each rotation. The people tested are 26-30, 1-5, 6-10, 11-15 and 16-20.

Users 21 to 25 are tested in no rotation. Whatever is tuned is tuned on `VALIDATION`, where they give labels in turn and
are scored; the other people are there without labels, and 26 to 30, the first rotation's test, not at all. No label of
anybody who is tested enters a choice.

A window is 2.56 s, every sample is part of two: the set's own windows. Stretches between activities have no label; they
are learned from on devices and in the proxy set, and never scored.
"""

from dataclasses import replace
from pathlib import Path

from bench.protocol import ProtocolSpec, Roles
from mekt.modality import WindowSpec
from sensors.layouts import ACC, GYRO

PEOPLE = 30
SHIFTS = (0, 5, 10, 15, 20)


def person(user: int) -> str:
    """The name of a user's recording."""
    return f"user{user:02d}"


def people(first: int, last: int, shift: int = 0) -> tuple[str, ...]:
    """The recordings of the users at these positions, both counted from 1, moved on by `shift` people."""
    return tuple(person((position - 1 + shift) % PEOPLE + 1) for position in range(first, last + 1))


def rotated(shift: int) -> Roles:
    """The roles, moved on by `shift` people."""
    return Roles(
        clients=tuple((name,) for name in people(1, 23, shift)),
        labelled=people(24, 24, shift),
        proxy=people(25, 25, shift),
        test=people(26, 30, shift),
    )


def validation(user: int) -> Roles:
    """`user`, one of 21 to 25, gives labels; the other four are scored."""
    return Roles(
        clients=tuple((name,) for name in people(1, 19)),
        proxy=people(20, 20),
        labelled=(person(user),),
        test=tuple(name for name in people(21, 25) if name != person(user)),
    )


def locate(data: Path, name: str) -> Path:
    """The file of a recording below the folder of all data."""
    return data / "hapt" / f"{name}.npz"


PROTOCOL = ProtocolSpec(
    name="hapt",
    modalities=(ACC, GYRO),
    window=WindowSpec(window_s=2.56, stride_s=1.28),
    classes=(
        "WALKING",
        "WALKING_UPSTAIRS",
        "WALKING_DOWNSTAIRS",
        "SITTING",
        "STANDING",
        "LAYING",
        "STAND_TO_SIT",
        "SIT_TO_STAND",
        "SIT_TO_LIE",
        "LIE_TO_SIT",
        "STAND_TO_LIE",
        "LIE_TO_STAND",
    ),
    rotations=tuple(rotated(shift) for shift in SHIFTS),
    sets=(("acc",), ("gyro",), ("acc", "gyro")),
    share=1 / 3,
    locate=locate,
    page="https://archive.ics.uci.edu/dataset/341, a file for each subject as sensors/recording.py describes it",
)
VALIDATION = replace(PROTOCOL, name="hapt-validation", rotations=tuple(validation(user) for user in range(21, 26)))
