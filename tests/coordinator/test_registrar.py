"""The registrar answers whatever it is asked, says a word on it once, and reminds devices in time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.authority import Authority
from coordinator.registrar import TELL_S, Registrar, open_authority
from mekt.clock import DAY_S
from mekt.errors import SettingsError
from mekt.messages import LARGEST_REQUEST, Answer, Renewal, Request, decode, encode
from mekt.messages import Envelope as Letter
from tests.coordinator.test_authority import Clock, asked, csr, new_key, token

laws = settings(derandomize=True, database=None, max_examples=150, deadline=None)
SEED = csr(new_key(), "pi-3")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with contextlib.closing(Authority.create(tmp_path_factory.mktemp("a"), "ward", Clock())) as made:
        yield made


def is_answer(answer: Answer) -> bool:
    """One that can be sent and read."""
    letter = Letter(federation="ward", round=0, device="pi-3", sequence=1, proxy=b"", body=answer)
    return decode(encode(letter)).body == answer


@laws
@given(raw=st.binary(min_size=1, max_size=LARGEST_REQUEST))
def test_any_bytes_have_an_answer(authority: Authority, raw: bytes) -> None:
    registrar, secret = Registrar(authority), token(authority).secret
    for request in (Request(token=secret, csr=raw), Renewal(csr=raw)):
        answer = registrar.answer("pi-3", request)
        assert answer.state == "refused" and is_answer(answer)


@laws
@given(at=st.integers(0, len(SEED)), cut=st.integers(0, 9), more=st.binary(max_size=9))
def test_a_request_with_a_piece_replaced_has_an_answer(authority: Authority, at: int, cut: int, more: bytes) -> None:
    raw = SEED[:at] + more + SEED[at + cut :]
    answer = Registrar(authority).answer("pi-3", Request(token=token(authority).secret, csr=raw))
    assert is_answer(answer) and (answer.state == "issued") == (raw == SEED)


def test_a_device_is_reminded_once_an_hour_while_its_certificate_ends_soon(tmp_path: Path) -> None:
    clock = Clock()
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward", clock)) as authority:
        registrar, key = Registrar(authority), new_key()
        asked(authority, token(authority), key)
        assert registrar.reminder("pi-3", 0.0) is None and registrar.reminder("pi-4", 0.0) is None
        clock.now_s += 61 * DAY_S
        assert registrar.reminder("pi-3", TELL_S - 1) is None
        reminder = registrar.reminder("pi-3", TELL_S)
        assert reminder is not None and reminder.state == "due"
        assert registrar.reminder("pi-3", TELL_S + 1) is None
        assert registrar.reminder("pi-3", 2 * TELL_S) is not None
        authority.revoke("pi-3")
        assert registrar.reminder("pi-3", 3 * TELL_S) is None


def test_another_federations_authority_is_refused(tmp_path: Path) -> None:
    Authority.create(tmp_path / "authority", "ward").close()
    open_authority(tmp_path / "authority", "ward").close()
    with pytest.raises(SettingsError, match="that of ward, not of home"):
        open_authority(tmp_path / "authority", "home")


def test_a_log_has_who_asked_and_no_secret(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    made = token(authority)
    Registrar(authority).answer("pi-3", Request(token=made.secret, csr=csr(new_key(), "pi-3")))
    Registrar(authority).answer("pi-3", Request(token=made.secret, csr=csr(new_key(), "pi-3")))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert all("pi-3" in record.message for record in caplog.records)
    assert repr(made.secret) not in caplog.text and made.secret.hex() not in caplog.text
