"""What a way to learn together must offer to take part in a comparison."""

from collections.abc import Mapping
from typing import Protocol

from mekt.learning import Arrays

# What crosses the wire in one direction for one device and round, by name.
Payload = Mapping[str, bytes]


class Contender(Protocol):
    """One run of one method over one arena, round by round; equal seeds give equal results.

    The engine draws the participants, carries the payloads as bytes and counts them; a contender that has devices learn
    from anything else than what is handed to it here cheats.
    """

    def announce(self, number: int) -> Payload:
        """What every participant of round `number` needs beside the proxy set: modality or part -> bytes."""
        ...

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        """The device's own work in a round; gives what it sends back. `received` is what concerns its modalities."""
        ...

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        """The coordinator's work: device name -> what it sent, in sorted order of names."""
        ...

    def embed(self, windows: Arrays) -> Arrays:
        """Embeddings (N, D) of normalised windows by the global encoders, of those modalities that have one."""
        ...
