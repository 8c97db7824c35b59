"""A device's clock, bounded by what the coordinator said: so a board without a clock, or with a wrong one, can connect.

An identity has a file `time`: when the coordinator gave the certificate, by the coordinator's clock. It was not earlier
than that, and it cannot be later than that certificate's end, after which the broker lets the device in no more. So the
broker's certificate is held against this device's clock where that is in between, and against the nearer end where it
is not. OpenSSL knows but one clock; its own look at it (X509_V_FLAG_NO_CHECK_TIME) is therefore replaced by one at the
broker's certificate after the handshake, before a byte of MQTT. The authority's certificate, a file of the device's
own, has no end then. Whoever has stolen the key of a broker's certificate that has expired since gains nothing by a
device's wrong clock but what is between both ends. Logins by other files than an identity's are as Python has them.
"""

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TIME = "time"
DAY_S = 24 * 3600.0
# How long a device's certificate is good.
DEVICE_DAYS = 90.0
LONGEST_TIME = 32
# Of OpenSSL since 1.1.0 (x509_vfy.h); Python has no name for it.
NO_CHECK_TIME: Final = 0x200000


def bounded_s(now_s: float, known_s: float) -> float:
    """The time to go by, of a clock that shows `now_s` where the coordinator's showed `known_s` at the latest word."""
    return min(max(now_s, known_s), known_s + DEVICE_DAYS * DAY_S)


def known_s(folder: Path) -> float | None:
    """When an identity's certificate was given; None where the folder is none, or does not say."""
    try:
        with (folder / TIME).open(encoding="ascii") as file:
            seconds = float(file.read(LONGEST_TIME))
    except (OSError, ValueError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def remember(folder: Path, seconds: float) -> None:
    """Keep when the coordinator gave a certificate.

    Raises:
        StateError: when the disk does not take it.
    """
    # Only here, as it brings numpy along: `mekt doctor` has to log in where numpy cannot start, to say so.
    from mekt.files import write_atomically

    write_atomically(folder / TIME, f"{seconds:.0f}".encode())


def bound(context: ssl.SSLContext, known: float) -> None:
    """Have a client's context hold certificates against the bounded time."""
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)

    class Socket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            try:
                _check_time(self.getpeercert() or {}, bounded_s(time.time(), known))
            except ssl.SSLError:
                self.close()
                raise

    context.sslsocket_class = Socket


def _check_time(certificate: Mapping[str, object], at_s: float) -> None:
    begins, ends = str(certificate.get("notBefore")), str(certificate.get("notAfter"))
    if ssl.cert_time_to_seconds(begins) <= at_s <= ssl.cert_time_to_seconds(ends):
        return
    error = ssl.SSLCertVerificationError("the broker's certificate has expired, or is not yet valid")
    error.verify_message = f"certificate is good from {begins} to {ends}"
    raise error
