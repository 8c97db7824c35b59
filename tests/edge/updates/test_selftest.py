"""The self-test: a release that is broken is refused, in a process of its own, and one that is better is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.updates.machine import Figures
from edge.updates.selftest import FEWEST_SURE, SelfTest, agreement, judged, sure_agreement
from edge.updates.settings import Limits
from mekt.attempt import Died, Done, Hung, Refused
from mekt.blobs import blob_ref
from mekt.catalogue import (
    RELEASE_DAMAGED,
    RELEASE_DOES_NOT_RUN,
    RELEASE_HAS_NO_CLASSIFIER,
    RELEASE_TOO_NEW,
    RELEASE_UNREADABLE,
)
from sensors.source import Floats
from tests.edge.updates.shipped import (
    PARTS,
    endless,
    greedy,
    not_a_number,
    of_three_kinds,
    permuted,
    shipped,
    spoiled,
    stepping,
    surer,
    swapped,
    unsure,
)
from tests.export.small import random_windows

LIMITS = Limits()
BOTH = frozenset({"sit", "walk", "run"})
WINDOWS: list[dict[str, Floats]] = [random_windows(PARTS.plan, 60, seed=5)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    folder = tmp_path_factory.mktemp("slots")

    def write(data: bytes) -> Path:
        path = folder / blob_ref(data).sha256.hex()
        path.write_bytes(data)
        return path

    return write


def tried(new: Path, old: Path | None = None, limits: Limits = LIMITS) -> tuple[str, Figures]:
    return SelfTest(new, old, WINDOWS, limits).result()


# What is made of figures


def test_agreement_worked_by_hand() -> None:
    """sit: 3 of 4, walk: 1 of 3, and both weigh the same; of run there are too few."""
    old = ["sit"] * 4 + ["walk"] * 3 + ["run"] * 2
    new = ["sit", "sit", "sit", "walk", "walk", "sit", "run", "sit", "sit"]
    assert agreement(old, new, BOTH) == pytest.approx((3 / 4 + 1 / 3) / 2)


def test_only_classes_that_both_know_are_compared() -> None:
    """Who learned that some walking is running could not be agreed with."""
    old, new = ["walk"] * 6, ["walk"] * 3 + ["run"] * 3
    assert agreement(old, new, frozenset({"walk"})) == 1
    assert agreement(old, new, frozenset({"walk", "run"})) == 0.5
    assert agreement(old, new, frozenset()) is None
    assert agreement([], [], BOTH) is None


def test_agreement_of_what_both_are_sure_of_worked_by_hand() -> None:
    """walk: 2 of 6; run: all, but of no more than 5 are both sure."""
    old = [("sit", 0.95)] * 6 + [("walk", 0.95)] * 7 + [("run", 0.95)] * 6
    new = [("sit", 0.9)] * 5 + [("walk", 0.91)] + [("walk", 0.99)] * 2 + [("sit", 0.99)] * 4 + [("sit", 0.89)]
    new += [("sit", 0.99)] * 5 + [("sit", 0.5)]
    assert FEWEST_SURE == 6
    assert sure_agreement(old, new, BOTH, 0.9) == 2 / 6
    assert sure_agreement(old, new, frozenset({"sit"}), 0.9) is None, "five, as the last one cannot be compared"
    assert sure_agreement(old, new, BOTH, 0.991) is None


def facts(**changes: Any) -> dict[str, Any]:
    """What a test finds of a release that is well; `changes` of the new one, but for those of the whole."""
    usual: dict[str, Any] = {"confidence": 0.8, "is_finite": True, "latency_ms": 2.0}
    whole: dict[str, Any] = {"old": usual, "agreement": 0.9, "sure_agreement": 0.9, "memory_mb": 70.0}
    whole |= {name: changes.pop(name) for name in whole if name in changes}
    return {"new": {**usual, **changes}, **whole}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"agreement": 0.35}, ""),
        ({"agreement": 0.34}, "disagrees"),
        ({"sure_agreement": 0.35}, ""),
        ({"sure_agreement": 0.34}, "disagrees"),
        ({"agreement": None, "sure_agreement": None, "old": None}, ""),
        ({"confidence": 0.49}, ""),
        ({"confidence": 0.47}, "unsure"),
        ({"confidence": None, "is_finite": False}, "does-not-run"),
        ({"latency_ms": 99.0}, ""),
        ({"latency_ms": 101.0}, "slow"),
        ({"latency_ms": 101.0, "old": {"confidence": 0.8, "is_finite": True, "latency_ms": 30.0}}, ""),
        ({"memory_mb": 193.0}, "memory"),
    ],
)
def test_what_is_beyond_a_limit_is_named(changes: dict[str, Any], why: str) -> None:
    assert judged(Done(facts=facts(**changes)), LIMITS)[0] == why


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Died(how="SIGSEGV"), "crashed"),
        (Died(how="SIGKILL"), "memory"),
        (Hung(after_s=60), "slow"),
        (Refused(problem="", error="MemoryError"), "memory"),
        (Refused(problem="", error="ReleaseError", exit_code=6, entry=RELEASE_HAS_NO_CLASSIFIER), "unfit"),
        (Refused(problem="", error="ReleaseError", exit_code=6, entry=RELEASE_TOO_NEW), "too-new"),
        (Refused(problem="", error="ReleaseError", exit_code=6, entry=RELEASE_DAMAGED), "disk"),
        (Refused(problem="", error="ReleaseError", exit_code=6, entry=RELEASE_UNREADABLE), "disk"),
        (Refused(problem="", error="ReleaseError", exit_code=6, entry=RELEASE_DOES_NOT_RUN), "does-not-run"),
        (Refused(problem="", error="ZeroDivisionError"), "does-not-run"),
    ],
)
def test_a_test_that_has_no_end_of_its_own_says_why(outcome: Died | Hung | Refused, why: str) -> None:
    assert judged(outcome, LIMITS) == (why, Figures())


# Real ones


def test_a_release_that_learned_a_little_more_passes(file: Callable[[bytes], Path]) -> None:
    why, figures = tried(file(shipped(2, surer)), file(shipped(1)))
    assert why == ""
    assert figures.agreement_percent is not None and figures.agreement_percent > 90
    assert figures.latency_us is not None and figures.confidence_percent is not None
    assert figures.memory_mb is not None and 20 < figures.memory_mb < LIMITS.memory_mb


def test_one_with_an_encoder_in_steps_passes(file: Callable[[bytes], Path]) -> None:
    assert tried(file(stepping()), file(shipped(1)))[0] == ""


def test_one_with_other_classes_is_compared_by_their_names(file: Callable[[bytes], Path]) -> None:
    """The second and third class have changed places: by number it is as before, by name it is not."""
    old = file(shipped(1))
    assert tried(file(shipped(2, labels=("sit", "walk", "stand"))), old)[0] == "disagrees"
    # None of its classes is known: there is nothing to compare.
    why, figures = tried(file(shipped(3, labels=("lie", "run", "fall"))), old)
    assert why == "" and figures.agreement_percent is None


def test_two_classes_that_changed_places_are_found_out_where_one_of_them_was_seen(
    file: Callable[[bytes], Path],
) -> None:
    """Of two classes that were seen it agrees in one: for the mean that is enough."""
    seen = [{name: each[10:] for name, each in of_three_kinds(10).items()}]
    old = file(shipped(1, is_taught=True))
    why, figures = SelfTest(file(shipped(9, swapped, is_taught=True)), old, seen, LIMITS).result()
    assert (why, figures.agreement_percent) == ("disagrees", 50)
    assert SelfTest(file(shipped(9, surer, is_taught=True)), old, seen, LIMITS).result()[0] == ""


@pytest.mark.parametrize(
    ("data", "limits", "why"),
    [
        (shipped(9, permuted), LIMITS, "disagrees"),
        (shipped(9, unsure), LIMITS, "unsure"),
        (spoiled(not_a_number), LIMITS, "does-not-run"),
        (spoiled(greedy), LIMITS, "memory"),
        (spoiled(endless), Limits(seconds=5), "slow"),
        (shipped(1)[:-1], LIMITS, "disk"),
        (stepping(broken=True), LIMITS, "does-not-run"),
    ],
    ids=["permuted", "unsure", "not a number", "greedy", "endless", "damaged", "broken steps"],
)
def test_a_release_that_is_broken_is_refused(
    file: Callable[[bytes], Path], data: bytes, limits: Limits, why: str
) -> None:
    assert tried(file(data), file(shipped(1)), limits)[0] == why
