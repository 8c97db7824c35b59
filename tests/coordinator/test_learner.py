import hashlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.aggregate import aggregate
from coordinator.datasets import Datasets, plan_of, read_datasets
from coordinator.distil import Distiller
from coordinator.learner import FUSED, NOBODY, Closed, Learner, _farthest
from coordinator.ledger import Delivery
from coordinator.quarantine import Standings
from coordinator.round import RoundRules
from export.release import read_release
from mekt.arrays import pack_knowledge, unpack_knowledge
from mekt.augment import view
from mekt.errors import StateError
from mekt.files import BlobStore
from mekt.messages import SCORES_KEPT, RoundReport
from mekt.plan import Method, Plan
from mekt.process import JobCancelledError
from sensors.windows import WindowSet
from tests.coordinator.conftest import FEDERATION, TINY, settings_of

Make = Callable[..., "Bench"]


class Bench:
    """A learner over small data, and what devices delivered to it: the knowledge of models with other seeds."""

    def __init__(self, folder: Path, datasets: Datasets, plan: Plan, **architectures: Any) -> None:
        self.folder, self.datasets, self.plan = folder, datasets, plan
        self.blobs = BlobStore(folder / "blobs")
        self.learner = self.make(plan, folder, **architectures)
        self.deliveries = [
            self.delivery("pi-1", self.make(replace(plan, seed=71), folder / "other").knowledge(0), 30),
            self.delivery("pi-2", self.make(replace(plan, seed=72), folder / "other").knowledge(0), 10),
        ]

    def make(self, plan: Plan, folder: Path, rules: RoundRules | None = None, **architectures: Any) -> Learner:
        return Learner(
            federation=FEDERATION,
            plan=plan,
            datasets=self.datasets,
            architectures=architectures,
            folder=folder,
            rules=rules,
        )

    def delivery(self, device: str, knowledge: dict[str, bytes], windows: int) -> Delivery:
        refs = {name: self.blobs.put(data) for name, data in knowledge.items()}
        return Delivery(device=device, windows=windows, knowledge=refs)

    def close(self, number: int = 0, deliveries: list[Delivery] | None = None) -> RoundReport:
        return self.closed(number, deliveries).report

    def closed(
        self, number: int = 0, deliveries: list[Delivery] | None = None, standings: Standings = NOBODY
    ) -> Closed:
        given = self.deliveries if deliveries is None else deliveries
        return self.learner.close_round(number, given, self.blobs, lambda done, whole: None, 1.5, standings)

    def digests(self) -> dict[str, str]:
        """Of every file that the rounds left but manifests, which hold how torch rounded."""
        paths = [*self.folder.glob("encoders-*"), *self.folder.glob("releases/*")]
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def make(tmp_path: Path, datasets: Datasets) -> Make:
    folders = itertools.count()

    def bench(given: Datasets = datasets, method: Method = TINY, **changes: Any) -> Bench:
        modalities = tuple(given.proxy)
        settings = settings_of(modalities=modalities, method=method)
        folder = tmp_path / f"bench-{next(folders)}"
        return Bench(folder, given, plan_of(settings, given, "0a"), **changes)

    return bench


def test_a_round_follows_the_devices_and_leaves_weights_and_a_release(make: Make) -> None:
    bench = make()
    first = bench.close(0)
    second = bench.close(1)
    assert second.metrics["transfer"] < first.metrics["transfer"]
    assert (first.round, second.round, first.devices) == (1, 2, ("pi-1", "pi-2"))
    assert list(first.seconds) == ["collect", "distil", "classify", "score", "export"]
    assert first.seconds["collect"] == 1.5 and all(value >= 0 for value in first.seconds.values())
    assert set(first.metrics) == {"reconstruction", "transfer", *(f"weighted_f1/{n}" for n in ("acc", "gyro", FUSED))}
    assert (bench.folder / "encoders-00001.weights").exists() and (bench.folder / "encoders-00002.weights").exists()
    assert first.release == "ward-3-00001"
    manifest = read_release(bench.learner.releases / f"{second.release}.zip").manifest
    assert (manifest.federation, manifest.round, manifest.labels) == (FEDERATION, 2, bench.datasets.classes)
    assert set(manifest.classifiers) == {"acc", "gyro", FUSED}
    assert {name: manifest.metrics[name] for name in second.metrics} == second.metrics


