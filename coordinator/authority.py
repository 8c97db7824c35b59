"""The federation's authority: who is who in it, decided on the coordinator's machine, kept in one folder.

    authority.key, ca.pem       signs certificates; everybody trusts ca.pem
    authority.sqlite            tokens, certificates, revocations

Its `signer` has a key and a number of its own in the same folder (coordinator/signer.py).

A device's certificate is given for a token, once, or for the certificate that it replaces; it is for the key that the
device made, which never comes here. Certificates begin in 1970: a board without a clock, which thinks that it is 1970,
can use them. Their end is watched by the broker, which has a clock.

Who is enrolled by another token has another key, and what was given for the former ones is revoked: not when it is
asked for, as the answer may be lost on its way and the device would be left with nothing, but once the device asks with
the new key for a renewal, which it is told to do.

Whatever is decided is decided and kept in one transaction: another process may revoke meanwhile. A request that comes
again has the same answer, so that a lost answer harms nobody and a flood of requests fills no disk.

It needs the package `cryptography`: pip install "mekt[authority]".
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from coordinator.certificates import (
    BEGINNING,
    LONGEST_NAME,
    certified_key,
    check_name,
    key_sha256,
    of_authority,
    of_holder,
    private_pem,
    requested_key,
    serves,
)
from coordinator.signer import COLUMN, FIRST_NUMBER, Signer, make_key, read_key, write_public
from mekt import catalogue
from mekt.clock import DAY_S, DEVICE_DAYS
from mekt.credentials import check_private
from mekt.database import Database
from mekt.errors import SettingsError, StateError
from mekt.files import make_folder, write_atomically
from mekt.identity import write_identity, write_private
from mekt.messages import Answer, Renewal, Request
from mekt.process import only_process
from mekt.token import SECRET_BYTES, Token, check_host
from mekt.topics import APPLICANT

SCHEMA = (
    (
        f"CREATE TABLE federation (name TEXT NOT NULL, {COLUMN})",
        "CREATE TABLE token (secret_sha256 BLOB PRIMARY KEY, device TEXT NOT NULL, expires_s REAL NOT NULL,"
        " key_sha256 BLOB, certificate BLOB)",
        "CREATE TABLE certificate (serial TEXT PRIMARY KEY, name TEXT NOT NULL, issued_s REAL NOT NULL,"
        " ends_s REAL NOT NULL, der BLOB NOT NULL, revoked_s REAL)",
    ),
)
AUTHORITY_DAYS = 20 * 365
SERVER_DAYS = 5 * 365
# A certificate is renewed when less than this share of its time is left.
RENEWED_AT = 1 / 3
# A token that nobody can use in time is as bad as one that can be stolen for long.
LONGEST_TOKEN_HOURS = 30 * 24.0
# How long a connection lasts that pushes a revoked device's own out; by then the broker knows of the revocation.
MINUTE_S = 60.0
# A clock that shows less was never set: no Mekt is older.
EARLIEST_NOW_S = datetime(2024, 1, 1, tzinfo=UTC).timestamp()

UNFIT_REQUEST = "it is no request for a P-256 key under this name, signed with that key"
CLOCK_UNSET = "the clock of the coordinator's machine is not set; set it, then ask again"
KEY_REVOKED = "this key was revoked; remove the identity's folder on the device, and make a new token"

# What a certificate's name says of its holder. A device's own name stands alone: no name has a colon.
Role = Literal["coordinator", "watch"]
# Who looks from beside the authority; the access list always knows it.
LOOKER = "watch:here"


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """A certificate in DER, and its private key in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Certified:
    """A certificate that was issued, and whether it still counts."""

    name: str
    issued_s: float
    ends_s: float
    revoked_s: float | None


