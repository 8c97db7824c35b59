"""A federation as it is to be deployed: certificates by tokens, a broker that lets nobody do more, signed releases."""

import base64
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coordinator.authority import Authority
from edge.audit import FOLDER, segments
from export.bundle import pack, unpack
from export.manifest import MANIFEST, SIGNATURE
from mekt.credentials import tls_context
from mekt.errors import LinkError, ReleaseError, SettingsError
from mekt.identity import tls_settings
from mekt.token import PREFIX, read_token
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
    tokens: dict[str, str] = field(default_factory=dict)
    # Whatever commands have said, and the command lines of all processes as they were then.
    said: list[str] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)

    def start(self, name: str, *arguments: str) -> None:
        self.processes[name] = as_deployed(list(arguments), self.folder / f"{name}.log")

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

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
        # What `enroll token` prints without a file is the token, and nobody else prints one.
        prints_token = arguments[:2] == ("enroll", "token") and "--out" not in arguments
        self.said += [done.stderr] if prints_token else [done.stdout, done.stderr]
        self.look()
        return done.stdout + (done.stderr if code else "")

    def joined(self, name: str) -> str:
        """What is said to a device that joins: one by a line of text, the others by a file, as the README has it."""
        asks = ("enroll", "token", name, "--host", "127.0.0.1", "--port", str(self.port))
        joins = ("enroll", "join", "--identity", f"{name}/identity")
        if name == "pi-acc":
            self.tokens[name] = self.mekt(*asks).strip()
            return self.mekt(*joins, line=self.tokens[name])
        self.mekt(*asks, "--out", f"{name}.token")
        self.tokens[name] = (self.folder / f"{name}.token").read_text().strip()
        return self.mekt(*joins, "--token", f"{name}.token")

    def look(self) -> None:
        """See what everybody on this machine sees of processes: their command lines, and their names."""
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                self.seen |= {(each / "cmdline").read_bytes(), (each / "comm").read_bytes()}

    def release(self, number: int) -> Path:
        return self.folder / "coordinator" / "state" / "releases" / f"ward-{number:05d}.zip"


