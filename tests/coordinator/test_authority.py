"""The authority: whom it certifies, whom it refuses, and what it keeps over crashes, copies and other processes."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.authority import EARLIEST_NOW_S, Authority, write_part
from mekt.clock import DAY_S, DEVICE_DAYS
from mekt.errors import SettingsError, StateError
from mekt.messages import LARGEST_CERTIFICATE, LARGEST_REQUEST, Answer, Renewal, Request
from mekt.schema import NAME_PATTERN
from mekt.signature import NUMBER_BYTES
from mekt.token import Token

ROOT = Path(__file__).parents[2]
HOUR_S = 3600.0
NOW_S = datetime(2026, 5, 4, tzinfo=UTC).timestamp()
Key = ec.EllipticCurvePrivateKey


@dataclass
class Clock:
    """What the authority takes for now."""

    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> Iterator[Authority]:
    with contextlib.closing(Authority.create(tmp_path / "authority", "ward", clock)) as made:
        yield made


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Key | rsa.RSAPrivateKey | Ed25519PrivateKey, *names: str, extra: str = "") -> bytes:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    if extra:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, extra))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    algorithm = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def token(authority: Authority, device: str = "pi-3", hours: float = 1.0) -> Token:
    return authority.token(device, hours=hours, host="broker.example", port=8883)


def asked(authority: Authority, by: Token, key: Key, device: str = "pi-3") -> Answer:
    return authority.enrol(device, Request(token=by.secret, csr=csr(key, device)))


def enrolled(authority: Authority, device: str = "pi-3") -> Key:
    key = new_key()
    assert asked(authority, token(authority, device), key, device).state == "issued"
    return key


def renewed(authority: Authority, key: Key, device: str = "pi-3") -> Answer:
    return authority.renew(device, Renewal(csr=csr(key, device)))


def number_of(signature: bytes) -> int:
    return int.from_bytes(signature[:NUMBER_BYTES], "big")


def name_in(certificate: x509.Certificate) -> str:
    [attribute] = certificate.subject
    return str(attribute.value)


# Enrolment


def test_a_device_gets_a_certificate_for_its_key_and_name_that_a_board_without_a_clock_can_use(
    authority: Authority,
) -> None:
    key = new_key()
    answer = asked(authority, token(authority), key)
    assert (answer.state, answer.time_s) == ("issued", NOW_S)
    certificate = x509.load_der_x509_certificate(answer.certificate)
    assert name_in(certificate) == "pi-3" and certificate.public_key() == key.public_key()
    assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc.timestamp() == NOW_S + DEVICE_DAYS * DAY_S
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority.ca))


def test_a_token_is_good_for_its_device_alone(authority: Authority) -> None:
    made = token(authority, "pi-3")
    assert "not known" in asked(authority, made, new_key(), "pi-4").reason
    assert "no request" in authority.enrol("pi-3", Request(token=made.secret, csr=csr(new_key(), "pi-4"))).reason
    assert asked(authority, made, new_key()).state == "issued", "and neither attempt has used it up"


def test_a_token_is_good_once_and_the_same_request_has_the_same_answer(authority: Authority) -> None:
    made, key = token(authority), new_key()
    first = asked(authority, made, key)
    assert asked(authority, made, key) == first
    assert "has been used" in asked(authority, made, new_key()).reason
    assert len(authority.certified("pi-3")) == 1


def test_a_token_ends(authority: Authority, clock: Clock) -> None:
    made = token(authority, hours=2)
    clock.now_s += 2 * HOUR_S + 1
    assert "expired" in asked(authority, made, new_key()).reason
    assert made.expires_s == NOW_S + 2 * HOUR_S
    bearer = x509.load_der_x509_certificate(made.certificate)
    assert bearer.not_valid_after_utc.timestamp() == made.expires_s and name_in(bearer) == "enroll:pi-3"


def test_a_secret_that_nobody_has_made_is_not_known(authority: Authority) -> None:
    token(authority)
    assert "not known" in authority.enrol("pi-3", Request(token=bytes(16), csr=csr(new_key(), "pi-3"))).reason


@pytest.mark.parametrize(
    "bytes_of",
    [
        lambda: b"\x30",
        lambda: b"-----BEGIN CERTIFICATE REQUEST-----",
        lambda: csr(new_key()),
        lambda: csr(new_key(), "pi-4"),
        lambda: csr(new_key(), "pi-3", "coordinator:ward"),
        lambda: csr(new_key(), "coordinator:ward", "pi-3"),
        lambda: csr(ec.generate_private_key(ec.SECP384R1()), "pi-3"),
        lambda: csr(rsa.generate_private_key(65537, 1024), "pi-3"),
        lambda: csr(Ed25519PrivateKey.generate(), "pi-3"),
        lambda: csr(new_key(), "pi-3")[:-1] + b"\0",  # signed with another key, as it were
    ],
    ids=["cut", "text", "nameless", "another", "two", "two-reversed", "p384", "rsa", "ed25519", "forged"],
)
def test_a_request_of_another_kind_is_refused_and_uses_nothing_up(authority: Authority, bytes_of: object) -> None:
    made = token(authority)
    raw = bytes_of()  # type: ignore[operator]
    assert len(raw) <= LARGEST_REQUEST
    answer = authority.enrol("pi-3", Request(token=made.secret, csr=raw))
    assert answer.state == "refused" and "no request" in answer.reason
    assert asked(authority, made, new_key()).state == "issued"


def test_what_else_a_request_asks_for_is_not_granted(authority: Authority) -> None:
    raw = csr(new_key(), "pi-3", extra="administrators")
    answer = authority.enrol("pi-3", Request(token=token(authority).secret, csr=raw))
    assert name_in(x509.load_der_x509_certificate(answer.certificate)) == "pi-3"


def test_the_longest_names_fit_into_certificates_and_longer_ones_are_refused_in_words(
    authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    longest = "d" * 57
    answer = asked(authority, token(authority, longest), new_key(), longest)
    assert 0 < len(answer.certificate) <= LARGEST_CERTIFICATE
    with pytest.raises(SettingsError, match="at most 64 characters"):
        token(authority, "d" * 58)
    Authority.create(tmp_path / "long", "f" * 52, clock).close()
    with pytest.raises(SettingsError, match="at most 64 characters"):
        Authority.create(tmp_path / "longer", "f" * 53, clock)
    assert not (tmp_path / "longer").exists()


@pytest.mark.parametrize("host", ["", 'a"\n[trust]', "b\u00fccher.example", "two words", "a" * 256])
def test_a_host_that_is_none_is_refused_in_words(authority: Authority, host: str) -> None:
    with pytest.raises(SettingsError, match="is no host"):
        authority.token("pi-3", hours=1, host=host, port=8883)
    with pytest.raises(SettingsError, match="is no host"):
        authority.broker((host,))
    assert authority.certified() == []


# Renewal


def test_a_certificate_is_renewed_when_a_third_of_its_time_is_left_for_the_same_key(
    authority: Authority, clock: Clock
) -> None:
    key = enrolled(authority)
    first = renewed(authority, key)
    assert not authority.due("pi-3") and len(authority.certified("pi-3")) == 1, "nothing is issued before it is time"
    clock.now_s += 61 * DAY_S
    assert authority.due("pi-3")
    second = renewed(authority, key)
    assert second.state == "issued" and second.certificate != first.certificate
    fresh = x509.load_der_x509_certificate(second.certificate)
    assert fresh.not_valid_after_utc.timestamp() == clock.now_s + DEVICE_DAYS * DAY_S
    assert fresh.public_key() == key.public_key()


def test_a_flood_of_renewals_issues_one_certificate(authority: Authority, clock: Clock) -> None:
    key = enrolled(authority)
    clock.now_s += 61 * DAY_S
    answers = {renewed(authority, key).certificate for _ in range(20)}
    assert len(answers) == 1 and len(authority.certified("pi-3")) == 2


def test_a_device_whose_answer_was_lost_is_told_again_until_the_former_certificate_ends(
    authority: Authority, clock: Clock
) -> None:
    key = enrolled(authority)
    clock.now_s += 61 * DAY_S
    lost = renewed(authority, key)
    clock.now_s += DAY_S
    assert authority.due("pi-3")
    assert renewed(authority, key).certificate == lost.certificate
    clock.now_s += 29 * DAY_S
    assert not authority.due("pi-3")


def test_an_expired_certificate_is_not_renewed(authority: Authority, clock: Clock) -> None:
    key = enrolled(authority)
    clock.now_s += 91 * DAY_S
    assert "enrol the device anew" in renewed(authority, key).reason and not authority.due("pi-3")


def test_who_was_revoked_gets_nothing_by_a_connection_that_goes_on_even_when_another_was_enrolled_since(
    authority: Authority,
) -> None:
    thief = enrolled(authority)
    assert authority.revoke("pi-3") == 1
    assert renewed(authority, thief).state == "refused"
    owner = enrolled(authority)
    assert renewed(authority, thief).state == "refused"
    assert renewed(authority, owner).state == "issued"


def test_it_knows_who_was_sent_away_until_they_are_asked_back(authority: Authority) -> None:
    both = {"pi-3", "pi-4"}
    enrolled(authority, "pi-4")
    enrolled(authority)
    assert not authority.revoked() & both
    authority.revoke("pi-3")
    assert authority.revoked() & both == {"pi-3"}
    authority.token("pi-3", hours=1, host="broker", port=8883)
    assert not authority.revoked() & both


def test_nobody_renews_with_a_key_that_has_no_certificate(authority: Authority) -> None:
    enrolled(authority)
    assert renewed(authority, new_key()).state == "refused"
    assert renewed(authority, enrolled(authority, "pi-4"), "pi-3").state == "refused"


# A new key in place of a former one


def replaced(authority: Authority, key: Key, device: str = "pi-3") -> int:
    return authority.replace(device, Renewal(csr=csr(key, device)))


def states(authority: Authority, device: str = "pi-3") -> list[bool]:
    """Whether each certificate under this name still counts, in the order of their issue."""
    return [each.revoked_s is None for each in authority.certified(device)]


def test_a_device_that_shows_its_new_key_has_what_was_given_for_the_former_one_revoked(authority: Authority) -> None:
    enrolled(authority, "pi-4")
    former, new = enrolled(authority), new_key()
    made = token(authority)
    given = asked(authority, made, new)
    assert states(authority) == [True, True] and revoked_serials(authority) == set(), "the answer may be lost"
    assert replaced(authority, new) == 1
    assert states(authority) == [False, True] and states(authority, "pi-4") == [True]
    assert len(revoked_serials(authority)) == 1
    assert renewed(authority, former).state == "refused"
    assert renewed(authority, new) == asked(authority, made, new) == given
    assert replaced(authority, new) == replaced(authority, former) == 0, "and nothing more"
    assert states(authority) == [False, True]


def test_a_device_whose_new_certificate_was_lost_on_its_way_keeps_what_it_has_and_may_ask_again(
    authority: Authority, clock: Clock
) -> None:
    former, new, made = enrolled(authority), new_key(), token(authority)
    lost = asked(authority, made, new)
    for _ in range(3):
        assert authority.due("pi-3"), "it is told to ask, so that it shows which key it has"
        assert replaced(authority, former) == 0 and renewed(authority, former).state == "issued"
        clock.now_s += DAY_S
    assert states(authority) == [True, True]
    again = asked(authority, made, new)
    assert again.certificate == lost.certificate and states(authority) == [True, True], "asked twice, given once"
    assert replaced(authority, new) == 1 and not authority.due("pi-3")


def test_a_renewed_certificate_replaces_none_of_its_own_key(authority: Authority, clock: Clock) -> None:
    """The device may still be connected by the former one, and go back to it where an answer was lost."""
    key = enrolled(authority)
    clock.now_s += 61 * DAY_S
    renewed(authority, key)
    assert replaced(authority, key) == 0 and states(authority) == [True, True]


def test_keys_are_as_new_as_their_enrolment_whatever_was_renewed_and_has_ended_since(
    authority: Authority, clock: Clock
) -> None:
    former = enrolled(authority)
    clock.now_s += 30 * DAY_S
    new = enrolled(authority)
    clock.now_s += 31 * DAY_S
    assert renewed(authority, former).state == "issued"
    clock.now_s += 34 * DAY_S
    assert replaced(authority, former) == 0
    assert replaced(authority, new) == 1, "the renewed one, as the first has ended"
    assert states(authority) == [True, True, False] and renewed(authority, former).state == "refused"


def test_a_token_whose_key_was_replaced_gives_its_certificate_back_no_more(authority: Authority) -> None:
    first, unused, key = token(authority), token(authority), new_key()
    asked(authority, first, key)
    assert replaced(authority, enrolled(authority)) == 1
    assert "not known" in asked(authority, first, key).reason
    assert "this key was revoked" in asked(authority, unused, key).reason
    assert asked(authority, unused, new_key()).state == "issued"


def test_a_key_that_does_not_count_replaces_nothing(authority: Authority, clock: Clock) -> None:
    good, other = enrolled(authority), enrolled(authority, "pi-4")
    for key in (new_key(), other):
        assert replaced(authority, key) == 0
    assert authority.replace("pi-3", Renewal(csr=csr(enrolled(authority), "pi-3", extra="x")[:-1])) == 0
    assert authority.replace("pi-3", Renewal(csr=csr(good, "pi-4"))) == 0
    assert states(authority) == [True, True] and states(authority, "pi-4") == [True]
    late = enrolled(authority)
    clock.now_s += 91 * DAY_S
    assert replaced(authority, late) == 0 and states(authority) == [True, True, True], "it has ended itself"


def test_a_list_that_is_written_while_others_revoke_is_never_older_than_a_revocation(tmp_path: Path) -> None:
    """Two processes, as it were: nobody decides anything between the reading of a list and its being written."""
    authority = Authority.create(tmp_path / "authority", "ward")
    enrolled(authority)
    order: list[str] = []

    def revoke() -> None:
        with contextlib.closing(Authority(tmp_path / "authority")) as own:
            own.revoke("pi-3")
            order.append("revoked")

    thread = threading.Thread(target=revoke)
    with authority.unchanging():
        listed = revoked_serials(authority)
        thread.start()
        time.sleep(0.3)
        order.append("written")
    thread.join()
    assert (listed, order) == (set(), ["written", "revoked"]) and len(revoked_serials(authority)) == 2
    authority.close()


# Revocation


def revoked_serials(authority: Authority) -> set[int]:
    crl = x509.load_pem_x509_crl(authority.revocations())
    key = x509.load_der_x509_certificate(authority.ca).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    return {each.serial_number for each in crl}


def test_revocation_is_of_every_certificate_and_token_of_one_name_and_no_other(
    authority: Authority, clock: Clock
) -> None:
    key = enrolled(authority)
    clock.now_s += 61 * DAY_S
    renewed(authority, key)
    unused, other = token(authority), token(authority, "pi-30")
    enrolled(authority, "pi-4")
    assert authority.revoke("pi-3") == 2 and authority.revoke("pi-3") == 0
    assert "not known" in asked(authority, unused, new_key()).reason
    assert asked(authority, other, new_key(), "pi-30").state == "issued"
    revoked = {each.name for each in authority.certified() if each.revoked_s is not None}
    assert revoked == {"pi-3", "enroll:pi-3"}
    bearer = x509.load_der_x509_certificate(unused.certificate)
    assert bearer.serial_number in revoked_serials(authority)


def test_a_used_token_gives_no_certificate_back_that_was_revoked_since(authority: Authority) -> None:
    made, key = token(authority), new_key()
    asked(authority, made, key)
    authority.revoke("pi-3")
    assert asked(authority, made, key).state == "refused"


def test_a_revoked_key_is_not_certified_again(authority: Authority) -> None:
    key = enrolled(authority)
    authority.revoke("pi-3")
    assert "this key was revoked" in asked(authority, token(authority), key).reason


def test_the_list_keeps_what_has_expired_and_lasts_as_long_as_the_authority(authority: Authority, clock: Clock) -> None:
    """A broker whose clock goes wrong lets nobody in again, and one that was never told anew shuts nobody out."""
    enrolled(authority)
    authority.revoke("pi-3")
    clock.now_s += 400 * DAY_S
    assert len(revoked_serials(authority)) == 2
    crl = x509.load_pem_x509_crl(authority.revocations())
    assert crl.next_update_utc == x509.load_der_x509_certificate(authority.ca).not_valid_after_utc
    assert crl.last_update_utc == datetime(1970, 1, 1, tzinfo=UTC)


def test_a_revocation_beside_an_enrolment_never_leaves_a_good_certificate_behind(tmp_path: Path) -> None:
    """Two processes, as it were, each with its own connection: whoever comes first, the device is out at the end."""
    authority = Authority.create(tmp_path / "authority", "ward")
    for number in range(15):
        device = f"pi-{number}"
        made, key = token(authority, device), new_key()

        def enrol(device: str = device, made: Token = made, key: Key = key) -> None:
            with contextlib.closing(Authority(tmp_path / "authority")) as own:
                asked(own, made, key, device)

        thread = threading.Thread(target=enrol)
        thread.start()
        time.sleep(0.002 * number)
        authority.revoke(device)
        was_first = bool(authority.certified(device))
        thread.join()
        good = [each for each in authority.certified(device) if each.revoked_s is None]
        assert good == [] or not was_first
        assert good == []
    authority.close()


def test_two_devices_that_use_one_token_at_once_get_one_certificate(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "authority", "ward")
    for number in range(8):
        made, answers = token(authority, f"pi-{number}"), []
        barrier = threading.Barrier(2)

        def enrol(number: int = number, made: Token = made, barrier: threading.Barrier = barrier) -> None:
            with contextlib.closing(Authority(tmp_path / "authority")) as own:
                barrier.wait()
                answers.append(asked(own, made, new_key(), f"pi-{number}").state)  # noqa: B023

        threads = [threading.Thread(target=enrol) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == ["issued", "refused"]
    authority.close()


# Clocks


def test_nothing_is_certified_by_a_clock_that_was_never_set(authority: Authority, tmp_path: Path, clock: Clock) -> None:
    key, made, late = enrolled(authority), token(authority), new_key()
    clock.now_s = 86_400.0
    for attempt in (
        lambda: token(authority),
        lambda: authority.part("watch", "alice"),
        lambda: authority.broker(("b",)),
    ):
        with pytest.raises(SettingsError, match="clock shows 1970-01-02"):
            attempt()
    with pytest.raises(SettingsError, match="clock shows 1970-01-02"):
        Authority.create(tmp_path / "other", "ward", clock)
    assert "clock" in asked(authority, made, late).reason
    assert renewed(authority, key).state == "issued", "what there is already"
    clock.now_s = EARLIEST_NOW_S
    assert asked(authority, made, late).state == "issued"


# What is kept


def test_everything_is_there_after_a_restart(authority: Authority, clock: Clock) -> None:
    key, unused = enrolled(authority), token(authority, "pi-9")
    enrolled(authority, "pi-4")
    authority.revoke("pi-4")
    write_part(authority, "watch", "alice", authority.folder.parent / "alice")
    before = authority.certified(), authority.ca, authority.signer.public_key, revoked_serials(authority)
    signed = number_of(authority.signer.sign("round", b""))
    with contextlib.closing(Authority(authority.folder, clock)) as again:
        assert (again.certified(), again.ca, again.signer.public_key, revoked_serials(again)) == before
        assert again.federation == "ward" and number_of(again.signer.sign("round", b"")) > signed
        assert renewed(again, key).state == "issued"
        assert asked(again, unused, new_key(), "pi-9").state == "issued"


def test_another_device_changes_nothing_for_the_others(authority: Authority, tmp_path: Path) -> None:
    key = enrolled(authority)
    files = {
        path.name: path.read_bytes() for path in authority.folder.iterdir() if path.suffix in (".key", ".pem", ".pub")
    }
    before = renewed(authority, key).certificate
    for number in range(5):
        enrolled(authority, f"pi-1{number}")
    assert {name: (authority.folder / name).read_bytes() for name in files} == files
    assert renewed(authority, key).certificate == before


def test_nobody_else_reads_what_an_authority_keeps_even_in_a_folder_that_was_there_and_open(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    Authority.create(folder, "ward").close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode & 0o077} <= {"ca.pem", "coordinator.pub", "lock"}


@pytest.mark.parametrize("name", ["authority.key", "signing.key"])
def test_a_key_that_others_can_read_is_refused(authority: Authority, name: str) -> None:
    (authority.folder / name).chmod(0o640)
    with pytest.raises(SettingsError, match="others can read this secret"):
        Authority(authority.folder)


MAKES = (
    "import sys\n"
    "from pathlib import Path\n"
    "import mekt.files, os\n"
    "import coordinator.authority as module\n"
    "import coordinator.signer as signer\n"
    "left = int(sys.argv[2])\n"
    "def counted(real):\n"
    "    def call(*arguments, **named):\n"
    "        global left\n"
    "        if left == 0:\n"
    "            os._exit(9)\n"
    "        left -= 1\n"
    "        return real(*arguments, **named)\n"
    "    return call\n"
    "for each in (module, signer):\n"
    "    each.write_atomically = counted(each.write_atomically)\n"
    "    each.write_private = counted(each.write_private)\n"
    "module.Database = counted(module.Database)\n"
    "module.Authority.create(Path(sys.argv[1]), 'ward').close()\n"
)


def test_an_authority_whose_making_was_cut_short_is_made_again_and_is_whole(tmp_path: Path) -> None:
    codes = []
    for writes in range(8):
        folder = tmp_path / str(writes)
        codes.append(subprocess.run([sys.executable, "-c", MAKES, str(folder), str(writes)], cwd=ROOT).returncode)
        if not (folder / "authority.key").exists():
            with pytest.raises(SettingsError, match="mekt ca init"):
                Authority(folder)
            Authority.create(folder, "ward").close()
        with contextlib.closing(Authority(folder)) as made:
            enrolled(made)
            assert made.federation == "ward"
            assert bytes.fromhex((folder / "coordinator.pub").read_text()) == made.signer.public_key
    assert codes[0] == codes[4] == 9 and codes[-1] == 0


def test_an_authority_is_never_made_over_another_or_over_what_is_left_of_one(authority: Authority) -> None:
    enrolled(authority)
    before = {path.name: path.read_bytes() for path in authority.folder.iterdir()}
    with pytest.raises(StateError, match="there is an authority already"):
        Authority.create(authority.folder, "ward")
    (authority.folder / "authority.key").unlink()
    with pytest.raises(StateError, match="restore the folder from its copy"):
        Authority.create(authority.folder, "ward")
    kept = {path.name: path.read_bytes() for path in authority.folder.iterdir()}
    assert all(kept[name] == before[name] for name in ("signing.key", "ca.pem", "coordinator.pub"))


@pytest.mark.parametrize("name", ["signing.key", "ca.pem", "authority.sqlite"])
@pytest.mark.parametrize("how", ["gone", "empty", "another's"])
def test_a_damaged_authority_is_refused_in_words(authority: Authority, tmp_path: Path, name: str, how: str) -> None:
    authority.close()
    path = authority.folder / name
    match how:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case _:
            path.write_bytes(new_key_pem() if name == "signing.key" else b"x" * 4096)
    with pytest.raises(StateError, match="restore the f"):
        Authority(authority.folder)


def new_key_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    return new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_the_certificate_of_another_authority_is_noticed(authority: Authority, tmp_path: Path) -> None:
    Authority.create(tmp_path / "other", "ward").close()
    shutil.copy(tmp_path / "other" / "ca.pem", authority.folder)
    with pytest.raises(StateError, match=r"ca.pem is not that of authority.key"):
        Authority(authority.folder)


def test_a_folder_of_the_first_schema_is_taken_over_and_one_of_a_newer_is_refused(tmp_path: Path) -> None:
    """Each row, by a key and a time of then."""
    folder = Path(shutil.copytree(Path(__file__).parent / "states" / "authority-1", tmp_path / "authority"))
    for path in folder.iterdir():
        path.chmod(0o600)  # a checkout has no such permissions
    with contextlib.closing(Authority(folder, Clock())) as authority:
        assert authority.federation == "ward"
        states = {each.name: each.revoked_s is None for each in authority.certified()}
        assert states == {"enroll:pi-1": True, "pi-1": True, "enroll:pi-2": False, "pi-2": False, "watch:alice": True}
        assert len(revoked_serials(authority)) == 2
        assert number_of(authority.signer.sign("round", b"")) >= NOW_S * 1000
    with contextlib.closing(sqlite3.connect(folder / "authority.sqlite")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="of a newer Mekt"):
        Authority(folder)


# The broker


def test_a_brokers_certificate_serves_until_it_is_of_other_hosts_or_ends_soon_or_is_not_its_keys(
    authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    hosts = ("broker.example", "192.0.2.7")
    first, second = authority.broker(hosts), authority.broker(hosts)
    pems = [x509.load_der_x509_certificate(each.certificate).public_bytes(Encoding.PEM) for each in (first, second)]
    assert authority.serves(pems[0], first.key, hosts)
    assert not authority.serves(pems[0], second.key, hosts)
    assert not authority.serves(pems[0], first.key, hosts[:1])
    assert not authority.serves(b"", first.key, hosts) and not authority.serves(pems[0], b"", hosts)
    with contextlib.closing(Authority.create(tmp_path / "other", "ward", clock)) as other:
        assert not other.serves(pems[0], first.key, hosts)
    clock.now_s += 4 * 365 * DAY_S
    assert not authority.serves(pems[0], first.key, hosts)


def test_keys_are_not_in_what_python_shows_of_a_value(authority: Authority) -> None:
    made = token(authority)
    shown = repr(made) + repr(authority.part("watch", "alice")) + repr(Request(token=made.secret, csr=b"c"))
    assert "PRIVATE KEY" not in shown and repr(made.secret) not in shown and repr(made.key) not in shown


def test_roles_are_nobodys_name() -> None:
    """So that no device's certificate is the coordinator's, whatever it is called."""
    import re

    for name in ("coordinator:ward", "enroll:pi-3", "watch:alice", "broker:b"):
        assert not re.fullmatch(NAME_PATTERN, name)
    assert os.sep not in NAME_PATTERN