def test_the_start_is_scored_and_released_too(make: Make) -> None:
    report = make().learner.assess(0)
    assert (report.round, report.devices, report.release) == (0, (), "ward-3-00000")
    assert set(report.metrics) == {"weighted_f1/acc", "weighted_f1/gyro", "weighted_f1/fused"}


def test_knowledge_is_what_devices_unpack(make: Make) -> None:
    bench = make()
    for data in bench.learner.knowledge(0).values():
        embedding, hidden = unpack_knowledge(data, windows=24, embedding=4, hidden=None)
        assert embedding.shape == (24, 4) and hidden is None


def test_each_round_asks_for_knowledge_of_its_own_view(make: Make) -> None:
    bench = make()
    views = [view(bench.plan, bench.datasets.normalised_proxy(), number) for number in range(2)]
    with_views = [bench.learner.knowledge(number) for number in range(2)]
    distiller = Distiller(bench.plan, {"acc": "conv", "gyro": "conv"})
    for looked_at, blobs in zip(views, with_views, strict=True):
        for name, known in distiller.knowledge(looked_at).items():
            assert blobs[name] == pack_knowledge(known.embedding, known.hidden, bench.plan.method.encoding)
    assert with_views[0]["acc"] != with_views[1]["acc"]
    one_view = make(method=replace(TINY, augment=0.0)).learner
    assert one_view.knowledge(0) == one_view.knowledge(1)


def test_a_coordinator_that_starts_anew_each_round_comes_to_the_same_bytes(make: Make) -> None:
    method = replace(TINY, distil_epochs=1)
    undisturbed, restarted = make(method=method), make(method=method)
    only_gyro = [replace(each, knowledge={"gyro": each.knowledge["gyro"]}) for each in undisturbed.deliveries]
    for number, deliveries in enumerate([None, None, only_gyro, None, [], None]):
        undisturbed.close(number, deliveries)
        restarted.learner = restarted.make(restarted.plan, restarted.folder)
        restarted.learner.restore(number)
        restarted.close(number, deliveries)
    assert restarted.digests() == undisturbed.digests() != {}


def test_the_same_round_twice_gives_the_same_bytes_whatever_the_order_of_deliveries(make: Make) -> None:
    one, other = make(), make()
    reports = [one.close(0), other.close(0, other.deliveries[::-1])]
    assert one.digests() == other.digests() != {}
    assert one.learner.knowledge(0) == other.learner.knowledge(0)
    assert reports[0].metrics == reports[1].metrics
    one.close(1)
    other.close(1)
    assert one.digests() == other.digests()


def test_a_round_that_was_closed_before_a_crash_is_closed_again_with_the_same_bytes(make: Make) -> None:
    bench = make()
    bench.close(0)
    report, before = bench.close(1), bench.digests()
    bench.learner.restore(1)
    again = bench.close(1)
    assert bench.digests() == before
    assert (again.metrics, again.release) == (report.metrics, report.release)


def test_restored_encoders_have_the_same_knowledge(make: Make) -> None:
    bench = make()
    start = bench.learner.knowledge(0)
    bench.close(0)
    after = bench.learner.knowledge(0)
    assert after != start
    fresh = bench.make(bench.plan, bench.folder)
    assert fresh.knowledge(0) == start
    fresh.restore(1)
    assert fresh.knowledge(0) == after
    fresh.restore(0)
    assert fresh.knowledge(0) == start


def test_missing_damaged_or_foreign_weights_are_refused(make: Make) -> None:
    bench = make()
    with pytest.raises(StateError, match=r"encoders-00001.weights: cannot be read .* restore it from a copy"):
        bench.learner.restore(1)
    bench.close(0)
    path = bench.folder / "encoders-00001.weights"
    raw = path.read_bytes()
    with pytest.raises(StateError, match="weights of another model"):
        bench.make(bench.plan, bench.folder, acc="lstm").restore(1)
    path.write_bytes(raw[:-1])
    with pytest.raises(StateError, match="damaged weights"):
        bench.learner.restore(1)


