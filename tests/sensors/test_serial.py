"""Serial lines over pseudo terminals: garbage, half lines, cables that are pulled, and what is no serial port."""

import os
import termios
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mekt.errors import SensorError
from mekt.schema import SchemaError, plain
from sensors.lines import LONGEST_LINE_BYTES
from sensors.serial import CC, CFLAG, IFLAG, LFLAG, OFLAG, OSPEED, SerialSettings, SerialSource, found
from sensors.settings import sensor_settings
from sensors.source import Block, Gap, Item
from tests.waiting import WAIT_S

TABLE: dict[str, Any] = {
    "kind": "serial",
    "device": "board",
    "signals": [{"name": "acc", "fields": ["1", "2"], "rate_hz": 10, "scale": [0.5]}],
}


class Board:
    """A board on a cable that can be pulled: a pseudo terminal behind a name that stays."""

    def __init__(self, name: Path) -> None:
        self._name = name
        self._ends: list[int] = []
        self.plug()

    def plug(self) -> None:
        self._ends = list(os.openpty())
        # The kernel's number of it may be another one each time.
        self._name.symlink_to(os.ttyname(self._ends[1]))

    def pull(self) -> None:
        if self._ends:
            self._name.unlink()
        while self._ends:
            os.close(self._ends.pop())

    def write(self, data: bytes) -> None:
        os.write(self._ends[0], data)

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._ends[1])


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path / "board")
    yield made
    made.pull()


def opened(tmp_path: Path, more: dict[str, Any] | None = None) -> SerialSource:
    source = sensor_settings(TABLE | (more or {})).source(tmp_path)
    assert isinstance(source, SerialSource)
    source.open()
    return source


def rows(source: SerialSource, count: int) -> dict[str, list[list[float]]]:
    """The values of the next samples, by modality, until there are so many."""
    found: dict[str, list[list[float]]] = {}
    while sum(map(len, found.values())) < count:
        items = source.read(WAIT_S)
        assert items, "nothing came"
        for item in items:
            if isinstance(item, Block):
                found.setdefault(item.modality, []).extend(item.values.tolist())
    return found


def test_lines_become_samples_in_their_unit(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path)
    board.write(b"\n1,2\n3,-4.5\r\n")
    assert rows(source, 2) == {"acc": [[0.5, 1], [1.5, -2.25]]}
    [modality] = source.modalities
    assert (modality.name, modality.shape, modality.rate_hz, modality.unit) == ("acc", (2,), 10, "g")
    assert source.dropped.counts == {}
    source.close()


def test_the_line_that_was_under_way_when_the_port_was_opened_is_left_out(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path)
    board.write(b"3,4\n1,2\n")
    assert rows(source, 1) == {"acc": [[0.5, 1]]}
    source.close()


def test_half_a_line_is_no_sample_until_the_rest_has_come(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path)
    board.write(b"\n1,")
    assert source.read(0.05) == ()
    assert source.read(0) == ()
    board.write(b"2\n")
    assert rows(source, 1) == {"acc": [[0.5, 1]]}
    source.close()


def test_garbage_is_counted_and_what_follows_is_read(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path, {"columns": 2})
    board.write(b"\n\xff\xfe\n# ready\n1,x\n1,2,3\n7\nok,go\n")
    board.write(b"1,2\n")
    assert rows(source, 1) == {"acc": [[0.5, 1]]}
    assert source.dropped.counts == {
        "a line that is no text; check the baud": 1,
        "acc: a column that is no number": 2,
        "a line with too few or too many columns": 2,
    }
    source.close()


