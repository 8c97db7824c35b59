"""What the coordinator does with the federation's authority: certifies devices, replaces their keys, signs for all."""

import importlib
import logging
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.settings import TrustSettings
from mekt import catalogue
from mekt.errors import LinkError, MissingPackageError, SettingsError, StateError
from mekt.messages import Answer, Renewal, Request
from mekt.signature import Purpose

if TYPE_CHECKING:
    from coordinator.authority import Authority

log = logging.getLogger(__name__)

# A device is told again this often to ask for a certificate, for as long as that is due.
TELL_S = 3600.0


def open_authority(folder: Path, federation: str) -> "Authority":
    """The authority in `folder`.

    Raises:
        MissingPackageError: when its package is not installed.
        SettingsError: when there is none there, or another federation's.
        StateError: when it cannot be read.
    """
    try:
        module = importlib.import_module("coordinator.authority")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            '[trust] authority needs cryptography; in the folder of Mekt: pip install -e ".[authority]"',
            catalogue.PACKAGE_MISSING,
        ) from error
    authority: Authority = module.Authority(folder)
    if authority.federation != federation:
        authority.close()
        raise SettingsError(
            f"trust.authority: {folder} is that of {authority.federation}, not of {federation}; name another",
            catalogue.AUTHORITY_MISSING,
        )
    return authority


class Registrar:
    """The coordinator's side of certificates and signatures. One thread uses it, but for `sign_release`."""

    def __init__(self, authority: "Authority", broker: Path | None = None) -> None:
        """Take up work.

        Args:
            authority: it is closed with this.
            broker: the folder of the broker's files, where they are on this machine. It learns of what was revoked
                while nobody could tell it.

        Raises:
            SettingsError: when there is no such folder.
        """
        if broker is not None and not broker.is_dir():
            raise SettingsError(
                f"trust.broker: {broker}: there are no files of a broker; make them with `mekt broker config`",
                catalogue.BROKER_MISSING,
            )
        self._authority, self._broker = authority, broker
        self._told_at_s: dict[str, float] = {}
        self._tell_broker()

    def close(self) -> None:
        """Let the authority's files go."""
        self._authority.close()

    def sign(self, purpose: Purpose, content: bytes) -> bytes:
        """The coordinator's signature.

        Raises:
            StateError: when its number cannot be kept.
        """
        return self._authority.signer.sign(purpose, content)

    def sign_release(self, manifest: bytes) -> bytes:
        """The signature of a release, made on any thread.

        Raises:
            StateError: when its number cannot be kept.
        """
        with closing(open_authority(self._authority.folder, self._authority.federation)) as authority:
            return authority.signer.sign("release", manifest)

    def answer(self, device: str, request: Request | Renewal) -> Answer:
        """The answer to a request: by a token, where the device has but that, else by the certificate that it has.

        Raises:
            StateError: when it cannot be kept.
        """
        if isinstance(request, Request):
            answer = self._authority.enrol(device, request)
        else:
            answer = self._authority.renew(device, request)
        if answer.state != "issued":
            log.warning("%s gets no certificate: %s", device, answer.reason)
            return answer
        log.info("%s has a certificate, %s", device, "by a token" if isinstance(request, Request) else "renewed")
        if isinstance(request, Request):
            # Whether it has arrived is asked as soon as the device is heard.
            self._told_at_s.pop(device, None)
        else:
            self._replace(device, request)
        return answer

    def _replace(self, device: str, request: Renewal) -> None:
        """Revoke what this request replaces. It ends no connection: the one under this name is the device's."""
        count = self._authority.replace(device, request)
        if count == 0:
            return
        log.info("%s has a new key; revoked of its former ones: %d certificate%s", device, count, "s" * (count != 1))
        if self._broker is None:
            log.warning(
                "the broker does not know of it yet: give `mekt broker config` again, or name the folder of its files "
                "in [trust] broker"
            )
        self._tell_broker()

    def _tell_broker(self) -> None:
        if self._broker is None:
            return
        try:
            importlib.import_module("coordinator.fence").renew(self._broker, self._authority)
        except (LinkError, SettingsError, StateError) as error:
            # A federation goes on learning all the same, and what is revoked stays so.
            log.warning("the broker does not know who was revoked: %s", error)

    @property
    def revoked(self) -> frozenset[str]:
        """Who was sent away, by whatever process."""
        return self._authority.revoked()

    def reminder(self, device: str, now_s: float) -> Answer | None:
        """What a device that was heard is to be told: to ask for a certificate; mostly nothing."""
        told_at_s = self._told_at_s.get(device)
        if told_at_s is not None and now_s - told_at_s < TELL_S:
            return None
        self._told_at_s[device] = now_s
        return Answer(state="due", time_s=time.time()) if self._authority.due(device) else None


def registrar_of(trust: TrustSettings, base: Path, federation: str) -> Registrar:
    """The registrar that a federation's settings name; paths are relative to `base`.

    Raises:
        MektError: when its authority or the broker's files cannot be used.
    """
    authority = open_authority(base / trust.authority, federation)
    try:
        return Registrar(authority, None if trust.broker is None else base / trust.broker)
    except BaseException:
        authority.close()
        raise
