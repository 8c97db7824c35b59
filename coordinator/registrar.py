"""Who asks for a certificate over the broker gets an answer, and whose certificate ends soon is told."""

import logging
import time

from coordinator.authority import Authority
from mekt.messages import Answer, Renewal, Request

log = logging.getLogger(__name__)

# A device is told again this often that its certificate ends soon, for as long as it does not ask for another.
TELL_S = 3600.0


class Registrar:
    """The coordinator's side of certificates. One thread uses it."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._told_at_s: dict[str, float] = {}

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
        """What a device is to be told that has come online or was heard: to renew its certificate; mostly nothing."""
        told_at_s = self._told_at_s.get(device)
        if told_at_s is not None and now_s - told_at_s < TELL_S:
            return None
        self._told_at_s[device] = now_s
        return Answer(state="due", time_s=time.time()) if self._authority.due(device) else None
