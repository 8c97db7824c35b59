"""The key under which private windows lie on a disk, and what it does: each row sealed by itself.

ChaCha20-Poly1305 (RFC 8439), as many boards have no instructions for AES. A nonce is drawn for each row: of 2^32 rows,
an age at one a second, no two have the same but by a chance of 2^-32 or so (96 bits, the birthday bound).

Where the key lies is what decides whom it keeps out. A file beside the windows protects copies of the windows' files
alone, and lets all of them be forgotten at once with the key; who has the whole disk has the key as well. One that the
service manager hands over, sealed to this machine (systemd-creds, with a TPM where there is one), protects a disk that
was taken out of it. Nothing protects from who can read this process's memory, or is root while it runs.
"""

import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.credentials import check_private
from mekt.errors import MissingPackageError, SettingsError, StateError
from mekt.files import write_atomically

REMEDY = 'in the folder of Mekt: pip install -c constraints.txt -e ".[secure]"'
# The credential's name, as in LoadCredentialEncrypted=mekt-windows-key of a systemd unit.
CREDENTIAL = "mekt-windows-key"
KEY_BYTES, LARGEST_KEY_BYTES = 32, 4096
NONCE_BYTES, TAG_BYTES = 12, 16


class Seal:
    """Seals rows and opens them. `identity` tells one key from another, and nothing of the key."""

    overhead = NONCE_BYTES + TAG_BYTES

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes at least that nobody can guess.

        Raises:
            MissingPackageError: when `cryptography` is not installed.
        """
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        except ImportError as error:
            raise MissingPackageError(
                f"windows.encrypt needs cryptography, which is not installed ({error}); {REMEDY}",
                catalogue.PACKAGE_MISSING,
            ) from error
        self.identity = hashlib.sha256(b"mekt windows key identity\0" + secret).hexdigest()[:32]
        self._cipher: Any = ChaCha20Poly1305(hashlib.sha256(b"mekt windows key\0" + secret).digest())
        self._invalid: type[Exception] = InvalidTag

    def close(self, plain: bytes | memoryview, about: bytes) -> bytes:
        """`plain` under the key, bound to `about`, which whoever opens it has to say again."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed: bytes = self._cipher.encrypt(nonce, plain, about)
        return nonce + sealed

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """What was sealed.

        Raises:
            StateError: when that was something else, or under another key.
        """
        try:
            plain: bytes = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
        except (self._invalid, ValueError) as error:
            raise StateError(
                "a private window on the disk is not what was sealed there; remove the folder of windows",
                catalogue.STATE_DAMAGED,
            ) from error
        return plain


def seal_of(made: Path, named: Path | None, environment: Mapping[str, str] = os.environ) -> Seal:
    """The seal by the key in the file `named`, or else the service manager's credential, or else the file `made`.

    The last is made where it is missing.

    Raises:
        SettingsError: when a key cannot be read, is too short, or others can read its file.
        StateError: when the key cannot be made.
        MissingPackageError: when `cryptography` is not installed.
    """
    given = environment.get("CREDENTIALS_DIRECTORY")
    credential = None if given is None else Path(given) / CREDENTIAL
    if named is not None:
        return Seal(_secret(named))
    if credential is not None and credential.is_file():
        return Seal(_secret(credential, is_private=False))
    if not made.exists():
        write_atomically(made, secrets.token_bytes(KEY_BYTES), mode=0o600)
    return Seal(_secret(made))


def _secret(path: Path, *, is_private: bool = True) -> bytes:
    """The content of a key's file; the service manager sees to the modes of its own."""
    if is_private:
        check_private(path)
    try:
        with path.open("rb") as file:
            secret = file.read(LARGEST_KEY_BYTES)
    except OSError as error:
        raise SettingsError(
            f"windows.key_file: {path} cannot be read ({error.strerror}); correct the path, or leave it out",
            catalogue.WINDOWS_KEY_UNUSABLE,
        ) from error
    if len(secret) < KEY_BYTES:
        raise SettingsError(
            f"windows.key_file: {path} holds {len(secret)} bytes, expected {KEY_BYTES} that nobody can guess; make it "
            f"by: head -c {KEY_BYTES} /dev/urandom > {path}",
            catalogue.WINDOWS_KEY_UNUSABLE,
        )
    return secret