def test_only_the_weights_that_a_restart_needs_are_kept(make: Make) -> None:
    bench = make(method=replace(TINY, distil_epochs=1))
    strange = [bench.folder / "encoders-of-mine.weights", bench.folder / ".encoders-00001.weights.7.tmp"]
    for path in strange:
        path.write_bytes(b"x")
    for number in range(4):
        bench.close(number)
    names = sorted(path.name for path in bench.folder.iterdir() if "encoders" in path.name)
    assert names == ["encoders-00003.weights", "encoders-00004.weights", "encoders-of-mine.weights"]


def test_an_export_that_fails_costs_the_release_alone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    sound, bench = make(), make()
    (bench.learner.releases / "ward-3-00001.zip").mkdir()
    assert bench.close(0).release == "" and "no release of this round" in caplog.text
    expected = sound.close(0)
    assert bench.close(1).release == "ward-3-00002"
    assert expected.release == "ward-3-00001"
    sound.close(1)
    assert bench.learner.knowledge(0) == sound.learner.knowledge(0)


def test_an_export_that_stumbles_costs_the_release_alone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make()
    bench.learner._datasets = replace(bench.datasets, proxy={"acc": 7, "gyro": 7})  # type: ignore[dict-item]
    assert bench.close(0).release == "" and "the export failed" in caplog.text


