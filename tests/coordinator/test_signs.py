"""The signs of a federation that learns badly: each provoked by hand, and none of them where all is well."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator import signs
from mekt.arrays import Floats, pack_array, unpack_array
from mekt.messages import FINDINGS_KEPT, LONGEST_SENTENCE, Finding, RoundReport, Sign
from mekt.plan import Transfer
from mekt.schema import build, plain

KINDS: tuple[Transfer, ...] = ("mse", "kl", "cosine", "relational")
ACC = Finding(name="collapse", modality="acc", evidence="e", remedy="r")


def cloud(seed: int, rows: int = 300, width: int = 8, centres: int = 5) -> Floats:
    """Embeddings of windows of some activities, each activity around a centre, as they come in time."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(7).normal(0, 1, (centres, width))
    which = np.arange(rows) * centres // rows
    x: Floats = (middle[which] + rng.normal(0, 0.3, (rows, width))).astype(np.float32)
    return x


def noisy(x: Floats, seed: int, size: float = 0.3) -> Floats:
    return (x + np.random.default_rng(seed).normal(0, size, x.shape)).astype(np.float32)


def fleet(**changes: Floats) -> dict[str, dict[str, Floats]]:
    """What four devices know: much alike, but for the changed ones."""
    known = {f"pi-{n}": noisy(cloud(0), n) for n in range(1, 5)}
    return {device: {"acc": changes.get(device.replace("-", "_"), array)} for device, array in known.items()}


def names(findings: tuple[Finding, ...]) -> list[tuple[Sign, str, str]]:
    return [(each.name, each.device, each.modality) for each in findings]


def test_rows_are_spread_evenly_and_bounded() -> None:
    assert signs.rows_of(3).tolist() == [0, 1, 2]
    assert signs.rows_of(9, 3).tolist() == [0, 4, 8]
    rows = signs.rows_of(16_384)
    assert len(set(rows.tolist())) == signs.MOST_ROWS and rows[0] == 0 and rows[-1] == 16_383
    assert len(signs.device_rows_of(16_384, 16)) == signs.MOST_ROWS
    assert len(signs.device_rows_of(16_384, 17)) == signs.MOST_ROWS_OF_MANY


# Unrepresentative proxy


def test_labelled_windows_like_those_of_the_proxy_set_say_nothing() -> None:
    assert signs.unrepresentative_proxy({"acc": cloud(0)}, {"acc": cloud(1, rows=90)}) == ()


def test_a_proxy_set_that_lacks_activities_is_named_with_the_share_out_of_reach() -> None:
    lacking = cloud(0)[:60] * np.float32(0.2)
    (found,) = signs.unrepresentative_proxy({"acc": lacking, "gyro": cloud(0)}, {"acc": cloud(1), "gyro": cloud(1)})
    assert (found.name, found.device, found.modality) == ("unrepresentative-proxy", "", "acc")
    assert "of 300 labelled windows are farther from all 60 proxy windows" in found.evidence
    assert "record a proxy set" in found.remedy


def test_a_few_labelled_windows_say_nothing_about_the_proxy_set() -> None:
    far = cloud(1, rows=signs.FEWEST_LABELLED - 1) + np.float32(100)
    assert signs.unrepresentative_proxy({"acc": cloud(0)}, {"acc": far}) == ()
    assert signs.unrepresentative_proxy({"acc": cloud(0)}, {}) == ()


def test_the_reach_worked_by_hand() -> None:
    """Pairs of 0, 1, 2, 3 are 1, 1, 1, 2, 2, 3 apart: two of three are within 2."""
    proxy = np.arange(4, dtype=np.float32)[:, None]
    near = np.full((8, 1), 4.9, np.float32)
    labelled = np.concatenate([near, np.full((2, 1), 5.1, np.float32)])
    assert signs.unrepresentative_proxy({"acc": proxy}, {"acc": labelled}) == ()
    labelled[0] = -2.1
    (found,) = signs.unrepresentative_proxy({"acc": proxy}, {"acc": labelled})
    assert found.evidence.startswith("30% of 10 labelled windows are farther from all 4 proxy windows")
    assert "(2)" in found.evidence


# Too little transfer


