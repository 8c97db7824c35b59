"""Secure aggregation: the coordinator learns the sum of what devices give and nothing else of it. Pure.

After Bonawitz et al., CCS 2017 (Practical Secure Aggregation for Privacy-Preserving Machine Learning), figure 4, for a
coordinator that is curious and keeps to the protocol. One round, of whoever is still there:

    advertise   every device has two X25519 key pairs for this round alone, and shows the public halves
    share       every device has a seed of its own and deals shares of it, and of its mask key, to all others, sealed
    mask        every device adds to its words a mask from its seed, and one for each other device from the secret that
                both have in common: one of the two adds it, the other subtracts it
    reveal      once it is settled whose words have come, every device gives for each of these its share of the seed,
                and for each that dealt shares and then fell silent its share of the mask key, never both

More than two thirds of those with keys have to be left in each step. The coordinator removes the seeds' masks, which
hide the words of somebody who was only slow and whose pairs' masks had to be removed, and what masks of the silent are
left over.

All that a device says follows from its secret of the round and what it was told, so that a device that was switched off
in between goes on when it is told the same again; told anything else, it says nothing.

What the core handles: drop-outs in every step, messages that do not fit, a coordinator that asks twice. What it does
not: a coordinator that hands out public keys of its own or tells devices of different survivors (that takes signed keys
and signed lists, the paper's section 6); a device that sends nonsense, which nobody sees in a sum. What the shell must
do: carry the messages; decide by deadline or quorum who is left; keep for a device what it was told until its round is
over, and then forget the secret.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from mekt import catalogue
from mekt.errors import MissingPackageError, WireError
from mekt.fixedpoint import Words
from mekt.messages import KEY_BYTES, SEALED_BYTES
from mekt.shamir import SECRET_BYTES, SHARE_BYTES, join, split

REMEDY = 'in the folder of Mekt: pip install -c constraints.txt -e ".[secure]"'
NONCE = bytes(12)  # A key seals one message.
# Of two, each would know the other's words from the sum.
LEAST_MEMBERS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Advertisement:
    """A device's public keys of one round: those that shares are sealed to, and those that masks come from."""

    device: str
    seal_key: bytes
    mask_key: bytes

    def __post_init__(self) -> None:
        if len(self.seal_key) != KEY_BYTES or len(self.mask_key) != KEY_BYTES:
            raise ValueError(f"{self.device}: a public key has {KEY_BYTES} bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class Revealed:
    """A device's shares: of the seeds of those whose words came, of the mask keys of those that fell silent."""

    seeds: Mapping[str, bytes]
    mask_keys: Mapping[str, bytes]


def check_package() -> None:
    """See to it that secure sums can be computed here.

    Raises:
        MissingPackageError: when `cryptography` is not installed.
    """
    _primitives()


def sum_context(federation: str, run: str, number: int, modality: str) -> bytes:
    """What binds a sum's secrets to one round of one run, and to one modality."""
    return "/".join(("mekt", federation, run, str(number), modality)).encode()


def least_threshold(devices: int) -> int:
    """The smallest threshold that is safe: more than two thirds.

    Above a half suffices against a coordinator that keeps to the protocol. With two thirds one that tells halves of the
    devices different survivors does not get both secrets of anybody.
    """
    return 2 * devices // 3 + 1


class Member:
    """A device's side of one round, made of its `secret` of 32 bytes for that round.

    `context` names federation, run, round and modality, alike on all sides. What was told once may be told again.
    """

    def __init__(self, device: str, context: bytes, secret: bytes) -> None:
        """Take the secret up.

        Raises:
            MissingPackageError: when `cryptography` is not installed.
        """
        self.device = device
        self._context, self._secret = context, secret
        self._parts = _primitives()
        self._seal_key, self._mask_key = self._derived(b"seal key"), self._derived(b"mask key")
        self._seed = self._derived(b"seed")
        self._others: dict[str, Advertisement] = {}
        self._dealers: frozenset[str] = frozenset()
        self._words: bytes | None = None
        self._shares: dict[str, tuple[bytes, bytes]] = {}
        self._revealed: frozenset[str] | None = None

    @property
    def advertisement(self) -> Advertisement:
        """What everybody may see."""
        seal_key, mask_key = (_public(self._parts, key) for key in (self._seal_key, self._mask_key))
        return Advertisement(device=self.device, seal_key=seal_key, mask_key=mask_key)

    def share(self, advertised: Sequence[Advertisement]) -> dict[str, bytes]:
        """Shares of this device's secrets for everybody who advertised keys, each sealed to its holder.

        Raises:
            WireError: when there are too few, this device is not among them, keys are named twice, or others were
                told before.
        """
        there = {each.device: each for each in advertised}
        keys = {each.mask_key for each in advertised}
        if there.get(self.device) != self.advertisement or len(there) < LEAST_MEMBERS:
            raise _unfit(f"{len(there)} devices with keys, or this one's are others")
        if len(there) != len(advertised) or len(keys) != len(advertised):
            raise _unfit("two devices have the same name or key")
        others = {name: each for name, each in sorted(there.items()) if name != self.device}
        if self._others not in ({}, others):
            raise _unfit("other keys than before")
        self._others = others
        names, threshold = sorted(there), least_threshold(len(there))
        seeds = split(self._seed, len(names), threshold, self._bits(b"shares of seed"))
        mask_keys = split(self._mask_key, len(names), threshold, self._bits(b"shares of mask key"))
        shares = dict(zip(names, zip(seeds, mask_keys, strict=True), strict=True))
        self._shares[self.device] = shares[self.device]
        return {name: self._sealed(each, b"".join(shares[name])) for name, each in self._others.items()}

    def open(self, dealt: Mapping[str, bytes]) -> None:
        """Take up what others have sealed to this device: all who dealt shares.

        Raises:
            WireError: when too few dealt, a sealed message is not theirs, or others were told before.
        """
        dealers = frozenset((*dealt, self.device))
        if not self._others or not set(dealt) <= set(self._others) or self._dealers not in (frozenset(), dealers):
            raise _unfit("shares of strangers, or of others than before")
        if len(dealers) < least_threshold(1 + len(self._others)):
            raise _unfit(f"{len(dealers)} devices are left, fewer than are needed")
        opened = {name: self._opened(self._others[name], sealed) for name, sealed in sorted(dealt.items())}
        for name, shares in opened.items():
            self._shares[name] = (shares[:SHARE_BYTES], shares[SHARE_BYTES:])
        self._dealers = dealers

    def mask(self, words: Words) -> Words:
        """This device's words under its masks; the same words only.

        Raises:
            WireError: when no shares were taken up, or other words were masked before.
        """
        given = hashlib.sha256(words.tobytes()).digest()
        if not self._dealers or self._words not in (None, given):
            # The difference of two words under the same masks is there for everybody to see.
            raise _unfit("no shares yet, or other words than before")
        self._words = given
        masked = words + _expanded(self._seed, self._context, words)
        for name in sorted(self._dealers - {self.device}):
            masked = masked + _pair_mask(
                self._parts, self._mask_key, self.device, self._others[name], self._context, words
            )
        return masked

    def reveal(self, survivors: frozenset[str]) -> Revealed:
        """This device's shares of what has to be removed from the sum over `survivors`. Only of these is that told.

        Raises:
            WireError: when too few are left, strangers are named, or other survivors were named before.
        """
        if not self._dealers or not survivors <= self._dealers:
            raise _unfit("survivors that have dealt no shares")
        if len(survivors) < least_threshold(1 + len(self._others)):
            raise _unfit(f"{len(survivors)} devices are left, fewer than are needed")
        if self._revealed not in (None, survivors):
            # Of a device that is once among them and once not, both secrets would be told, and with them its words.
            raise _unfit("other survivors than before")
        self._revealed = survivors
        return Revealed(
            seeds={name: self._shares[name][0] for name in sorted(survivors)},
            mask_keys={name: self._shares[name][1] for name in sorted(self._dealers - survivors)},
        )

    def _derived(self, purpose: bytes, size_bytes: int = SECRET_BYTES) -> bytes:
        return hashlib.shake_256(b"/".join((b"mekt member", self._secret, purpose, self._context))).digest(size_bytes)

    def _bits(self, purpose: bytes) -> Callable[[int], bytes]:
        """As many bytes as are asked for, others each time, and the same ones after a restart."""
        numbers = itertools.count()
        return lambda size_bytes: self._derived(purpose + next(numbers).to_bytes(4, "little"), size_bytes)

    def _sealed(self, to: Advertisement, shares: bytes) -> bytes:
        key = _agreed(self._parts, self._seal_key, to.seal_key, self._about(self.device, to.device))
        sealed: bytes = self._parts.aead(key).encrypt(NONCE, shares, None)
        return sealed

    def _opened(self, by: Advertisement, sealed: bytes) -> bytes:
        key = _agreed(self._parts, self._seal_key, by.seal_key, self._about(by.device, self.device))
        try:
            opened: bytes = self._parts.aead(key).decrypt(NONCE, sealed, None)
        except self._parts.invalid_tag as error:
            raise _unfit(f"what {by.device} has sealed cannot be opened") from error
        if len(opened) != 2 * SHARE_BYTES:
            raise _unfit(f"what {by.device} has sealed are no shares")
        return opened

    def _about(self, one: str, other: str) -> bytes:
        """From whom to whom: in each direction it is another key."""
        return b"/".join((b"seal", self._context, one.encode(), other.encode()))


class Collector:
    """The coordinator's side of one round: public keys, sealed shares it cannot open, masked words, their sum."""

    def __init__(self, context: bytes) -> None:
        """Begin a round.

        Raises:
            MissingPackageError: when `cryptography` is not installed.
        """
        self._context = context
        self._parts = _primitives()
        self._advertised: dict[str, Advertisement] = {}
        self._dealt: dict[str, dict[str, bytes]] = {}
        self._masked: dict[str, Words] = {}
        self._revealed: dict[str, Revealed] = {}

    def advertised(self, word: Advertisement) -> None:
        """A device has shown its keys."""
        self._advertised[word.device] = word

    def advertisements(self) -> tuple[Advertisement, ...]:
        """For everybody who has shown keys."""
        return tuple(self._advertised[name] for name in sorted(self._advertised))

    def dealt(self, device: str, sealed: Mapping[str, bytes]) -> None:
        """A device has dealt its shares.

        Raises:
            WireError: when they are not one for each of the others.
        """
        if set(sealed) != set(self._advertised) - {device} or any(len(x) != SEALED_BYTES for x in sealed.values()):
            raise _unfit(f"{device} has not dealt one share to each of the others")
        self._dealt[device] = dict(sealed)

    def for_member(self, device: str) -> dict[str, bytes]:
        """What others have sealed to a device, of all who have dealt."""
        return {name: sealed[device] for name, sealed in sorted(self._dealt.items()) if name != device}

    def masked(self, device: str, words: Words) -> None:
        """A device's masked words have come.

        Raises:
            WireError: when it has dealt no shares, or they are not as many as others'.
        """
        size = next((len(each) for each in self._masked.values()), len(words))
        if device not in self._dealt or len(words) != size:
            raise _unfit(f"{device} has dealt no shares, or its words are not as many as others'")
        self._masked[device] = words

    @property
    def threshold(self) -> int:
        """How many have to be left, of those that have shown keys."""
        return least_threshold(len(self._advertised))

    @property
    def survivors(self) -> frozenset[str]:
        """Whose words are here. Once it was told, no word may come any more."""
        return frozenset(self._masked)

    def revealed(self, device: str, shares: Revealed) -> None:
        """A device has told its shares.

        Raises:
            WireError: when they are not those that were asked for.
        """
        silent = set(self._dealt) - self.survivors
        sizes = {len(each) for each in (*shares.seeds.values(), *shares.mask_keys.values())}
        if set(shares.seeds) != self.survivors or set(shares.mask_keys) != silent or sizes != {SHARE_BYTES}:
            raise _unfit(f"{device} has told other shares than those asked for")
        if device not in self._dealt:
            raise _unfit(f"{device} holds no shares")
        self._revealed[device] = shares

    def sum(self) -> Words:
        """The sum of all words that have come, without any mask.

        Raises:
            WireError: when too few devices have told their shares, or these are of no secret.
        """
        if len(self._revealed) < self.threshold:
            raise _unfit(f"{len(self._revealed)} devices have told shares of the {self.threshold} that are needed")
        words = list(self._masked.values())
        total: Words = np.sum(np.stack(words), axis=0, dtype=words[0].dtype)
        for name in sorted(self.survivors):
            seed = self._joined({who: each.seeds[name] for who, each in self._revealed.items()}, name)
            total = total - _expanded(seed, self._context, total)
        for name in sorted(set(self._dealt) - self.survivors):
            key = self._joined({who: each.mask_keys[name] for who, each in self._revealed.items()}, name)
            if _public(self._parts, key) != self._advertised[name].mask_key:
                raise _unfit(f"the shares of {name}'s mask key are of another key")
            for other in sorted(self.survivors):
                # What the silent one would have put in is what its pairs have left over.
                total = total + _pair_mask(self._parts, key, name, self._advertised[other], self._context, total)
        return total

    def _joined(self, shares: Mapping[str, bytes], of: str) -> bytes:
        number = {name: place for place, name in enumerate(sorted(self._advertised), start=1)}
        try:
            return join({number[who]: share for who, share in shares.items()}, self.threshold)
        except ValueError as error:
            raise _unfit(f"{of}: {error}") from error


def _pair_mask(
    parts: SimpleNamespace, key: bytes, mine: str, other: Advertisement, context: bytes, like: Words
) -> Words:
    """What `mine` adds to its words for a pair: the other adds the same with the opposite sign."""
    one, two = sorted((mine, other.device))
    about = b"/".join((b"mask", context, one.encode(), two.encode()))
    mask = _expanded(_agreed(parts, key, other.mask_key, about), context, like)
    return mask if mine == one else np.zeros_like(mask) - mask


def _expanded(seed: bytes, context: bytes, like: Words) -> Words:
    """A mask as long as `like`, every word of it as likely as any other to whoever does not know the seed."""
    raw = hashlib.shake_256(b"mekt mask\0" + seed + context).digest(like.nbytes)
    mask: Words = np.frombuffer(raw, dtype=like.dtype)
    return mask


def _agreed(parts: SimpleNamespace, private: bytes, public: bytes, about: bytes) -> bytes:
    """A secret of two devices for one purpose: X25519, then HKDF.

    Raises:
        WireError: when the public key is one of the few with which everybody has the same secret.
    """
    try:
        shared = parts.private(private).exchange(parts.public(public))
    except ValueError as error:
        raise _unfit(f"a public key that is none ({error})") from error
    derived: bytes = parts.hkdf(algorithm=parts.sha256(), length=SECRET_BYTES, salt=None, info=about).derive(shared)
    return derived


def _public(parts: SimpleNamespace, private: bytes) -> bytes:
    raw: bytes = parts.private(private).public_key().public_bytes_raw()
    return raw


def _primitives() -> SimpleNamespace:
    """What is needed of `cryptography`.

    Raises:
        MissingPackageError: when it is not installed.
    """
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as error:
        raise MissingPackageError(
            f"secure aggregation needs cryptography, which is not installed ({error}); {REMEDY}",
            catalogue.PACKAGE_MISSING,
        ) from error
    parts: Any = SimpleNamespace(
        private=X25519PrivateKey.from_private_bytes,
        public=X25519PublicKey.from_public_bytes,
        aead=ChaCha20Poly1305,
        invalid_tag=InvalidTag,
        hkdf=HKDF,
        sha256=SHA256,
    )
    return parts  # type: ignore[no-any-return]


def _unfit(what: str) -> WireError:
    return WireError(f"secure aggregation: {what}", catalogue.SECURE_ROUND_FAILS)