@pytest.mark.parametrize("kind", ["test", "labelled"])
def test_scores_that_fail_cost_the_scores_alone(
    make: Make, datasets: Datasets, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    broken = WindowSet(arrays={"acc": np.zeros((3, 50, 3), np.float32)}, labels=np.zeros(3, dtype=np.int64))
    changed = replace(datasets, test=broken) if kind == "test" else replace(datasets, labelled=broken)
    sound, bench = make(), make(changed)
    report = bench.close(0)
    assert set(report.metrics) == {"reconstruction", "transfer"} and "failed; the round goes on" in caplog.text
    assert report.release == "ward-3-00001"
    manifest = read_release(bench.learner.releases / f"{report.release}.zip").manifest
    assert bool(manifest.classifiers) == (kind == "test")
    sound.close(0)
    assert bench.learner.knowledge(0) == sound.learner.knowledge(0)


def test_without_labels_there_are_encoders_and_no_scores(make: Make, datasets: Datasets) -> None:
    report = make(replace(datasets, labelled=None, test=None, classes=())).close(0)
    assert set(report.metrics) == {"reconstruction", "transfer"} and report.release == "ward-3-00001"


def test_learning_that_diverges_loses_its_round_and_no_more(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    bench = make(method=replace(TINY, distil_rate=1e9, distil_epochs=20))
    start = bench.learner.knowledge(0)
    report = bench.close(0)
    assert "learning diverged; its knowledge is dropped" in caplog.text
    assert bench.learner.knowledge(0) == start
    assert report.round == 1 and report.release == "ward-3-00001" and "transfer" not in report.metrics
    fresh = bench.make(bench.plan, bench.folder)
    fresh.restore(1)
    assert fresh.knowledge(0) == start


def test_the_largest_knowledge_that_is_accepted_does_not_break_the_encoders(make: Make) -> None:
    # Nothing else enlarges the embeddings, which begin small.
    bench = make(method=replace(TINY, decorrelate=0.0))
    x = np.full((24, 4), 65504, np.float32)
    x[::2] = -65504
    hostile = bench.delivery("z", dict.fromkeys(("acc", "gyro"), pack_knowledge(x, None, "float16")), 10)

    def off(number: int) -> float:
        """How far the global knowledge is from the honest devices'."""
        honest = aggregate([bench.learner._contribution(each, bench.blobs) for each in bench.deliveries])
        known = {
            name: unpack_knowledge(raw, windows=24, embedding=4, hidden=None)[0]
            for name, raw in bench.learner.knowledge(number).items()
        }
        return float(np.mean([np.abs(known[name] - honest[name].embedding).mean() for name in known]))

    before = off(0)
    report = bench.close(0, [*bench.deliveries, hostile])
    assert np.isfinite(report.metrics["transfer"])
    assert off(1) < 1.5 * before, "a hostile round moves the encoders little"
    followed = [bench.close(number).metrics["transfer"] for number in range(1, 8)]
    assert off(8) < before / 2 and followed[-1] < followed[0], "and is forgotten"


@pytest.fixture(scope="module")
def trained(people: Path) -> Datasets:
    """As many proxy windows as the recording has: few more than embeddings have dimensions would seem alike."""
    return read_datasets(settings_of(proxy_windows=512), people)


# Enough for two rounds to come to what healthy federations come to. Devices know one view of the proxy set.
SOUND = replace(TINY, embedding=8, hidden=16, distil_epochs=40, augment=0.0)
# For what follows from the deliveries, however far the encoders come.
BRIEF = replace(SOUND, distil_epochs=2)


def sign_names(report: RoundReport) -> set[tuple[str, str]]:
    return {(each.name, each.device) for each in report.findings}


def test_a_sound_round_has_no_findings(make: Make, trained: Datasets) -> None:
    bench = make(trained, SOUND)
    alone = replace(bench.plan, seed=71, method=replace(SOUND, eta=0.0))
    device = bench.make(alone, bench.folder / "other")
    device.close_round(0, bench.deliveries, bench.blobs, lambda done, whole: None, 0.0)
    deliveries = [bench.delivery(f"pi-{n}", device.knowledge(0), 10) for n in range(1, 4)]
    assert [bench.close(number, deliveries).findings for number in range(2)] == [(), ()]


def test_a_model_that_tells_no_windows_apart_is_named(make: Make, datasets: Datasets) -> None:
    same = {name: np.zeros_like(array) for name, array in datasets.proxy.items()}
    found = make(replace(datasets, proxy=same)).close(0).findings
    for device in ("", "pi-1", "pi-2"):
        named = {each.modality for each in found if (each.name, each.device) == ("collapse", device)}
        assert named == {"acc", "gyro"}


def test_reconstruction_that_follows_nothing_is_named(make: Make, trained: Datasets) -> None:
    report = make(trained, replace(BRIEF, distil_rate=1e-9)).close(0)
    found = [each for each in report.findings if each.name == "collapse" and each.device == ""]
    assert [each.modality for each in found] == ["acc", "gyro"]
    assert all("rebuilding a proxy window" in each.evidence for each in found)


@pytest.mark.parametrize(("fusion", "subjects"), [("separate", ["acc", "gyro"]), ("concatenated", [FUSED])])
def test_encoders_that_do_not_follow_the_devices_are_named(
    make: Make, trained: Datasets, fusion: Any, subjects: list[str]
) -> None:
    bench = make(trained, replace(SOUND, eta=0.0, fusion=fusion))
    found = [each for each in bench.close(0).findings if each.name == "too-little-transfer"]
    assert [each.modality for each in found] == subjects and all("raise eta" in each.remedy for each in found)


def test_a_device_that_disagrees_with_all_others_is_named(make: Make, trained: Datasets) -> None:
    bench = make(trained, BRIEF)
    known = bench.make(bench.plan, bench.folder / "other").knowledge(0)
    turned = {}
    for name, raw in known.items():
        embedding, _ = unpack_knowledge(raw, windows=bench.plan.proxy_windows, embedding=8, hidden=None)
        turned[name] = pack_knowledge(-embedding, None, "float16") if name == "acc" else raw
    same = [bench.delivery(f"pi-{n}", known, 10) for n in (1, 2)]
    report = bench.close(0, [*same, bench.delivery("pi-3", turned, 10)])
    odd = [each for each in report.findings if each.name == "odd-device"]
    assert [(each.device, each.modality) for each in odd] == [("pi-3", "acc")]
    assert ("odd-device", "pi-3") not in sign_names(bench.close(1, [*same, bench.delivery("pi-3", known, 10)]))


GUARDED = RoundRules(aggregator="geometric-median", quarantine="odd")


def test_a_device_in_quarantine_changes_no_byte_whenever_the_coordinator_starts_anew(
    make: Make, trained: Datasets
) -> None:
    """Round by round against a coordinator that never stops, one that starts anew, and one that never heard of it."""
    steady, restarted, without = (make(trained, BRIEF, rules=GUARDED) for _ in range(3))
    known = [
        steady.make(replace(steady.plan, seed=seed), steady.folder / "other").knowledge(0) for seed in (0, 0, 0, 7)
    ]
    standings = [NOBODY] * 2
    for number in range(3):
        given = [[each.delivery(f"pi-{n}", known[n], 10) for n in range(4)] for each in (steady, restarted)]
        first = steady.closed(number, given[0], standings[0])
        # Killed after the encoders were written and before the report was: the round is closed again.
        restarted.closed(number, given[1], standings[1])
        restarted.learner = restarted.make(restarted.plan, restarted.folder, rules=GUARDED)
        restarted.learner.restore(number)
        again = restarted.closed(number, given[1], standings[1])
        standings = [first.standings, again.standings]
        assert standings[0] == standings[1] and set(standings[0]) == {"pi-3"}
        assert first.report.disagreement == again.report.disagreement and len(again.report.disagreement) == 4
        assert ("quarantined", "pi-3") in sign_names(again.report)
        without.close(number, [without.delivery(f"pi-{n}", known[n], 10) for n in range(3)])
    assert steady.digests() == restarted.digests() == without.digests() != {}


def test_a_report_holds_the_scores_of_those_farthest_from_the_fleet() -> None:
    kept = _farthest({f"pi-{n:03}": n / 3 for n in range(300)})
    assert len(kept) == SCORES_KEPT and list(kept) == sorted(kept) and min(kept.values()) == round(236 / 3, 3)


def test_a_proxy_set_unlike_the_labelled_windows_is_named(make: Make, trained: Datasets) -> None:
    assert trained.labelled is not None
    apart = {name: array * np.float32(20) for name, array in trained.labelled.arrays.items()}
    report = make(replace(trained, labelled=replace(trained.labelled, arrays=apart)), SOUND).close(0)
    assert ("unrepresentative-proxy", "") in sign_names(report)
    assert ("unrepresentative-proxy", "") not in sign_names(make(replace(trained, labelled=None), SOUND).close(0))


def test_a_diagnosis_that_fails_costs_itself_alone(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, bench = make(), make()
    expected = sound.close(0)
    assert expected.findings != ()

    def stumble(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("coordinator.signs.collapse", stumble)
    report = bench.close(0)
    assert "the diagnosis of this round failed; the round goes on without it" in caplog.text
    assert report.findings == () and (report.metrics, report.release) == (expected.metrics, expected.release)
    assert bench.digests() == sound.digests()


def test_learning_that_diverged_is_not_blamed_on_transfer(make: Make) -> None:
    report = make(method=replace(TINY, distil_rate=1e9, distil_epochs=20)).close(0)
    assert "too-little-transfer" not in {each.name for each in report.findings}


@pytest.mark.parametrize("names", [("acc",), ("acc", "gyro", "depth")])
@pytest.mark.parametrize("fusion", ["separate", "concatenated"])
def test_one_modality_and_three_with_frames_are_learned(make: Make, people: Path, names: Any, fusion: Any) -> None:
    method = replace(TINY, fusion=fusion, beta=0.1, gamma=0.1)
    bench = make(read_datasets(settings_of(modalities=names, proxy_windows=12), people), method)
    report = bench.close(0)
    groups = set(names) | (set() if len(names) == 1 else {FUSED})
    assert set(read_release(bench.learner.releases / f"{report.release}.zip").manifest.classifiers) == groups
    assert {f"weighted_f1/{name}" for name in groups} < set(report.metrics)
    assert set(bench.learner.knowledge(0)) == set(names)


def test_modalities_that_nobody_delivered_are_learned_without_a_teacher(make: Make) -> None:
    bench = make()
    only_acc = replace(bench.deliveries[0], knowledge={"acc": bench.deliveries[0].knowledge["acc"]})
    before = bench.learner.knowledge(0)
    bench.close(0, [only_acc])
    after = bench.learner.knowledge(0)
    assert after["acc"] != before["acc"] and after["gyro"] != before["gyro"]


def test_a_delivered_blob_that_is_gone_is_said(make: Make) -> None:
    bench = make()
    bench.blobs.keep_only(frozenset())
    with pytest.raises(StateError, match="what pi-1 delivered is gone; restart to collect it anew"):
        bench.close(0)


def test_learning_ends_when_progress_says_so(make: Make) -> None:
    bench = make()

    def enough(done: int, whole: int) -> None:
        assert (done, whole) == (1, 4)
        raise JobCancelledError

    with pytest.raises(JobCancelledError):
        bench.learner.close_round(0, bench.deliveries, bench.blobs, enough, 0.0)
    assert list(bench.folder.glob("encoders-*")) == []


def test_the_log_names_the_release(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make().close(0)
    assert "ward-3-00001: onnxruntime and torch differ by" in caplog.text
