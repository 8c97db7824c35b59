"""What the coordinator does with the federation's authority: it certifies devices, and signs for all."""

import importlib
import logging
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mekt import catalogue
from mekt.errors import MissingPackageError, SettingsError
from mekt.messages import Answer, Renewal, Request
from mekt.signature import Purpose

if TYPE_CHECKING:
    from coordinator.authority import Authority

log = logging.getLogger(__name__)

# A device is told again this often that its certificate ends soon, for as long as it does not ask for another.
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

    def __init__(self, authority: "Authority") -> None:
        self._authority = authority
        self._told_at_s: dict[str, float] = {}

    def close(self) -> None:
        """Let the authority's files go."""
        self._authority.close()

    def sign(self, purpose: Purpose, content: bytes) -> bytes:
        """The coordinator's signature.

        Raises:
            StateError: when its number cannot be kept.
        """
        return self._authority.sign(purpose, content)

    def sign_release(self, manifest: bytes) -> bytes:
        """The signature of a release, made on any thread.

        Raises:
            StateError: when its number cannot be kept.
        """
        with closing(open_authority(self._authority.folder, self._authority.federation)) as authority:
            return authority.sign("release", manifest)

    def answer(self, device: str, request: Request | Renewal) -> Answer:
        """The answer to a request: by a token, where the device has but that, else by the certificate that it has.

        Raises:
            StateError: when it cannot be kept.
        """
        if isinstance(request, Request):
            answer = self._authority.enrol(device, request)
        else:
            answer = self._authority.renew(device, request)
        if answer.state == "issued":
            log.info("%s has a certificate, %s", device, "by a token" if isinstance(request, Request) else "renewed")
        else:
            log.warning("%s gets no certificate: %s", device, answer.reason)
        return answer

    def reminder(self, device: str, now_s: float) -> Answer | None:
        """What a device that was heard is to be told: that its certificate ends soon; mostly nothing."""
        told_at_s = self._told_at_s.get(device)
        if told_at_s is not None and now_s - told_at_s < TELL_S:
            return None
        self._told_at_s[device] = now_s
        return Answer(state="due", time_s=time.time()) if self._authority.due(device) else None
