"""The broker as `mekt broker config` sets it up, a real mosquitto, and everybody who tries to break it."""

import contextlib
import os
import queue
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from coordinator.authority import Authority, write_part
from coordinator.fence import CERTIFICATE, PID, Fence, expel, renew
from coordinator.fence import KEY as BROKER_KEY
from coordinator.registrar import Registrar
from edge.enrolment import enrol, settings_text
from edge.settings import read_device
from edge.wearable.settings import read_wearable
from mekt.cli import main
from mekt.credentials import tls_context
from mekt.errors import LinkError, SettingsError
from mekt.identity import COORDINATOR, KEY, fits, tls_settings, write_identity
from mekt.link import Link, Received
from mekt.login import BrokerSettings, located
from mekt.messages import Request, Status
from mekt.post import Post
from mekt.token import Token
from mekt.topics import for_coordinator
from tests.fences import fenced_broker
from tests.mekt.conftest import needs_mosquitto
from tests.tables import WINDOWS_OF_ACC
from tests.waiting import until

pytestmark = needs_mosquitto
PATIENCE_S = 30.0
ANSWER_S = 10.0
NOT_AUTHORISED = 135


@dataclass
class Ward:
    """An authority, its broker at work, a coordinator that certifies, and two devices' identities."""

    folder: Path
    authority: Authority
    port: int

    def identity(self, device: str) -> Path:
        return self.folder / device

    def enrol(self, device: str, hours: float = 1.0) -> Path:
        self.join(self.authority.token(device, hours=hours, host="127.0.0.1", port=self.port), self.identity(device))
        return self.identity(device)

    def join(self, token: Token, identity: Path) -> None:
        """Enrol, while a coordinator is there: only then, as it would end the connection of a test's own."""
        with certifying(self.folder, self.authority.folder, self.port):
            enrol(token, identity, PATIENCE_S)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    folder = tmp_path_factory.mktemp("ward")
    authority = Authority.create(folder / "authority", "ward")
    write_part(authority, "coordinator", "ward", folder / "coordinator")
    write_part(authority, "watch", "alice", folder / "alice")
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(fenced_broker(folder / "broker", authority))
        made = Ward(folder, authority, port)
        stack.callback(authority.close)
        made.enrol("pi-3")
        made.enrol("pi-4")
        yield made


@contextlib.contextmanager
def certifying(folder: Path, authority: Path, port: int) -> Iterator[None]:
    """A coordinator that does nothing but answer requests for certificates."""
    inbox: queue.Queue[Any] = queue.Queue(64)
    settings = BrokerSettings(host="127.0.0.1", port=port, tls=tls_settings(folder / "coordinator"))
    link = Link(settings=settings, client_id="mekt:ward", inbox=inbox, subscriptions=for_coordinator("ward"))
    post = Post("ward")
    post.use(link)
    over = threading.Event()

    def work() -> None:
        registrar = Registrar(Authority(authority))
        while not over.is_set():
            with contextlib.suppress(queue.Empty):
                event = inbox.get(timeout=0.1)
                envelope = post.open(event) if isinstance(event, Received) else None
                if envelope is not None and isinstance(envelope.body, Request):
                    answer = registrar.answer(envelope.device, envelope.body)
                    post.send(answer, "enroll", device=envelope.device)

    thread = threading.Thread(target=work)
    link.start()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        link.stop()


