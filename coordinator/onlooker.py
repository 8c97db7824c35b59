"""A login for who looks at the federation from beside its coordinator: `mekt status`.

The broker takes the name in a certificate for the client, and lets each in once: with the coordinator's own, who looks
would end the coordinator's connection, and the coordinator may not read what it says itself.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from coordinator.registrar import open_authority
from coordinator.settings import FederationSettings
from mekt.identity import tls_settings, write_identity
from mekt.login import BrokerSettings


@contextmanager
def onlooker(settings: FederationSettings, base: Path) -> Iterator[BrokerSettings]:
    """How to log in for a look, while this lasts; `base` is the folder of the settings file.

    Where there is neither an authority nor a certificate, as the coordinator does.

    Raises:
        MektError: when the authority cannot be used.
    """
    tls = settings.broker.tls
    if settings.trust is None or tls is None or tls.certificate is None:
        yield settings.broker
        return
    with closing(open_authority(base / settings.trust.authority, settings.federation)) as authority:
        ca, credentials = authority.ca, authority.onlooker()
    with tempfile.TemporaryDirectory(prefix="mekt-look-") as place:
        write_identity(Path(place), ca=ca, certificate=credentials.certificate, key=credentials.key)
        yield replace(settings.broker, tls=replace(tls_settings(Path(place)), ca=tls.ca))
