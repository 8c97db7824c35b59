"""A device in rounds whose knowledge is summed in secret: what it says in each step, once and never otherwise.

What it was told is kept, before it answers, until another round's takes its place: an answer to the same question is
the same after a restart, and to another one there is none. What is computed says `mekt.masks`.
"""

import logging
import secrets
from dataclasses import dataclass, field, replace
from typing import Annotated

import msgpack

from edge.memory import Memory
from mekt import catalogue
from mekt.arrays import unpack_knowledge
from mekt.blobs import blob_ref
from mekt.database import DamagedStateError
from mekt.errors import WireError
from mekt.fixedpoint import FINE
from mekt.masks import Advertisement, Member, Revealed, sum_context
from mekt.messages import Keys, Offer, PublicKeys, Sealed, Sha256, Shares, Step, Summing, Unmasking, unpack
from mekt.modality import ModalityName
from mekt.noise import Bits
from mekt.plan import Plan
from mekt.schema import Bounds, Name, SchemaError, build, plain
from mekt.shamir import SECRET_BYTES

log = logging.getLogger(__name__)

Word = Keys | Shares | Offer | Unmasking


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """This device's secret of a round, and what it was told: with whom it sums, their shares, whose words have come.

    `masked`: hashes of the words that it sent.
    """

    secret: Annotated[bytes, Bounds(shortest=SECRET_BYTES, longest=SECRET_BYTES)] = field(repr=False)
    members: dict[ModalityName, dict[Name, PublicKeys]] = field(default_factory=dict)
    sealed: dict[ModalityName, dict[Name, Sealed]] = field(default_factory=dict)
    masked: dict[ModalityName, Sha256] = field(default_factory=dict)
    survivors: tuple[Name, ...] = ()


