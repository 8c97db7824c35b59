"""`mekt release` on a real state folder, as a person gives its commands beside a coordinator or without one."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.authority import Authority
from coordinator.rollout import HOUR_S, Passed
from coordinator.rollouts import Rollouts
from coordinator.settings import FederationSettings, read_federation
from export.release import open_release, read_release
from mekt.catalogue import NO_ROLLOUT, RELEASE_UNKNOWN, RELEASE_WORSE, ROLLOUT_UNDER_WAY, Entry
from mekt.cli import main
from mekt.signature import Trust
from sensors.recording import write_recording
from sensors.simulator import simulate
from tests.coordinator.conftest import config_of, write_people
from tests.export.small import ACC, GYRO, Parts, parts_of

NAMES = ("ward-3-00001", "ward-3-00002", "ward-3-00003")


def with_round(parts: Parts, number: int, **changes: Any) -> Parts:
    """These parts, after another round."""
    return Parts(**{**vars(parts), "round": number, **changes})


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three releases, the second with other classifiers and a class less, the third without gyro."""
    folder = tmp_path_factory.mktemp("shelf")
    parts = parts_of(ACC, GYRO)
    with_round(parts, 1).write(folder / f"{NAMES[0]}.zip")
    turned = {name: (of, -weight, bias) for name, (of, weight, bias) in parts.classifiers.items()}
    scores = {"weighted_f1/acc": 0.75, "weighted_f1/fused": 0.5, "transfer/acc": 0.25}
    with_round(parts, 2, classifiers=turned, metrics=scores).write(folder / f"{NAMES[1]}.zip")
    with_round(parts_of(ACC), 3, labels=("sit", "stand", "run")).write(folder / f"{NAMES[2]}.zip")
    return folder


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recordings that the federation's settings name."""
    folder = tmp_path_factory.mktemp("persons")
    write_people(folder, proxy=1, labelled=2, test=3)
    return folder


