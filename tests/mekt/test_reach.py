"""The way to a real broker, up to the first word of MQTT, over TLS and without."""

import time
from pathlib import Path
from typing import Any

import pytest

from mekt.broker import Broker, free_port
from mekt.check import REACH, Check, exit_code
from mekt.errors import LinkError
from mekt.login import BrokerSettings, TlsSettings
from mekt.reach import Validity, check_reach, check_validity, validity_of
from tests.mekt.conftest import named, needs_mosquitto
from tests.mekt.papers import CERTIFICATES, Papers, tls_broker

pytestmark = needs_mosquitto


def reach(**settings: Any) -> list[Check]:
    return list(check_reach(BrokerSettings(**settings)))


def test_a_broker_in_plain_text_is_reached_and_no_clock_compared(broker: Broker) -> None:
    checks = reach(port=broker.port)
    assert [check.name for check in checks] == list(REACH)
    assert [check.mark for check in checks] == ["ok", "ok", "skipped", "skipped"]
    assert "MQTT tells no time" in checks[-1].seen


def test_nobody_listens() -> None:
    checks = reach(port=free_port())
    assert [check.mark for check in checks] == ["ok", "FAILED", "skipped", "skipped"]
    assert "start the broker" in checks[1].remedy and exit_code(checks) == 4


def test_a_name_that_nobody_has() -> None:
    checks = reach(host="broker.invalid", plain_text_allowed=True)
    assert named(checks, "plain text").mark == "warning"
    assert named(checks, "name").family is LinkError and named(checks, "port").mark == "skipped"


def test_plain_text_to_another_machine_has_to_be_allowed() -> None:
    assert exit_code(reach(host="broker.invalid")) == 2


def test_over_tls_all_is_well_or_says_whose_fault_it_is(tmp_path: Path, papers: Papers) -> None:
    with tls_broker(tmp_path, papers) as broker:
        checks = reach(port=broker.port, tls=papers.tls())
        assert [check.mark for check in checks] == ["ok"] * 4, [check.line() for check in checks]
        assert "2000-01-01 00:00:00 UTC to 2049-01-01" in named(checks, "certificates").seen

        checks = reach(port=broker.port, tls=papers.tls(ca="other.pem"))
        assert "name the authority" in named(checks, "tls").remedy and exit_code(checks) == 4
        checks = reach(port=broker.port, tls=papers.tls(own=None))
        assert "with no certificate" in named(checks, "tls").seen and exit_code(checks) == 4
        checks = reach(port=broker.port, tls=papers.tls(own="past"))
        assert named(checks, "tls").mark == named(checks, "certificates").mark == "FAILED"
        assert "this side's is valid" in named(checks, "certificates").seen


@pytest.mark.parametrize(
    ("server", "seen", "remedy"),
    [
        ("late", "is not yet valid", "set this machine's clock"),
        ("past", "has expired", "renew the broker's certificate"),
        ("other-name", "mismatch", "set [broker] host"),
    ],
)
def test_a_brokers_certificate_of_another_time_or_name(
    server: str, seen: str, remedy: str, tmp_path: Path, papers: Papers
) -> None:
    with tls_broker(tmp_path, papers, server) as broker:
        checks = reach(port=broker.port, tls=papers.tls())
    assert seen in named(checks, "tls").seen and remedy in named(checks, "tls").remedy
    wrong_time = server != "other-name"
    assert (named(checks, "certificates").mark == "FAILED") == wrong_time
    assert not wrong_time or "the broker's is valid from" in named(checks, "certificates").seen


def test_a_port_without_tls_and_files_that_are_none(broker: Broker, papers: Papers) -> None:
    checks = reach(port=broker.port, tls=papers.tls())
    assert named(checks, "tls").family is LinkError and "port" in named(checks, "tls").remedy
    assert exit_code(reach(port=broker.port, tls=TlsSettings(ca="/nowhere.pem"))) == 2


def test_certificates_are_read_to_the_second_or_refused(papers: Papers) -> None:
    import ssl

    for name, (begin, end, _) in CERTIFICATES.items():
        der = ssl.PEM_cert_to_DER_cert(Path(papers[f"{name}.pem"]).read_text())
        found = validity_of(der)
        assert time.strftime("%Y%m%d%H%M%SZ", time.gmtime(found.begins_s)) == begin
        assert time.strftime("%Y%m%d%H%M%SZ", time.gmtime(found.ends_s)) == end
        for cut in range(0, len(der) - 1, 7):
            with pytest.raises(ValueError):
                validity_of(der[:cut])


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    known = {"the broker's": Validity(begins_s=0, ends_s=30 * 86400), "this side's": Validity(begins_s=0, ends_s=9e9)}
    assert check_validity(known, 5 * 86400).mark == "ok"
    soon = check_validity(known, 20 * 86400)
    assert soon.mark == "warning" and "the broker's ends in 10 days" in soon.seen
    assert check_validity(known, -5).family is check_validity(known, 31 * 86400).family is LinkError
