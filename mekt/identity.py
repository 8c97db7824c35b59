"""A device's identity: a folder with its key, its certificate, and whom it trusts.

    key.pem           the private key, P-256, made here; it never leaves, and nobody but its owner may read it
    certificate.pem   what the federation's authority says of it, with the device's name
    ca.pem            the authority's own certificate, by which the broker is known
    coordinator.pub   the key that the coordinator signs rounds and releases with, in hexadecimal digits
    time              when the certificate was given, by the coordinator's clock (mekt.clock)
    token-used        the hash of the token that the key was made for

The key and the request for a certificate are made by the program `openssl`, which every Debian, Raspberry Pi OS and
Jetson image has; TLS is Python's own, and signatures need nothing (mekt.ed25519). So a device installs no package.
"""

import ssl
from pathlib import Path

from mekt import catalogue, ed25519
from mekt.credentials import check_private
from mekt.errors import MissingPackageError, SettingsError, StateError
from mekt.files import write_atomically
from mekt.login import TlsSettings
from mekt.signature import Trust

KEY, CERTIFICATE, CA, COORDINATOR = "key.pem", "certificate.pem", "ca.pem", "coordinator.pub"
OPENSSL_S = 60.0
# Openssl asks for a file of settings even where there is nothing to set.
OPENSSL_SETTINGS = b"[req]\ndistinguished_name = name\n[name]\n"


def key_and_request(key: Path, name: str) -> bytes:
    """A request for a certificate under this name, in DER, for the key in this file, which is made if there is none.

    Raises:
        MissingPackageError: when there is no program `openssl`.
        StateError: when the key cannot be made or used.
    """
    if not key.exists():
        made = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        write_private(key, made)
    check_private(key)
    import tempfile  # here and below: who has a key does without

    with tempfile.NamedTemporaryFile() as settings:
        settings.write(OPENSSL_SETTINGS)
        settings.flush()
        return _openssl(
            "req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-outform", "DER", "-config", settings.name
        )


def _openssl(*arguments: str) -> bytes:
    import subprocess

    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, check=True, timeout=OPENSSL_S)
    except FileNotFoundError as error:
        raise MissingPackageError(
            "the program openssl is not there; install it: apt-get install openssl", catalogue.OPENSSL_MISSING
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        raise StateError(
            f"openssl {arguments[0]} fails ({said[0][:200] if said else error.__class__.__name__}); "
            "if the key was damaged, remove the identity's folder and enrol anew",
            catalogue.IDENTITY_DAMAGED,
        ) from error
    return done.stdout


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody but its owner can read, at no moment.

    Raises:
        StateError: when the disk does not take it.
    """
    write_atomically(path, data, mode=0o600)


def write_certificate(path: Path, der: bytes) -> None:
    """Write a certificate as the text that TLS libraries read.

    Raises:
        StateError: when the disk does not take it.
    """
    write_atomically(path, pem(der))


def pem(certificate: bytes) -> bytes:
    """A certificate as that text."""
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def write_identity(folder: Path, *, ca: bytes, certificate: bytes, key: bytes) -> None:
    """Write a key in PEM, and certificates in DER, as the files of an identity.

    Raises:
        StateError: when the disk does not take them.
    """
    write_certificate(folder / CA, ca)
    write_private(folder / KEY, key)
    write_certificate(folder / CERTIFICATE, certificate)


def fits(certificate: Path, key: Path) -> bool:
    """Whether the file has a certificate, and it is that of this key.

    Raises:
        StateError: when one cannot be read.
    """
    try:
        # An encrypted key must not ask a terminal for its password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        return False
    except OSError as error:
        raise StateError(
            f"{certificate} or {key}: cannot be read ({error.strerror}); mend permissions", catalogue.of_disk(error)
        ) from error
    return True


def tls_settings(folder: Path) -> TlsSettings:
    """An identity's files as the link's settings name them."""
    return TlsSettings(ca=str(folder / CA), certificate=str(folder / CERTIFICATE), key=str(folder / KEY))


class KeptTrust:
    """Trust in a coordinator's signatures that lasts over a restart: the newest number seen is kept in a file."""

    def __init__(self, key: Path, newest: Path) -> None:
        """Take up what was kept.

        Args:
            key: the file with the coordinator's public key.
            newest: the file for the number; there need not be one yet.

        Raises:
            SettingsError: when there is no such key.
            StateError: when the number cannot be read.
        """
        self._path = newest
        try:
            number = int(newest.read_text(encoding="ascii"))
        except FileNotFoundError:
            number = 0
        except (OSError, ValueError) as error:
            raise StateError(
                f"{newest}: no number can be read there; remove it, and older signatures are taken once more",
                catalogue.STATE_DAMAGED,
            ) from error
        self.trust = Trust(read_public(key), number)
        self._kept = number

    def keep(self) -> None:
        """Have the newest number on disk.

        Raises:
            StateError: when the disk does not take it.
        """
        if self.trust.newest != self._kept:
            write_atomically(self._path, str(self.trust.newest).encode())
            self._kept = self.trust.newest


def read_public(path: Path) -> bytes:
    """The coordinator's public key out of its file.

    Raises:
        SettingsError: when it is not there, or none.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not hexadecimal"
        raise SettingsError(f"{path}: no public key can be read ({why}); enrol anew", catalogue.KEY_UNUSABLE) from error
    if len(key) != ed25519.KEY_BYTES:
        raise SettingsError(
            f"{path}: a public key has {ed25519.KEY_BYTES} bytes, this one {len(key)}; enrol anew",
            catalogue.KEY_UNUSABLE,
        )
    return key
