"""An identity's files: a key that is made here and is nobody else's, and trust that lasts over a restart."""

import os
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coordinator.authority import Authority
from mekt.credentials import check_private
from mekt.errors import MissingPackageError, SettingsError, StateError
from mekt.identity import (
    CA,
    CERTIFICATE,
    KEY,
    KeptTrust,
    fits,
    key_and_request,
    read_public,
    tls_settings,
    write_identity,
)
from mekt.messages import LARGEST_REQUEST
from mekt.signature import joined, to_sign


def test_a_key_is_made_once_and_is_its_owners_and_the_request_is_for_it(tmp_path: Path) -> None:
    key = tmp_path / KEY
    before = os.umask(0)
    try:
        first = x509.load_der_x509_csr(key_and_request(key, "pi-3"))
    finally:
        os.umask(before)
    made = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600 and list(tmp_path.iterdir()) == [key]
    second = key_and_request(key, "d" * 64)
    assert key.read_bytes() == made and len(second) <= LARGEST_REQUEST
    assert first.is_signature_valid and isinstance(first.public_key(), ec.EllipticCurvePublicKey)
    [name] = first.subject
    assert (name.oid, name.value) == (NameOID.COMMON_NAME, "pi-3")
    assert x509.load_der_x509_csr(second).public_key() == first.public_key()


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    key_and_request(tmp_path / KEY, "pi-3")
    (tmp_path / KEY).chmod(0o604)
    with pytest.raises(SettingsError, match=r"mode 0604\); chmod 600"):
        key_and_request(tmp_path / KEY, "pi-3")


def test_a_damaged_key_is_told_and_not_shown(tmp_path: Path) -> None:
    key_and_request(tmp_path / KEY, "pi-3")
    text = (tmp_path / KEY).read_text()
    (tmp_path / KEY).write_text(text.replace("\n", "x\n", 2))
    with pytest.raises(StateError, match="openssl req fails") as caught:
        key_and_request(tmp_path / KEY, "pi-3")
    assert text.splitlines()[1][:12] not in str(caught.value)


def test_a_machine_without_openssl_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match="apt-get install openssl"):
        key_and_request(tmp_path / KEY, "pi-3")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o777])
def test_a_secret_that_anybody_else_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(mode)
    with pytest.raises(SettingsError, match="others can read this secret") as caught:
        check_private(secret)
    assert str(secret) in str(caught.value)
    link = tmp_path / "link"
    link.symlink_to(secret)
    with pytest.raises(SettingsError):
        check_private(link)
    for fine in (0o600, 0o400):
        secret.chmod(fine)
        check_private(secret)


def test_a_certificate_fits_the_key_that_it_was_made_for_and_no_other(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "ward")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = authority.part("watch", name)
        write_identity(tmp_path / name, ca=authority.ca, certificate=made.certificate, key=made.key)
    authority.close()
    a, b = (tmp_path / name for name in ("a", "b"))
    assert fits(a / CERTIFICATE, a / KEY) and not fits(a / CERTIFICATE, b / KEY)
    assert not fits(a / KEY, a / KEY)
    with pytest.raises(StateError, match="cannot be read"):
        fits(a / "gone", a / KEY)
    assert tls_settings(a).ca == str(a / CA)
    assert {path.name: path.stat().st_mode & 0o077 for path in a.iterdir()}[KEY] == 0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "authority", "ward")


def test_trust_lasts_over_a_restart(authority: Authority, tmp_path: Path) -> None:
    key, newest = authority.folder / "coordinator.pub", tmp_path / "newest"
    older, newer = authority.signer.sign("round", b"older"), authority.signer.sign("round", b"newer")
    kept = KeptTrust(key, newest)
    assert kept.trust.refusal("round", b"newer", newer) is None
    assert KeptTrust(key, newest).trust.refusal("round", b"older", older) is None, "not kept, so not known"
    kept.keep()
    again = KeptTrust(key, newest)
    assert again.trust.refusal("round", b"older", older) == "replayed"
    assert again.trust.refusal("round", b"newer", newer) is None
    authority.close()


def test_what_is_not_signed_is_not_kept(authority: Authority, tmp_path: Path) -> None:
    kept = KeptTrust(authority.folder / "coordinator.pub", tmp_path / "newest")
    assert kept.trust.refusal("round", b"content", joined(2**63, to_sign("round", 2**63, b"")[:64])) == "unsigned"
    kept.keep()
    assert not (tmp_path / "newest").exists()
    authority.close()


def test_a_number_that_cannot_be_read_is_told(authority: Authority, tmp_path: Path) -> None:
    for content in (b"", b"seven", b"\xff", b"9" * 5000):
        (tmp_path / "newest").write_bytes(content)
        with pytest.raises(StateError, match="no number can be read"):
            KeptTrust(authority.folder / "coordinator.pub", tmp_path / "newest")
    authority.close()


@pytest.mark.parametrize("content", ["", "zz", "ab", "00" * 31, "00" * 33])
def test_a_public_key_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "coordinator.pub").write_text(content)
    with pytest.raises(SettingsError, match="enrol anew"):
        read_public(tmp_path / "coordinator.pub")
    shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)
    with pytest.raises(SettingsError, match="enrol anew"):
        read_public(tmp_path / "nowhere")
