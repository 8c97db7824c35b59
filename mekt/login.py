"""Where the broker is and how to log in: settings, and why a login fails."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from mekt import catalogue
from mekt.errors import SettingsError
from mekt.schema import Bounds, FilePath

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsSettings:
    """Files in PEM form: the authority that signed the broker's certificate, this side's certificate and its key."""

    ca: FilePath
    certificate: FilePath | None = None
    key: FilePath | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerSettings:
    """Where the broker is and how to log in. Plain text beyond this machine needs `plain_text_allowed`.

    `lease_s` is how long a silent client is waited for until the broker speaks its last will.
    """

    host: Annotated[str, Bounds(shortest=1, longest=255)] = "127.0.0.1"
    port: Annotated[int, Bounds(low=1, high=65535)] = 1883
    username: Annotated[str, Bounds(longest=256)] | None = None
    password_file: FilePath | None = None
    tls: TlsSettings | None = None
    lease_s: Annotated[int, Bounds(low=3, high=5400)] = 45
    plain_text_allowed: bool = False

    @property
    def keepalive_s(self) -> int:
        """The keep-alive that makes a broker wait for `lease_s`: two thirds of it, in whole seconds rounded down.

        A broker waits one and a half keep-alives (MQTT 5, 3.1.2.10), which is `lease_s` where that divides by three,
        and up to a second less where it does not. Of 3 to 5400 s that is 2 to 3600. A broker may look for silent
        clients only every few seconds; that comes on top.
        """
        return 2 * self.lease_s // 3

    @property
    def identified(self) -> bool:
        """Whether the broker can know who logs in: by a user name or a certificate."""
        return self.username is not None or (self.tls is not None and self.tls.certificate is not None)

    @property
    def is_local(self) -> bool:
        """Whether the broker is on this machine."""
        return self.host in ("127.0.0.1", "::1", "localhost")


def located(settings: BrokerSettings, base: Path) -> BrokerSettings:
    """The same settings with every relative path starting at `base`, the folder of the settings file."""

    def at(path: str | None) -> str | None:
        return None if path is None else str(base / path)

    tls = settings.tls
    if tls is not None:
        tls = replace(tls, ca=str(base / tls.ca), certificate=at(tls.certificate), key=at(tls.key))
    return replace(settings, password_file=at(settings.password_file), tls=tls)


def check_plain_text(settings: BrokerSettings) -> None:
    """Refuse plain text beyond this machine unless it is asked for; then say so loudly.

    Raises:
        SettingsError: when the broker is elsewhere, TLS is off and plain text is not allowed.
    """
    if settings.tls is not None or settings.is_local:
        return
    if not settings.plain_text_allowed:
        raise SettingsError(
            f"broker.host: {settings.host} is another machine and [broker.tls] is missing; add it, "
            "or set broker.plain_text_allowed = true on a network that nobody else is on",
            catalogue.PLAIN_TEXT_REFUSED,
        )
    log.warning("PLAIN TEXT to %s: anybody on the network can read and forge this federation", settings.host)


def explained(error: Exception) -> str:
    """Why a connection failed, and what to do about it."""
    # Only after a failure: whoever has no broker needs neither.
    import socket
    import ssl

    if isinstance(error, ssl.SSLError):
        cause = getattr(error, "verify_message", "") or error.reason or str(error)
        return f"TLS fails ({cause}); check the CA file, both certificates, the port and this machine's clock"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there; start the broker or correct [broker] host and port"
    if isinstance(error, ConnectionResetError):
        return "it ends the connection; check the port, and that both sides use TLS or neither"
    if isinstance(error, socket.gaierror):
        return f"the name is not known ({error.strerror}); correct [broker] host or this machine's name server"
    cause = getattr(error, "strerror", None) or str(error)
    return f"it cannot be reached ({cause}); check the network and [broker] host and port"


def entry_of(error: Exception) -> catalogue.Entry:
    """What the catalogue has about a connection that failed."""
    import socket
    import ssl

    if isinstance(error, ssl.SSLError):
        return catalogue.TLS_FAILED
    if isinstance(error, ConnectionResetError):
        return catalogue.LOGIN_UNANSWERED
    return catalogue.HOST_UNKNOWN if isinstance(error, socket.gaierror) else catalogue.BROKER_UNREACHABLE
