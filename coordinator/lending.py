"""An identity for a moment: for who looks, and for who ends another's connection."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from coordinator.authority import Authority, Credentials
from mekt.identity import tls_settings, write_identity
from mekt.login import TlsSettings


@contextmanager
def lent(authority: Authority, credentials: Credentials) -> Iterator[TlsSettings]:
    """The files of an identity, for as long as they are needed.

    Raises:
        StateError: when the disk does not take them.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_identity(folder, ca=authority.ca, certificate=credentials.certificate, key=credentials.key)
        yield tls_settings(folder)


@contextmanager
def looking(folder: Path) -> Iterator[TlsSettings]:
    """How somebody beside the authority in `folder` logs in to look: under a name that is no part's.

    A broker takes the name for the client id, and would end a part's own connection.

    Raises:
        SettingsError: when this machine's clock is not set.
        StateError: when the authority cannot be used.
    """
    with closing(Authority(folder)) as authority, lent(authority, authority.looker()) as files:
        yield files
