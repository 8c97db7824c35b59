"""A certificate is replaced by one for the same key, and by nothing else."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.authority import Authority
from edge.renewal import Certificate
from mekt import clock
from mekt.clock import DAY_S, DEVICE_DAYS
from mekt.identity import CERTIFICATE, KEY, key_and_request, pem, tls_settings, write_certificate
from mekt.login import TlsSettings
from mekt.messages import Answer, Renewal, Request

NOW_S = 1.8e9


@dataclass
class Home:
    """A device with an identity, and the authority that it has it from."""

    authority: Authority
    identity: Path
    now_s: list[float]

    @property
    def certificate(self) -> bytes:
        return (self.identity / CERTIFICATE).read_bytes()

    def renewing(self) -> Certificate:
        return Certificate("pi-3", tls_settings(self.identity))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    now_s = [NOW_S]
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward", lambda: now_s[0])) as authority:
        identity = tmp_path / "identity"
        identity.mkdir()
        token = authority.token("pi-3", hours=1, host="localhost", port=1)
        csr = key_and_request(identity / KEY, "pi-3")
        answer = authority.enrol("pi-3", Request(token=token.secret, csr=csr))
        write_certificate(identity / CERTIFICATE, answer.certificate)
        clock.remember(identity, NOW_S)
        yield Home(authority, identity, now_s)


def due(home: Home) -> Answer:
    return Answer(state="due", time_s=home.now_s[0])


def test_told_that_it_is_due_a_device_asks_and_takes_the_answer(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    former, key = home.certificate, (home.identity / KEY).read_bytes()
    home.now_s[0] += 61 * DAY_S
    renewing = home.renewing()
    asked = renewing.answered(due(home))
    assert isinstance(asked, Renewal)
    answer = home.authority.renew("pi-3", asked)
    assert renewing.answered(answer) is None
    assert home.certificate == pem(answer.certificate) != former
    assert (home.identity / KEY).read_bytes() == key
    assert clock.known_s(home.identity) == home.now_s[0]
    assert [record.message for record in caplog.records] == ["the certificate is renewed; the next connection uses it"]
    assert sorted(path.name for path in home.identity.iterdir()) == sorted([CERTIFICATE, KEY, clock.TIME])


def test_told_so_again_it_asks_again_and_nothing_changes(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    home.now_s[0] += 61 * DAY_S
    renewing = home.renewing()
    for _ in range(3):
        asked = renewing.answered(due(home))
        assert isinstance(asked, Renewal)
        renewing.answered(home.authority.renew("pi-3", asked))
    assert len(caplog.records) == 1 and len(home.authority.certified("pi-3")) == 2


def test_what_nobody_asked_for_is_not_taken(home: Home) -> None:
    former = home.certificate
    other = home.authority.part("watch", "alice").certificate
    assert home.renewing().answered(Answer(state="issued", certificate=other, time_s=NOW_S)) is None
    assert home.certificate == former


@pytest.mark.parametrize("what", ["another key's", "none", "text"])
def test_what_is_no_certificate_for_this_key_changes_nothing(
    home: Home, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    former = home.certificate
    der = {"another key's": home.authority.part("watch", "alice").certificate, "none": b"", "text": b"text"}[what]
    renewing = home.renewing()
    renewing.answered(due(home))
    assert renewing.answered(Answer(state="issued", certificate=der, time_s=9e10)) is None
    assert home.certificate == former and clock.known_s(home.identity) == NOW_S
    assert "the former one stays" in caplog.text
    assert sorted(path.name for path in home.identity.iterdir()) == sorted([CERTIFICATE, KEY, clock.TIME])


def test_a_refusal_is_logged_once_and_changes_nothing(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    renewing = home.renewing()
    refused = Answer(state="refused", reason="a reason\x1b[2J", time_s=NOW_S)
    assert renewing.answered(refused) is None and caplog.records == []
    renewing.answered(due(home))
    renewing.answered(refused)
    [record] = caplog.records
    assert "does not renew" in record.message and "\x1b" not in record.message


def test_a_word_on_the_time_that_cannot_be_true_moves_the_clock_no_further_than_is_possible(home: Home) -> None:
    home.now_s[0] += 61 * DAY_S
    renewing = home.renewing()
    asked = renewing.answered(due(home))
    assert isinstance(asked, Renewal)
    answer = home.authority.renew("pi-3", asked)
    renewing.answered(Answer(state="issued", certificate=answer.certificate, time_s=9e10))
    assert clock.known_s(home.identity) == NOW_S + DEVICE_DAYS * DAY_S


def test_who_logs_in_without_a_certificate_asks_for_none(home: Home) -> None:
    for tls in (None, TlsSettings(ca="ca.pem")):
        assert Certificate("pi-3", tls).answered(due(home)) is None