def login(ward: Ward, name: str) -> str:
    """`[broker]` and what belongs to it in the settings of one part."""
    identity = ward.folder / name / "identity"
    trust = (
        f'authority = "{ward.folder}/authority"\nbroker = "{ward.folder}/fence"'
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
    with (
        contextlib.closing(Authority(folder / "authority")) as authority,
        fenced_broker(folder / "fence", authority) as made.port,
    ):
        shutil.move(folder / "coordinator", folder / "issued")
        recordings = tmp_path_factory.mktemp("recordings")
        sizes = {"devices": DEVICES, "rounds": ROUNDS, "duration_s": 100.0}
        plain = federation(folder, recordings, broker_of=lambda name, _: login(made, name), **sizes)  # type: ignore[arg-type]
        plain.end()  # the broker of other tests is not wanted here
        shutil.move(folder / "issued" / "identity", folder / "coordinator" / "identity")
        try:
            config = str(folder / "coordinator" / "federation.toml")
            made.start("coordinator", "coordinator", "run", "--config", config, "--log-level", "debug")
            for name in DEVICES:
                said = made.joined(name)
                assert f'device = "{name}"' in said and made.tokens[name] not in said
                made.start(name, "edge", "run", "--config", str(folder / name / "device.toml"), "--log-level", "debug")
                made.look()
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
        assert len(others) > 20 and [path for path in others if key.encode() in content(path)] == []


def content(path: Path) -> bytes:
    """What a file holds that may be one of those that are written, renamed and gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def forms(secret: bytes) -> list[bytes]:
    """How a secret may look: as it is, as Python and JSON show it, in hexadecimal digits and in base64."""
    return [secret, repr(secret)[2:-1].encode(), secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")]


def key_forms(text: str) -> list[bytes]:
    """The same of a private key in PEM: each of its lines, and the number that it is."""
    lines = [line.encode() for line in text.splitlines() if not line.startswith("-")]
    key = load_pem_private_key(text.encode(), None)
    if isinstance(key, Ed25519PrivateKey):
        return lines + forms(key.private_bytes_raw())
    assert isinstance(key, EllipticCurvePrivateKey)
    return lines[:2] + forms(key.private_numbers().private_value.to_bytes(32, "big"))


def token_forms(text: str) -> list[bytes]:
    """The same of a token: pieces of its line, and the secrets in it."""
    token, line = read_token(text), text.removeprefix(PREFIX)
    pieces = [line[at : at + 40].encode() for at in (0, 400, len(line) - 40)]
    return pieces + forms(token.secret) + key_forms(token.key.decode())


def test_an_enrolment_is_in_the_devices_log_of_what_left_it_and_no_secret_is(ward: Ward) -> None:
    """Not of the token, nor of the key that it was used for: the request that carried the one is there by its hash."""
    for name in DEVICES:
        config, identity = ward.folder / name / "device.toml", ward.folder / name / "identity"
        proof = ward.mekt("audit", "--config", str(config), "--verify").splitlines()[0]
        assert proof.startswith(f"{identity / FOLDER}: ") and "no gap" in proof
        listed = json.loads(ward.mekt("audit", "--config", str(config), "--json"))
        [log] = [each for each in listed["logs"] if each["folder"] == str(identity / FOLDER)]
        assert set(log["kinds"]) == {"request"} and log["messages"] >= 1
        requests = [each for each in listed["entries"] if each["kind"] == "request"]
        assert {each["contained"] for each in requests} == {
            "certificate request: this device's public key, and the token's secret"
        }
        assert all(len(each["sha256"]) == 64 and each["bytes"] > 100 for each in requests)
        written = [each.read() for place in (identity, config.parent / "state") for each in segments(place / FOLDER)]
        secrets = token_forms(ward.tokens[name]) + key_forms((identity / "key.pem").read_text())
        assert len(written) >= 2 and [each for each in secrets if any(each in raw for raw in written)] == []


def test_no_secret_is_in_a_log_a_command_line_or_anything_that_was_said(ward: Ward, tmp_path: Path) -> None:
    """Tokens, what is in them, every private key, and a password; also in errors about each of them."""
    secrets: list[bytes] = []
    for text in ward.tokens.values():
        secrets += token_forms(text)
    keys = [path for path in ward.folder.rglob("*") if path.is_file() and path.name.endswith(("key", "key.pem"))]
    for path in keys:
        secrets += key_forms(path.read_text())
    assert len(keys) >= 6 and all(len(secret) >= 16 for secret in secrets)

    spoilt = ward.tokens["pi-acc"][:-40] + ward.tokens["pi-acc"][-36:]
    ward.mekt("enroll", "join", "--identity", "x", line=spoilt, code=SettingsError.exit_code)
    used = ward.tokens["pi-acc"]
    assert "has been used" in ward.mekt("enroll", "join", "--identity", "y", line=used, code=LinkError.exit_code)
    (tmp_path / "token").write_text(used)
    (tmp_path / "token").chmod(0o644)
    said = ward.mekt("enroll", "join", "--token", str(tmp_path / "token"), code=SettingsError.exit_code)
    assert "others can read this secret" in said
    password = "correct horse battery staple"
    secrets += forms(password.encode())
    for written in (password.encode(), password.encode() + b"\xff"):
        shutil.copytree(ward.folder / "pi-acc", tmp_path / "device", dirs_exist_ok=True)
        (tmp_path / "device" / "password").write_bytes(written)
        (tmp_path / "device" / "password").chmod(0o644 if written[-1:] == b"e" else 0o600)
        text = (ward.folder / "pi-acc" / "device.toml").read_text()
        text = text.replace("[broker.tls]", 'username = "pi"\npassword_file = "password"\n[broker.tls]')
        (tmp_path / "device" / "device.toml").write_text(text)
        config = str(tmp_path / "device" / "device.toml")
        ward.mekt("edge", "run", "--config", config, code=SettingsError.exit_code)
    damaged = ward.folder / "pi-acc" / "identity" / "key.pem"
    (tmp_path / "device" / "key.pem").write_text(damaged.read_text().replace("-----END", "x-----END"))
    (tmp_path / "device" / "key.pem").chmod(0o600)
    (tmp_path / "device" / "device.toml").write_text(
        (ward.folder / "pi-acc" / "device.toml").read_text().replace(str(damaged), "key.pem")
    )
    ward.mekt("edge", "run", "--config", str(tmp_path / "device" / "device.toml"), code=SettingsError.exit_code)
    ward.mekt("device", "list", "--json")

    told = {path.name: path.read_bytes() for path in ward.folder.rglob("*log") if path.is_file()}
    told |= {path.name: path.read_bytes() for path in ward.folder.rglob("mosquitto*")}
    assert {"coordinator.log", "pi-acc.log", "log"} <= set(told)
    told |= {f"command {number}": text.encode() for number, text in enumerate(ward.said)}
    told |= {f"process {number}": line for number, line in enumerate(ward.seen)}
    assert any(b"edge" in line for line in ward.seen)
    assert [name for name, content in told.items() if any(secret in content for secret in secrets)] == []


def test_the_release_is_signed_and_a_wearable_takes_no_other(ward: Ward, tmp_path: Path) -> None:
    [recording] = persons(tmp_path, (26,), 60.0)
    key = tmp_path / "coordinator.pub"
    shutil.copy(ward.folder / "pi-acc" / "identity" / "coordinator.pub", key)
    infer = ("infer", "--source", recording, "--trust", str(key), "--json")
    lines = ward.mekt(*infer, "--release", str(ward.release(ROUNDS))).splitlines()
    assert len(lines) > 10 and "label" in json.loads(lines[0])

    older = ward.mekt(*infer, "--release", str(ward.release(1)), code=ReleaseError.exit_code)
    assert "is older than a release that was used here before" in older

    forged = tmp_path / "forged.zip"
    files = unpack(ward.release(ROUNDS).read_bytes())
    manifest = files[MANIFEST].replace(b'"round": 2', b'"round": 3')
    assert manifest != files[MANIFEST]
    forged.write_bytes(pack({**files, MANIFEST: manifest}))
    assert "is not signed" in ward.mekt(*infer, "--release", str(forged), code=ReleaseError.exit_code)
    score = ("score", "--recordings", recording, "--trust", str(key))
    assert "is not signed" in ward.mekt(*score, "--release", str(forged), code=ReleaseError.exit_code)
    del files[SIGNATURE]
    forged.write_bytes(pack(files))
    assert "is not signed" in ward.mekt(*infer, "--release", str(forged), code=ReleaseError.exit_code)


def test_the_list_of_devices_says_who_is_in(ward: Ward) -> None:
    rows = json.loads(ward.mekt("device", "list", "--json"))
    assert {row["name"] for row in rows if row["state"] == "good"} >= {*DEVICES, "coordinator:ward", "broker:127.0.0.1"}


def test_a_revoked_device_is_sent_away_in_the_middle_and_the_others_stay(ward: Ward) -> None:
    said = ward.mekt("device", "revoke", "pi-gyro", "--broker", "fence")
    assert "1 certificate revoked" in said
    until(lambda: "the broker is away" in ward.log("pi-gyro"))
    assert ward.log("pi-acc").count("connected to the broker") == 1
    assert states(ward, "pi-gyro") == ["revoked"]


def test_a_device_that_joins_anew_at_work_stays_and_its_former_certificate_is_of_no_use(ward: Ward) -> None:
    """Until the device shows its new key, what it had before counts: the answer could have been lost."""
    shutil.copytree(ward.folder / "pi-acc" / "identity", ward.folder / "copied")
    copied = tls_context(tls_settings(ward.folder / "copied"))
    token = ward.mekt("enroll", "token", "pi-acc", "--host", "127.0.0.1", "--port", str(ward.port))
    ward.mekt("enroll", "join", "--identity", "pi-acc/identity", line=token)
    assert states(ward, "pi-acc") == ["good", "good"] and not is_refused(ward.port, copied)

    # A coordinator that comes back hears of everybody, and asks the device.
    ward.kill("coordinator")
    config = str(ward.folder / "coordinator" / "federation.toml")
    ward.start("coordinator", "coordinator", "run", "--config", config, "--log-level", "debug")
    until(lambda: "pi-acc has a new key; revoked of its former ones: 1 certificate" in ward.log("coordinator"))
    until(lambda: is_refused(ward.port, copied))
    assert states(ward, "pi-acc") == ["revoked", "good"]
    assert ward.log("pi-acc").count("connected to the broker") == 1 and "the broker is away" not in ward.log("pi-acc")

    # And its next connection is one by the new certificate.
    ward.kill("pi-acc")
    ward.start("pi-acc", "edge", "run", "--config", str(ward.folder / "pi-acc" / "device.toml"))
    until(lambda: ward.log("pi-acc").count("connected to the broker") == 2)


def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether the broker refuses this certificate. Nobody logs in with it, who would push the device itself out."""
    plain = socket.create_connection(("127.0.0.1", port), 5)
    try:
        # With TLS 1.3 the refusal comes after the handshake; who is let in hears nothing before it says something.
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.settimeout(0.5)
            return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def states(ward: Ward, name: str) -> list[str]:
    rows = json.loads(ward.mekt("device", "list", "--json"))
    return [row["state"] for row in rows if row["name"] == name]


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


def test_a_revocation_says_whom_it_reached(ward: Ward) -> None:
    """Somebody who only looks can be revoked too; a name that is misspelt is told, and that no broker runs here."""
    ward.mekt("ca", "issue", "watch", "--name", "alice", "--out", "alice")
    unknown = ward.mekt("device", "revoke", "pi-gyros", "--broker", "fence", code=SettingsError.exit_code)
    assert "neither a certificate nor a token" in unknown
    assert "its connection ended" in ward.mekt("device", "revoke", "watch:alice", "--broker", "fence")
    ward.mekt("broker", "config", "--out", "elsewhere", "--user", "root")
    said = ward.mekt("device", "revoke", "watch:alice", "--broker", "elsewhere")
    assert "its connection ended" not in said and "No broker runs here" in ward.said[-1]
    assert "no files of a broker" in ward.mekt(
        "device", "revoke", "watch:alice", "--broker", "nowhere", code=SettingsError.exit_code
    )
