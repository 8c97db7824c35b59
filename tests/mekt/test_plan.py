"""The plan: what agrees with itself is accepted, what does not is refused; its identity."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from mekt.modality import LARGEST_WINDOW_VALUES, Modality, Scaling, WindowSpec
from mekt.plan import BlobRef, Method, Plan
from mekt.schema import SchemaError, build, plain

ACC = Modality(name="acc", shape=(3,), rate_hz=50, unit="g")
DEPTH = Modality(name="depth", shape=(24, 32), rate_hz=10, unit="m")
PLAN = Plan(
    run="0af3",
    seed=7,
    rounds=5,
    window=WindowSpec(window_s=2.56, stride_s=1.28),
    modalities=(ACC, DEPTH),
    scaling={"acc": Scaling(mean=(0, 0, 1), std=(1, 1, 1)), "depth": Scaling(mean=(2,), std=(0.5,))},
    proxy={"acc": BlobRef(sha256=b"a" * 32, size_bytes=10), "depth": BlobRef(sha256=b"d" * 32, size_bytes=20)},
    proxy_windows=16,
    method=Method(embedding=32, hidden=64, contrast=1.0),
)


def test_build_undoes_plain_also_through_msgpack() -> None:
    assert build(Plan, plain(PLAN)) == PLAN
    assert build(Plan, msgpack.unpackb(msgpack.packb(plain(PLAN)))) == PLAN


def test_a_modality_is_found_by_name() -> None:
    assert PLAN.modality("depth") == DEPTH
    assert PLAN.modality("gyro") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modalities": (ACC, DEPTH, ACC)}, "a name occurs twice"),
        ({"modalities": (ACC,)}, "must name exactly the modalities"),
        ({"scaling": {"acc": PLAN.scaling["acc"]}}, "must name exactly the modalities"),
        ({"proxy": {**PLAN.proxy, "gyro": PLAN.proxy["acc"]}}, "must name exactly the modalities"),
        ({"scaling": {**PLAN.scaling, "acc": PLAN.scaling["depth"]}}, "scaling.acc: expected 3 means and deviations"),
        (
            {"scaling": {**PLAN.scaling, "acc": Scaling(mean=(0, 0, 0), std=(1,))}},
            "scaling.acc: expected 3 means and deviations",
        ),
        (
            {"window": WindowSpec(window_s=1e6, stride_s=1e6)},
            f"a window of acc holds more than {LARGEST_WINDOW_VALUES}",
        ),
    ],
)
def test_a_plan_that_disagrees_with_itself_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(PLAN, **change)
    with pytest.raises(SchemaError, match=says):
        build(Plan, plain(PLAN) | {name: plain(value) for name, value in change.items()})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", "XYZ"),
        ("run", "0" * 33),
        ("seed", -1),
        ("seed", 2**31),
        ("rounds", 0),
        ("modalities", []),
        ("proxy_windows", 1),
        ("proxy_windows", 16_385),
        ("method", None),
    ],
)
def test_every_number_of_a_plan_is_bounded(key: str, value: object) -> None:
    with pytest.raises(SchemaError) as caught:
        build(Plan, plain(PLAN) | {key: value})
    assert caught.value.problems[0].startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("embedding", 0),
        ("embedding", 1025),
        ("hidden", 0),
        ("fusion", "mean"),
        ("reconstruction", "mse"),
        ("transfer", "wasserstein"),
        ("temperature", 0),
        ("alpha", -0.1),
        ("beta", float("nan")),
        ("eta", 1e7),
        ("gamma", "1"),
        ("contrast", -1),
        ("contrast_temperature", 0),
        ("augment", -0.1),
        ("augment", 4.1),
        ("follow_epochs", -1),
        ("local_epochs", 0),
        ("local_rate", 0),
        ("distil_epochs", 10_001),
        ("batch", 0),
        ("encoding", "float64"),
    ],
)
def test_every_setting_of_the_method_is_bounded(key: str, value: object) -> None:
    with pytest.raises(SchemaError) as caught:
        build(Method, {key: value})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [key]


@pytest.mark.parametrize(("sha256", "size"), [(b"a" * 31, 1), (b"a" * 33, 1), (b"a" * 32, 0), (b"a" * 32, 2**30 + 1)])
def test_a_reference_to_a_blob_has_a_whole_hash_and_a_bearable_size(sha256: bytes, size: int) -> None:
    with pytest.raises(SchemaError):
        build(BlobRef, {"sha256": sha256, "size_bytes": size})


def test_the_hidden_layer_is_sent_when_either_side_follows_it() -> None:
    assert not Method().sends_hidden
    assert Method(beta=0.1).sends_hidden
    assert Method(gamma=0.1).sends_hidden


def test_the_rate_on_devices_falls_evenly_to_a_tenth_worked_by_hand() -> None:
    plan = replace(PLAN, rounds=5, method=replace(PLAN.method, local_rate=0.01))
    assert [plan.local_rate(number) for number in range(5)] == pytest.approx([0.01, 0.0082, 0.0064, 0.0046, 0.0028])
    # After the last round, and whatever a peer says that comes later.
    assert [plan.local_rate(number) for number in (5, 6, 10**9)] == pytest.approx([0.001] * 3)


def test_a_single_round_has_the_whole_rate() -> None:
    plan = replace(PLAN, rounds=1, method=replace(PLAN.method, local_rate=0.01))
    assert plan.local_rate(0) == 0.01


def test_the_identity_stays_while_only_tuning_changes() -> None:
    method = replace(
        PLAN.method, alpha=0.5, contrast=0.3, augment=0.0, follow_epochs=3, local_epochs=9, encoding="int8"
    )
    assert replace(PLAN, rounds=50, method=method).identity == PLAN.identity


@pytest.mark.parametrize(
    "change",
    [
        {"run": "0af4"},
        {"seed": 8},
        {"window": WindowSpec(window_s=2.56, stride_s=1.0)},
        {"modalities": (ACC, replace(DEPTH, rate_hz=11))},
        {"scaling": {**PLAN.scaling, "depth": Scaling(mean=(2.1,), std=(0.5,))}},
        {"proxy": {**PLAN.proxy, "acc": BlobRef(sha256=b"b" * 32, size_bytes=10)}},
        {"method": replace(PLAN.method, embedding=16)},
        {"method": replace(PLAN.method, hidden=32)},
        {"method": replace(PLAN.method, contrast=0.0)},
    ],
)
def test_the_identity_changes_with_all_that_a_model_depends_on(change: dict[str, Any]) -> None:
    assert replace(PLAN, **change).identity != PLAN.identity


def test_the_identity_does_not_depend_on_the_order_of_tables() -> None:
    turned = replace(PLAN, scaling=dict(reversed(PLAN.scaling.items())), proxy=dict(reversed(list(PLAN.proxy.items()))))
    assert turned.identity == PLAN.identity
