import pytest

from bench.engine import Run, plan_for, run
from bench.registry import ENTRIES, METHODS
from mekt.plan import Method, Plan
from tests.bench.small import METHOD, arena, plan

DIFFERENT = {"pi-acc": {"acc": "lstm"}, "pi-both": {"acc": "conv", "gyro": "lstm"}, "pi-gyro": {"gyro": "conv"}}
SMALL = arena(scored=30)


def played(name: str, of: Plan, seed: int = 3) -> Run:
    return run(METHODS[name].make(SMALL, of, seed), SMALL, of, evaluate=(0, of.rounds))


def test_names_are_those_of_the_tables_and_every_paper_has_a_number() -> None:
    assert len(METHODS) == len(ENTRIES) == len({each.label for each in ENTRIES})
    assert all("arXiv" in each.paper for each in ENTRIES if each.federated)
    assert not any(each.paper for each in ENTRIES if not each.federated)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_plays_two_rounds_alike_by_seed(name: str) -> None:
    of = plan(SMALL, batch=64)
    one, again = played(name, of), played(name, of)
    assert one.evaluated == again.evaluated
    start, end = one.evaluated
    assert all(0 <= value <= 1 for group in end.scores.values() for value in group.values())
    assert set(end.scores) == {"acc", "gyro", "fused"} and end.scored["fused"] == 1
    assert set(end.heads) == (set(end.scores) if "label" in name else set())
    if name == "random":
        assert start.scores == end.scores
    else:
        assert start.scores != end.scores
    assert METHODS[name].federated == any(each.bytes_of(["payload"]).up for each in one.played)


@pytest.mark.parametrize("name", [each.name for each in ENTRIES if each.federated])
def test_devices_of_several_architectures_learn_together(name: str) -> None:
    mixed = arena(DIFFERENT, duration_s=8.0)  # type: ignore[arg-type]
    of = plan_for(mixed, Method(**METHOD), rounds=1, seed=3)
    [end] = run(METHODS[name].make(mixed, of, 3), mixed, of).evaluated
    assert set(end.scores) == {"acc", "gyro", "fused"}


@pytest.mark.parametrize("name", [each.name for each in ENTRIES if each.federated])
def test_a_federation_of_one_modality_learns_too(name: str) -> None:
    single = arena({"a": {"acc": "conv"}, "b": {"acc": "conv"}}, names=("acc",), duration_s=8.0)
    of = plan_for(single, Method(**METHOD), rounds=1, seed=3)
    [end] = run(METHODS[name].make(single, of, 3), single, of).evaluated
    assert set(end.scores) == {"acc"}


def test_fedmekt_sends_knowledge_and_averaging_parameters() -> None:
    of = plan(SMALL, rounds=1, batch=64)
    sizes = {name: played(name, of).played[0].wire["pi-acc"]["payload"].up for name in ("fedmekt-s", "fedavg")}
    assert sizes["fedmekt-s"] < 2000 < 100_000 < sizes["fedavg"]