def transferred(kind: Transfer, before: Floats, after: Floats, aggregate: Floats) -> tuple[Finding, ...]:
    return signs.too_little_transfer(kind, 3.0, {"acc": before}, {"acc": after}, {"acc": aggregate})


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_that_came_to_the_aggregate_say_nothing(kind: Transfer) -> None:
    assert transferred(kind, cloud(0)[::-1], noisy(cloud(0), 1), cloud(0)) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_that_know_nothing_of_the_aggregate_are_named(kind: Transfer) -> None:
    elsewhere = np.random.default_rng(3).normal(0, 3, (300, 8)).astype(np.float32)
    (found,) = transferred(kind, elsewhere, elsewhere, cloud(0))
    assert (found.name, found.modality) == ("too-little-transfer", "acc")
    assert f"over 300 proxy windows unexplained ({kind})" in found.evidence and "raise eta" in found.remedy


def test_the_unexplained_share_worked_by_hand() -> None:
    """Of the aggregate's variance of 1: embeddings off by 0.8 leave 64 %, those off by 0.6 leave 36 %."""
    aggregate = np.array([[1.0], [-1.0]] * 8, np.float32)
    off = [aggregate * np.float32(1 - each) for each in (0.6, 0.8, 0.82)]
    assert transferred("mse", off[0], off[0], aggregate) == (), "little is left, though it did not fall"
    (found,) = transferred("mse", off[2], off[1], aggregate)
    assert "left 64% of" in found.evidence and "before it was 67%" in found.evidence
    assert transferred("mse", aggregate * 0, off[1], aggregate) == (), "it fell"
    (found,) = transferred("mse", aggregate * 4, aggregate * np.float32(2.1), aggregate)
    assert "left 121% of" in found.evidence


def test_an_aggregate_that_has_collapsed_is_no_matter_of_transfer() -> None:
    assert transferred("mse", cloud(0), cloud(0), np.ones((300, 8), np.float32)) == ()


# Collapse


def test_embeddings_that_tell_windows_apart_say_nothing() -> None:
    assert signs.collapse({"acc": cloud(0), "gyro": cloud(0) + np.float32(5)}) == ()
    assert signs.collapse({"temp": cloud(0, width=1), "pair": cloud(0, width=8)[:2]}) == ()


@pytest.mark.parametrize("constant", [0.0, 3.0])
@pytest.mark.parametrize("device", ["", "pi-3"])
def test_embeddings_that_are_all_alike_are_named(constant: float, device: str) -> None:
    same = np.full((100, 8), constant, np.float32)
    (found,) = signs.collapse({"acc": noisy(same, 1, 1e-3 * constant), "gyro": cloud(0)}, device)
    assert (found.name, found.device, found.modality) == ("collapse", device, "acc")
    assert "over 100 proxy windows embeddings of size" in found.evidence


def test_embeddings_along_a_line_are_named_also_when_they_were_rounded() -> None:
    line = np.outer(np.linspace(-1, 1, 200), np.arange(1, 9)).astype(np.float32)
    rounded = unpack_array(pack_array(line, "float16"), line.shape)
    (found,) = signs.collapse({"acc": rounded})
    assert "differ in 1.0000 directions of 8" in found.evidence


@pytest.mark.parametrize("shape", [(20, 64), (64, 20)])
def test_directions_are_counted_alike_for_many_dimensions_and_few(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(0, 1, shape)
    x -= x.mean(axis=0)
    eigenvalues = np.linalg.svd(x, compute_uv=False) ** 2
    assert signs._directions(x) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def test_reconstruction_that_does_not_follow_its_input_is_named() -> None:
    errors = {"acc": (0.5, 1.0), "gyro": (0.96, 1.0), "mag": (0.0, 0.0)}
    (found,) = signs.lost_input(errors)
    assert names((found,)) == [("collapse", "", "gyro")] and "leaves 96% of the error" in found.evidence


# Odd devices


def test_devices_that_agree_say_nothing() -> None:
    assert signs.odd_devices(fleet()) == ()
    assert signs.odd_devices(fleet(pi_2=cloud(0) + np.float32(4))) == (), "a constant spoils no average"


# Every pair of dimensions turned by a right angle.
TURN = np.kron(np.eye(4), [[0, 1], [-1, 0]]).astype(np.float32)


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (cloud(0) * np.float32(10), "vary 9."),
        (cloud(0) * np.float32(0.1), "vary 0."),
        (np.random.default_rng(1).permutation(cloud(0)), "similar to those of the 3 others by 0."),
        (-cloud(0), "correlate with those of the 3 others by -0."),
        (cloud(0) @ TURN, "correlate with those of the 3 others by "),
    ],
)
def test_a_device_unlike_all_others_is_named(odd: Floats, says: str) -> None:
    (found,) = signs.odd_devices(fleet(pi_3=odd))
    assert names((found,)) == [("odd-device", "pi-3", "acc")]
    assert says in found.evidence and "unit, axes" in found.remedy


