"""What is wanted of an IIO device."""

from collections.abc import Sequence
from dataclasses import dataclass

from mekt.modality import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A modality and the kernel's kind of channel that gives it."""

    modality: Modality
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How it is to run: at which rate, how long samples may gather, by which trigger; how the chip is mounted."""

    rate_hz: float
    batch_s: float = 0.2
    trigger: str = ""
    mount: Sequence[float] = ()