class Client:
    """A client of the broker with somebody's certificate, which is not one of ours and does what it likes."""

    def __init__(self, port: int, context: ssl.SSLContext, client_id: str = "", **more: Any) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.codes: dict[int, int] = {}
        self.ended = threading.Event()
        self.welcome: int | None = None
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self.client.tls_set_context(context)
        self.client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        self.client.on_publish = lambda _c, _u, mid, code, _p: self.codes.update({mid: code.value})
        self.client.on_connect = lambda _c, _u, _f, code, _p: setattr(self, "welcome", code.value)
        self.client.on_disconnect = lambda *_: self.ended.set()
        self.client.connect("127.0.0.1", port, **more)
        self.client.loop_start()
        until(lambda: self.welcome is not None or self.ended.is_set())

    def may_publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> bool:
        """Publish; whether the broker takes it. It does with 0, and with 16 where nobody listens."""
        mid = self.client.publish(topic, payload, qos=1, retain=retain).mid
        until(lambda: mid in self.codes)
        assert self.codes[mid] in (0, 16, NOT_AUTHORISED)
        return self.codes[mid] != NOT_AUTHORISED

    def subscribe(self, topic: str) -> None:
        done = threading.Event()
        self.client.on_subscribe = lambda *_: done.set()
        self.client.subscribe(topic, qos=1)
        assert done.wait(ANSWER_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def client(ward: Ward) -> Iterator[Callable[..., Client]]:
    """Makes clients that hold the identity in a folder of the ward."""
    with contextlib.ExitStack() as stack:

        def make(who: str, client_id: str = "", **more: Any) -> Client:
            made = Client(ward.port, tls_context(tls_settings(ward.folder / who)), client_id, **more)
            stack.callback(made.close)
            return made

        yield make


Make = Callable[..., Client]


def test_a_device_publishes_under_its_own_name_and_the_coordinator_reads_it(client: Make) -> None:
    coordinator, device = client("coordinator"), client("pi-3")
    coordinator.subscribe("mekt/1/ward/up/+/+")
    for kind in ("presence", "offer", "want", "chunk", "renewal"):
        assert device.may_publish(f"mekt/1/ward/up/pi-3/{kind}", kind.encode())
    until(lambda: len([each for each in coordinator.heard if each[1] != b""]) >= 5)


def test_the_coordinator_speaks_to_a_device_and_to_all(client: Make) -> None:
    coordinator, device = client("coordinator"), client("pi-3")
    device.subscribe("mekt/1/ward/down/pi-3/+")
    device.subscribe("mekt/1/ward/round")
    assert coordinator.may_publish("mekt/1/ward/down/pi-3/receipt", b"one")
    assert coordinator.may_publish("mekt/1/ward/round", b"two")
    until(lambda: [payload for _, payload in device.heard] == [b"one", b"two"])


@pytest.mark.parametrize(
    "topic",
    [
        "mekt/1/ward/up/pi-4/presence",  # as another device
        "mekt/1/ward/up/pi-3/round",  # a kind that no device sends
        "mekt/1/ward/up/pi-3/more/offer",
        "mekt/1/ward/down/pi-4/receipt",  # as the coordinator, to another device
        "mekt/1/ward/down/pi-3/receipt",  # ... to itself
        "mekt/1/ward/round",
        "mekt/1/ward/status",
        "mekt/1/ward/rollout",
        "mekt/1/ward/enroll/enroll:pi-3/answer",
        "mekt/1/ward/enroll/enroll:pi-5/request",
        "mekt/1/other/up/pi-3/presence",
        "$SYS/broker/clients",
        "anything",
    ],
)
def test_a_device_publishes_nothing_else(client: Make, topic: str) -> None:
    assert not client("pi-3").may_publish(topic, b"forged", retain=True)


@pytest.mark.parametrize(
    "topic",
    ["#", "mekt/#", "+/+/+/+/+/+", "mekt/1/ward/up/pi-4/+", "mekt/1/ward/down/+/+", "mekt/1/ward/up/+/+", "$SYS/#"],
)
def test_a_device_reads_nothing_of_others(client: Make, topic: str) -> None:
    """The broker grants such subscriptions and then sends nothing; so a message has to be there that could come."""
    coordinator, spy, other = client("coordinator"), client("pi-3"), client("pi-4")
    coordinator.subscribe("mekt/1/ward/up/pi-4/offer")
    spy.subscribe(topic)
    spy.subscribe("mekt/1/ward/down/pi-3/+")
    assert other.may_publish("mekt/1/ward/up/pi-4/offer", b"knowledge of another")
    assert coordinator.may_publish("mekt/1/ward/down/pi-4/receipt", b"for another")
    assert coordinator.may_publish("mekt/1/ward/status", b"for who watches")
    until(lambda: bool(coordinator.heard))
    # A broker sends in order: when the last one has come, the others would have.
    assert coordinator.may_publish("mekt/1/ward/down/pi-3/receipt", b"the last")
    until(lambda: b"the last" in [payload for _, payload in spy.heard])
    own = ("mekt/1/ward/round", "mekt/1/ward/down/pi-3/")
    assert [topic for topic, _ in spy.heard if not topic.startswith(own)] == []


def test_a_wearable_hears_of_rollouts_and_says_how_it_is(client: Make) -> None:
    coordinator, wearable = client("coordinator"), client("pi-3")
    wearable.subscribe("mekt/1/ward/rollout")
    coordinator.subscribe("mekt/1/ward/up/+/+")
    assert coordinator.may_publish("mekt/1/ward/rollout", b"a release")
    assert wearable.may_publish("mekt/1/ward/up/pi-3/fitness", b"good")
    until(lambda: wearable.heard == [("mekt/1/ward/rollout", b"a release")])
    until(lambda: coordinator.heard == [("mekt/1/ward/up/pi-3/fitness", b"good")])
    assert not wearable.may_publish("mekt/1/ward/up/pi-4/fitness", b"good")


def test_who_watches_sees_the_status_and_changes_nothing(client: Make) -> None:
    coordinator, watcher = client("coordinator"), client("alice")
    watcher.subscribe("mekt/1/ward/status")
    assert coordinator.may_publish("mekt/1/ward/status", b"collecting")
    until(lambda: watcher.heard == [("mekt/1/ward/status", b"collecting")])
    for topic in (
        "mekt/1/ward/round",
        "mekt/1/ward/status",
        "mekt/1/ward/up/pi-3/presence",
        "mekt/1/ward/down/pi-3/want",
    ):
        assert not watcher.may_publish(topic)


FEDERATION = f"""
federation = "ward"
rounds = 1
proxy = ["proxy.npz"]
{WINDOWS_OF_ACC}
"""
DEVICE = """
federation = "ward"
device = "pi-3"
[[sensors]]
kind = "simulator"
modalities = ["acc"]
subject = 1
"""


def broker_table(ward: Ward, who: str) -> str:
    """How a part logs in; the table of whom it trusts begins behind it."""
    files = ", ".join(f"{name} = '{path}'" for name, path in asdict(tls_settings(ward.folder / who)).items() if path)
    return f"[broker]\nport = {ward.port}\ntls = {{ {files} }}\n[trust]\n"


def status(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The command's exit code, and what it says."""
    code = main(["status", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_who_asks_for_the_status_ends_nobodys_connection(
    ward: Ward, client: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator, device = client("coordinator"), client("pi-3")
    text = "waiting for pi-3"
    stands = Status(phase="collecting", rounds=5, online=(), waiting_for=(), received=(), reports=(), text=text)
    topic, said = Post("ward").seal(stands, "all")
    assert coordinator.may_publish(topic, said, retain=True)
    federation, edge = tmp_path / "federation.toml", tmp_path / "device.toml"
    federation.write_text(FEDERATION + broker_table(ward, "coordinator") + f"authority = '{ward.authority.folder}'\n")
    edge.write_text(DEVICE + broker_table(ward, "pi-3") + f"coordinator = '{ward.identity('pi-3') / COORDINATOR}'\n")

    wearable = tmp_path / "wearable.toml"
    token = ward.authority.token("pi-3", hours=1, host="127.0.0.1", port=ward.port)
    wearable.write_text(settings_text(token, "pi-3", wearable=True) + DEVICE.partition('"pi-3"\n')[2])

    asked = ("--federation", "ward", "--port", ward.port, "--identity", ward.folder / "alice")
    for arguments in (("--config", federation), asked):
        assert status(capsys, *arguments) == (0, f"{text}\n")
    for path in (edge, wearable):
        code, refusal = status(capsys, "--config", path)
        assert code == SettingsError.exit_code and "ask beside the coordinator" in refusal
    assert not coordinator.ended.is_set() and not device.ended.is_set()
    assert coordinator.may_publish(topic, b"", retain=True)


def test_nobody_takes_over_another_clients_id(client: Make) -> None:
    victim = client("pi-4", "pi-4")
    thief = client("pi-3", "pi-4", clean_start=False)
    assert thief.welcome == 0, "it is let in, as itself"
    assert not thief.may_publish("mekt/1/ward/up/pi-4/presence")
    assert victim.may_publish("mekt/1/ward/up/pi-4/presence") and not victim.ended.is_set()


def test_nobody_is_let_in_without_a_certificate(ward: Ward) -> None:
    context = ssl.create_default_context(cafile=str(ward.identity("pi-3") / "ca.pem"))
    assert turned_away(ward.port, context)


def test_nobody_is_let_in_without_tls(ward: Ward) -> None:
    with pytest.raises(LinkError):
        Link(settings=BrokerSettings(host="127.0.0.1", port=ward.port), client_id="pi-3", inbox=queue.Queue()).start(10)


def test_nobody_is_let_in_with_a_certificate_of_another_authority(ward: Ward, tmp_path: Path) -> None:
    with contextlib.closing(Authority.create(tmp_path / "other", "ward")) as other:
        forged = other.part("coordinator", "ward")
    folder = tmp_path / "forged"
    folder.mkdir()
    write_identity(folder, ca=ward.authority.ca, certificate=forged.certificate, key=forged.key)
    assert turned_away(ward.port, tls_context(tls_settings(folder)))


def test_nobody_is_let_in_with_an_expired_certificate(ward: Ward, tmp_path: Path) -> None:
    """A week ago the same authority gave a token that was good for an hour."""
    with contextlib.closing(Authority(ward.authority.folder, now=lambda: time.time() - 7 * 24 * 3600)) as former:
        token = former.token("pi-9", hours=1, host="127.0.0.1", port=ward.port)
    write_identity(tmp_path, ca=token.ca, certificate=token.certificate, key=token.key)
    assert turned_away(ward.port, tls_context(tls_settings(tmp_path)))


def turned_away(port: int, context: ssl.SSLContext) -> bool:
    """Whether the broker ends the connection before it welcomes anybody. With TLS 1.3 that is after the handshake."""
    try:
        client = Client(port, context)
    except OSError:
        return True
    try:
        return client.welcome is None
    finally:
        client.close()


def test_a_revoked_device_is_out_at_once_and_stays_out_and_no_one_else_is(ward: Ward, client: Make) -> None:
    folder = ward.enrol("pi-6")
    device, other = client("pi-6", "pi-6"), client("pi-3")
    assert device.may_publish("mekt/1/ward/up/pi-6/presence")
    assert ward.authority.revoke("pi-6") == 1
    began_s = time.monotonic()
    expel(ward.folder / "broker", ward.authority, "pi-6")
    assert device.ended.wait(60 - (time.monotonic() - began_s)), "its connection has to end within a minute"
    assert turned_away(ward.port, tls_context(tls_settings(folder)))
    assert other.may_publish("mekt/1/ward/up/pi-3/presence") and not other.ended.is_set()
    ward.enrol("pi-7")


def test_a_new_token_lets_a_revoked_device_in_again(ward: Ward, client: Make) -> None:
    folder = ward.enrol("pi-8")
    ward.authority.revoke("pi-8")
    expel(ward.folder / "broker", ward.authority, "pi-8")
    assert turned_away(ward.port, tls_context(tls_settings(folder)))
    ward.enrol("pi-8")
    assert client("pi-8").may_publish("mekt/1/ward/up/pi-8/presence")


def test_a_token_does_not_certify_two_devices(ward: Ward, tmp_path: Path) -> None:
    token = ward.authority.token("pi-10", hours=1, host="127.0.0.1", port=ward.port)
    ward.join(token, tmp_path / "first")
    ward.join(token, tmp_path / "first")  # the same device may ask again
    with pytest.raises(LinkError, match="has been used"):
        ward.join(token, tmp_path / "second")


def test_who_has_but_a_token_asks_for_a_certificate_and_does_nothing_else(ward: Ward, client: Make) -> None:
    token = ward.authority.token("pi-11", hours=1, host="127.0.0.1", port=ward.port)
    with tempfile.TemporaryDirectory(dir=ward.folder) as place:
        write_identity(Path(place), ca=token.ca, certificate=token.certificate, key=token.key)
        bearer = client(Path(place).name)
        assert bearer.may_publish("mekt/1/ward/enroll/enroll:pi-11/request")
        for topic in ("up/pi-11/presence", "up/pi-11/offer", "enroll/enroll:pi-3/request", "round"):
            assert not bearer.may_publish(f"mekt/1/ward/{topic}")


def test_a_key_is_nobody_elses_to_read(ward: Ward) -> None:
    paths = [ward.identity("pi-3") / KEY, ward.folder / "broker" / "broker.key", ward.folder / "coordinator" / KEY]
    paths += [ward.authority.folder / "authority.key", ward.authority.folder / "signing.key"]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600] * 5


# The folder of a broker


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Authority]:
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward")) as made:
        yield made


def files(folder: Path) -> dict[str, bytes]:
    """What is in it, apart from the log of what left a device, which only grows."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("audit")}


def test_files_that_are_written_again_keep_the_brokers_key_until_its_hosts_change(
    fresh: Authority, tmp_path: Path
) -> None:
    fence = Fence(folder=tmp_path / "broker", hosts=("localhost",), user="root")
    fence.write(fresh)
    first = files(fence.folder)
    fresh.token("pi-3", hours=1, host="localhost", port=1)
    fence.write(fresh)
    again = files(fence.folder)
    assert all(again[name] == first[name] for name in (CERTIFICATE, BROKER_KEY, "ca.pem", "access", "mosquitto.conf"))
    replace(fence, hosts=("localhost", "broker.example")).write(fresh)
    other = files(fence.folder)
    assert other[BROKER_KEY] != first[BROKER_KEY] and other["ca.pem"] == first["ca.pem"]
    assert fresh.serves(other[CERTIFICATE], other[BROKER_KEY], ("localhost", "broker.example"))


def test_a_brokers_certificate_without_its_key_or_of_another_authority_is_made_anew(
    fresh: Authority, tmp_path: Path
) -> None:
    """As a crash between two writes leaves it, or an authority that was made anew."""
    fence = Fence(folder=tmp_path / "broker", user="root")
    with contextlib.closing(Authority.create(tmp_path / "former", "ward")) as former:
        fence.write(former)
    fence.write(fresh)
    (fence.folder / BROKER_KEY).unlink()
    fence.write(fresh)
    assert fresh.serves(
        (fence.folder / CERTIFICATE).read_bytes(), (fence.folder / BROKER_KEY).read_bytes(), fence.hosts
    )


@pytest.mark.parametrize("pid", ["1", "0", "-1", "", "nobody", "99999999999999", "OWN"])
def test_nothing_but_a_mosquitto_gets_a_signal(fresh: Authority, tmp_path: Path, pid: str) -> None:
    """A broker that was killed leaves its number behind, and one that was broken into may write any."""
    fence = Fence(folder=tmp_path / "broker", user="root")
    fence.write(fresh)
    told: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: told.append(number))
    try:
        (fence.folder / PID).write_text(str(os.getpid()) if pid == "OWN" else pid)
        assert not renew(fence.folder, fresh)
        assert not expel(fence.folder, fresh, "pi-3")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told == []


def test_a_link_in_a_brokers_folder_leads_nowhere(fresh: Authority, tmp_path: Path) -> None:
    fence = Fence(folder=tmp_path / "broker", user="root")
    fence.write(fresh)
    other = tmp_path / "shadow"
    other.write_bytes(b"untouched")
    other.chmod(0o640)
    before = other.stat()
    for name in ("access", "revoked.pem", "another", BROKER_KEY):
        (fence.folder / name).unlink(missing_ok=True)
        (fence.folder / name).symlink_to(other)
    if os.geteuid() == 0:
        os.chown(fence.folder, 12345, -1)
    renew(fence.folder, fresh)
    fence.write(fresh)
    after = other.stat()
    assert other.read_bytes() == b"untouched"
    assert (after.st_uid, after.st_mode, after.st_ctime_ns) == (before.st_uid, before.st_mode, before.st_ctime_ns)


STARTING = """
import pathlib, signal, sys
pathlib.Path("/proc/self/comm").write_text("mosquitto")
print("starting", flush=True)
sys.stdin.readline()
signal.signal(signal.SIGHUP, lambda *_: None)
signal.pause()
print("told")
"""


def test_a_broker_that_is_still_starting_is_told_when_it_can_be(fresh: Authority, tmp_path: Path) -> None:
    """Until then the signal ends it: as when broker and coordinator start at the same time."""
    fence = Fence(folder=tmp_path / "broker", user="root")
    fence.write(fresh)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", STARTING], text=True, **pipes) as broker:  # type: ignore[call-overload]
        assert broker.stdout.readline() == "starting\n"
        (fence.folder / PID).write_text(str(broker.pid))
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(renew(fence.folder, fresh)))
        # What it tells is written before it looks for who is to be told.
        before = (fence.folder / "revoked.pem").stat().st_ino
        thread.start()
        until(lambda: not thread.is_alive() or (fence.folder / "revoked.pem").stat().st_ino != before)
        broker.stdin.write("\n")
        broker.stdin.flush()
        thread.join()
        assert told == [True] and broker.stdout.readline() == "told\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_writes_is_the_brokers_at_once_where_it_can_come_to_it(fresh: Authority) -> None:
    # Others may not enter where a test's files are.
    with tempfile.TemporaryDirectory() as place:
        fence = Fence(folder=Path(place) / "broker", user="nobody")
        with pytest.raises(
            SettingsError, match=f"nobody, who the broker becomes, may not enter {place}; name a folder"
        ):
            fence.write(fresh)
        Path(place).chmod(0o711)
        fence.write(fresh)
        owner = fence.folder.stat().st_uid
        assert owner != 0 and {path.stat().st_uid for path in fence.folder.iterdir()} == {owner}
        modes = {path.name: path.stat().st_mode & 0o777 for path in fence.folder.iterdir()}
        assert modes[BROKER_KEY] == modes["access"] == 0o600


def test_a_revocation_that_no_folder_takes_is_told(fresh: Authority, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no files of a broker"):
        expel(tmp_path / "nowhere", fresh, "pi-3")


def test_the_broker_outlives_revocations_while_others_are_away(ward: Ward) -> None:
    """Those who are away have a session; a mosquitto that reads its files anew stumbled over ones that expire."""
    for number in range(3):
        away = ward.enrol(f"pi-2{number}")
        settings = BrokerSettings(host="127.0.0.1", port=ward.port, tls=tls_settings(away))
        for _ in range(2):
            link = Link(settings=settings, client_id="x", inbox=queue.Queue(64), subscriptions=("mekt/1/ward/round",))
            link.start()
            link.stop()
            ward.authority.revoke("pi-19")
            assert expel(ward.folder / "broker", ward.authority, "pi-19")
    time.sleep(1.5)  # mosquitto looks at its list of sessions every second
    assert (ward.folder / "broker" / PID).exists()
    assert renew(ward.folder / "broker", ward.authority)


def test_who_has_a_token_is_sent_away_when_its_device_is_revoked(ward: Ward, tmp_path: Path) -> None:
    token = ward.authority.token("pi-12", hours=1, host="127.0.0.1", port=ward.port)
    write_identity(tmp_path, ca=token.ca, certificate=token.certificate, key=token.key)
    context = tls_context(tls_settings(tmp_path))
    bearer = Client(ward.port, context)
    try:
        assert bearer.may_publish("mekt/1/ward/enroll/enroll:pi-12/request")
        ward.authority.revoke("pi-12")
        expel(ward.folder / "broker", ward.authority, "pi-12")
        assert bearer.ended.wait(ANSWER_S)
    finally:
        bearer.close()
    assert turned_away(ward.port, context)


def test_the_brokers_own_certificate_is_no_login(ward: Ward, tmp_path: Path) -> None:
    for name, to in ((CERTIFICATE, "certificate.pem"), (BROKER_KEY, KEY), ("ca.pem", "ca.pem")):
        shutil.copy(ward.folder / "broker" / name, tmp_path / to)
    assert turned_away(ward.port, tls_context(tls_settings(tmp_path)))


# Enrolment, as the device does it


def test_a_device_that_is_enrolled_anew_has_another_key_and_nothing_of_the_former_attempts(ward: Ward) -> None:
    folder = ward.enrol("pi-13")
    first = (folder / KEY).read_bytes()
    (folder / ".enrol-0123456789abcdef").write_bytes(b"the key for a token that was never used")
    (folder / ".enrol-x").mkdir()
    ward.enrol("pi-13")
    assert (folder / KEY).read_bytes() != first
    there = {"ca.pem", "certificate.pem", "coordinator.pub", KEY, "time", "token-used"}
    assert {path.name for path in folder.iterdir() if not path.name.startswith("audit")} == there
    assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077 == 0} >= {KEY}


def test_an_attempt_that_fails_leaves_a_working_identity_as_it_was(ward: Ward) -> None:
    folder = ward.enrol("pi-14")
    before = files(folder)
    token = ward.authority.token("pi-14", hours=1, host="127.0.0.1", port=ward.port)
    with pytest.raises(LinkError, match="does not answer"):
        enrol(token, folder, 3.0)
    assert {name: data for name, data in files(folder).items() if not name.startswith(".")} == before
    ward.join(token, folder)
    assert (folder / KEY).read_bytes() != before[KEY]


ENROLS = (
    "import os, sys\n"
    "from pathlib import Path\n"
    "import edge.enrolment as module, mekt.clock\n"
    "from mekt.token import read_token\n"
    "left = int(sys.argv[2])\n"
    "def counted(real):\n"
    "    def call(*arguments):\n"
    "        global left\n"
    "        if left == 0:\n"
    "            os._exit(9)\n"
    "        left -= 1\n"
    "        return real(*arguments)\n"
    "    return call\n"
    "for name in ('write_certificate', 'write_atomically', '_move', '_forget_attempts'):\n"
    "    setattr(module, name, counted(getattr(module, name)))\n"
    "module.enrol(read_token(sys.stdin.readline()), Path(sys.argv[1]), 30)\n"
)


def test_an_enrolment_that_was_killed_between_any_two_writes_is_whole_when_it_is_done_again(ward: Ward) -> None:
    codes = []
    with certifying(ward.folder, ward.authority.folder, ward.port):
        for writes in range(8):
            device = f"pi-4{writes}"
            token = ward.authority.token(device, hours=1, host="127.0.0.1", port=ward.port)
            folder = ward.folder / device
            killed = subprocess.run(
                [sys.executable, "-c", ENROLS, str(folder), str(writes)],
                input=token.text(),
                text=True,
                cwd=Path(__file__).parents[2],
                check=False,
            )
            codes.append(killed.returncode)
            enrol(token, folder, PATIENCE_S)
            assert fits(folder / "certificate.pem", folder / KEY)
            assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert codes[0] == codes[5] == 9 and codes[-1] == 0


@pytest.mark.parametrize("folder", ["identity", 'a "folder"\\[trust]'])
def test_settings_of_a_device_and_of_a_wearable_lack_but_a_sensor(ward: Ward, tmp_path: Path, folder: str) -> None:
    token = ward.authority.token("pi-15", hours=1, host="2001:db8::1", port=ward.port)
    sensor = '[[sensors]]\nkind = "simulator"\nmodalities = ["acc"]\nsubject = 1\n'
    (tmp_path / "device.toml").write_text(settings_text(token, folder) + sensor)
    (tmp_path / "wearable.toml").write_text(settings_text(token, folder, wearable=True) + sensor)
    device, updates = read_device(tmp_path / "device.toml"), read_wearable(tmp_path / "wearable.toml").updates
    assert updates is not None and updates.trust == f"{folder}/coordinator.pub"
    assert device.trust is not None and device.trust.coordinator == updates.trust
    for each in (device, updates):
        assert (each.federation, each.device) == ("ward", "pi-15")
        broker = located(each.broker, tmp_path)
        assert (broker.host, broker.port, broker.tls) == ("2001:db8::1", ward.port, tls_settings(tmp_path / folder))
