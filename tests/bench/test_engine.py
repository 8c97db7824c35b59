from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.arena import Arena
from bench.contender import Payload
from bench.contenders.bounds import LocalOnly, RandomEncoders
from bench.contenders.fedmekt import FedMekt
from bench.contenders.parameters import Averaging
from bench.engine import Run, evaluate, group_name, groups_of, measures, run
from bench.wire import Wire
from coordinator import round as rounds
from mekt.learning import Arrays
from mekt.plan import Plan
from mekt.traffic import WireBytes
from tests.bench.small import DEVICES, arena, plan


class Echo:
    """Sends what it gets, and notes what it is asked."""

    uses_proxy = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, str]] = []

    def announce(self, number: int, device: str) -> Payload:
        self.asked.append(("announce", number, device))
        return dict.fromkeys(DEVICES.get(device, {"acc": "conv"}), b"k" * 100)

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        self.asked.append(("learn", number, device))
        return received

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        self.asked.append(("close", number, " ".join(sent)))

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        self.asked.append(("embed", -1, ""))
        return ({name: array.mean(axis=1) for name, array in windows.items()},)


def participants_of_the_product(names: list[str], share: float, number_of_rounds: int, seed: int) -> list[list[str]]:
    """Who takes part when the coordinator's own state machine runs."""
    state = rounds.RoundState(rounds=number_of_rounds, seed=seed)
    rules = rounds.RoundRules(min_devices=len(names), share=share)
    events: list[rounds.Event] = [rounds.DeviceOnline(device=name) for name in names]
    seen = []
    while events:
        state, commands = rounds.advance(state, events.pop(0), rules, 5.0)
        for command in commands:
            if isinstance(command, rounds.OpenRound):
                seen.append(list(command.participants))
                events += [rounds.KnowledgeStored(device=name, round=command.round) for name in command.participants]
            if isinstance(command, rounds.DistilRound):
                events.append(rounds.Distilled(round=command.round))
    return seen


def test_the_participants_are_those_that_the_product_would_draw() -> None:
    names = [f"pi-{number}" for number in range(5)]
    small = arena({name: {"acc": "conv"} for name in names}, names=("acc",), share=0.4)
    done = run(Echo(), small, plan(small, rounds=4, seed=11), evaluate=())
    drawn = [list(each.participants) for each in done.played]
    assert drawn == participants_of_the_product(names, 0.4, 4, 11)
    assert all(len(each) == 2 for each in drawn) and len({tuple(each) for each in drawn}) > 1


def test_a_round_asks_each_participant_in_order_and_then_the_coordinator() -> None:
    small = arena()
    echo = Echo()
    run(echo, small, plan(small, rounds=1), evaluate=(0,))
    names = sorted(DEVICES)
    assert echo.asked == [
        *[("embed", -1, "")] * 2,
        *(("announce", 0, name) for name in names),
        *(("learn", 0, name) for name in names),
        ("close", 0, " ".join(names)),
    ]


def test_the_proxy_set_and_the_login_are_counted_once_for_each_device() -> None:
    small = arena()
    of = plan(small, rounds=3)
    done = run(Echo(), small, of, evaluate=())
    first, *later = done.played
    assert all({"session", "proxy", "announcement", "payload", "presence"} == set(each) for each in first.wire.values())
    assert all({"announcement", "payload", "presence"} == set(each) for one in later for each in one.wire.values())
    assert first.wire["pi-acc"]["proxy"].down > small.datasets.proxy_refs["acc"].size_bytes
    both, one = first.wire["pi-both"], first.wire["pi-acc"]
    assert both["proxy"].down == pytest.approx(2 * one["proxy"].down, rel=0.02)
    assert done.played[1].wire["pi-acc"]["announcement"] == Wire(of).announcement(
        1, sorted(DEVICES), {"acc": b"k" * 100, "gyro": b"k" * 100}
    )


def test_those_who_only_listen_get_the_announcement_alone() -> None:
    small = arena({name: {"acc": "conv"} for name in ("a", "b")}, names=("acc",), share=0.5)
    [played] = run(Echo(), small, plan(small, rounds=1), evaluate=()).played
    [chosen] = played.participants
    other = ({"a", "b"} - {chosen}).pop()
    assert set(played.wire[other]) == {"session", "announcement"}
    total = played.bytes_of(["announcement"])
    assert total == played.wire["a"]["announcement"] + played.wire["b"]["announcement"]


def test_who_exchanges_nothing_costs_nothing() -> None:
    small = arena()
    done = run(LocalOnly(small, plan(small)), small, plan(small), evaluate=())
    kinds = ("session", "proxy", "announcement", "payload", "presence")
    assert all(each.bytes_of(kinds) == WireBytes() for each in done.played)


