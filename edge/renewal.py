"""A device's certificate is renewed while it works: the coordinator says when, the key stays, the link reads it anew.

The coordinator's clock decides, so that a device needs none. It says so again for as long as a former certificate
counts, as an answer may be lost; then it gives the same certificate again, and nothing changes here.
"""

import logging
from pathlib import Path

from mekt import catalogue, clock
from mekt.errors import StateError
from mekt.identity import fits, key_and_request, write_certificate
from mekt.login import TlsSettings
from mekt.messages import Answer, Renewal

log = logging.getLogger(__name__)


class Certificate:
    """The certificate that a device logs in with. One thread uses it."""

    def __init__(self, device: str, tls: TlsSettings | None) -> None:
        self._device = device
        self._certificate = None if tls is None or tls.certificate is None else Path(tls.certificate)
        self._key = None if tls is None or tls.key is None else Path(tls.key)
        self._asked = False

    def answered(self, answer: Answer) -> Renewal | None:
        """Take the coordinator's word on the certificate; what is to be sent in return, if anything.

        Raises:
            MissingPackageError: when there is no program `openssl`.
            SettingsError: when others can read the key.
            StateError: when the key cannot be used, or the disk does not take the certificate.
        """
        if self._certificate is None or self._key is None:
            return None
        if answer.state == "due":
            self._asked = True
            return Renewal(csr=key_and_request(self._key, self._device))
        if not self._asked:
            return None
        self._asked = False
        if answer.state == "refused":
            log.warning("the coordinator does not renew the certificate: %r", answer.reason)
            return None
        self._replace(answer, self._certificate, self._key)
        return None

    def _replace(self, answer: Answer, path: Path, key: Path) -> None:
        fresh = path.with_name(f".{path.name}.fresh")
        write_certificate(fresh, answer.certificate)
        # It has to be one, and for this key: else the device could not log in any more.
        if not fits(fresh, key):
            log.warning("what came is no certificate for this device's key; the former one stays")
            fresh.unlink(missing_ok=True)
            return
        try:
            is_new = fresh.read_bytes() != path.read_bytes()
            fresh.replace(path)
        except OSError as error:
            raise StateError(f"{path}: cannot be written ({error.strerror})", catalogue.of_disk(error)) from error
        if not is_new:
            return
        known_s = clock.known_s(path.parent)
        if known_s is not None:
            # A word that cannot be true moves the bounds no further than the time that can have passed.
            clock.remember(path.parent, clock.bounded_s(answer.time_s, known_s))
        log.info("the certificate is renewed; the next connection uses it")
