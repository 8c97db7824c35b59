"""How a device joins: by a token it asks for a certificate, and lets no one see its key. `mekt enroll`.

Each token has a key of its own: who is enrolled anew since somebody may have read the key gets rid of it. Until the
certificate is there, what was in the folder goes on. Killed at any point and done again, it ends as if nothing was.
"""

import contextlib
import hashlib
import json
import queue
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from edge.audit import FOLDER, Audit
from mekt import catalogue, clock
from mekt.errors import LinkError, StateError
from mekt.files import make_folder, write_atomically
from mekt.identity import (
    CA,
    CERTIFICATE,
    COORDINATOR,
    KEY,
    fits,
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
# The hash of the token that the key was made for; before what is there only until the certificate is.
USED, PENDING = "token-used", ".enrol-"
# A clock that is off by less is nobody's trouble.
TOLERANCE_S = 60.0


def enrol(token: Token, folder: Path, timeout_s: float = 60.0) -> float:
    """Make `folder` the device's identity; how many seconds its clock is ahead of the coordinator's.

    Done again with the same token, it gives the same. What is sent is logged in `folder`.

    Raises:
        LinkError: when the broker or the coordinator does not answer, or refuses.
        MissingPackageError: when there is no program `openssl`.
        SettingsError: when a key is there that others can read, or the token's own cannot be used.
        StateError: when the disk does not take it.
    """
    make_folder(folder)
    mark = hashlib.sha256(token.secret).hexdigest()
    key = _key_of(folder, mark)
    csr = key_and_request(key, token.device)
    with tempfile.TemporaryDirectory(dir=folder, prefix=PENDING) as place:
        bearer = Path(place)
        write_identity(bearer, ca=token.ca, certificate=token.certificate, key=token.key)
        clock.remember(bearer, token.made_s)
        with only_process(folder / FOLDER), contextlib.closing(Audit(folder, token.device)) as audit:
            answer = _ask(token, Request(token=token.secret, csr=csr), tls_settings(bearer), audit, timeout_s)
        if answer.state != "issued":
            raise LinkError(f"{token.device} is not enrolled: {answer.reason!r}", catalogue.ENROLMENT_REFUSED)
        write_certificate(bearer / CERTIFICATE, answer.certificate)
        if not fits(bearer / CERTIFICATE, key):
            raise LinkError(
                f"{token.device} is not enrolled: what came is no certificate for its key; ask again",
                catalogue.ENROLMENT_REFUSED,
            )
    write_certificate(folder / CA, token.ca)
    write_atomically(folder / COORDINATOR, token.coordinator.hex().encode())
    clock.remember(folder, min(max(answer.time_s, token.made_s), token.expires_s))
    # In this order, `_key_of` finds the key again.
    write_atomically(folder / USED, mark.encode())
    _move(key, folder / KEY)
    # The last one: with it the identity is whole.
    write_certificate(folder / CERTIFICATE, answer.certificate)
    _forget_attempts(folder)
    return time.time() - answer.time_s


def _key_of(folder: Path, mark: str) -> Path:
    """Where the key for the token of this mark is, or is to be made."""
    pending = folder / f"{PENDING}{mark[:16]}"
    with contextlib.suppress(OSError):
        if not pending.exists() and (folder / USED).read_text(encoding="ascii") == mark:
            return folder / KEY
    return pending


def _move(key: Path, to: Path) -> None:
    try:
        key.replace(to)
    except OSError as error:
        raise StateError(f"{to}: cannot be written ({error.strerror})", catalogue.of_disk(error)) from error


def _forget_attempts(folder: Path) -> None:
    """Remove what other tokens, and attempts that were cut short, left: keys that nobody needs any more."""
    for path in folder.glob(f"{PENDING}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def settings_text(token: Token, folder: str, *, wearable: bool = False) -> str:
    """A settings file to begin with, of a device or a `wearable`: all that it takes to use the identity in `folder`."""

    def text(value: str) -> str:
        """In quotes, with what TOML and JSON both escape."""
        return json.dumps(value, ensure_ascii=False)

    names = f"federation = {text(token.federation)}\ndevice = {text(token.device)}\n"
    coordinator = text(f"{folder}/{COORDINATOR}")
    begin, within = f"{names}\n[trust]\ncoordinator = {coordinator}\n", ""
    if wearable:
        begin, within = f"[updates]\n{names}trust = {coordinator}\n", "updates."
    return (
        f"{begin}"
        f"\n[{within}broker]\n"
        f"host = {text(token.host)}\n"
        f"port = {token.port}\n"
        f"\n[{within}broker.tls]\n"
        f"ca = {text(f'{folder}/{CA}')}\n"
        f"certificate = {text(f'{folder}/{CERTIFICATE}')}\n"
        f"key = {text(f'{folder}/{KEY}')}\n"
        "\n# Here a [[sensors]] table for each sensor: `mekt sensors list` shows those that it finds.\n"
    )


def _ask(token: Token, request: Request, tls: TlsSettings, audit: Audit, timeout_s: float) -> Answer:
    inbox: queue.Queue[Any] = queue.Queue(64)
    post = Post(token.federation)
    link = Link(
        settings=BrokerSettings(host=token.host, port=token.port, tls=tls),
        client_id=f"mekt:{token.federation}:{APPLICANT}{token.device}",
        inbox=inbox,
        subscriptions=for_applicant(token.federation, token.device),
        # An answer to somebody who has gone is not for the next one.
        keeps_session=False,
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
