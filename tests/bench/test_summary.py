"""What equal runs say together, by hand, and how that is shown."""

import io
import json
import struct
from dataclasses import replace

import pytest

from bench.cells import Attacked, Cell, Evaluation, Kept, Outcome
from bench.plots import picture
from bench.summary import Entry, Experiment, Sample, Section, summarise
from bench.tables import markdown, number, share, table
from tests.bench.walker import outcome


def cell(method: str, seed: int) -> Cell:
    return Cell(protocol="hapt", method=method, rounds=2, seed=seed)


def kept(given: Outcome) -> Kept:
    return Kept(format=1, key="k", cell={}, code="c", took_s=1.0, outcome=given)


def experiment(name: str = "compare", **more: object) -> Experiment:
    """Three methods of two seeds; one of them exchanges nothing."""
    entries = tuple(
        Entry(
            cell=cell(method, seed),
            keys=(method,),
            federated=method != "pooled",
            series="one" if method == "fedavg" else "other",
            x=float(size),
        )
        for size, method in ((64, "fedavg"), (128, "fedmekt-s"), (256, "pooled"))
        for seed in (0, 1)
    )
    return Experiment(name=name, title="Three methods", keys=("method",), entries=entries, **more)  # type: ignore[arg-type]


KEPT = {
    cell("fedavg", 0): kept(outcome(0.6, size=10_000)),
    cell("fedavg", 1): kept(outcome(0.62, size=10_000)),
    cell("fedmekt-s", 0): kept(outcome(0.7)),
    cell("fedmekt-s", 1): kept(outcome(0.74)),
    cell("pooled", 0): kept(outcome(0.9, exchanges=False)),
}


def only_section(name: str = "compare") -> Section:
    [section] = summarise(experiment(name), KEPT)
    return section


def test_means_spreads_bytes_and_seconds_are_those_worked_by_hand() -> None:
    fedavg, fedmekt, pooled = only_section().rows
    assert fedmekt.scores["fused"].values == (0.7, 0.74) and fedmekt.scores["fused"].mean == pytest.approx(0.72)
    assert fedmekt.scores["fused"].std == pytest.approx(0.0282843, abs=1e-6)
    # Of a participant and a round; neither the proxy set nor what others hear counts.
    assert fedmekt.up and fedmekt.down and (fedmekt.up.mean, fedmekt.down.mean) == (1000, 1000)
    assert fedavg.ratio == 1 and fedmekt.ratio == 10 and pooled.ratio is None and pooled.up is None
    # 8 kB in all for four devices.
    assert fedmekt.one_off and fedmekt.one_off.mean == 2000
    # Round 1: payload 2 + 2 kB, and 8 kB of proxy set; round 2: payload, and 1 kB for those who only listen.
    first, last = fedmekt.points[1:]
    assert (first.megabytes, first.megabytes_with_proxy) == (0.004, 0.012)
    assert last.megabytes == pytest.approx(0.009) and last.megabytes_with_proxy == pytest.approx(0.017)
    # 3 s of work in a round; 400 windows in 4 s of local learning. Taking scores is no work.
    assert fedmekt.round_s == 3 and fedmekt.windows_per_s and fedmekt.windows_per_s.mean == 100
    assert (pooled.runs, pooled.missing) == (1, 1)


def test_the_best_is_federated_and_the_target_is_most_of_its_way() -> None:
    section = only_section()
    assert section.best == {"fused": 1}
    assert section.target == pytest.approx(0.1 + 0.9 * (0.72 - 0.1))
    assert section.rows[1].to_target == pytest.approx((0.009, 0.017))
    assert section.rows[0].to_target is None


def test_own_heads_count_where_there_are_any() -> None:
    run = outcome(0.6)
    last = replace(run.last, heads={"fused": {"weighted_f1": 0.8}})
    headed = replace(run, evaluations=(*run.evaluations[:-1], last))
    [section] = summarise(experiment(), {cell("pooled", 0): kept(headed)})
    assert section.rows[2].scores["fused"].mean == 0.8 and section.rows[2].probe["fused"].mean == 0.6


def test_the_table_has_units_spreads_and_the_best_in_bold() -> None:
    lines = table(experiment(), only_section()).splitlines()
    rows = [[text.strip() for text in line.strip("|").split("|")] for line in lines]
    assert rows[0] == [
        "method",
        "runs",
        "fused F1 (%)",
        "up (kB)",
        "down (kB)",
        "fewer bytes than FedAvg",
        "time (s/round)",
    ]
    assert rows[2] == ["fedavg", "2", "61.0 ± 1.4", "10.0", "10.0", "1.00 x", "3.00"]
    assert rows[3] == ["fedmekt-s", "2", "**72.0 ± 2.8**", "1.00", "1.00", "10.0 x", "3.00"]
    assert rows[4] == ["pooled", "1 of 2", "90.0", "-", "-", "-", "3.00"]
    assert len({len(line) for line in lines}) == 1


def test_the_bytes_table_counts_with_and_without_the_proxy_set() -> None:
    head, _, _, fedmekt, _ = (
        [text.strip() for text in line.strip("|").split("|")]
        for line in table(experiment("bytes"), only_section("bytes")).splitlines()
    )
    shown = dict(zip(head, fedmekt, strict=True))
    assert shown["all (MB)"] == "0.009" and shown["all with proxy set (MB)"] == "0.017"
    assert shown["gain (F1 points/MB)"] == "6,889" and shown["gain with proxy set (F1 points/MB)"] == "3,647"
    assert shown["MB to F1 65.8 %"] == "0.009" and shown["proxy set, once (kB)"] == "2.00"


