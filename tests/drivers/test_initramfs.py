import stat
from pathlib import Path

from tests.drivers.initramfs import Archive, depends, with_what_it_needs


def unpacked(data: bytes) -> list[tuple[str, int, int, bytes]]:
    """Names, modes, times and contents, read as the kernel's documentation of the format says."""
    entries: list[tuple[str, int, int, bytes]] = []
    while True:
        assert data[:6] == b"070701"
        fields = [int(data[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
        mode, mtime, size, name_size = fields[1], fields[5], fields[6], fields[11]
        name = data[110 : 110 + name_size - 1].decode()
        assert data[110 + name_size - 1] == 0
        start = (110 + name_size + 3) // 4 * 4
        content = data[start : start + size]
        data = data[(start + size + 3) // 4 * 4 :]
        if name == "TRAILER!!!":
            assert data == b""
            return entries
        entries.append((name, mode, mtime, content))


def test_an_archive_holds_its_files_behind_the_folders_that_they_are_in() -> None:
    archive = Archive()
    archive.folder("/proc")
    for length in range(5):
        archive.add(f"/a/b{'c' * length}/file", b"x" * length, mode=0o755, mtime=1_700_000_000)
    entries = unpacked(archive.pack())
    seen: set[str] = set()
    for name, _, _, _ in entries:
        parent = str(Path(name).parent)
        assert parent == "." or parent in seen, f"{name} comes before its folder"
        seen.add(name)
    files = {name: (mode, mtime, content) for name, mode, mtime, content in entries if stat.S_ISREG(mode)}
    assert files == {
        f"a/b{'c' * length}/file": (stat.S_IFREG | 0o755, 1_700_000_000, b"x" * length) for length in range(5)
    }
    assert {name for name, mode, _, _ in entries if stat.S_ISDIR(mode)} >= {"proc", "a", "a/b"}


def test_a_link_comes_as_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "link").symlink_to("real")
    archive = Archive()
    archive.copy(tmp_path / "link", "/here")
    [(name, mode, _, content)] = unpacked(archive.pack())
    assert (name, content) == ("here", b"content")
    assert stat.S_ISREG(mode)


def test_folders_that_are_left_out_are_left_out_however_deep(tmp_path: Path) -> None:
    for path in ("kept.py", "deep/kept.py", "deep/tests/left.py", "tests/left.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    archive = Archive()
    archive.copy_tree(tmp_path, "/site", without=["tests"])
    assert archive.paths() == ["/site/deep/kept.py", "/site/kept.py"]


def test_a_module_is_loaded_behind_all_that_it_needs(tmp_path: Path) -> None:
    needs = {"camera": "video,buffer-core", "video": "media", "buffer_core": "media", "media": ""}
    for name, depended in needs.items():
        (tmp_path / name).write_bytes(b"\x7fELF\0license=GPL\0depends=" + depended.encode() + b"\0retpoline=Y\0")
    files = {name: tmp_path / name for name in needs}
    order = with_what_it_needs("camera", files)
    assert sorted(order) == sorted(needs)
    for name in order:
        assert all(order.index(each) < order.index(name) for each in depends(files[name].read_bytes()))