class Authority:
    """The authority in `folder`. One thread at a time uses it; several processes may."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        """Open it.

        Raises:
            SettingsError: when there is none, or its keys are others' to read.
            StateError: when it cannot be read, or a part of it is gone.
        """
        if not (folder / "authority.key").exists():
            raise SettingsError(
                f"{folder}: there is no authority; make one with `mekt ca init`", catalogue.AUTHORITY_MISSING
            )
        self.folder, self._now = folder, now
        check_private(folder / "authority.key")
        try:
            key, signing_key = load_pem_private_key((folder / "authority.key").read_bytes(), None), read_key(folder)
            self._ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError("a key of another kind")
            if key.public_key() != self._ca.public_key():
                raise ValueError("ca.pem is not that of authority.key")
            # An empty one in its place would have forgotten whom it has revoked.
            (folder / "authority.sqlite").stat()
        except (OSError, ValueError) as error:
            raise _damaged(folder, error) from error
        self._key = key
        self._db = Database(folder / "authority.sqlite", SCHEMA)
        self.signer = Signer(signing_key, self._db, now)
        row = self._db.row("SELECT name FROM federation")
        if row is None:
            self._db.close()
            raise _damaged(folder, "authority.sqlite is empty")
        self.federation: str = row[0]

    @classmethod
    def create(cls, folder: Path, federation: str, now: Callable[[], float] = time.time) -> "Authority":
        """Make the authority of a federation in `folder`.

        Raises:
            SettingsError: when the name is too long for certificates, or this machine's clock is not set.
            StateError: when there is one already, or the rest of one, which is never overwritten; when another process
                makes it; or the disk does not take it.
        """
        _check_clock(now())
        check_name(f"coordinator:{federation}")
        with only_process(folder):
            cls._make(folder, federation, now())
        return cls(folder, now)

    @staticmethod
    def _make(folder: Path, federation: str, now_s: float) -> None:
        if (folder / "authority.key").exists():
            raise StateError(
                f"{folder}: there is an authority already; every device's certificate hangs on it. Name another folder",
                catalogue.AUTHORITY_THERE,
            )
        (folder / "authority.sqlite").touch(mode=0o600)
        with closing(Database(folder / "authority.sqlite", SCHEMA)) as database, database.transaction():
            if database.row("SELECT serial FROM certificate") is not None:
                raise _damaged(folder, "authority.key is gone")
            # What an attempt left that was cut short.
            database.execute("DELETE FROM federation")
            database.execute("INSERT INTO federation VALUES (?, ?)", federation, FIRST_NUMBER)
        key = ec.generate_private_key(ec.SECP256R1())
        ca = of_authority(key, federation, now_s + AUTHORITY_DAYS * DAY_S)
        write_atomically(folder / "ca.pem", ca.public_bytes(Encoding.PEM))
        make_key(folder)
        # The last one: with it the authority is there.
        write_private(folder / "authority.key", private_pem(key))

    def close(self) -> None:
        """Let the files go."""
        self._db.close()

    @property
    def ca(self) -> bytes:
        """The authority's certificate, in DER."""
        return self._ca.public_bytes(Encoding.DER)

    # Devices

    def token(self, device: str, *, hours: float, host: str, port: int) -> Token:
        """A token that lets this device join within so many hours.

        Raises:
            SettingsError: when the device's name is too long for certificates, the host is none, or this machine's
                clock is not set.
            StateError: when it cannot be kept.
        """
        check_host(host)
        now_s, secret = self._now(), secrets.token_bytes(SECRET_BYTES)
        expires_s = now_s + min(hours, LONGEST_TOKEN_HOURS) * 3600
        with self._db.transaction():
            bearer = self._issue(APPLICANT + device, expires_s)
            self._db.execute(
                "INSERT INTO token (secret_sha256, device, expires_s) VALUES (?, ?, ?)",
                *(_sha256(secret), device, expires_s),
            )
        return Token(
            federation=self.federation,
            device=device,
            host=host,
            port=port,
            ca=self.ca,
            certificate=bearer.certificate,
            key=bearer.key,
            coordinator=self.signer.public_key,
            secret=secret,
            made_s=now_s,
            expires_s=expires_s,
        )

    def enrol(self, device: str, request: Request) -> Answer:
        """The answer to a device that asks by a token. The same request has the same answer, however often it comes.

        Raises:
            StateError: when it cannot be kept.
        """
        key = requested_key(request.csr, device)
        with self._db.transaction():
            row = self._db.row(
                "SELECT expires_s, key_sha256, certificate FROM token WHERE secret_sha256 = ? AND device = ?",
                *(_sha256(request.token), device),
            )
            if row is None:
                return self._refused("this token is not known; make a new one with `mekt enroll token`")
            expires_s, used_for, certificate = row
            if key is None:
                return self._refused(UNFIT_REQUEST)
            if used_for == key_sha256(key):
                return self._issued(certificate)
            if used_for is not None:
                return self._refused("this token has been used; if not by this device, revoke it; then make a new one")
            if expires_s < self._now():
                return self._refused("this token has expired; make a new one with `mekt enroll token`")
            if self._now() < EARLIEST_NOW_S:
                return self._refused(CLOCK_UNSET)
            if key_sha256(key) in [certified_key(der) for der in self._revoked(device)]:
                return self._refused(KEY_REVOKED)
            answer = self._certify(device, key)
            self._db.execute(
                "UPDATE token SET key_sha256 = ?, certificate = ? WHERE secret_sha256 = ?",
                *(key_sha256(key), answer.certificate, _sha256(request.token)),
            )
        return answer

    def renew(self, device: str, request: Renewal) -> Answer:
        """The answer to a device that has a certificate, which the broker has seen: another one for the same key.

        Who has a connection from before a revocation has no key that still counts, whoever was enrolled since.

        Raises:
            StateError: when it cannot be kept.
        """
        key = requested_key(request.csr, device)
        if key is None:
            return self._refused(UNFIT_REQUEST)
        with self._db.transaction():
            mine = [each for each in self._good(device) if certified_key(each.der) == key_sha256(key)]
            if not mine:
                return self._refused("no certificate for this key counts any more; enrol the device anew")
            newest = max(mine, key=lambda each: each.ends_s)
            if not self._ends_soon(newest):
                return self._issued(newest.der)
            return self._refused(CLOCK_UNSET) if self._now() < EARLIEST_NOW_S else self._certify(device, key)

    def replace(self, device: str, request: Renewal) -> int:
        """Let what was given for a device's former keys count no more; how many certificates that were.

        `request` is signed with the key that the device has; former ones are those that were enrolled before it.
        Certificates for this very key stay, as the device may be connected by one that was renewed since.

        Raises:
            StateError: when it cannot be kept.
        """
        key = requested_key(request.csr, device)
        shown = None if key is None else key_sha256(key)
        with self._db.transaction():
            good = {each.der: certified_key(each.der) for each in self._good(device)}
            enrolled = self._enrolled_keys(device)
            if shown not in good.values() or shown not in enrolled:
                return 0
            former = enrolled[: enrolled.index(shown)]
            replaced = [der for der, its_key in good.items() if its_key in former]
            for der in replaced:
                self._db.execute("UPDATE certificate SET revoked_s = ? WHERE der = ?", self._now(), der)
            for each in former:
                # As when a name is revoked: a used token's answer was a certificate that counts no more.
                self._db.execute("DELETE FROM token WHERE device = ? AND key_sha256 = ?", device, each)
        return len(replaced)

    def due(self, device: str) -> bool:
        """Whether this device is to ask for a certificate: one that it may use ends soon, or it has two keys.

        That another was issued since does not mean that it has arrived; what the device asks with says which it has.
        """
        good = self._good(device)
        return any(self._ends_soon(each) for each in good) or len({certified_key(each.der) for each in good}) > 1

    def certified(self, name: str | None = None) -> list[Certified]:
        """All certificates that were issued, under one name or under every one, in the order of their issue."""
        rows = self._db.rows(
            "SELECT name, issued_s, ends_s, revoked_s FROM certificate WHERE ? IS NULL OR name = ? ORDER BY issued_s",
            *(name, name),
        )
        return [Certified(name=row[0], issued_s=row[1], ends_s=row[2], revoked_s=row[3]) for row in rows]

    def revoke(self, name: str) -> int:
        """Let no certificate and no token under this name count any more; how many certificates that were.

        Raises:
            StateError: when it cannot be kept.
        """
        with self._db.transaction():
            counting = self._db.rows("SELECT serial FROM certificate WHERE name = ? AND revoked_s IS NULL", name)
            self._db.execute(
                "UPDATE certificate SET revoked_s = ? WHERE name IN (?, ?) AND revoked_s IS NULL",
                *(self._now(), name, APPLICANT + name),
            )
            # A used one too: its answer was a certificate that counts no more.
            self._db.execute("DELETE FROM token WHERE device = ?", name)
        return len(counting)

    def knows(self, name: str) -> bool:
        """Whether there ever was a certificate or a token under this name."""
        query = "SELECT serial FROM certificate WHERE name IN (?, ?) LIMIT 1"
        return self._db.row(query, name, APPLICANT + name) is not None

    def revoked(self) -> frozenset[str]:
        """Everybody who was sent away: whose certificates were all revoked, and who has no new token either."""
        rows = self._db.rows(
            "SELECT name FROM certificate GROUP BY name HAVING count(*) = count(revoked_s)"
            " EXCEPT SELECT device FROM token"
        )
        return frozenset(name for (name,) in rows)

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """While this lasts nobody decides anything, in no process: a list that is written meanwhile is the newest.

        Raises:
            StateError: when others do not come to an end.
        """
        with self._db.transaction():
            yield

    def revocations(self) -> bytes:
        """The list of revoked certificates, in PEM, for the broker."""
        # The broker lets nobody in by a list that has ended: it is good for as long as the authority. Those that have
        # expired stay in it, so that no clock that goes wrong lets them in again.
        crl = x509.CertificateRevocationListBuilder(self._ca.subject, BEGINNING, self._ca.not_valid_after_utc)
        rows = self._db.rows("SELECT serial, revoked_s FROM certificate WHERE revoked_s IS NOT NULL")
        for serial, revoked_s in rows:
            revoked = x509.RevokedCertificateBuilder(int(serial, 16), datetime.fromtimestamp(revoked_s, UTC))
            crl = crl.add_revoked_certificate(revoked.build())
        return crl.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    # The other parts

    def part(self, role: Role, name: str) -> Credentials:
        """A certificate for the coordinator, or for somebody who only looks, with a key made here.

        Raises:
            StateError: when it cannot be kept.
        """
        return self._issue(f"{role}:{name}", self._now() + SERVER_DAYS * DAY_S)

    def pusher(self, device: str) -> Credentials:
        """A certificate under a device's name for a minute; the broker ends the device's connection for its holder."""
        return self._issue(device, self._now() + MINUTE_S, kept=False)

    def looker(self) -> Credentials:
        """A certificate for a minute for somebody beside the authority who looks at how the federation stands."""
        return self._issue(LOOKER, self._now() + MINUTE_S, kept=False)

    def broker(self, hosts: tuple[str, ...]) -> Credentials:
        """A certificate for the broker under these names and addresses.

        Raises:
            StateError: when it cannot be kept.
        """
        name = f"broker:{hosts[0]}"[:LONGEST_NAME]
        return self._issue(name, self._now() + SERVER_DAYS * DAY_S, hosts=hosts)

    def serves(self, certificate: bytes, key: bytes, hosts: tuple[str, ...]) -> bool:
        """Whether a broker can go on with these files in PEM: of this authority, for these hosts, not ending soon."""
        ends_s = self._now() + RENEWED_AT * SERVER_DAYS * DAY_S
        return serves(self._ca, certificate, key, hosts, ends_s)

    # Certificates

    def _good(self, name: str) -> list["_Kept"]:
        """What counts of a name's certificates: neither revoked nor expired."""
        rows = self._db.rows(
            "SELECT issued_s, ends_s, der FROM certificate WHERE name = ? AND revoked_s IS NULL AND ends_s > ?",
            *(name, self._now()),
        )
        return [_Kept(issued_s=row[0], ends_s=row[1], der=row[2]) for row in rows]

    def _enrolled_keys(self, device: str) -> list[bytes]:
        """The hashes of the keys that it was enrolled with by tokens, each once, the one of the last time last."""
        rows = self._db.rows(
            "SELECT token.key_sha256 FROM token JOIN certificate ON certificate.der = token.certificate"
            " WHERE token.device = ? ORDER BY certificate.rowid DESC",
            device,
        )
        return list(dict.fromkeys(key for (key,) in rows))[::-1]

    def _revoked(self, name: str) -> list[bytes]:
        rows = self._db.rows("SELECT der FROM certificate WHERE name = ? AND revoked_s IS NOT NULL", name)
        return [der for (der,) in rows]

    def _ends_soon(self, kept: "_Kept") -> bool:
        return kept.ends_s - self._now() < RENEWED_AT * (kept.ends_s - kept.issued_s)

    def _certify(self, device: str, key: ec.EllipticCurvePublicKey) -> Answer:
        """Issue a certificate, within a transaction."""
        certificate = of_holder((self._ca, self._key), device, key, self._now() + DEVICE_DAYS * DAY_S)
        return self._issued(self._keep(certificate, device))

    def _issued(self, certificate: bytes) -> Answer:
        return Answer(state="issued", certificate=certificate, time_s=self._now())

    def _refused(self, reason: str) -> Answer:
        return Answer(state="refused", reason=reason, time_s=self._now())

    def _issue(self, name: str, ends_s: float, hosts: tuple[str, ...] = (), *, kept: bool = True) -> Credentials:
        _check_clock(self._now())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = of_holder((self._ca, self._key), name, key.public_key(), ends_s, hosts)
        der = self._keep(certificate, name) if kept else certificate.public_bytes(Encoding.DER)
        return Credentials(certificate=der, key=private_pem(key))

    def _keep(self, certificate: x509.Certificate, name: str) -> bytes:
        der = certificate.public_bytes(Encoding.DER)
        self._db.execute(
            "INSERT INTO certificate VALUES (?, ?, ?, ?, ?, NULL)",
            *(f"{certificate.serial_number:x}", name, self._now()),
            *(certificate.not_valid_after_utc.timestamp(), der),
        )
        return der


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """A certificate as it is kept, in DER."""

    issued_s: float
    ends_s: float
    der: bytes


def _damaged(folder: Path, why: object) -> StateError:
    return StateError(
        f"{folder}: a key, ca.pem or authority.sqlite cannot be used ({why}); restore the folder from its copy",
        catalogue.AUTHORITY_DAMAGED,
    )


def _check_clock(now_s: float) -> None:
    if now_s < EARLIEST_NOW_S:
        raise SettingsError(
            f"this machine's clock shows {datetime.fromtimestamp(now_s, UTC):%Y-%m-%d}; set it first, as certificates "
            "end by it",
            catalogue.CLOCK_UNSET,
        )


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def write_part(authority: Authority, role: Role, name: str, folder: Path) -> None:
    """Write certificate and key of a part into a folder that is an identity (mekt.identity).

    Raises:
        StateError: when the disk does not take them.
    """
    credentials = authority.part(role, name)
    write_identity(make_folder(folder), ca=authority.ca, certificate=credentials.certificate, key=credentials.key)
    write_public(folder, authority.signer.public_key)
