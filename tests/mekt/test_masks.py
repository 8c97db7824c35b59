"""Secure aggregation: the sum is exact whoever drops out whenever, and nothing but the sum can be seen."""

import builtins
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt.errors import MissingPackageError, WireError
from mekt.fixedpoint import FixedPoint, Words
from mekt.masks import (
    Advertisement,
    Collector,
    Member,
    Revealed,
    _expanded,
    _pair_mask,
    _primitives,
    least_threshold,
)

pytest.importorskip("cryptography")

CONTEXT = b"ward/0a/3/acc"
FIXED = FixedPoint()
SHAPE = (5, 3)


def names(count: int) -> list[str]:
    return [f"pi-{number}" for number in range(count)]


def secret_of(name: str) -> bytes:
    return random.Random(name).randbytes(32)


def words_of(name: str) -> Words:
    seed = int(name.removeprefix("pi-"))
    rows = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    return FIXED.words(rows, seed + 1)


class Round:
    """A round in memory, step by step; a device that is not named in a step has dropped out by then."""

    def __init__(self, count: int) -> None:
        self.members = {name: Member(name, CONTEXT, secret_of(name)) for name in names(count)}
        self.collector = Collector(CONTEXT)

    def advertise(self, who: Sequence[str]) -> None:
        for name in who:
            self.collector.advertised(self.members[name].advertisement)

    def share(self, who: Sequence[str]) -> None:
        for name in who:
            self.collector.dealt(name, self.members[name].share(self.collector.advertisements()))

    def mask(self, who: Sequence[str]) -> None:
        for name in who:
            self.members[name].open(self.collector.for_member(name))
            self.collector.masked(name, self.members[name].mask(words_of(name)))

    def reveal(self, who: Sequence[str]) -> None:
        for name in who:
            self.collector.revealed(name, self.members[name].reveal(self.collector.survivors))


def whole(count: int, *steps: Sequence[str]) -> Round:
    """A round with these devices in each step; where nothing is said, those of the step before."""
    made = Round(count)
    there = [*(steps or [names(count)])]
    there += [there[-1]] * (4 - len(there))
    for step, who in zip((made.advertise, made.share, made.mask, made.reveal), there, strict=True):
        step(who)
    return made


def plain_sum(who: Sequence[str]) -> Words:
    total = np.zeros(SHAPE[0] * SHAPE[1] + 1, np.uint32)
    for name in who:
        total = total + words_of(name)
    return total


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_sum_is_that_of_whose_words_came_exactly_whoever_drops_out_in_whichever_step(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 12))
    there = sorted(data.draw(st.sets(st.sampled_from(names(count)), min_size=3)))
    threshold, steps = least_threshold(len(there)), [there]
    for _ in range(3):
        there = sorted(data.draw(st.sets(st.sampled_from(there), min_size=threshold)))
        steps.append(there)
    made = whole(count, *steps)
    np.testing.assert_array_equal(made.collector.sum(), plain_sum(steps[2]))


def test_who_could_not_deliver_its_words_may_still_help_to_unmask_those_of_others() -> None:
    made = Round(4)
    made.advertise(names(4))
    made.share(names(4))
    made.mask(names(4)[:3])
    made.members["pi-3"].open(made.collector.for_member("pi-3"))
    made.reveal(names(4)[1:])
    np.testing.assert_array_equal(made.collector.sum(), plain_sum(names(4)[:3]))


def test_the_mean_that_comes_out_is_the_weighted_one() -> None:
    mean, weight = FIXED.mean(whole(5).collector.sum(), SHAPE)
    given = [np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in range(5)]
    assert weight == 15
    np.testing.assert_allclose(mean, np.average(given, axis=0, weights=[1, 2, 3, 4, 5]), atol=FIXED.precision + 1e-6)


def test_masked_words_look_like_chance_whatever_the_words_are() -> None:
    members = [Member(name, CONTEXT, secret_of(name)) for name in names(3)]
    advertised = [each.advertisement for each in members]
    dealt = {each.device: each.share(advertised) for each in members}
    for member in members:
        to_it = {name: sealed[member.device] for name, sealed in dealt.items() if name != member.device}
        member.open(to_it)
        masked = member.mask(np.zeros(100_000, np.uint32))
        ones = np.unpackbits(masked.view(np.uint8)).mean()
        assert abs(ones - 0.5) < 0.002
        assert len(np.unique(masked)) > 99_000