class Home:
    """A federation's settings and state in `folder`, and the commands that are given there."""

    def __init__(self, folder: Path, shelf: Path, persons: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.config = config_of(folder, persons, 1883)
        (folder / "state").mkdir()
        (folder / "state" / "releases").symlink_to(shelf)

    @property
    def settings(self) -> FederationSettings:
        return read_federation(self.config)

    def mekt(self, *arguments: str) -> str:
        """What a command says."""
        assert main(["release", *arguments]) == 0, self._capsys.readouterr().err
        return self._capsys.readouterr().out

    def told(self, *arguments: str) -> Any:
        """The same for machines."""
        return json.loads(self.mekt(*arguments, "--config", str(self.config), "--json"))

    def refused(self, entry: Entry, *arguments: str) -> str:
        """Why a command does nothing."""
        assert main(["release", *arguments, "--config", str(self.config)]) == entry.exit_code
        said = self._capsys.readouterr().err
        assert f"(error {entry.number}," in said
        return said

    def passed(self, hours: float) -> None:
        """So much time passes while the coordinator is at work."""
        with closing(Rollouts(self.folder / "state", "ward-3", self.settings.rollout)) as rollouts:
            rollouts.advance(Passed(seconds=hours * HOUR_S))


@pytest.fixture
def home(tmp_path: Path, shelf: Path, persons: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path, shelf, persons, capsys)


def test_releases_are_listed_with_their_scores_and_what_wearables_have_of_them(home: Home) -> None:
    home.mekt("promote", NAMES[0], "--now", "--config", str(home.config))
    home.passed(24)
    home.mekt("promote", NAMES[1], "--share", "0.25", "--even-if-worse", "--config", str(home.config))
    rows = home.told("list")
    assert [row["release"] for row in rows] == list(NAMES) and [row["round"] for row in rows] == [1, 2, 3]
    assert rows[1]["scores"] == {"acc": 0.75, "fused": 0.5}
    assert [row["rollout"]["state"] for row in rows[:2]] == ["done", "canary"] and "rollout" not in rows[2]
    head, *lines = home.mekt("list", "--config", str(home.config)).splitlines()
    assert head.split() == ["release", "round", "size", "acc", "fused", "gyro", "wearables"]
    assert "shipped to all 20" in lines[0] and "on trial on 25% since 20" in lines[1]
    assert lines[1].split()[:7] == [NAMES[1], "2", lines[1].split()[2], "kB", "0.750", "0.500", "-"]


def test_a_damaged_release_is_listed_as_such_and_hides_no_other(home: Home, shelf: Path) -> None:
    releases = home.folder / "state" / "releases"
    releases.unlink()
    releases.mkdir()
    raw = (shelf / f"{NAMES[0]}.zip").read_bytes()
    (releases / f"{NAMES[0]}.zip").write_bytes(raw)
    (releases / f"{NAMES[1]}.zip").write_bytes(raw[:-1])
    whole, damaged = home.told("list")
    assert whole["round"] == 1 and "damaged" in damaged["trouble"]
    assert "damaged" in home.mekt("list", "--config", str(home.config)).splitlines()[2]


def test_a_release_is_shown_by_its_name_or_its_file(home: Home, shelf: Path) -> None:
    said = home.mekt("show", NAMES[1], "--config", str(home.config))
    assert home.mekt("show", str(shelf / f"{NAMES[1]}.zip")) == said
    for words in (
        "federation   ward-3, after round 2",
        "classes      sit, stand, walk",
        "encoder acc: 3 at 50 Hz, in g",
        "weighted F1 0.750 on the coordinator's test windows",
        "classifier fused, of acc, gyro",
        "learning: transfer/acc 0.25",
    ):
        assert words in said
    manifest = read_release(shelf / f"{NAMES[1]}.zip").manifest
    acc = manifest.encoders[0]
    assert f"conv, {acc.parameters} parameters, {acc.operations} multiply-adds a window, embedding of 4" in said
    assert home.told("show", NAMES[1])["round"] == 2


def test_a_difference_names_scores_classes_and_models(home: Home, shelf: Path) -> None:
    found = home.told("diff", NAMES[0], NAMES[1])
    assert found["scores"]["weighted_f1/acc"] == {"before": 0.5, "after": 0.75}
    assert found["scores"]["transfer/acc"] == {"after": 0.25}
    assert set(found["models"].values()) == {"changed"} and len(found["models"]) == 3, "the classifiers alone"
    found = home.told("diff", NAMES[0], NAMES[2])
    assert (found["labels_added"], found["labels_removed"]) == (["run"], ["walk"])
    assert (found["modalities_added"], found["modalities_removed"]) == ([], ["gyro"])
    assert [how for file, how in found["models"].items() if "gyro" in file] == ["removed"] * 2
    said = home.mekt("diff", NAMES[0], NAMES[2], "--config", str(home.config))
    assert "modalities removed           gyro" in said and "classes added                run" in said
    same = str(shelf / f"{NAMES[0]}.zip")
    assert home.mekt("diff", same, same) == "no difference\n"


def test_a_difference_tells_how_often_both_say_the_same(home: Home, tmp_path: Path) -> None:
    recording = simulate(1, seed=1, duration_s=30.0)
    write_recording(tmp_path / "played.npz", recording)
    played = str(tmp_path / "played.npz")
    same = home.told("diff", NAMES[0], NAMES[0], "--recordings", played)
    assert same["agreement"] == dict.fromkeys(("acc", "fused", "gyro"), 100.0) and same["windows"] > 30
    turned = home.told("diff", NAMES[0], NAMES[1], "--recordings", played)
    assert turned["agreement"]["fused"] < 100
    # Both know the first class under one name, and the last one under two.
    other = home.told("diff", NAMES[0], NAMES[2], "--recordings", played)
    assert set(other["agreement"]) == {"acc"}
    said = home.mekt("diff", NAMES[0], NAMES[1], "--recordings", played, "--config", str(home.config))
    assert f"of {turned['windows']} windows" in said and np.isfinite(turned["agreement"]["fused"])


def test_a_release_is_tried_widened_and_taken_back(home: Home) -> None:
    first = home.told("promote", NAMES[0], "--now")
    assert (first["number"], first["state"], first["share"]) == (1, "everybody", 1.0)
    home.passed(24)
    assert f"than {NAMES[0]}, which wearables run: walk (100% -> 0%)" in home.refused(
        RELEASE_WORSE, "promote", NAMES[1]
    )
    second = home.told("promote", NAMES[1], "--even-if-worse")
    assert (second["number"], second["state"], second["share"]) == (2, "canary", 0.1)
    assert "is on trial on 10% of wearables" in second["text"]
    said = home.refused(ROLLOUT_UNDER_WAY, "promote", NAMES[2])
    assert f"{NAMES[1]} is on trial" in said
    assert "widen that with --share" in home.refused(ROLLOUT_UNDER_WAY, "promote", NAMES[1])
    assert "widen that with --share" in home.refused(ROLLOUT_UNDER_WAY, "promote", NAMES[1], "--share", "0.05")
    assert home.told("promote", NAMES[1], "--share", "0.5")["share"] == 0.5
    wide = home.told("promote", NAMES[1], "--now")
    assert (wide["number"], wide["state"]) == (2, "everybody")
    back = home.told("stop")
    assert (back["number"], back["release"], back["state"]) == (3, NAMES[0], "done")
    assert back["reason"] == f"back from {NAMES[1]}: a person said so"
    assert "mekt release rollback" in home.refused(NO_ROLLOUT, "stop")
    assert "nothing to go back to" in home.refused(NO_ROLLOUT, "rollback")
    rows = home.mekt("list", "--config", str(home.config)).splitlines()
    assert "shipped to all 20" in rows[1] and f"(back from {NAMES[1]}: a person said so)" in rows[1]
    assert "taken back" in rows[2]


def test_what_is_shipped_is_finished_and_what_is_on_the_shelf_stays(home: Home, shelf: Path) -> None:
    raw = (shelf / f"{NAMES[0]}.zip").read_bytes()
    home.told("promote", NAMES[0])
    assert (shelf / f"{NAMES[0]}.zip").read_bytes() == raw
    with closing(Rollouts(home.folder / "state", "ward-3", home.settings.rollout)) as rollouts:
        shipped = rollouts.newest
        assert shipped is not None
        data = rollouts.zip(shipped)
    assert data is not None
    made, plain = open_release(data, Path("zip")), read_release(shelf / f"{NAMES[0]}.zip")
    assert plain.manifest.measured is None and made.manifest.measured is not None
    assert {name: made.models[name] for name in plain.models} == plain.models
    assert home.told("show", NAMES[0])["measured"]["latency_ms"] == made.manifest.measured.latency_ms
    assert "measured" not in home.told("show", NAMES[1]), "as its round left it"
    sizes = home.told("ort", NAMES[0], "--out", str(home.folder / "ort"))
    assert {path.name: path.stat().st_size for path in (home.folder / "ort").iterdir()} == sizes
    assert {name for name in sizes if name.endswith(".ort")} == {f"{Path(name).stem}.ort" for name in made.models}


def test_rollback_takes_back_what_is_done(home: Home) -> None:
    for name in NAMES[:2]:
        home.told("promote", name, "--now", "--even-if-worse")
        home.passed(24)
    replaced, shipped, _ = home.mekt("list", "--config", str(home.config)).splitlines()[1:]
    assert "replaced since" in replaced and "shipped to all" in shipped
    assert home.told("rollback")["release"] == NAMES[0]


def test_what_is_not_there_is_said_with_what_is(home: Home) -> None:
    for name in ("ward-3-00009", "../releases/ward-3-00001", ""):
        said = home.refused(RELEASE_UNKNOWN, "promote", name)
        assert f"the newest are {', '.join(NAMES)}" in said
    assert home.told("list")[0].get("rollout") is None, "nothing was begun"


def test_without_a_state_folder_there_is_nothing_to_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, tmp_path, 1883)
    assert main(["release", "list", "--config", str(config)]) == 6
    assert "run the coordinator first" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_what_is_shipped_is_signed_by_the_authority(home: Home) -> None:
    authority = Authority.create(home.folder / "authority", "ward-3")
    authority.close()
    with home.config.open("a") as file:
        file.write('\n[trust]\nauthority = "authority"\n')
    trust = Trust(authority.signer.public_key)
    newest = []
    for name in NAMES[:2]:
        home.told("promote", name, "--now", "--even-if-worse")
        with closing(Rollouts(home.folder / "state", "ward-3", home.settings.rollout)) as rollouts:
            shipped = rollouts.newest
            assert shipped is not None
            data = rollouts.zip(shipped)
        assert data is not None and open_release(data, Path("zip"), trust).manifest.federation == "ward-3"
        newest.append(trust.newest)
    assert newest == sorted(set(newest)), "each number is larger than all before"


def test_what_only_looks_or_takes_back_brings_no_torch_along() -> None:
    """Which takes seconds and 200 MB: of these commands `promote` alone fits classifiers."""
    code = "import sys, coordinator.promotion, coordinator.shelf; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
