"""What comes in for the open round: whose offer is taken, which chunks of it are asked for, why it is refused. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from coordinator.delivery import Incoming, Unusable, Whole, masked_problem, offer_problem
from coordinator.round import RoundRules, RoundState
from mekt.blobs import ChunkError, proxy_hash
from mekt.messages import Chunk, Offer, Trouble, Want
from mekt.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What is offered is there already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """What is offered, of `age` rounds, cannot be taken; `trouble` is the name under which that is counted."""

    age: int
    trouble: Trouble
    reason: str


class Intake:
    """The offers of all devices while they are fetched. Times are monotonic seconds."""

    def __init__(self, plan: Plan, rules: RoundRules) -> None:
        self._plan = plan
        self._rules = rules
        self._proxy = proxy_hash(plan.proxy)
        self._incoming: dict[str, Incoming] = {}

    @property
    def devices(self) -> tuple[str, ...]:
        """Whose offers are being fetched."""
        return tuple(self._incoming)

    def offered(
        self, device: str, number: int, proxy: bytes, offer: Offer, state: RoundState
    ) -> Delivered | Refused | None:
        """The answer to an offer, or None: then it is fetched from now on, or goes on to be.

        `proxy` names the proxy set that its round, `number`, is about.
        """
        late = offer.age > 0
        there = state.settled.get("masking", () if self._rules.secure and state.phase != "masking" else state.received)
        if number == state.round and (device in there or (late and device in state.late)):
            return Delivered()
        problem = self._problem(device, number, proxy, offer, state)
        if problem is not None:
            trouble, reason = problem
            return Refused(age=offer.age, trouble=trouble, reason=reason)
        known = self._incoming.get(device)
        if known is None or known.offer.knowledge != offer.knowledge:
            self._incoming[device] = Incoming(offer, self._plan)
        return None

    def take(self, device: str, chunk: Chunk, state: RoundState) -> Whole | Refused | None:
        """Accept a chunk; the whole of an offer when it was the last one of it.

        Raises:
            ChunkError: when nobody asked for it, it does not fit, or a blob was damaged and is asked for again.
        """
        incoming = self._incoming.get(device)
        if incoming is None:
            # What was asked for twice may come twice, also when all is there.
            if device in state.delivered:
                return None
            raise ChunkError("unasked-chunk", "a chunk came that nobody asked for")
        outcome = incoming.take(chunk)
        if outcome is not None:
            del self._incoming[device]
        if isinstance(outcome, Unusable):
            return Refused(age=incoming.offer.age, trouble="unfit-offer", reason=outcome.reason)
        return outcome

    def due(self, now_s: float) -> list[tuple[str, Want]]:
        """What to ask of whom now."""
        return [(device, want) for device, incoming in self._incoming.items() for want in incoming.due(now_s)]

    def ask_again(self, device: str) -> None:
        """A device is back: what it was asked for before may be lost."""
        if device in self._incoming:
            self._incoming[device].ask_again()

    def keep_only(self, devices: Collection[str]) -> None:
        """Drop what is on its way of others than these. A round that opens anew goes on with it."""
        self._incoming = {name: each for name, each in self._incoming.items() if name in devices}

    def _problem(
        self, device: str, number: int, proxy: bytes, offer: Offer, state: RoundState
    ) -> tuple[Trouble, str] | None:
        """Why this offer is not taken, or None."""
        if number < state.round or (number == state.round and state.phase == "distilling"):
            return "old-round", f"round {number + 1} is over"
        if number > state.round:
            return "early-round", f"round {number + 1} has not begun"
        if device not in state.participants:
            return "uninvited", f"{device} takes no part in round {number + 1}"
        if proxy != self._proxy:
            return "other-proxy-set", "it is about another proxy set"
        if offer.age > 0 and not self._rules.takes_late:
            return "old-round", "it was learned for an earlier round, and this federation drops such knowledge"
        if bool(offer.masked) != self._rules.secure:
            wanted = "masked words alone" if self._rules.secure else "no masked words"
            return "unfit-offer", f"this federation takes {wanted}"
        if self._rules.secure:
            if state.phase != "masking":
                return "old-round" if "masking" in state.settled else "early-round", "no words are summed at this step"
            modalities = [name for name, members in state.groups.items() if device in members]
            problem = masked_problem(offer, modalities, self._plan)
        else:
            problem = offer_problem(offer, self._plan)
        return None if problem is None else ("unfit-offer", problem)