def test_words_that_come_after_their_pairs_masks_were_removed_are_still_hidden() -> None:
    """The reason for the second mask: who was taken for silent was only slow."""
    made = Round(4)
    made.advertise(names(4))
    made.share(names(4))
    made.mask(names(4)[:3])
    made.members["pi-3"].open(made.collector.for_member("pi-3"))
    late = made.members["pi-3"].mask(words_of("pi-3"))
    made.reveal(names(4)[:3])
    told = made.collector._revealed
    key = made.collector._joined({name: each.mask_keys["pi-3"] for name, each in told.items()}, "pi-3")
    pairs = [
        _pair_mask(_primitives(), key, "pi-3", made.members[name].advertisement, CONTEXT, late) for name in names(4)[:3]
    ]
    left = late - np.sum(pairs, axis=0, dtype=np.uint32)
    np.testing.assert_array_equal(left - words_of("pi-3"), _expanded(made.members["pi-3"]._seed, CONTEXT, late))
    assert not any("pi-3" in each.seeds for each in told.values()), "and that seed nobody can put together"


@pytest.mark.parametrize("step", range(1, 4))
def test_with_too_few_left_in_any_step_there_is_no_sum_and_a_named_reason(step: int) -> None:
    few, everybody = names(5)[:2], names(5)
    steps = [everybody] * step + [few]
    with pytest.raises(WireError, match="needed"):
        whole(5, *steps).collector.sum()


def test_a_round_needs_three_devices_at_least_as_of_two_each_would_know_the_others_words() -> None:
    with pytest.raises(WireError, match="2 devices with keys"):
        whole(2)


def test_a_device_that_was_switched_off_goes_on_when_it_is_told_the_same_again() -> None:
    made = whole(4, names(4), names(4), names(4)[:3])
    former, advertised = made.members["pi-0"], made.collector.advertisements()
    shared, masked = former.share(advertised), former.mask(words_of("pi-0"))
    told = former.reveal(made.collector.survivors)
    again = Member("pi-0", CONTEXT, secret_of("pi-0"))
    assert again.advertisement == former.advertisement
    assert again.share(advertised) == shared
    again.open(made.collector.for_member("pi-0"))
    np.testing.assert_array_equal(again.mask(words_of("pi-0")), masked)
    assert again.reveal(made.collector.survivors) == told


def test_another_secret_gives_other_keys_seeds_and_shares() -> None:
    made, other = Round(3), Member("pi-0", CONTEXT, secret_of("another"))
    mine = made.members["pi-0"]
    assert len({mine._seal_key, mine._mask_key, mine._seed, other._seal_key, other._mask_key, other._seed}) == 6
    assert len({mine._bits(b"a")(32), mine._bits(b"b")(32), other._bits(b"a")(32)}) == 3
    drawn = mine._bits(b"a")
    assert drawn(32) != drawn(32)


def test_a_device_tells_its_shares_for_one_set_of_survivors_and_never_for_another() -> None:
    made = whole(4, names(4), names(4), names(4)[:3])
    member = made.members["pi-0"]
    assert member.reveal(frozenset(names(4)[:3])).mask_keys.keys() == {"pi-3"}
    assert member.reveal(frozenset(names(4)[:3])).seeds.keys() == set(names(4)[:3])
    with pytest.raises(WireError, match="other survivors than before"):
        member.reveal(frozenset(names(4)))


def test_of_nobody_both_secrets_are_told() -> None:
    made = whole(5, names(5), names(5), names(5)[:4])
    for each in made.collector._revealed.values():
        assert not set(each.seeds) & set(each.mask_keys)
        assert set(each.seeds) | set(each.mask_keys) == set(names(5))


def flipped(sealed: dict[str, bytes]) -> dict[str, bytes]:
    return {name: bytes([each[0] ^ 1]) + each[1:] for name, each in sealed.items()}


def other_words(made: Round) -> None:
    made.mask(["pi-0"])
    made.members["pi-0"].mask(words_of("pi-1"))


def fewer_shares(made: Round) -> None:
    made.mask(["pi-0"])
    made.members["pi-0"].open({"pi-1": made.collector.for_member("pi-0")["pi-1"]})


