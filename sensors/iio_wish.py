"""What is wanted of an IIO device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mekt.modality import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A modality and the kernel's kind of channel that gives it."""

    modality: Modality
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How it is to run: at which rate, how long samples may gather, by which trigger; how the chip is mounted.

    `ranges` has the largest value that is expected of a kind of channel, in our unit.
    """

    rate_hz: float
    batch_s: float = 0.2
    trigger: str = ""
    mount: Sequence[float] = ()
    ranges: Mapping[str, float] = field(default_factory=dict)