def test_the_speed_table_compares_with_the_published_code() -> None:
    text = markdown(experiment("speed"), [only_section("speed")])
    assert "published code / this" in text and "38.3 x" in text and "F1" not in text


def test_numbers_are_short_and_never_an_exponent() -> None:
    assert [number(value) for value in (None, 0, 12345.6, 123.4, 12.34, 1.234, 0.01234, 1e-9)] == [
        *("-", "0", "12,346", "123", "12.3", "1.23", "0.0123", "< 0.001")
    ]
    assert share(Sample((0.5,))) == "50.0" and share(None) == "-"


def spoiled(method: str, seed: int) -> Cell:
    return replace(cell(method, seed), attack="noise")


def test_what_an_attack_costs_is_counted_run_by_run_from_the_honest_ones() -> None:
    entries = [
        Entry(cell=make(method, seed), keys=(method,), section=section, measured_by="hapt, nobody")
        for section, make in (("hapt, nobody", cell), ("hapt, noise", spoiled))
        for method in ("fedavg", "fedmekt-s")
        for seed in (0, 1)
    ]
    asked = Experiment(name="poison", title="Attacks", keys=("aggregator",), entries=tuple(entries))
    # Of the attack's second method only the second run is there, which is measured by that seed's alone.
    runs = KEPT | {spoiled("fedavg", 0): kept(outcome(0.5)), spoiled("fedavg", 1): kept(outcome(0.56))}
    honest, noise = summarise(asked, runs | {spoiled("fedmekt-s", 1): kept(outcome(0.42))})
    assert [row.loss.mean for row in honest.rows if row.loss] == pytest.approx([0, -0.11])
    assert noise.rows[0].loss and noise.rows[0].loss.values == pytest.approx((0.1, 0.06))
    assert noise.rows[1].loss and noise.rows[1].loss.values == pytest.approx((0.2,))
    text = markdown(asked, (honest, noise))
    assert "lost (points)" in text and "8.0 ± 2.8" in text and "a fifth of the devices" in text
    assert noise.rows[0].plain()["loss"]["n"] == 2
    assert summarise(asked, {})[1].rows[0].loss is None
    assert "lost" not in table(experiment(), only_section())


def test_nothing_at_all_is_still_a_table() -> None:
    sections = summarise(experiment(), {})
    assert "0 of 2" in markdown(experiment(), sections) and sections[0].groups == ()


def test_rows_are_plain_data_for_json() -> None:
    rows = json.loads(json.dumps([row.plain() for row in only_section().rows]))
    assert rows[1]["scores"]["fused"]["n"] == 2 and rows[1]["parameter_exchange_over_this"] == 10
    assert rows[2]["per_device_and_round"]["up_bytes"] is None


def attacked(auc: float) -> Outcome:
    """A run in which two devices were attacked after the first round and after the second."""
    told = [
        Attacked(round=number, way=way, device=device, auc=auc + add, tpr=0.02, loss_auc=0.5, loss_tpr=0.01)
        for number, way in ((1, "own"), (2, "own"), (2, "sum"))
        for device, add in (("pi-1", 0.0), ("pi-2", 0.1))
    ]
    nothing = (Evaluation(round=2, scores={}),)
    return Outcome(evaluations=nothing, attacks=tuple(told), epsilon=auc * 100)


def test_attacks_are_summed_up_over_devices_and_runs_and_shown_with_epsilon() -> None:
    asked = experiment("privacy")
    [section] = summarise(
        asked,
        {cell("fedavg", seed): kept(attacked(0.6 + seed / 10)) for seed in (0, 1)}
        | {cell("pooled", 0): KEPT[cell("pooled", 0)]},
    )
    row = section.rows[0]
    assert row.attacks["auc own 1"].values == pytest.approx((0.6, 0.7, 0.7, 0.8)) and row.epsilon == pytest.approx(70)
    head, _, shown, *_ = table(asked, section).splitlines()
    assert [title.strip() for title in head.split("|")[2:-1]] == [
        *("runs", "fused F1 (%)", "AUC, own, round 1 (%)", "AUC, own, round 2 (%)", "AUC, sum, round 2 (%)"),
        *("found at 1 % false alarms (%)", "AUC by loss alone (%)", "epsilon"),
    ]
    assert [text.strip() for text in shown.split("|")[2:-1]] == [
        *("2", "-", "70.0 ± 8.2", "70.0 ± 8.2", "70.0 ± 8.2", "2.0 ± 0.0", "50.0 ± 0.0", "70.0"),
    ]
    assert "AUC: of telling the windows" in markdown(asked, [section])
    assert json.loads(json.dumps(row.plain()))["attacks"]["tpr sum 2"]["n"] == 4


@pytest.mark.parametrize("name", ["compare", "proxy", "bytes", "speed", "privacy"])
def test_every_kind_of_picture_is_a_png_that_only_its_numbers_decide(name: str) -> None:
    pytest.importorskip("matplotlib", reason='matplotlib is not installed; pip install -e ".[bench]"')
    more = {"x_label": "windows", "x_log": True} if name == "proxy" else {}
    asked = experiment(name, **more)
    png = picture(asked, summarise(asked, KEPT))
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png == picture(asked, summarise(asked, KEPT))
    wide, high = struct.unpack(">II", io.BytesIO(png[16:24]).read())
    assert 500 < wide < 3000 and 200 < high < 3000