def test_a_line_that_is_too_long_is_counted_and_what_follows_is_read(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path)
    board.write(b"\n")
    for _ in range(LONGEST_LINE_BYTES // 1024 + 1):
        board.write(b"9" * 1024)
        assert source.read(0.01) == ()
    board.write(b"\n1,2\n")
    assert rows(source, 1) == {"acc": [[0.5, 1]]}
    assert source.dropped.counts == {"a line that is too long": 1}
    source.close()


def test_control_characters_are_bytes_like_all_others(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path, {"baud": 9600})
    # What would end a process, a file or the flow on a terminal.
    board.write(b"\n\x03\x04\x11\x13\x1a\n1,2\n")
    assert rows(source, 1) == {"acc": [[0.5, 1]]}
    modes = board.modes()
    assert (modes[IFLAG], modes[OFLAG], modes[LFLAG]) == (termios.IGNBRK, 0, 0)
    assert modes[CFLAG] & (termios.PARENB | termios.CSTOPB | termios.HUPCL | termios.CRTSCTS) == 0
    assert modes[CFLAG] & termios.CSIZE == termios.CS8
    assert modes[OSPEED] == termios.B9600
    assert modes[CC][termios.VMIN] in (1, b"\x01")
    source.close()


def test_labels_name_columns_in_whatever_order_they_come(board: Board, tmp_path: Path) -> None:
    signals = [
        {"name": "acc", "fields": ["ax", "ay"], "rate_hz": 10},
        {"name": "gyro", "fields": ["g"], "rate_hz": 10},
    ]
    source = opened(tmp_path, {"separator": " ", "signals": signals})
    board.write(b"\nay:2 ax:1\ng=7\nax:3 g:8 ay:4\nbattery:80\n")
    assert rows(source, 4) == {"acc": [[1, 2], [3, 4]], "gyro": [[7], [8]]}
    assert source.read(0.05) == ()
    assert source.dropped.counts == {"a line without a column of any signal": 1}
    source.close()


def blocks(items: list[Item]) -> list[list[float] | None]:
    return [item.t_s.round(6).tolist() if isinstance(item, Block) else None for item in items]


TIMED = {
    "signals": [{"name": "acc", "fields": ["2", "3"], "rate_hz": 10}],
    "time": {"field": "1", "unit": "ms", "bits": 16},
}


def made(more: dict[str, Any] | None = None) -> SerialSource:
    settings = sensor_settings(TABLE | (more or {}))
    assert isinstance(settings, SerialSettings)
    source = SerialSource(settings, Path("board"))
    source._lines.feed(b"\n")
    return source


def test_a_time_column_is_the_boards_clock_in_our_time() -> None:
    source = made(TIMED)
    assert blocks(source._items(b"65400,1,2\n65500,3,4\n", 50.0)) == [[49.9, 50.0]]
    # The counter begins at 0 again, as it must; then the board is reset.
    assert blocks(source._items(b"64,5,6\n", 50.1)) == [[50.1]]
    assert blocks(source._items(b"164,5,6\n0,5,6\n", 50.2)) == [[50.2], None, [50.2]]
    assert source.dropped.counts == {}


def test_a_line_without_its_time_is_counted() -> None:
    source = made(TIMED)
    assert blocks(source._items(b"x,1,2\n100,3,4\n", 50.0)) == [[50.0]]
    assert source.dropped.counts == {"acc: a time that is no number": 1}


def test_without_a_time_column_lines_that_come_together_are_spread() -> None:
    source = made()
    assert blocks(source._items(b"1,2\n3,4\n5,6\n", 50.0)) == [[49.8, 49.9, 50.0]]


@given(st.lists(st.binary(max_size=80) | st.sampled_from([b"1,2\n", b"65535,1,2\n", b"ax:1\n"]), max_size=20))
def test_whatever_a_board_writes_it_is_numbers_or_counted(pieces: list[bytes]) -> None:
    for source in (made(), made(TIMED), made({"separator": " ", "columns": 3})):
        for number, piece in enumerate(pieces):
            for item in source._items(piece, 100.0 + number):
                assert isinstance(item, Block | Gap)
                if isinstance(item, Block):
                    assert np.isfinite(item.values).all() and np.isfinite(item.t_s).all()
        assert len(source._lines._part) <= LONGEST_LINE_BYTES


def test_a_cable_that_is_pulled_is_a_fault_until_it_is_back_under_the_same_name(board: Board, tmp_path: Path) -> None:
    source = opened(tmp_path)
    board.write(b"\n1,2\n3,")
    assert rows(source, 1) == {"acc": [[0.5, 1]]}
    board.pull()
    for _ in range(2):
        with pytest.raises(SensorError, match=r"board: it is not there or was unplugged; plug it in, or name one of"):
            source.read(WAIT_S)
    source.close()
    source.close()
    with pytest.raises(SensorError, match=r"board: it is not there or was unplugged"):
        source.open()
    board.plug()
    source.open()
    # What was cut off has no other half.
    board.write(b"4\n5,6\n")
    assert rows(source, 1) == {"acc": [[2.5, 3]]}
    source.close()


def test_one_process_reads_a_port(board: Board, tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(SensorError, match=r"board: another process reads it; end that one$"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_what_is_no_serial_port_is_refused(tmp_path: Path) -> None:
    (tmp_path / "board").write_bytes(b"1,2\n")
    with pytest.raises(SensorError, match=r"board: it is no serial port; name one below /dev/serial/by-id$"):
        opened(tmp_path)
    (tmp_path / "board").unlink()
    os.mkfifo(tmp_path / "board")
    with pytest.raises(SensorError, match=r"board: it is no serial port"):
        opened(tmp_path)


def test_a_port_that_is_not_open_is_not_read(tmp_path: Path) -> None:
    source = sensor_settings(TABLE).source(tmp_path)
    with pytest.raises(SensorError, match=r"board: not open; open a source before it is read$"):
        source.read(0)


def test_a_file_descriptor_is_given_back_however_opening_ends(board: Board, tmp_path: Path) -> None:
    open_files = Path("/proc/self/fd")
    first = opened(tmp_path)
    before = len(list(open_files.iterdir()))
    for _ in range(5):
        with pytest.raises(SensorError):
            opened(tmp_path)
    assert len(list(open_files.iterdir())) == before
    first.close()
    assert len(list(open_files.iterdir())) == before - 1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"baud": 115201}, "baud: 115201 is no speed that this system knows; the nearest is 115200"),
        ({"baud": 0}, "baud: 0 is no speed that this system knows; the nearest is 50"),
        ({"separator": ""}, "separator: expected at least 1 characters, got 0"),
        ({"signals": []}, "signals: expected at least 1 entries, got 0"),
        ({"signals": TABLE["signals"] * 2}, "signals: a name occurs twice; name each once"),
        ({"columns": 0}, "columns: expected at least 1, got 0"),
        ({"time": {"field": "1", "unit": "h"}}, "time.unit: expected one of 's', 'ms', 'us', 'ns', got 'h'"),
    ],
)
def test_settings_that_cannot_work_are_explained(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        sensor_settings(TABLE | more)
    assert caught.value.problems == [problem]


def test_settings_come_back_as_they_were() -> None:
    settings = sensor_settings(TABLE | TIMED | {"baud": 9600, "columns": 3})
    assert sensor_settings(plain(settings)) == settings
    assert settings.modalities == ("acc",)


def test_ports_are_found_by_the_names_that_stay_theirs(tmp_path: Path) -> None:
    assert found(tmp_path / "none") == ()
    (tmp_path / "usb-Adafruit_Feather-if00").symlink_to("/dev/null")
    (tmp_path / "usb-1a86_USB_Serial-if00").symlink_to("/dev/zero")
    names = [each.name for each in found(tmp_path)]
    assert names == ["usb-1a86_USB_Serial-if00", "usb-Adafruit_Feather-if00"]


def test_the_table_of_a_port_that_was_found_opens_it(tmp_path: Path) -> None:
    board = Board(tmp_path / "usb-board-if00")
    [port] = found(tmp_path)
    [table] = tomllib.loads(port.toml)["sensors"]
    source = sensor_settings(table).source(Path("/elsewhere"))
    source.open()
    board.write(b"\n1,2,3\n")
    items = source.read(WAIT_S)
    assert items
    assert [item.values.tolist() for item in items if isinstance(item, Block)] == [[[1, 2, 3]]]
    source.close()
    board.pull()
