"""The coordinator's signatures: on what, and under numbers that grow over clocks, copies, processes and kills."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordinator.authority import Authority
from coordinator.signer import KEY, make_key, read_key, write_public
from mekt.clock import DAY_S
from mekt.ed25519 import is_signed
from mekt.errors import SettingsError
from mekt.identity import read_public
from mekt.signature import NUMBER_BYTES, to_sign
from tests.coordinator.test_authority import NOW_S, ROOT, Clock, new_key_pem, number_of
from tests.coordinator.test_authority import authority as authority  # fixtures
from tests.coordinator.test_authority import clock as clock


def test_numbers_grow_by_every_signature_whatever_the_clock_does(authority: Authority, clock: Clock) -> None:
    numbers = []
    for change_s in (0, 0, 5, -DAY_S, 0, 3 * DAY_S, -NOW_S, 0):
        clock.now_s += change_s
        numbers.append(number_of(authority.signer.sign("round", b"content")))
    assert numbers == sorted(set(numbers))


def test_a_signature_is_on_purpose_number_and_content(authority: Authority) -> None:
    signature = authority.signer.sign("round", b"content")
    number, signed = number_of(signature), signature[NUMBER_BYTES:]
    assert is_signed(to_sign("round", number, b"content"), signed, authority.signer.public_key)
    for other in (
        to_sign("release", number, b"content"),
        to_sign("round", number + 1, b"content"),
        to_sign("round", number, b"contend"),
    ):
        assert not is_signed(other, signed, authority.signer.public_key)


def test_an_authority_that_was_restored_from_an_old_copy_signs_above_what_devices_have_seen(
    authority: Authority, tmp_path: Path, clock: Clock
) -> None:
    shutil.copytree(authority.folder, tmp_path / "copy")
    seen = max(number_of(authority.signer.sign("round", b"content")) for _ in range(50))
    clock.now_s += 60
    with contextlib.closing(Authority(tmp_path / "copy", clock)) as restored:
        assert number_of(restored.signer.sign("round", b"content")) > seen


SIGNS = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from coordinator.authority import Authority\n"
    "authority = Authority(Path(sys.argv[1]), lambda: 1.8e9)\n"
    "while True:\n"
    "    print(int.from_bytes(authority.signer.sign('round', b'content')[:8], 'big'), flush=True)\n"
    "    time.sleep(0.05)\n"  # else one of two would have the file to itself
)


def test_numbers_grow_over_two_processes_and_over_kills(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    Authority.create(folder, "ward").close()

    def signer() -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", SIGNS, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    seen: list[list[int]] = []
    for _ in range(2):
        pair = [signer(), signer()]
        for process in pair:
            assert process.stdout is not None and process.stdout.readline()
        time.sleep(0.3)
        for process in pair:
            process.send_signal(signal.SIGKILL)
            lines = process.communicate()[0].split("\n")[:-1]
            seen.append([int(line) for line in lines])
    for numbers in seen:
        assert numbers == sorted(set(numbers))
    everything = [number for numbers in seen for number in numbers]
    assert len(set(everything)) == len(everything) > 4, "no number twice"
    assert min(seen[2] + seen[3]) > max(seen[0] + seen[1])


def test_a_new_key_is_two_files_and_the_one_that_signs_is_its_owners_alone(tmp_path: Path) -> None:
    make_key(tmp_path)
    key = read_key(tmp_path)
    assert read_public(tmp_path / "coordinator.pub") == key.public_key().public_bytes_raw()
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
    before = (tmp_path / KEY).read_bytes()
    make_key(tmp_path)
    assert (tmp_path / KEY).read_bytes() != before
    write_public(tmp_path, bytes(32))
    assert read_public(tmp_path / "coordinator.pub") == bytes(32)


def test_what_is_no_key_that_signs_is_told_from_one_that_is_not_there_and_one_that_others_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_key(tmp_path)
    for raw in (b"", b"-----BEGIN PRIVATE KEY-----", new_key_pem()):
        (tmp_path / KEY).write_bytes(raw)
        (tmp_path / KEY).chmod(0o600)
        with pytest.raises(ValueError):
            read_key(tmp_path)
    (tmp_path / KEY).chmod(0o640)
    with pytest.raises(SettingsError, match="others can read this secret"):
        read_key(tmp_path)
