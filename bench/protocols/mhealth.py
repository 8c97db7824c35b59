"""MHEALTH (UCI 319): ten people with three inertial units, twelve activities.

The roles of people, six clients, one who gives labels, one who gives the proxy set and two who are only tested, move on
by two people with each rotation: 9-10, 1-2, 3-4, 5-6 and 7-8 are tested. Every client is one device with two of the
three modalities; a modality joins all positions on the body (sensors/uci.py).

Windows are those of the other set of everyday activities, HAPT: 2.56 s, half of each shared with the next. What is
outside of every activity, most of the recordings, is learned from without labels and never scored.
"""

from pathlib import Path

from bench.protocol import ProtocolSpec, Roles
from mekt.modality import WindowSpec
from sensors.uci import MHEALTH, MHEALTH_LABELS, mhealth_file

PEOPLE = 10
SHIFTS = (0, 2, 4, 6, 8)


def people(first: int, last: int, shift: int) -> tuple[str, ...]:
    """The subjects at these positions, both counted from 1, moved on by `shift` people."""
    return tuple(f"subject{(position - 1 + shift) % PEOPLE + 1}" for position in range(first, last + 1))


def rotated(shift: int) -> Roles:
    """The roles, moved on by `shift` people."""
    return Roles(
        clients=tuple((name,) for name in people(1, 6, shift)),
        labelled=people(7, 7, shift),
        proxy=people(8, 8, shift),
        test=people(9, 10, shift),
    )


def locate(data: Path, name: str) -> Path:
    """The file of a subject: in `mhealth` below the folder of all data where there is such a folder, else in that one.

    Raises:
        SensorError: when it is not there, naming where to fetch the set.
    """
    inner = data / "mhealth"
    return mhealth_file(inner if inner.is_dir() else data, int(name.removeprefix("subject")))


PROTOCOL = ProtocolSpec(
    name="mhealth",
    modalities=tuple(each.modality for each in MHEALTH.signals),
    window=WindowSpec(window_s=2.56, stride_s=1.28),
    classes=tuple(MHEALTH_LABELS.values()),
    rotations=tuple(rotated(shift) for shift in SHIFTS),
    sets=(("acc", "gyro"), ("gyro", "mag"), ("acc", "mag")),
    share=1 / 2,
    locate=locate,
    page=MHEALTH.page,
)
