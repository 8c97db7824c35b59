"""Files that are whole or absent, also when the disk is full or the process is killed; blobs by content."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mekt.blobs import blob_ref
from mekt.errors import SettingsError, StateError
from mekt.files import BlobStore, make_folder, new_secret, write_atomically

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", program, *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_a_file_is_written_and_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for data in (b"first", b"", b"the second one is longer"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_former_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"former")
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from mekt.errors import StateError\n"
        "from mekt.files import write_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_atomically(Path(sys.argv[1]), bytes(5000))\n"
        "except StateError as error:\n"
        "    sys.exit(str(error))\n"
    )
    ended = run(program, str(path))
    assert ended.returncode == 1
    assert f"{path}: cannot be written (File too large); free space or mend permissions" in ended.stderr
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_killed_while_it_writes_leaves_one_whole_content_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "state"
    program = (
        "import itertools, sys\n"
        "from pathlib import Path\n"
        "from mekt.files import write_atomically\n"
        "for number in itertools.count():\n"
        "    write_atomically(Path(sys.argv[1]), bytes([number % 256]) * 200_000)\n"
        "    if number == 2: print('writing', flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"writing\n"
            process.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert len(data) == 200_000 and len(set(data)) == 1


def test_threads_that_write_one_file_do_not_mix_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "state"
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_atomically(path, bytes([number]) * 50_000)
        except StateError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            data = path.read_bytes()
            assert len(data) == 50_000 and len(set(data)) == 1
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == [path]


def test_places_where_nothing_can_be_written_are_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "missing" / "state",
        tmp_path / "file" / "state",
        tmp_path / "folder",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(StateError, match="cannot be written"):
            write_atomically(path, b"data")
    with pytest.raises(StateError, match="cannot be made a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(StateError, match="cannot be made a folder"):
        make_folder(tmp_path / "file" / "below")


def test_a_file_for_a_secret_is_its_owners_alone_before_a_word_is_in_it(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        with new_secret(tmp_path / "token") as file:
            seen = (tmp_path / "token").stat()
            assert (seen.st_mode & 0o777, seen.st_size) == (0o600, 0)
            file.write(b"secret")
    finally:
        os.umask(former)
    assert (tmp_path / "token").read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_a_secret_is_written_over_nothing_and_through_no_link(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "token", tmp_path / "other"
    match kind:
        case "file":
            path.write_bytes(b"former")
        case "folder":
            path.mkdir()
        case "link":
            other.write_bytes(b"former")
            path.symlink_to(other)
        case _:
            path.symlink_to(other)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    with pytest.raises(SettingsError, match="there is a file already"), new_secret(path):
        pytest.fail("nobody gets as far as this")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()} == before
    assert path.is_symlink() or path.exists()


def test_whoever_fails_to_make_a_secret_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_secret(tmp_path / "token") as file:
        file.write(b"half of")
        raise KeyboardInterrupt
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StateError, match="No space left"), new_secret(tmp_path / "token"):
        raise full
    with pytest.raises(StateError, match="cannot be written"), new_secret(tmp_path / "missing" / "token"):
        pytest.fail("nobody gets as far as this")
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "state")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert make_folder(folder) == folder


def test_blobs_come_back_by_name_and_are_kept_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    refs = [store.put(data) for data in (b"one", b"two", b"one")]
    assert refs[0] == refs[2] == blob_ref(b"one")
    assert store.get(refs[0]) == b"one" and store.get(refs[1]) == b"two"
    assert store.get(blob_ref(b"three")) is None
    assert len(list(store.folder.iterdir())) == 2
    assert BlobStore(tmp_path / "blobs").get(refs[0]) == b"one"


@pytest.mark.parametrize("damage", [b"", b"one plus", b"onf"])
def test_a_damaged_blob_is_removed_and_may_be_put_again(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = BlobStore(tmp_path)
    ref = store.put(b"one")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert store.get(ref) is None
    assert "damaged, removed" in caplog.text
    assert list(tmp_path.iterdir()) == []
    store.put(b"one")
    path.write_bytes(damage)
    assert store.put(b"one") == ref and store.get(ref) == b"one", "put finds the damage too"


def test_only_what_is_named_is_kept_and_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    kept, gone = store.put(b"kept"), store.put(b"gone")
    (tmp_path / f".{gone.sha256.hex()}.123.tmp").write_bytes(b"go")
    store.keep_only(frozenset({kept.sha256, b"x" * 32}))
    assert store.get(kept) == b"kept" and store.get(gone) is None
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_read_or_removed_is_a_state_error(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    ref = blob_ref(b"one")
    (tmp_path / ref.sha256.hex()).mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        store.get(ref)
    with pytest.raises(StateError, match="cannot be removed"):
        store.keep_only(frozenset())


def test_a_read_only_folder_is_a_state_error(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StateError, match="Permission denied"):
        write_atomically(tmp_path / "state", b"data")
    tmp_path.chmod(0o700)


def left_by_a_crash(path: Path) -> Path:
    """Where this thread writes `path` before it has that name."""
    return path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")


def test_a_secret_is_nobody_elses_whatever_a_crash_left_and_whoever_could_read_it_before(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for each in (path, left_by_a_crash(path)):
        each.write_bytes(b"former")
        each.chmod(0o666)
    write_atomically(path, b"secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_bytes() == b"secret"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_written_through_a_link_that_somebody_else_put_in_its_way(tmp_path: Path) -> None:
    path, other = tmp_path / "own" / "access", tmp_path / "other"
    path.parent.mkdir()
    other.write_bytes(b"untouched")
    for each in (path, left_by_a_crash(path)):
        each.symlink_to(other)
    write_atomically(path, b"content", owner=os.getuid())
    assert other.read_bytes() == b"untouched" and not path.is_symlink() and path.read_bytes() == b"content"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_opens_no_secret(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "key", b"secret", mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
