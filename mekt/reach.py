"""How far one gets towards the broker before a word of MQTT: name, port, TLS, and what certificates say of time.

Nothing is sent but TLS' own greeting. A certificate is also the only thing that tells of the broker's idea of time:
MQTT has no clock in it.
"""

import contextlib
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mekt import catalogue
from mekt.check import REACH, Check, failed, ok, refused, skipped, warning
from mekt.credentials import tls_context
from mekt.errors import LinkError, SettingsError
from mekt.login import BrokerSettings, TlsSettings, check_plain_text, entry_of, explained
from mekt.machine import moment

STEP_S = 4.0
# A broker that refuses this side's certificate says so after the handshake, within a round trip or two.
REFUSAL_S, ROUND_TRIPS = 0.3, 4
EXPIRES_SOON_S = 14 * 24 * 3600.0
CLOCK_REMEDY = "set this machine's clock (`timedatectl set-ntp true`), or make a certificate that is valid now"
# By OpenSSL's verify codes.
TLS_REMEDIES = {
    9: CLOCK_REMEDY,
    10: "renew the broker's certificate, or set this machine's clock if it is ahead",
    18: "the certificate signed itself: have an authority sign it, and name that in [broker.tls] ca",
    62: "the certificate names other hosts: set [broker] host to one of its names, or make one for this name",
    64: "the certificate names other addresses: set [broker] host to a name in it, or make one for this address",
}
PEM = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
Address = tuple[Any, ...]


def check_reach(settings: BrokerSettings) -> Iterator[Check]:
    """Name, port, TLS and certificates of the broker, each of them only where the one before was well."""
    if settings.tls is None and not settings.is_local:
        yield _plain_text(settings)
    addresses, check = _resolve(settings, STEP_S)
    yield check
    if not addresses:
        yield from (skipped(name, "the broker's address is not known") for name in REACH[1:])
        return
    took_s, check = _connect(settings, addresses)
    yield check
    if took_s is None:
        yield from (skipped(name, "the broker's port cannot be reached") for name in REACH[2:])
    elif settings.tls is None:
        yield skipped("tls", "the settings have no [broker.tls]")
        yield skipped("certificates", "MQTT tells no time and there is no TLS: no clock was compared with the broker's")
    else:
        shows, check = _greet(settings, settings.tls, took_s)
        yield check
        yield _certificates(settings, settings.tls, shows=shows)


def _plain_text(settings: BrokerSettings) -> Check:
    if settings.plain_text_allowed:
        seen = f"nothing is encrypted on the way to {settings.host}: anybody on the network can read and forge it"
        return warning("plain text", seen, "add [broker.tls], or keep to a network that nobody else is on")
    try:
        check_plain_text(settings)
    except SettingsError as error:
        return refused("plain text", str(error), SettingsError, entry=error.entry)
    return ok("plain text", "is allowed")


