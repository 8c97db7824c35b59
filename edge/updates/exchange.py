"""What a wearable hears from its coordinator and says to it: trusted before it is heard, logged before it leaves."""

import logging
import queue
from pathlib import Path
from typing import Any

from edge.audit import Audit
from edge.renewal import Certificate
from edge.updates.settings import UpdateSettings
from mekt.identity import KeptTrust
from mekt.link import Link, Received
from mekt.login import located
from mekt.messages import Answer, Body, Chunk, Fitness, Rollout
from mekt.post import Post
from mekt.signature import Trust
from mekt.topics import for_wearable

log = logging.getLogger(__name__)


class Exchange:
    """A link to the broker whose events go to `inbox`; messages among them are read here. The log is in `folder`."""

    def __init__(self, settings: UpdateSettings, base: Path, folder: Path, inbox: "queue.Queue[Any]") -> None:
        """Connect to nothing yet; paths are relative to `base`.

        Raises:
            SettingsError: when the settings cannot work.
            StateError: when what was trusted or said before cannot be read, or the log not be written.
        """
        broker = located(settings.broker, base)
        self._device = settings.device
        self.post = Post(settings.federation)
        self._trust: KeptTrust | None = None
        if settings.trust is not None:
            self._trust = KeptTrust(base / settings.trust, folder / "newest-rollout")
            self.post.trust = self._trust.trust
        elif not settings.broker.is_local:
            log.warning("ROLLOUTS ARE NOT CHECKED: who has the broker can make them; add trust to [updates]")
        self._certificate = Certificate(settings.device, broker.tls)
        self._audit = Audit(folder, settings.device)
        self._link = Link(
            settings=broker,
            client_id=f"mekt:{settings.federation}:{settings.device}",
            inbox=inbox,
            subscriptions=for_wearable(settings.federation, settings.device),
            witness=self._audit,
        )
        self.post.use(self._link)

    @property
    def trust(self) -> Trust | None:
        """By which a release is checked: the coordinator's key, whatever it signed before."""
        return None if self._trust is None else Trust(self._trust.trust.key)

    @property
    def down_bytes(self) -> int:
        """How much has come over the connection, of whatever kind."""
        return self._link.wire_bytes().down

    def begin(self) -> None:
        """Connect, as soon as that can be; nothing is waited for."""
        self._link.begin()

    def read(self, received: Received) -> Rollout | Chunk | None:
        """What is for the updates, if that is; what is about the certificate is answered.

        Raises:
            MektError: when what it takes cannot be written, or the answer not be made.
        """
        envelope = self.post.open(received)
        match None if envelope is None else envelope.body:
            case None:
                pass
            case Rollout() as rollout:
                if self._trust is not None:
                    self._trust.keep()
                return rollout
            case Chunk() as chunk:
                return chunk
            case Answer() as answer:
                renewal = self._certificate.answered(answer)
                if renewal is not None:
                    self.send(renewal)
            case _:
                self.post.reject("misplaced", "a message that is none for a wearable")
        return None

    def send(self, body: Body) -> None:
        """Say it now, or not at all: what is said before there is a connection is said again when there is one."""
        if self._link.is_connected:
            self.post.send(body, "up", device=self._device, retain=isinstance(body, Fitness))

    def stop(self, timeout_s: float) -> None:
        """End the connection, and close the log."""
        self._link.stop(timeout_s)
        self._audit.close()
