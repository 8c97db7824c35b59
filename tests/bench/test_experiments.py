"""Which cells each command runs."""

from dataclasses import replace
from typing import get_args

import pytest

from bench.arguments import COMMANDS
from bench.attacks import ATTACKS
from bench.cells import Cell
from bench.choice import CHOICES
from bench.experiments import ABLATIONS, AGGREGATORS, DEFENCES, EXPERIMENTS, PROXY_CHOICES, Offer, Wanted
from bench.offers import PROTOCOLS, methods
from bench.protocol import QUICK_DEVICES
from bench.trial import dealt, method_of, moments, moments_of, only, poisoned, rules_of
from coordinator.round import Aggregator
from mekt.errors import SettingsError
from tests.bench.small import arena

OFFERS = tuple(
    Offer(name=name, label=name.upper(), text="", paper="", federated=name != "pooled")
    for name in ("fedavg", "fedmekt-s", "pooled")
)
WANTED = Wanted(
    protocols=("hapt", "urfall"),
    methods=OFFERS,
    seeds=3,
    rounds=20,
    all_rotations=False,
    quick=False,
    rotations={"hapt": 5, "urfall": 5},
    modalities={"hapt": ("acc", "gyro"), "urfall": ("acc", "depth")},
)


def test_every_command_has_its_experiment() -> None:
    assert [name for name, _, _ in COMMANDS] == list(EXPERIMENTS)
    assert all(set(protocols) <= set(PROTOCOLS) for _, _, protocols in COMMANDS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_has_its_keys_and_every_cell_can_be_run(name: str) -> None:
    for quick in (False, True):
        experiment = EXPERIMENTS[name](replace(WANTED, quick=quick))
        known = {each.name for each in methods()}
        for entry in experiment.entries:
            assert len(entry.keys) == len(experiment.keys) and entry.cell.quick == quick
            assert entry.cell.method in known and method_of(entry.cell) is not None
            assert (entry.x is not None) == bool(experiment.x_label)
        # Every row is one of several runs: all seeds.
        rows = {(entry.cell.protocol, entry.keys): set() for entry in experiment.entries}  # type: ignore[var-annotated]
        for entry in experiment.entries:
            rows[entry.cell.protocol, entry.keys].add(entry.cell.seed)
        assert all(seeds == {0, 1, 2} for seeds in rows.values())


def test_a_comparison_is_of_all_methods_and_with_rotations_of_those_too() -> None:
    plain = EXPERIMENTS["compare"](WANTED)
    assert len(plain.cells) == 2 * 3 * 3 and {cell.rotation for cell in plain.cells} == {0}
    rotated = EXPERIMENTS["compare"](replace(WANTED, all_rotations=True))
    # The run of rotation 0 and seed 0 stands in both tables.
    assert len(rotated.cells) == 2 * 3 * (3 + 4) and len(rotated.entries) == 2 * 3 * (3 + 5)
    assert {entry.section for entry in rotated.entries} == {
        "",
        "hapt, over 5 rotations",
        "urfall, over 5 rotations",
    }


def test_bytes_and_speed_are_of_federated_methods() -> None:
    for name in ("bytes", "speed"):
        assert {cell.method for cell in EXPERIMENTS[name](WANTED).cells} == {"fedavg", "fedmekt-s"}
    assert {cell.participants for cell in EXPERIMENTS["speed"](WANTED).cells} == {10}


def test_what_changes_nothing_is_the_run_that_others_make_too() -> None:
    plain = Cell(protocol="hapt", method="fedmekt-s", rounds=20)
    for name in ("compare", "bytes", "labels", "steps", "single", "encodings", "mixed", "ablate"):
        assert plain in EXPERIMENTS[name](WANTED).cells, name


def test_ablations_change_one_thing_each() -> None:
    assert all(len(settings) <= 2 for settings in ABLATIONS.values())
    cells = EXPERIMENTS["ablate"](replace(WANTED, protocols=("hapt",), seeds=1)).cells
    assert len(cells) == len(ABLATIONS)
    assert [cell.method for cell in cells].count("fedmekt-c") == 1


def test_poison_is_of_every_attack_and_defence_and_none_of_both_is_the_run_that_others_make() -> None:
    wanted = replace(WANTED, protocols=("hapt",), seeds=1)
    experiment = EXPERIMENTS["poison"](wanted)
    assert len(experiment.cells) == (1 + len(ATTACKS)) * len(DEFENCES)
    assert experiment.cells[0] == Cell(protocol="hapt", method="fedmekt-s", rounds=20)
    tables = list(dict.fromkeys(entry.section for entry in experiment.entries))
    assert tables[:2] == ["hapt, nobody", "hapt, noise"] and {each.measured_by for each in experiment.entries} == {
        "hapt, nobody"
    }
    assert {rules_of(cell).aggregator for cell in experiment.cells} == set(AGGREGATORS) == set(get_args(Aggregator))
    guarded = [entry for entry in experiment.entries if rules_of(entry.cell).quarantine == "odd"]
    assert {entry.keys[0] for entry in guarded} == {each for each in DEFENCES if each.endswith("quarantine")}
    some = replace(wanted, attacks=("replay",), defences=("median",), attackers=0.4)
    assert [(cell.attack, cell.attackers, cell.aggregator) for cell in EXPERIMENTS["poison"](some).cells] == [
        ("", 0.0, "median"),
        ("replay", 0.4, "median"),
    ]


def test_where_it_shall_be_quick_there_are_enough_devices_to_tell_who_errs() -> None:
    cells = EXPERIMENTS["poison"](replace(WANTED, quick=True)).cells
    assert {cell.participants for cell in cells} == {QUICK_DEVICES}


def test_the_choices_of_a_proxy_set_are_those_that_there_are() -> None:
    assert set(PROXY_CHOICES) == set(CHOICES)


def test_one_modality_alone_is_everybodys() -> None:
    alone = only(PROTOCOLS["hapt"], "gyro")
    assert [each.name for each in alone.modalities] == ["gyro"] and alone.sets == (("gyro",),)


def test_architectures_are_dealt_to_every_set_of_modalities() -> None:
    had = dealt(PROTOCOLS["hapt"], "conv+lstm")
    assert had[0] == {"acc": "conv"} and had[1] == {"gyro": "conv"} and had[2] == {"acc": "conv", "gyro": "lstm"}
    assert had[3] == {"acc": "lstm"} and had[4] == {"gyro": "lstm"} and had[5] == {"acc": "lstm", "gyro": "conv"}
    assert len(had) == 23


def test_scores_are_taken_at_the_start_and_at_the_end() -> None:
    assert moments(2) == (0, 1, 2) and moments(1) == (0, 1)
    assert moments(20) == (0, 1, 5, 10, 15, 20)
    plain = Cell(protocol="hapt", method="fedmekt-s", rounds=20)
    assert moments_of(plain) == moments(20) and moments_of(replace(plain, method="random")) == (0, 20)
    assert moments_of(replace(plain, attack="noise")) == moments_of(replace(plain, aggregator="median")) == (20,)


def test_who_attacks_is_drawn_by_the_seed_and_the_share() -> None:
    small = arena({f"pi-{n}": {"acc": "conv"} for n in range(10)}, names=("acc",), duration_s=4.0)
    cell = Cell(protocol="hapt", method="fedmekt-s", rounds=2, attack="noise")
    assert poisoned(small, replace(cell, attack="")) == small
    drawn = poisoned(small, cell)
    assert len(drawn.attackers) == 2 and drawn.attack == ATTACKS["noise"]
    assert poisoned(small, cell).attackers == drawn.attackers != poisoned(small, replace(cell, seed=1)).attackers
    assert len(poisoned(small, replace(cell, attackers=0.5)).attackers) == 5
    assert len(poisoned(small, replace(cell, attack="collusion")).attackers) == 3


def test_rules_that_there_are_not_are_refused() -> None:
    with pytest.raises(SettingsError, match="aggregator"):
        rules_of(Cell(protocol="hapt", method="fedmekt-s", rounds=2, aggregator="mode"))
