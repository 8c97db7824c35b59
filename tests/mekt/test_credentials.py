"""Files of a login: unusable ones are found before anything starts, and renewed ones are used from then on."""

import logging
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from mekt.broker import Broker
from mekt.credentials import Credentials, password, tls_context
from mekt.errors import SettingsError
from mekt.login import BrokerSettings, TlsSettings
from tests.mekt.links import Side, Sides, needs_mosquitto, unclosed, wait_for_log
from tests.mekt.papers import Papers, papers_in, tls_broker

pytestmark = needs_mosquitto


@pytest.fixture
def tls(papers: Papers, tmp_path: Path) -> TlsSettings:
    """A device's own copies of its files, which may be renewed."""
    own = [str(shutil.copy(papers[name], tmp_path)) for name in ("ca.pem", "device.pem", "device.key")]
    return TlsSettings(ca=own[0], certificate=own[1], key=own[2])


@pytest.fixture
def guard(papers: Papers, tmp_path: Path) -> Iterator[Broker]:
    """A broker whose log has the names in the certificates of those who come."""
    with tls_broker(tmp_path / "guard", papers) as running:
        yield running


@pytest.fixture
def device(guard: Broker, tls: TlsSettings) -> Iterator[Side]:
    """A device that is connected, and hears what it says itself."""
    sides = Sides(guard.port)
    side = sides.side("pi-3", "t", settings={"tls": tls})
    side.connected()
    yield side
    sides.stop()


def names(broker: Broker) -> list[str]:
    """Under which names devices have logged in so far, in their order."""
    lines = (broker.folder / "broker.log").read_text().splitlines()
    return [line.rsplit("u'", 1)[1].split("'")[0] for line in lines if " as pi-3 " in line and "u'" in line]


def come_again(broker: Broker, device: Side) -> None:
    """The connection ends, and the device makes a new one."""
    broker.kill()
    device.disconnected()
    broker.start()
    device.connected()


def test_a_certificate_that_is_renewed_is_used_for_the_next_connection(
    guard: Broker, device: Side, tls: TlsSettings, papers: Papers
) -> None:
    assert tls.certificate is not None and tls.key is not None
    assert names(guard) == ["device"]
    guard.kill()
    device.disconnected()
    shutil.copy(papers["renewed.pem"], tls.certificate)
    shutil.copy(papers["renewed.key"], tls.key)
    device.link.publish("t", b"said while the certificate was renewed")
    guard.start()
    device.connected()
    assert names(guard)[-1] == "renewed"
    assert device.message().payload == b"said while the certificate was renewed"
    come_again(guard, device)
    assert names(guard)[-1] == "renewed"


def test_while_a_certificate_has_no_key_yet_the_former_ones_go_on(
    guard: Broker, device: Side, tls: TlsSettings, papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    assert tls.certificate is not None and tls.key is not None
    shutil.copy(papers["renewed.pem"], tls.certificate)
    for _ in range(2):
        come_again(guard, device)
        assert names(guard)[-1] == "device"
    said = [line for line in caplog.messages if line.startswith("broker.tls: ")]
    assert len(said) == 1 and "check paths and key; until then the login goes on" in said[0]
    shutil.copy(papers["renewed.key"], tls.key)
    come_again(guard, device)
    assert names(guard)[-1] == "renewed"


@unclosed
def test_an_authority_that_is_replaced_is_believed_and_the_former_one_no_longer(
    guard: Broker, device: Side, tls: TlsSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard.kill()
    device.disconnected()
    (tmp_path / "others").mkdir()
    others = papers_in(tmp_path / "others")
    shutil.copy(others["ca.pem"], tls.ca)
    with guard:
        wait_for_log(caplog, "TLS fails (")
    lines = (f"certfile {others['server.pem']}", f"keyfile {others['server.key']}")
    with Broker(tmp_path / "successor", kind="mosquitto", port=guard.port, more=lines):
        device.connected()


def test_files_are_read_again_only_when_they_have_changed(
    tls: TlsSettings, papers: Papers, caplog: pytest.LogCaptureFixture
) -> None:
    assert tls.certificate is not None and tls.key is not None
    credentials = Credentials(BrokerSettings(tls=tls))
    first = equipped(credentials)
    assert not credentials.renew() and equipped(credentials) is first
    Path(tls.certificate).rename(tls.certificate + ".old")
    for _ in range(3):
        assert not credentials.renew()
    assert equipped(credentials) is first
    assert len(caplog.messages) == 1
    Path(tls.certificate + ".old").rename(tls.certificate)
    for source, target in (("renewed.pem", tls.certificate), ("renewed.key", tls.key)):
        shutil.copy(papers[source], target)
    assert credentials.renew() and not credentials.renew()
    assert equipped(credentials) is not first
    Path(tls.key).write_text("half a k")
    assert not credentials.renew()
    assert len(caplog.messages) == 2, "another time of trouble is told of again"


def test_a_file_whose_permissions_have_changed_is_read_again(tls: TlsSettings) -> None:
    assert tls.key is not None
    credentials = Credentials(BrokerSettings(tls=tls))
    stat = Path(tls.key).stat()
    Path(tls.key).chmod(0o600)
    os.utime(tls.key, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert credentials.renew()


def test_a_password_that_is_renewed_is_used(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    file.chmod(0o600)
    credentials = Credentials(BrokerSettings(username="pi", password_file=str(file)))
    file.write_bytes(b"\xff\xfe")
    assert not credentials.renew()
    file.write_text("second\n")
    assert credentials.renew()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    credentials.equip(client)
    assert (client.username, client.password) == ("pi", "second")


def equipped(credentials: Credentials) -> ssl.SSLContext:
    """What a new client would be given for TLS."""
    given: list[ssl.SSLContext] = []

    class Client(mqtt.Client):
        def tls_set_context(self, context: ssl.SSLContext | None = None) -> None:
            assert context is not None
            given.append(context)

    credentials.equip(Client(CallbackAPIVersion.VERSION2))
    return given[0]


def test_files_that_cannot_be_used_are_found_before_anything_starts(papers: Papers, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    words = ("ec", "-in", papers["device.key"], "-aes128", "-passout", "pass:x", "-out", str(encrypted))
    subprocess.run(["openssl", *words], check=True, stderr=subprocess.DEVNULL)
    missing = str(tmp_path / "missing")
    tls = papers.tls()
    for settings, says in (
        (BrokerSettings(username="pi", password_file=missing), r"broker\.password_file: .*missing cannot be read"),
        (BrokerSettings(tls=TlsSettings(ca=missing)), r"broker\.tls: .*missing"),
        (BrokerSettings(tls=replace(tls, key=str(encrypted))), "encrypted.key"),
        (BrokerSettings(tls=replace(tls, key=papers["server.key"])), "server.key"),
    ):
        with pytest.raises(SettingsError, match=says):
            Credentials(settings)


def test_a_context_is_for_tls_1_2_or_newer_and_checks_the_brokers_name(tls: TlsSettings) -> None:
    context = tls_context(tls)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED


def test_a_password_is_the_content_of_its_file_without_white_space_around_it(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(" secret \n")
    file.chmod(0o600)
    assert password(BrokerSettings(username="pi", password_file=str(file))) == "secret"
    assert password(BrokerSettings(username="pi")) is None


@pytest.fixture(autouse=True)
def hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
