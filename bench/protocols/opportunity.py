"""OPPORTUNITY (UCI 226): four people in a flat with five inertial units on a jacket, four modes of locomotion.

Tested are the fourth and fifth run of daily life of subjects 2 and 3, as in the set's challenge (Chavarriaga et al.,
Pattern Recognition Letters 34(15), 2013). As there, the earlier runs and the drill of the same people are for learning:
each of these eight runs is a client's, without its labels. So clients know the people who are tested, from other runs;
the coordinator does not: labels come from two runs of a third person, the proxy set from two of the fourth, and the
second rotation exchanges these two. What is none of the four modes is learned from and never scored.

A window is two seconds, half of it shared with the next.
"""

from pathlib import Path
from typing import Literal

from bench.protocol import ProtocolSpec, Roles
from mekt.modality import WindowSpec
from sensors.uci import LOCOMOTION, OPPORTUNITY, opportunity_file

LEARNED = ("ADL1", "ADL2", "ADL3", "Drill")
TESTED = ("ADL4", "ADL5")
PUBLIC = ("ADL1", "ADL2")


def runs(subject: int, names: tuple[str, ...]) -> tuple[str, ...]:
    """The recordings of a subject's runs."""
    return tuple(f"S{subject}-{name}" for name in names)


def roles(labelled: int, proxy: int) -> Roles:
    """The roles where these two subjects give labels and the proxy set."""
    return Roles(
        clients=tuple((name,) for name in runs(2, LEARNED) + runs(3, LEARNED)),
        labelled=runs(labelled, PUBLIC),
        proxy=runs(proxy, PUBLIC),
        test=runs(2, TESTED) + runs(3, TESTED),
    )


def locate(data: Path, name: str) -> Path:
    """The file of a run: in `opportunity` below the folder of all data where there is such a folder, else in that one.

    Raises:
        SensorError: when it is not there, naming where to fetch the set.
    """
    inner = data / "opportunity"
    subject, run = name.removeprefix("S").split("-")
    number: int | Literal["Drill"] = "Drill" if run == "Drill" else int(run.removeprefix("ADL"))
    return opportunity_file(inner if inner.is_dir() else data, int(subject), number)


PROTOCOL = ProtocolSpec(
    name="opportunity",
    modalities=tuple(each.modality for each in OPPORTUNITY.signals),
    window=WindowSpec(window_s=2.0, stride_s=1.0),
    classes=tuple(LOCOMOTION.values()),
    rotations=(roles(1, 4), roles(4, 1)),
    sets=(("acc",), ("gyro",), ("acc", "gyro")),
    share=1 / 2,
    locate=locate,
    page=OPPORTUNITY.page,
)