def test_three_devices_are_enough_and_two_are_not() -> None:
    known = fleet(pi_3=cloud(0) * np.float32(10))
    del known["pi-4"]
    assert [each.device for each in signs.odd_devices(known)] == ["pi-3"]
    del known["pi-2"]
    assert signs.odd_devices(known) == ()


def test_where_nobody_agrees_nobody_is_odd() -> None:
    rng = np.random.default_rng(0)
    known = {f"pi-{n}": {"acc": rng.normal(0, 1, (300, 8)).astype(np.float32)} for n in range(5)}
    assert signs.odd_devices(known) == ()


def test_what_has_collapsed_is_not_compared() -> None:
    known = fleet(pi_3=np.zeros((300, 8), np.float32))
    assert signs.odd_devices(known) == ()


def test_the_order_of_devices_changes_nothing_and_many_are_compared_with_some() -> None:
    known = {f"pi-{n:02}": {"acc": noisy(cloud(0), n)} for n in range(40)}
    known["pi-17"] = {"acc": np.random.default_rng(1).permutation(cloud(0))}
    found = signs.odd_devices(known)
    assert [each.device for each in found] == ["pi-17"]
    assert signs.odd_devices(dict(reversed(known.items()))) == found


# All of them


def test_findings_fit_the_message_however_odd_their_numbers() -> None:
    huge = cloud(0) * np.float32(1e30)
    hostile: dict[str, Any] = {"d" * 63 + str(n): {"m" * 16: huge * np.float32(10**n)} for n in range(5)}
    found = [
        *signs.odd_devices(hostile),
        *signs.collapse({"m" * 16: huge * 0 + 1e30}, "d" * 64),
        *signs.too_little_transfer("mse", 3.0, {"m" * 16: huge}, {"m" * 16: -huge}, {"m" * 16: cloud(0)}),
        *signs.unrepresentative_proxy({"m" * 16: cloud(0)}, {"m" * 16: huge}),
        *signs.lost_input({"m" * 16: (1e30, 0.0)}),
    ]
    assert {each.name for each in found} == {"odd-device", "collapse", "too-little-transfer", "unrepresentative-proxy"}
    for each in found:
        assert build(Finding, plain(each)) == each
        assert each.evidence and len(each.evidence) <= LONGEST_SENTENCE and each.remedy


def test_a_report_holds_a_bounded_number_what_is_about_all_first() -> None:
    many = [replace(ACC, device=f"pi-{n}") for n in range(40)] + [ACC]
    kept = signs.bounded(many)
    assert len(kept) == FINDINGS_KEPT and kept[0] == ACC and kept[1].device == "pi-0"


def test_only_what_has_changed_is_news() -> None:
    odd = Finding(name="odd-device", modality="acc", device="pi-3", evidence="alone", remedy="mend it")
    clean = RoundReport(round=1, devices=(), metrics={}, seconds={})
    first, second = replace(clean, findings=(ACC, odd)), replace(clean, round=2, findings=(odd,))
    assert signs.news((), clean) == signs.news((clean,), clean) == []
    assert signs.news((), first) == [
        "round 1: collapse (acc): e; r",
        "round 1: odd-device pi-3 (acc): alone; mend it",
    ]
    again = replace(first, findings=(replace(ACC, evidence="other numbers"), odd))
    assert signs.news((first,), again) == []
    assert signs.news((clean, first), second) == ["round 2: no more collapse (acc)"]