WRONG: dict[str, tuple[Callable[[Round], Any], str]] = {
    "a sealed share that was changed": (
        lambda made: made.members["pi-0"].open(flipped(made.collector.for_member("pi-0"))),
        "cannot be opened",
    ),
    "a share sealed to somebody else": (
        lambda made: made.members["pi-0"].open(made.collector.for_member("pi-1")),
        "strangers",
    ),
    "a share in another's name": (
        lambda made: made.members["pi-0"].open(
            {"pi-1": made.collector.for_member("pi-0")["pi-2"], "pi-2": made.collector.for_member("pi-0")["pi-1"]},
        ),
        "cannot be opened",
    ),
    "other keys than before": (
        lambda made: made.members["pi-0"].share(
            [*made.collector.advertisements()[:2], Member("pi-2", b"other", secret_of("pi-2")).advertisement]
        ),
        "other keys than before",
    ),
    "words before any shares": (lambda made: made.members["pi-0"].mask(words_of("pi-0")), "no shares yet"),
    "other words than before": (
        other_words,
        "other words than before",
    ),
    "shares of fewer than before": (
        fewer_shares,
        "others than before",
    ),
    "survivors before any shares": (lambda made: made.members["pi-0"].reveal(frozenset(names(3))), "dealt no shares"),
    "shares that are too short": (
        lambda made: made.collector.dealt("pi-0", {"pi-1": b"x", "pi-2": b"x"}),
        "one share to each",
    ),
    "shares for too few": (lambda made: made.collector.dealt("pi-0", {}), "one share to each"),
    "words of a stranger": (lambda made: made.collector.masked("pi-9", words_of("pi-0")), "dealt no shares"),
    "told shares of nobody": (
        lambda made: made.collector.revealed("pi-0", Revealed(seeds={"pi-9": bytes(33)}, mask_keys={})),
        "other shares than those asked for",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_named_error(case: str) -> None:
    made = Round(3)
    made.advertise(names(3))
    made.share(names(3))
    act, reason = WRONG[case]
    with pytest.raises(WireError, match=reason) as caught:
        act(made)
    assert caught.value.number == 307


def test_words_of_another_length_are_refused() -> None:
    made = whole(4, names(4), names(4), names(4)[:3])
    with pytest.raises(WireError, match="not as many"):
        made.collector.masked("pi-3", np.zeros(3, np.uint32))


def test_a_public_key_with_which_everybody_has_the_same_secret_is_refused() -> None:
    member = Member("pi-0", CONTEXT, secret_of("pi-0"))
    weak = Advertisement(device="pi-1", seal_key=bytes(32), mask_key=b"\x01" + bytes(31))
    with pytest.raises(WireError, match="public key"):
        other = Member("pi-2", CONTEXT, secret_of("pi-2")).advertisement
        member.share([member.advertisement, weak, other])


def test_a_key_that_is_named_twice_is_refused() -> None:
    member = Member("pi-0", CONTEXT, secret_of("pi-0"))
    twin = Advertisement(device="pi-1", seal_key=bytes(32), mask_key=member.advertisement.mask_key)
    with pytest.raises(WireError, match="same name or key"):
        other = Member("pi-2", CONTEXT, secret_of("pi-2")).advertisement
        member.share([member.advertisement, twin, other])


def test_shares_of_another_mask_key_are_noticed() -> None:
    made = whole(4, names(4), names(4), names(4)[:3])
    for name, each in made.collector._revealed.items():
        made.collector._revealed[name] = Revealed(seeds=each.seeds, mask_keys={"pi-3": each.seeds[name]})
    with pytest.raises(WireError, match=r"pi-3"):
        made.collector.sum()


def test_rounds_and_modalities_have_other_masks() -> None:
    def masked(context: bytes) -> Words:
        members = [Member(name, context, secret_of(name)) for name in names(3)]
        advertised = [each.advertisement for each in members]
        dealt = {each.device: each.share(advertised) for each in members}
        members[0].open({name: dealt[name]["pi-0"] for name in ("pi-1", "pi-2")})
        return members[0].mask(words_of("pi-0"))

    assert (masked(b"ward/0a/3/acc") != masked(b"ward/0a/3/gyro")).sum() > 12


@pytest.mark.parametrize(("devices", "least"), [(2, 2), (3, 3), (4, 3), (8, 6), (23, 16)])
def test_the_threshold_is_more_than_two_thirds(devices: int, least: int) -> None:
    assert least_threshold(devices) == least


def test_a_missing_package_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError("no module named cryptography")
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingPackageError, match=r"pip install .*\[secure\]"):
        Member("pi-0", CONTEXT, secret_of("pi-0"))
