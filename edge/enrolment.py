"""How a device joins: by a token it asks for a certificate, and lets no one see its key. `mekt enroll`."""

import contextlib
import queue
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.audit import FOLDER, Audit
from mekt import catalogue
from mekt.errors import LinkError
from mekt.files import make_folder, write_atomically
from mekt.identity import (
    CA,
    CERTIFICATE,
    COORDINATOR,
    KEY,
    key_and_request,
    tls_settings,
    write_certificate,
    write_identity,
)
from mekt.link import Link, Received
from mekt.login import BrokerSettings, TlsSettings
from mekt.messages import Answer, Request
from mekt.post import Post
from mekt.process import only_process
from mekt.token import Token
from mekt.topics import APPLICANT, for_applicant

ASK_S = 5.0
# A clock that is off by less is nobody's trouble.
TOLERANCE_S = 60.0


def enrol(token: Token, folder: Path, timeout_s: float = 60.0) -> float:
    """Make `folder` the device's identity; how many seconds its clock is ahead of the coordinator's.

    Done again with the same token, it gives the same. What is sent is logged in `folder`.

    Raises:
        LinkError: when the broker or the coordinator does not answer, or refuses.
        MissingPackageError: when there is no program `openssl`.
        SettingsError: when a key is there that others can read.
        StateError: when the disk does not take it.
    """
    make_folder(folder)
    csr = key_and_request(folder / KEY, token.device)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as place:
        bearer = Path(place)
        write_identity(bearer, ca=token.ca, certificate=token.certificate, key=token.key)
        with only_process(folder / FOLDER), contextlib.closing(Audit(folder, token.device)) as audit:
            answer = _ask(token, Request(token=token.secret, csr=csr), tls_settings(bearer), audit, timeout_s)
    if answer.state != "issued":
        raise LinkError(f"{token.device} is not enrolled: {answer.reason!r}", catalogue.ENROLMENT_REFUSED)
    write_certificate(folder / CA, token.ca)
    write_atomically(folder / COORDINATOR, token.coordinator.hex().encode())
    # The last one: with it the identity is whole.
    write_certificate(folder / CERTIFICATE, answer.certificate)
    return time.time() - answer.time_s


def settings_text(token: Token, folder: str) -> str:
    """What a device's settings file needs to use the identity in `folder`."""
    return (
        f'federation = "{token.federation}"\n'
        f'device = "{token.device}"\n'
        "\n[broker]\n"
        f'host = "{token.host}"\n'
        f"port = {token.port}\n"
        "\n[broker.tls]\n"
        f'ca = "{folder}/{CA}"\n'
        f'certificate = "{folder}/{CERTIFICATE}"\n'
        f'key = "{folder}/{KEY}"\n'
        "\n[trust]\n"
        f'coordinator = "{folder}/{COORDINATOR}"\n'
    )


def _ask(token: Token, request: Request, tls: TlsSettings, audit: Audit, timeout_s: float) -> Answer:
    inbox: queue.Queue[Any] = queue.Queue(64)
    post = Post(token.federation)
    link = Link(
        settings=BrokerSettings(host=token.host, port=token.port, tls=tls),
        client_id=f"mekt:{token.federation}:{APPLICANT}{token.device}",
        inbox=inbox,
        subscriptions=for_applicant(token.federation, token.device),
        witness=audit,
    )
    post.use(link)
    link.start(timeout_s)
    try:
        ends_s, asked_s = time.monotonic() + timeout_s, float("-inf")
        while (now_s := time.monotonic()) < ends_s:
            if now_s - asked_s >= ASK_S:
                asked_s = now_s
                post.send(request, "enroll", device=token.device)
            with contextlib.suppress(queue.Empty):
                event = inbox.get(timeout=0.2)
                envelope = post.open(event) if isinstance(event, Received) else None
                if envelope is not None and isinstance(envelope.body, Answer):
                    return envelope.body
    finally:
        link.stop()
    raise LinkError(
        f"the coordinator of {token.federation} does not answer within {timeout_s:g} s; is it running, with "
        "[trust] authority in its settings?",
        catalogue.ENROLMENT_UNANSWERED,
    )
