"""Messages in and out of a link: sealed in numbered envelopes on the way out, validated and counted on the way in."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from mekt.errors import LinkError, WireError
from mekt.link import Link, Received
from mekt.messages import KIND_OF, Body, Envelope, Rollout, RoundOpen, Trouble, decode, encode, unsigned
from mekt.signature import Purpose, Refusal, Trust
from mekt.topics import Direction, Topic, parse_topic

log = logging.getLogger(__name__)

# Causes told apart; a peer cannot fill the memory by inventing more.
MOST_CAUSES = 256
# What the coordinator signs, and for what purpose.
SIGNED: dict[type[Body], Purpose] = {RoundOpen: "round", Rollout: "rollout"}
REFUSALS: dict[Refusal, str] = {
    "unsigned": "an announcement without the coordinator's signature; somebody else may have made it",
    "replayed": "an announcement that is older than one that was seen; somebody may have kept it",
}
LONGEST_CAUSE = 160


class Post:
    """The messages of one side of one federation. One thread uses it, the one that owns the side's state."""

    def __init__(self, federation: str, proxy: bytes = b"") -> None:
        self.federation = federation
        self.proxy = proxy
        self.trouble: Counter[Trouble] = Counter()
        self.rejected: Counter[str] = Counter()
        # How the coordinator signs what it says to all, and whose signature a device takes; None where nobody does.
        self.sign: Callable[[Purpose, bytes], bytes] | None = None
        self.trust: Trust | None = None
        self._link: Link | None = None
        self._sequence = 0

    def use(self, link: Link) -> None:
        """Send through `link` from now on."""
        self._link = link

    def seal(self, body: Body, direction: Direction, *, device: str = "", round: int = 0) -> tuple[str, bytes]:
        """Topic and bytes of a message.

        Raises:
            WireError: when no receiver would accept it, such as one larger than its kind allows.
        """
        self._sequence += 1
        envelope = Envelope(
            federation=self.federation,
            round=round,
            device=device,
            sequence=self._sequence,
            proxy=self.proxy,
            body=body,
        )
        topic = Topic(federation=self.federation, direction=direction, kind=KIND_OF[type(body)], device=device)
        if self.sign is not None and type(body) in SIGNED:
            envelope = replace(envelope, signature=self.sign(SIGNED[type(body)], unsigned(envelope)))
        return str(topic), encode(envelope)

    def send(self, body: Body, direction: Direction, *, device: str = "", round: int = 0, retain: bool = False) -> bool:
        """Send a message; False, and logged once per cause, when it cannot be sent. Most will be asked for again."""
        assert self._link is not None, "a post without a link"
        try:
            topic, raw = self.seal(body, direction, device=device, round=round)
            self._link.publish(topic, raw, retain=retain)
        except (WireError, LinkError) as error:
            self.reject("not-sent", f"not sent: {error}")
            return False
        return True

    def open(self, received: Received) -> Envelope | None:
        """The message that arrived, or None when it is none; that is logged once per cause."""
        topic = parse_topic(received.topic)
        if topic is None or topic.federation != self.federation:
            self.reject("foreign", "a topic of another federation or version")
            return None
        try:
            envelope = decode(received.payload, topic)
            # Whoever packs a message so that it grows when it is packed again for that has sent none.
            refusal = self._refusal(envelope)
        except WireError as error:
            self.reject("malformed", f"{topic.device or 'coordinator'}, {topic.kind}: {error}")
            return None
        if refusal is not None:
            self.reject(refusal, f"{envelope.kind}: {REFUSALS[refusal]}")
            return None
        return envelope

    def _refusal(self, envelope: Envelope) -> Refusal | None:
        """Why an announcement is not taken for the coordinator's newest; None where it is, or nobody checks."""
        purpose = SIGNED.get(type(envelope.body))
        if self.trust is None or purpose is None:
            return None
        return self.trust.refusal(purpose, unsigned(envelope), envelope.signature)

    def note(self, trouble: Trouble) -> None:
        """Count what was taken in spite of something, and did no harm."""
        self.trouble[trouble] += 1

    def reject(self, trouble: Trouble, cause: str) -> None:
        """Count what was dropped and why. A cause may quote a peer: it stays one line."""
        self.note(trouble)
        cause = one_line(cause[:LONGEST_CAUSE])
        if cause not in self.rejected and len(self.rejected) >= MOST_CAUSES:
            cause = "other causes"
        self.rejected[cause] += 1
        if self.rejected[cause] == 1:
            log.warning("dropped (%s): %s", trouble, cause)


def one_line(text: str) -> str:
    """`text` without what could break a line of a log, or speak to a terminal."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