def test_windows_are_counted_with_their_repetitions() -> None:
    small = arena()
    done = run(Echo(), small, plan(small, rounds=1, local_epochs=3), evaluate=())
    assert done.played[0].windows == 3 * sum(len(each.private) for each in small.devices)
    assert set(done.seconds) == {"announce", "local", "wire", "distil"}
    # Nothing was learned from them, however quickly they were passed over.
    assert done.windows_per_s == 0.0
    assert run(LocalOnly(small, plan(small)), small, plan(small), evaluate=()).windows_per_s > 0


def test_progress_goes_up_to_the_whole_and_no_further() -> None:
    small = arena({name: {"acc": "conv"} for name in "abcde"}, names=("acc",), share=0.5)
    seen: list[tuple[int, int]] = []
    run(Echo(), small, plan(small), evaluate=(0, 2), progress=lambda done, whole: seen.append((done, whole)))
    assert seen == [(done, 10) for done in range(1, 11)]


def test_scores_are_taken_after_the_rounds_that_were_named() -> None:
    small = arena()
    start = RandomEncoders(small, plan(small))
    assert [each.round for each in run(start, small, plan(small), evaluate=(0, 2)).evaluated] == [0, 2]
    assert [each.round for each in run(start, small, plan(small)).evaluated] == [2]


def test_every_subset_of_three_modalities_is_scored_and_of_more_each_and_all() -> None:
    assert groups_of(["gyro", "acc"]) == {"acc": ("acc",), "gyro": ("gyro",), "fused": ("acc", "gyro")}
    assert list(groups_of(["a", "b", "c"])) == ["a", "b", "c", "a+b", "a+c", "b+c", "fused"]
    assert list(groups_of(["a", "b", "c", "d"])) == ["a", "b", "c", "d", "fused"]
    assert groups_of(["acc"]) == {"acc": ("acc",)} and group_name(["acc"], ["acc"]) == "acc"


def test_scores_of_models_with_some_modalities_are_means_over_those_that_have_them() -> None:
    small = arena()
    local = LocalOnly(small, plan(small))
    run(local, small, plan(small), evaluate=())
    done = evaluate(local, small, plan(small), 2)
    assert done.scored == {"acc": 2, "gyro": 2, "fused": 1}
    acc = [evaluate(_One(each), small, plan(small), 2).scores["acc"] for each in _embedders(local) if "acc" in each]
    assert done.scores["acc"]["weighted_f1"] == pytest.approx(np.mean([each["weighted_f1"] for each in acc]))


def _embedders(local: LocalOnly) -> list[dict[str, LocalOnly]]:
    return [dict.fromkeys(kinds, local) for _, kinds in sorted(DEVICES.items())]


class _One:
    """The model at one place among those of another contender."""

    uses_proxy = False

    def __init__(self, has: dict[str, LocalOnly]) -> None:
        self._has = set(has)
        [self._local] = set(has.values())

    def announce(self, number: int, device: str) -> Payload:
        return {}

    def learn(self, device: str, number: int, received: Payload) -> Payload:
        return {}

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        pass

    def embed(self, windows: Arrays) -> tuple[Arrays, ...]:
        return tuple(each for each in self._local.embed(windows) if set(each) == self._has)


def test_measures_by_hand() -> None:
    truth, answer = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    # F1: class 0 is 2 * 2 / (3 + 2) = 0.8, class 1 is 2 * 1 / (1 + 2) = 2/3; class 2 does not occur.
    assert measures(truth, answer, 3) == pytest.approx(
        {"weighted_f1": (3 * 0.8 + 2 / 3) / 4, "macro_f1": (0.8 + 2 / 3) / 2, "accuracy": 0.75}
    )


def test_an_arena_without_labels_cannot_be_scored() -> None:
    small = arena()
    unlabelled = replace(small, datasets=replace(small.datasets, test=None))
    with pytest.raises(ValueError, match="no labelled or no test windows"):
        evaluate(RandomEncoders(small, plan(small)), unlabelled, plan(small), 0)


class Noted(Averaging):
    """MM-FedAvg that keeps what devices sent."""

    def __init__(self, arena: Arena, plan: Plan) -> None:
        super().__init__(arena, plan)
        self.sent: list[dict[str, Payload]] = []

    def close(self, number: int, sent: Mapping[str, Payload]) -> None:
        self.sent.append(dict(sent))
        super().close(number, sent)


def test_devices_that_learn_at_a_time_send_what_they_would_one_after_the_other() -> None:
    small = arena()

    def sent_on(threads: int) -> list[dict[str, Payload]]:
        contender = Noted(small, plan(small))
        torch.set_num_threads(threads)
        try:
            run(contender, small, plan(small), evaluate=())
        finally:
            torch.set_num_threads(1)
        return contender.sent

    assert sent_on(3) == sent_on(1)


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    small = arena(share=0.5)

    def once(seed: int) -> Run:
        of = plan(small, seed=seed)
        return run(FedMekt(small, of), small, of, evaluate=(0, 2))

    one, again, other = once(3), once(3), once(4)
    assert one.evaluated == again.evaluated != other.evaluated
    assert [each.wire for each in one.played] == [each.wire for each in again.played]