class Secrecy:
    """What `device` says in secure sums. `masked` are the blobs of what it offers, by hash."""

    def __init__(self, federation: str, device: str, memory: Memory, bits: Bits = secrets.token_bytes) -> None:
        self._federation, self._device = federation, device
        self._memory, self._bits = memory, bits
        self.masked: dict[bytes, bytes] = {}
        self._done: tuple[int, Step] | None = None

    def receipted(self, number: int, step: Step) -> None:
        """The coordinator has, or will never have, what was said in a step."""
        self._done = number, step

    def ask_again(self) -> None:
        """The coordinator announces its step anew; it may have lost what was said."""
        self._done = None

    def word(self, number: int, plan: Plan, summing: Summing, offer: Offer) -> Word | None:
        """What to say now, if anything. `offer`: what this device knows, as it would be offered plainly.

        Raises:
            WireError: when what is asked for does not fit what was told before; nothing is said then.
            MissingPackageError: when `cryptography` is not installed.
            StateError: when the secret cannot be kept or read.
        """
        if self._done == (number, summing.step):
            return None
        kept = self._kept(number)
        if summing.step == "keys":
            if kept is None:
                kept = Kept(secret=self._bits(SECRET_BYTES))
                self._keep(number, kept)
            members = {name: self._member(number, plan, name, kept) for name in offer.knowledge}
            return Keys(keys={name: _keys(each.advertisement) for name, each in members.items()})
        if kept is None or not any(self._device in members for members in summing.members.values()):
            return None
        kept = self._joined(number, plan, summing, kept)
        if summing.step == "shares" or not kept.sealed:
            # In a later step: please tell what others have sealed to this device, which has been lost.
            return Shares(sealed={name: self._sharing(number, plan, name, kept)[1] for name in kept.members})
        if summing.step == "words":
            return self._masked(number, plan, [name for name in kept.sealed if name in summing.members], kept, offer)
        return self._told(number, plan, summing, kept)

    def dealt(self, number: int, plan: Plan, shares: Shares) -> bool:
        """Keep what others have sealed to this device; False when that was known already.

        Raises:
            WireError: when it does not fit, or is other than before.
            StateError: when it cannot be kept.
        """
        kept = self._kept(number)
        if kept is None or not set(shares.sealed) <= set(kept.members):
            raise _unfit("shares that nobody asked for")
        if kept.sealed:
            if any(kept.sealed.get(name) != sealed for name, sealed in shares.sealed.items()):
                raise _unfit("shares of others than before")
            return False
        for name, sealed in shares.sealed.items():
            self._sharing(number, plan, name, kept)[0].open(sealed)
        self._keep(number, replace(kept, sealed=shares.sealed))
        return True

    def _joined(self, number: int, plan: Plan, summing: Summing, kept: Kept) -> Kept:
        """With whom this device sums; from then on with nobody else."""
        mine = {name: members for name, members in summing.members.items() if self._device in members}
        if kept.members:
            if any(kept.members.get(name) != members for name, members in mine.items()):
                raise _unfit("keys of others than before")
            return kept
        if summing.step != "shares":
            raise _unfit("a sum that this device has no part in")
        kept = replace(kept, members=mine)
        for name in mine:
            # Checks the keys, before anything is bound to them.
            self._sharing(number, plan, name, kept)
        self._keep(number, kept)
        return kept

    def _masked(self, number: int, plan: Plan, names: list[str], kept: Kept, offer: Offer) -> Offer | None:
        """The offer of this device's words under masks."""
        blobs: dict[str, bytes] = {}
        for name in names:
            raw = self._memory.knowledge(offer.knowledge[name].sha256) if name in offer.knowledge else None
            if raw is None:
                raise _unfit(f"{name}: this device's knowledge is not here")
            rows_ND, _ = unpack_knowledge(
                raw, windows=plan.knowledge_rows, embedding=plan.method.embedding, hidden=None
            )
            words = FINE.words(rows_ND, min(offer.windows, FINE.most_weight))
            blobs[name] = self._opened(number, plan, name, kept).mask(words).tobytes()
        refs = {name: blob_ref(data) for name, data in blobs.items()}
        masked = {name: ref.sha256 for name, ref in refs.items()}
        if any(kept.masked.get(name, sha256) != sha256 for name, sha256 in masked.items()):
            # The difference of two words under the same masks is there for everybody to see.
            raise _unfit("other words than before")
        if masked.keys() - kept.masked.keys():
            self._keep(number, replace(kept, masked={**kept.masked, **masked}))
        self.masked = {ref.sha256: blobs[name] for name, ref in refs.items()}
        return Offer(knowledge=refs, windows=1, metrics={}, masked=True) if refs else None

    def _told(self, number: int, plan: Plan, summing: Summing, kept: Kept) -> Unmasking | None:
        """This device's shares of what has to be removed from the sum over the survivors, and never over others."""
        if kept.survivors not in ((), summing.survivors):
            raise _unfit("other survivors than before")
        told: dict[str, Revealed] = {}
        for name in summing.members:
            if name in kept.sealed:
                there = frozenset(summing.survivors) & frozenset(summing.members[name])
                told[name] = self._opened(number, plan, name, kept).reveal(there)
        if not kept.survivors:
            self._keep(number, replace(kept, survivors=summing.survivors))
        if not told:
            return None
        return Unmasking(
            seeds={name: dict(each.seeds) for name, each in told.items()},
            mask_keys={name: dict(each.mask_keys) for name, each in told.items()},
        )

    # This device's side of a modality's sum, at each step

    def _member(self, number: int, plan: Plan, name: str, kept: Kept) -> Member:
        return Member(self._device, sum_context(self._federation, plan.run, number, name), kept.secret)

    def _sharing(self, number: int, plan: Plan, name: str, kept: Kept) -> tuple[Member, dict[str, bytes]]:
        member = self._member(number, plan, name, kept)
        advertised = [
            Advertisement(device=device, seal_key=keys.seal, mask_key=keys.mask)
            for device, keys in sorted(kept.members[name].items())
        ]
        return member, member.share(advertised)

    def _opened(self, number: int, plan: Plan, name: str, kept: Kept) -> Member:
        member, _ = self._sharing(number, plan, name, kept)
        member.open(kept.sealed[name])
        return member

    # On disk

    def _kept(self, number: int) -> Kept | None:
        try:
            raw = self._memory.secret(number)
            return None if raw is None else build(Kept, unpack(raw))
        except (DamagedStateError, WireError, SchemaError) as error:
            log.error("round %d: this device's secret is lost (%s); it has no part in this sum", number + 1, error)
            return None

    def _keep(self, number: int, kept: Kept) -> None:
        self._memory.keep_secret(number, msgpack.packb(plain(kept)))


def _keys(word: Advertisement) -> PublicKeys:
    return PublicKeys(seal=word.seal_key, mask=word.mask_key)


def _unfit(reason: str) -> WireError:
    return WireError(f"secure sum: {reason}; this device says nothing", catalogue.SECURE_ROUND_FAILS)
