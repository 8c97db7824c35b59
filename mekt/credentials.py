"""What a login shows to a broker: a password, and certificates with their key, read from files that may be renewed.

Files are read when this is made, and again when one of them is another than the one that was read: of another size,
time or inode. Certificates expire; whoever renews them need not end a federation's daemons for it. Until what replaces
them can be used - a certificate may be there before its key, a file half-written - what was read before goes on.
"""

import logging
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from mekt import catalogue, clock
from mekt.errors import SettingsError
from mekt.login import BrokerSettings, TlsSettings

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

log = logging.getLogger(__name__)

# What tells a file from the one that was there before: inode, size, time of its content and of its permissions.
Stamp = tuple[int, int, int, int] | None


class Credentials:
    """The password and the TLS context of one login. One thread uses them."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Read the files that the settings name.

        Raises:
            SettingsError: when one cannot be used.
        """
        self._settings = settings
        self._in_trouble = False
        # Looked at before they are read: what changes meanwhile is another file at the next look.
        self._stamps = self._look()
        self._password, self._tls = _read(settings)

    def renew(self) -> bool:
        """Read the files again where one has changed; whether that gave anything new.

        Files that cannot be used are logged once, and tried again at each call; what was read before stays.
        """
        stamps = self._look()
        if stamps == self._stamps:
            self._in_trouble = False
            return False
        try:
            self._password, self._tls = _read(self._settings)
        except SettingsError as error:
            if not self._in_trouble:
                log.warning("%s; until then the login goes on with what was read before", error)
            self._in_trouble = True
            return False
        self._stamps, self._in_trouble = stamps, False
        log.info("the files of the login have changed, and are read anew")
        return True

    def equip(self, client: "mqtt.Client") -> None:
        """Have a client that is new log in with them."""
        if self._settings.username is not None:
            client.username_pw_set(self._settings.username, self._password)
        if self._tls is not None:
            client.tls_set_context(self._tls)

    def _look(self) -> tuple[Stamp, ...]:
        tls = self._settings.tls
        files = (self._settings.password_file, *(() if tls is None else (tls.ca, tls.certificate, tls.key)))
        return tuple(_stamp(Path(file)) for file in files if file is not None)


def check_private(path: Path) -> None:
    """See that a file with a secret is nobody else's to read.

    Raises:
        SettingsError: when it is.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # whoever reads it says so better
    if mode & 0o077:
        raise SettingsError(
            f"{path}: others can read this secret (mode {mode:04o}); chmod 600 {path}", catalogue.SECRET_READABLE
        )


def password(settings: BrokerSettings) -> str | None:
    """The content of the password file, or None where there is none.

    Raises:
        SettingsError: when it cannot be read, or others can read it too.
    """
    if settings.password_file is None:
        return None
    check_private(Path(settings.password_file))
    try:
        return Path(settings.password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"broker.password_file: {settings.password_file} cannot be read ({error})", catalogue.PASSWORD_FILE_UNUSABLE
        ) from error
    except UnicodeDecodeError:
        # The error holds the content, which is nobody's business.
        raise SettingsError(
            f"broker.password_file: {settings.password_file} is not UTF-8 text; write it anew",
            catalogue.PASSWORD_FILE_UNUSABLE,
        ) from None


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the broker's certificate checked against the authority, the host's name and the time.

    With an identity's certificate that is the time as far as it can be right (mekt.clock).

    Raises:
        SettingsError: when a file cannot be used, or others can read the key.
    """
    if tls.key is not None:
        check_private(Path(tls.key))
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            # A daemon cannot be asked for the password of an encrypted key: there is none.
            context.load_cert_chain(tls.certificate, tls.key, password="")
            known_s = clock.known_s(Path(tls.certificate).parent)
            if known_s is not None:
                clock.bound(context, known_s)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"broker.tls: {tls.ca}, {tls.certificate} or {tls.key} cannot be used ({error}); check paths and key",
            catalogue.TLS_FILES_UNUSABLE,
        ) from error
    return context


def _read(settings: BrokerSettings) -> tuple[str | None, ssl.SSLContext | None]:
    return password(settings), None if settings.tls is None else tls_context(settings.tls)


def _stamp(file: Path) -> Stamp:
    """What the file at this path is told by; None where there is none."""
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
