"""A federation as it is to be deployed: certificates by tokens, a broker that lets nobody do more, signed releases."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator.authority import Authority
from mekt.errors import ReleaseError, SettingsError
from tests.federation import ROOT, Running, as_deployed, federation
from tests.fences import fenced_broker
from tests.mekt.conftest import needs_mosquitto
from tests.recordings import persons
from tests.waiting import until

pytestmark = needs_mosquitto
DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
ROUNDS = 2


@dataclass
class Ward:
    """Settings of all parts in `folder`; whatever was started ends with the test."""

    folder: Path
    port: int
    processes: dict[str, Running] = field(default_factory=dict)

    def start(self, name: str, *arguments: str) -> None:
        self.processes[name] = as_deployed(list(arguments), self.folder / f"{name}.log")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def mekt(self, *arguments: str, code: int = 0, line: str = "") -> str:
        """What a command prints to standard output, in this folder."""
        done = subprocess.run(
            [sys.executable, "-m", "mekt", *arguments],
            cwd=self.folder,
            input=line,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == code, done.stderr
        return done.stdout + (done.stderr if code else "")

    def release(self, number: int) -> Path:
        return self.folder / "coordinator" / "state" / "releases" / f"ward-{number:05d}"


def login(ward: Ward, name: str) -> str:
    """`[broker]` and what belongs to it in the settings of one part."""
    identity = ward.folder / name / "identity"
    trust = (
        f'authority = "{ward.folder}/authority"'
        if name == "coordinator"
        else f'coordinator = "{identity}/coordinator.pub"'
    )
    return (
        f'host = "127.0.0.1"\nport = {ward.port}\n[broker.tls]\nca = "{identity}/ca.pem"\n'
        f'certificate = "{identity}/certificate.pem"\nkey = "{identity}/key.pem"\n[trust]\n{trust}'
    )


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """A federation that has done its rounds and is still there, every step by the command line."""
    folder = tmp_path_factory.mktemp("ward")
    made = Ward(folder, 0)
    made.mekt("ca", "init", "--federation", "ward")
    made.mekt("ca", "issue", "coordinator", "--out", "coordinator/identity")
    with closing(Authority(folder / "authority")) as authority, fenced_broker(folder / "fence", authority) as made.port:
        shutil.move(folder / "coordinator", folder / "issued")
        recordings = tmp_path_factory.mktemp("recordings")
        sizes = {"devices": DEVICES, "rounds": ROUNDS, "duration_s": 100.0}
        plain = federation(folder, recordings, broker_of=lambda name, _: login(made, name), **sizes)  # type: ignore[arg-type]
        plain.end()  # the broker of other tests is not wanted here
        shutil.move(folder / "issued" / "identity", folder / "coordinator" / "identity")
        try:
            made.start("coordinator", "coordinator", "run", "--config", str(folder / "coordinator" / "federation.toml"))
            for name in DEVICES:
                token = made.mekt("enroll", "token", name, "--host", "127.0.0.1", "--port", str(made.port))
                said = made.mekt("enroll", "join", "--identity", f"{name}/identity", line=token)
                assert f'device = "{name}"' in said and token.strip() not in said
                made.start(name, "edge", "run", "--config", str(folder / name / "device.toml"))
            until(lambda: f"all {ROUNDS} rounds are done" in made.log("coordinator"))
            yield made
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait()


def test_all_rounds_are_done_over_tls_and_no_announcement_is_refused(ward: Ward) -> None:
    for name in DEVICES:
        assert "connected to the broker" in ward.log(name) and "dropped" not in ward.log(name)


def test_a_key_never_leaves_its_device(ward: Ward) -> None:
    """Nor is it, or what a token holds, in any log."""
    for name in DEVICES:
        key = (ward.folder / name / "identity" / "key.pem").read_text().splitlines()[1]
        others = [path for path in ward.folder.rglob("*") if path.is_file() and path.parent.name != "identity"]
        assert [path for path in others if key.encode() in path.read_bytes()] == []


def test_the_release_is_signed_and_a_wearable_takes_no_other(ward: Ward, tmp_path: Path) -> None:
    [recording] = persons(tmp_path, (26,), 60.0)
    key = tmp_path / "coordinator.pub"
    shutil.copy(ward.folder / "pi-acc" / "identity" / "coordinator.pub", key)
    infer = ("infer", "--source", recording, "--trust", str(key), "--json")
    lines = ward.mekt(*infer, "--release", str(ward.release(ROUNDS))).splitlines()
    assert len(lines) > 10 and "label" in json.loads(lines[0])

    older = ward.mekt(*infer, "--release", str(ward.release(1)), code=ReleaseError.exit_code)
    assert "is older than a release that was used here before" in older

    forged = tmp_path / "forged"
    shutil.copytree(ward.release(ROUNDS), forged)
    manifest = forged / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"round":2', '"round":3').replace('"round": 2', '"round": 3'))
    assert manifest.read_bytes() != (ward.release(ROUNDS) / "manifest.json").read_bytes()
    assert "is not signed" in ward.mekt(*infer, "--release", str(forged), code=ReleaseError.exit_code)
    shutil.copy(ward.release(ROUNDS) / "manifest.json", manifest)
    (forged / "signature").unlink()
    assert "is not signed" in ward.mekt(*infer, "--release", str(forged), code=ReleaseError.exit_code)


def test_the_list_of_devices_says_who_is_in(ward: Ward) -> None:
    rows = json.loads(ward.mekt("device", "list", "--json"))
    assert {row["name"] for row in rows if row["state"] == "good"} >= {*DEVICES, "coordinator:ward", "broker:127.0.0.1"}


def test_a_revoked_device_is_sent_away_in_the_middle_and_the_others_stay(ward: Ward) -> None:
    said = ward.mekt("device", "revoke", "pi-gyro", "--broker", "fence")
    assert "1 certificate revoked" in said
    until(lambda: "the broker is away" in ward.log("pi-gyro"))
    assert ward.log("pi-acc").count("connected to the broker") == 1
    rows = json.loads(ward.mekt("device", "list", "--json"))
    assert [row["state"] for row in rows if row["name"] == "pi-gyro"] == ["revoked"]


def test_an_authority_is_not_made_twice(ward: Ward) -> None:
    before = (ward.folder / "authority" / "authority.key").read_bytes()
    assert "already" in ward.mekt("ca", "init", "--federation", "ward", code=7)
    assert (ward.folder / "authority" / "authority.key").read_bytes() == before


def test_a_key_that_others_can_read_is_refused_at_the_start(ward: Ward, tmp_path: Path) -> None:
    shutil.copytree(ward.folder / "pi-acc" / "identity", tmp_path / "identity")
    (tmp_path / "identity" / "key.pem").chmod(0o644)
    text = (ward.folder / "pi-acc" / "device.toml").read_text()
    (tmp_path / "device.toml").write_text(text.replace(str(ward.folder / "pi-acc" / "identity"), "identity"))
    said = ward.mekt("edge", "run", "--config", str(tmp_path / "device.toml"), code=SettingsError.exit_code)
    assert "others can read this secret (mode 0644); chmod 600" in said
