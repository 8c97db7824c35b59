"""The coordinator's signatures: on what, with which number, and when one is refused.

A signature is a number that only grows, and an Ed25519 signature on purpose, number and content. So what was signed for
one purpose is nothing for another, and who keeps the largest number that it has seen takes nothing older.
"""

from dataclasses import dataclass
from typing import Literal

from mekt import ed25519

Purpose = Literal["round", "release", "rollout"]
NUMBER_BYTES = 8
SIGNATURE_BYTES = NUMBER_BYTES + ed25519.SIGNATURE_BYTES
# Why a signature is refused.
Refusal = Literal["unsigned", "replayed"]


def to_sign(purpose: Purpose, number: int, content: bytes) -> bytes:
    """The bytes that the coordinator signs."""
    return b"mekt " + purpose.encode() + b"\0" + number.to_bytes(NUMBER_BYTES, "big") + content


def joined(number: int, signed: bytes) -> bytes:
    """A signature as it travels: its number, and the coordinator's 64 bytes."""
    return number.to_bytes(NUMBER_BYTES, "big") + signed


@dataclass(slots=True)
class Trust:
    """Whose signatures are taken: the holder's of the public `key`; and `newest`, the largest number seen so far."""

    key: bytes
    newest: int = 0

    def __post_init__(self) -> None:
        if len(self.key) != ed25519.KEY_BYTES:
            raise ValueError(f"a public key has {ed25519.KEY_BYTES} bytes, this one {len(self.key)}")

    def refusal(self, purpose: Purpose, content: bytes, signature: bytes) -> Refusal | None:
        """Why this is not taken, or None; then nothing older will be from now on."""
        number = int.from_bytes(signature[:NUMBER_BYTES], "big")
        signed = to_sign(purpose, number, content)
        if not ed25519.is_signed(signed, signature[NUMBER_BYTES:], self.key):
            return "unsigned"
        if number < self.newest:
            return "replayed"
        self.newest = number
        return None
