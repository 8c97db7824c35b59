"""What a way to learn together must offer to take part in a comparison."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mekt.learning import Arrays

# What crosses the wire in one direction for one device and round: modality, or modality/architecture -> bytes.
Payload = Mapping[str, bytes]


class Contender(Protocol):
    """One run of one method over one arena, round by round; equal seeds give equal results.

    The engine draws the participants, carries the payloads as bytes and counts them; a contender that has devices learn
    from anything else than what is handed to it here cheats. The bounds do, and exchange nothing.
    """

    @property
    def uses_proxy(self) -> bool:
        """True when devices need the proxy set, which then crosses the wire once for each."""
        ...

    def announce(self, number: int, device: str) -> Payload:
        """What this participant of round `number` (from 0) needs beside the proxy set."""
        ...

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """The device's own work in a round; gives what it sends back. `received` is what `announce` gave for it.

        Several devices may be at it at a time, each in a thread of its own.

        Raises:
            ValueError: when its model has diverged.
        """
        ...

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """The coordinator's work: participant -> what it sent, in sorted order of names."""
        ...

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        """Embeddings (N, D) of normalised windows, per modality, by each model that counts.

        That is the global encoders; where there are none it is every device's own, and the mean of their scores counts.
        """
        ...


@runtime_checkable
class Classifier(Protocol):
    """A contender that has learned to classify by itself, beside the probe that is made of its embeddings."""

    def predict(self, windows: Arrays) -> Mapping[tuple[str, ...], NDArray[np.int64]]:
        """Class indexes (N,) of normalised windows, by each group of modalities that it has a head for."""
        ...
