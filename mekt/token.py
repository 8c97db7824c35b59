"""The token by which a device joins: one line of text, made by the federation's authority, good for one certificate.

It holds where the broker is and whom to trust there, and a certificate with its key that lets its bearer do one thing:
ask for a certificate under the device's name. Whoever has the token can do that in the device's place, until it is used
or expires; it belongs into nobody else's hands, no command line, and no log.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Annotated

import msgpack

from mekt import catalogue
from mekt.ed25519 import KEY_BYTES
from mekt.errors import SettingsError, WireError
from mekt.messages import LARGEST_CERTIFICATE, Time, unpack
from mekt.schema import Bounds, Name, SchemaError, build, plain

PREFIX = "mekt-token-1:"
SECRET_BYTES = 16
SUM_BYTES = 4
# Of text; a token has some 1500 characters.
LONGEST_TEXT = 16_384

# Of a name or an address as settings files, certificates and people's terminals can take it.
HOST_PATTERN = r"[A-Za-z0-9:][A-Za-z0-9._:%-]{0,254}"
Der = Annotated[bytes, Bounds(shortest=1, longest=LARGEST_CERTIFICATE)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """Who may join which federation until when, where, and by what.

    Certificates are in DER, the key in PEM. `coordinator` is the public key of what the coordinator signs.
    """

    federation: Name
    device: Name
    host: Annotated[str, Bounds(pattern=HOST_PATTERN)]
    port: Annotated[int, Bounds(low=1, high=65535)]
    ca: Der
    certificate: Der
    key: Annotated[bytes, Bounds(shortest=1, longest=1024)] = field(repr=False)
    coordinator: Annotated[bytes, Bounds(shortest=KEY_BYTES, longest=KEY_BYTES)]
    secret: Annotated[bytes, Bounds(shortest=SECRET_BYTES, longest=SECRET_BYTES)] = field(repr=False)
    made_s: Time
    expires_s: Time

    def text(self) -> str:
        """The token as a line, with a check sum against letters that get lost."""
        return spelled(msgpack.packb(plain(self)))


def read_token(text: str) -> Token:
    """The token in a line of text; spaces and line breaks do not matter.

    Raises:
        SettingsError: when it is none, or not a whole one; the message has nothing of it.
    """
    text = "".join(text[:LONGEST_TEXT].split())
    if not text.startswith(PREFIX):
        raise _unusable(f"it does not begin with {PREFIX}")
    try:
        data = base64.b64decode(text.removeprefix(PREFIX), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _unusable("it was cut or changed") from None
    raw, check_sum = data[:-SUM_BYTES], data[-SUM_BYTES:]
    # The bytes have one spelling: the last letter has bits that stand for nothing.
    if check_sum != _check_sum(raw) or text != spelled(raw):
        raise _unusable("it was cut or changed")
    try:
        return build(Token, unpack(raw))
    except (WireError, SchemaError):
        raise _unusable("another Mekt made it") from None


def check_host(host: str) -> None:
    """See that a broker's host is a name or an address.

    Raises:
        SettingsError: when it is none.
    """
    if not re.fullmatch(HOST_PATTERN, host):
        raise SettingsError(
            f"{host[:64]!r} is no host; name the broker's machine by its name in ASCII letters, or by its address",
            catalogue.HOST_UNFIT,
        )


def spelled(raw: bytes) -> str:
    """These bytes as a token's line of text."""
    return PREFIX + base64.urlsafe_b64encode(raw + _check_sum(raw)).decode()


def _check_sum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:SUM_BYTES]


def _unusable(why: str) -> SettingsError:
    return SettingsError(
        f"this is no token ({why}); copy the whole line that `mekt enroll token` printed", catalogue.TOKEN_UNUSABLE
    )