def _resolve(settings: BrokerSettings, limit_s: float) -> tuple[list[Address], Check]:
    """The addresses of the host. The system's resolver knows no time limit, so it is waited for from outside."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=ask, name="mekt-resolver", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not found:
        seen = f"{settings.host}: no name server answers within {limit_s:g} s"
        return [], failed("name", seen, "mend this machine's network or name server", LinkError, catalogue.HOST_UNKNOWN)
    answer = found[0]
    if isinstance(answer, UnicodeError):
        return [], failed("name", f"{settings.host}: is no name", "correct [broker] host", SettingsError)
    if isinstance(answer, OSError):
        return [], refused("name", f"{settings.host}: {explained(answer)}", LinkError, entry=entry_of(answer))
    addresses = [each[4] for each in answer]
    with contextlib.suppress(ValueError):
        return addresses, ok("name", f"{ipaddress.ip_address(settings.host)} is an address")
    shown = ", ".join(dict.fromkeys(str(each[0]) for each in addresses))
    return addresses, ok("name", f"{settings.host} is {shown}")


def _connect(settings: BrokerSettings, addresses: list[Address]) -> tuple[float | None, Check]:
    """The seconds that a connection took to whichever address answers first; None when none does."""
    ends_s = time.monotonic() + STEP_S
    problem: OSError = TimeoutError(f"no answer within {STEP_S:g} s")
    for index, address in enumerate(addresses):
        left_s = (ends_s - time.monotonic()) / (len(addresses) - index)
        if left_s <= 0:
            break
        began_s = time.monotonic()
        try:
            socket.create_connection(address[:2], timeout=left_s).close()
        except OSError as error:
            problem = error
            continue
        took_s = time.monotonic() - began_s
        return took_s, ok("port", f"{address[0]} port {settings.port} answers after {1000 * took_s:.1f} ms")
    where = f"{settings.host} port {settings.port}"
    if isinstance(problem, ConnectionRefusedError) and not settings.is_local:
        remedy = (
            "start the broker or correct [broker] host and port; mosquitto 2 listens to its own machine alone "
            "unless its configuration has a `listener` line"
        )
        return None, failed("port", f"{where}: nobody listens there", remedy, LinkError, catalogue.BROKER_UNREACHABLE)
    if isinstance(problem, TimeoutError):
        remedy = "check the address, and that no firewall on the way or on the broker's machine drops this port"
        return None, failed(
            "port", f"{where}: no answer within {STEP_S:g} s", remedy, LinkError, catalogue.BROKER_UNREACHABLE
        )
    return None, refused("port", f"{where}: {explained(problem)}", LinkError, entry=entry_of(problem))


def _greet(settings: BrokerSettings, tls: TlsSettings, took_s: float) -> tuple[bool, Check]:
    """The handshake as a daemon makes it, and whether the broker goes on after it; and whether it has a certificate."""
    try:
        context = tls_context(tls)
    except SettingsError as error:
        return True, refused("tls", str(error), SettingsError, entry=error.entry)
    try:
        with _greeted(settings, context) as connection:
            version = connection.version()
            connection.settimeout(max(REFUSAL_S, ROUND_TRIPS * took_s))
            # An MQTT broker waits for the first word: whatever comes now is a refusal.
            with contextlib.suppress(TimeoutError, ssl.SSLWantReadError):
                connection.recv(1)
                raise ConnectionResetError
    except ssl.SSLCertVerificationError as error:
        remedy = TLS_REMEDIES.get(error.verify_code, "name the authority that signed it in [broker.tls] ca")
        seen = f"the broker's certificate is not accepted ({error.verify_message})"
        return True, failed("tls", seen, remedy, LinkError, catalogue.TLS_FAILED)
    except ssl.SSLError as error:
        reason = str(error.reason or error)
        if "ALERT" in reason:
            own = "no certificate" if tls.certificate is None else f"the certificate {tls.certificate}"
            seen = f"the broker refuses this side with {own} ({reason})"
            remedy = "set [broker.tls] certificate and key, signed by the broker's authority, valid and not revoked"
            return True, failed("tls", seen, remedy, LinkError, catalogue.TLS_FAILED)
        seen, remedy = f"no TLS is spoken there ({reason})", "check the port: 8883 is usual with TLS"
        return False, failed("tls", seen, remedy, LinkError, catalogue.TLS_FAILED)
    except ConnectionError:
        seen = "the broker ends the connection"
        remedy = "check the port, that it speaks TLS, and this side's certificate"
        return False, failed("tls", seen, remedy, LinkError, catalogue.TLS_FAILED)
    except OSError as error:
        return False, refused("tls", explained(error), LinkError, entry=entry_of(error))
    return True, ok("tls", f"{version}; the broker's certificate is signed by {tls.ca} for {settings.host}")


@contextlib.contextmanager
def _greeted(settings: BrokerSettings, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection((settings.host, settings.port), timeout=STEP_S) as plain,
        context.wrap_socket(plain, server_hostname=settings.host) as connection,
    ):
        yield connection


# What certificates say of time


@dataclass(frozen=True, kw_only=True, slots=True)
class Validity:
    """From when to when a certificate holds, in seconds of the wall clock."""

    begins_s: float
    ends_s: float

    def __str__(self) -> str:
        return f"{moment(self.begins_s)} to {moment(self.ends_s)}"


def _certificates(settings: BrokerSettings, tls: TlsSettings, *, shows: bool) -> Check:
    """Whether now lies within the validity of the broker's certificate and of this side's."""
    known: dict[str, Validity] = {}
    if shows and (shown := _shown_by(settings)) is not None:
        known["the broker's"] = shown
    if tls.certificate is not None and (own := _in_file(tls.certificate)):
        known["this side's"] = own[0]
    if authorities := _in_file(tls.ca):
        # A file may hold the authority of yesterday beside that of tomorrow.
        known["the authority's"] = max(authorities, key=lambda each: each.ends_s)
    if not known:
        return skipped("certificates", "none could be read")
    return check_validity(known, time.time())


def check_validity(known: dict[str, Validity], now_s: float) -> Check:
    """What the certificates mean for a clock that says `now_s`."""
    for whose, validity in known.items():
        seen = f"{whose} is valid from {validity}, and the clock here says {moment(now_s)}"
        if now_s < validity.begins_s:
            return failed("certificates", seen, CLOCK_REMEDY, LinkError, catalogue.TLS_FAILED)
        if now_s > validity.ends_s:
            remedy = "renew the certificate, or set this machine's clock if it is ahead"
            return failed("certificates", seen, remedy, LinkError, catalogue.TLS_FAILED)
    whose, first = min(known.items(), key=lambda item: item[1].ends_s)
    if first.ends_s - now_s < EXPIRES_SOON_S:
        days = int((first.ends_s - now_s) / 86400)
        return warning("certificates", f"{whose} ends in {days} days, on {moment(first.ends_s)}", "renew it in time")
    seen = "; ".join(f"{whose} {validity}" for whose, validity in known.items())
    return ok("certificates", f"{seen}: now lies within, and no other time of the broker's can be had")


def _shown_by(settings: BrokerSettings) -> Validity | None:
    """Of the certificate that the broker shows, also when it cannot be trusted: it is only looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError, ValueError), _greeted(settings, context) as connection:
        shown = connection.getpeercert(binary_form=True)
        return None if shown is None else validity_of(shown)
    return None


