"""The coordinator's signatures on rounds and releases: a key in two files, and a number that only grows.

    signing.key       the key that signs, Ed25519
    coordinator.pub   the one that checks, in hexadecimal digits, for devices and wearables

The number is in the database that a signer is given: the column `COLUMN` of the table `federation`, which has one row.
It is durable before anybody sees a signature with it, and grows over every process that signs.
"""

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coordinator.certificates import private_pem
from mekt.credentials import check_private
from mekt.database import Database
from mekt.files import write_atomically
from mekt.identity import COORDINATOR, write_private
from mekt.signature import Purpose, joined, to_sign

KEY = "signing.key"
COLUMN, FIRST_NUMBER = "next_signature INTEGER NOT NULL", 1


class Signer:
    """Signs as the coordinator. One thread at a time uses it; several processes may have one each."""

    def __init__(self, key: Ed25519PrivateKey, database: Database, now: Callable[[], float]) -> None:
        self._key, self._db, self._now = key, database, now

    @property
    def public_key(self) -> bytes:
        """The key that checks what is signed here."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, purpose: Purpose, content: bytes) -> bytes:
        """The coordinator's signature on this, under a number larger than every one before.

        Numbers follow the clock, in milliseconds, where that is ahead: who was restored from an old copy would else
        sign with numbers that devices have seen, and be taken for somebody who repeats them.

        Raises:
            StateError: when the number cannot be kept.
        """
        with self._db.transaction():
            [[following]] = self._db.rows("SELECT next_signature FROM federation")
            number = max(following, int(self._now() * 1000))
            self._db.execute("UPDATE federation SET next_signature = ?", number + 1)
        return joined(number, self._key.sign(to_sign(purpose, number, content)))


def read_key(folder: Path) -> Ed25519PrivateKey:
    """The key that signs.

    Raises:
        OSError: when it cannot be read.
        SettingsError: when others can read it too.
        ValueError: when it is no such key.
    """
    check_private(folder / KEY)
    key = load_pem_private_key((folder / KEY).read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("a key of another kind")
    return key


def make_key(folder: Path) -> None:
    """Write a new key as the two files.

    Raises:
        StateError: when the disk does not take them.
    """
    key = Ed25519PrivateKey.generate()
    write_public(folder, key.public_key().public_bytes_raw())
    write_private(folder / KEY, private_pem(key))


def write_public(folder: Path, public_key: bytes) -> None:
    """Write the key that checks, as its file.

    Raises:
        StateError: when the disk does not take it.
    """
    write_atomically(folder / COORDINATOR, public_key.hex().encode())
