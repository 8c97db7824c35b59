"""The registrar answers whatever it is asked, says a word on it once, and reminds devices in time."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.authority import Authority
from coordinator.fence import REVOKED, Fence
from coordinator.registrar import TELL_S, Registrar, open_authority
from mekt.clock import DAY_S
from mekt.errors import SettingsError
from mekt.messages import LARGEST_REQUEST, Answer, Renewal, Request, decode, encode
from mekt.messages import Envelope as Letter
from tests.coordinator.test_authority import Clock, Key, asked, csr, enrolled, new_key, token

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


def renewal(key: Key) -> Renewal:
    return Renewal(csr=csr(key, "pi-3"))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[tuple[Authority, Path]]:
    """An authority, and the files of a broker that does not run."""
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward", Clock())) as authority:
        Fence(folder=tmp_path / "broker", user="root").write(authority)
        yield authority, tmp_path / "broker"


def revoked(broker: Path) -> int:
    """How many certificates the broker's list has."""
    return len(x509.load_pem_x509_crl((broker / REVOKED).read_bytes()))


def test_a_device_that_was_enrolled_anew_is_asked_for_its_key_at_once_and_the_broker_told_of_the_former_one(
    ward: tuple[Authority, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authority, broker = ward
    registrar, former, new = Registrar(authority, broker), new_key(), new_key()
    asked(authority, token(authority), former)
    assert registrar.reminder("pi-3", 0.0) is None
    by_token = Request(token=token(authority).secret, csr=csr(new, "pi-3"))
    answer = registrar.answer("pi-3", by_token)
    assert registrar.answer("pi-3", by_token) == answer and revoked(broker) == 0, "it may not have arrived"
    reminder = registrar.reminder("pi-3", 1.0)
    assert reminder is not None and reminder.state == "due"
    assert registrar.answer("pi-3", renewal(former)).state == "issued" and revoked(broker) == 0
    assert registrar.answer("pi-3", renewal(new)).certificate == answer.certificate and revoked(broker) == 1
    assert "pi-3 has a new key; revoked of its former ones: 1 certificate" in [each.message for each in caplog.records]
    assert registrar.answer("pi-3", renewal(new)).state == "issued" and revoked(broker) == 1
    assert registrar.answer("pi-3", renewal(former)).state == "refused"
    assert registrar.reminder("pi-3", 2 * TELL_S) is None


def test_a_broker_that_could_not_be_told_is_told_at_the_next_start(ward: tuple[Authority, Path]) -> None:
    """As when the coordinator is killed after it has revoked, or had no right to the folder."""
    authority, broker = ward
    asked(authority, token(authority), new_key())
    new = new_key()
    asked(authority, token(authority), new)
    assert authority.replace("pi-3", renewal(new)) == 1 and revoked(broker) == 0
    Registrar(authority, broker)
    assert revoked(broker) == 1


@pytest.mark.parametrize("away", [True, False])
def test_a_broker_that_is_elsewhere_or_cannot_be_told_keeps_no_device_from_its_certificate(
    ward: tuple[Authority, Path], caplog: pytest.LogCaptureFixture, away: bool
) -> None:
    authority, broker = ward
    registrar, new = Registrar(authority, None if away else broker), new_key()
    enrolled(authority)
    asked(authority, token(authority), new)
    shutil.rmtree(broker)
    assert registrar.answer("pi-3", renewal(new)).state == "issued"
    assert ("name the folder of its files" if away else "does not know who was revoked") in caplog.text
    assert [each.revoked_s is None for each in authority.certified("pi-3")] == [False, True]


def test_a_folder_without_a_brokers_files_is_told_at_the_start(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"trust\.broker: .* there are no files of a broker"):
        Registrar(authority, tmp_path / "nowhere")


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