def _in_file(path: str) -> list[Validity]:
    """Of every certificate in a PEM file."""
    try:
        found = re.findall(f"{PEM[0]}.*?{PEM[1]}", Path(path).read_text(encoding="ascii", errors="replace"), re.DOTALL)
        return [validity_of(ssl.PEM_cert_to_DER_cert(text)) for text in found]
    except (OSError, ValueError):
        return []


def validity_of(der: bytes) -> Validity:
    """The validity in a certificate (RFC 5280, 4.1.2.5), which Python reads out only where it trusts one.

    Raises:
        ValueError: when the bytes are no certificate.
    """
    try:
        [certificate] = _parts(der)
        signed, *_ = _parts(certificate[1])
        fields = _parts(signed[1])
        if fields[0][0] == 0xA0:  # the version, which is optional
            fields = fields[1:]
        begins, ends = _parts(fields[3][1])
        return Validity(begins_s=_time(*begins), ends_s=_time(*ends))
    except (IndexError, TypeError) as error:
        raise ValueError("no certificate") from error


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """The elements, each with its tag, that follow each other in DER."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:
            width = size & 0x7F
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        if at + size > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _time(tag: int, text: bytes) -> float:
    """UTCTime has two digits of the year, and means 1950 to 2049; GeneralizedTime has four."""
    digits = text.decode("ascii").rstrip("Z")
    if tag == 0x17:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
