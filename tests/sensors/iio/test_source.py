"""IIO devices as sources, against the kernel's files in a temporary tree: bytes in, windows' samples out."""

import errno
import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mekt import catalogue
from mekt.errors import SensorError
from mekt.modality import Modality
from mekt.schema import SchemaError, plain
from sensors.iio.attributes import UDEV_RULE
from sensors.iio.buffer import CHUNK_BYTES, MOST_CHUNKS, MOST_SENSELESS
from sensors.iio.polling import MOST_FAILURES
from sensors.iio.source import SILENT_S, IioSettings, IioSource, found
from sensors.settings import sensor_settings
from sensors.source import Block, Item
from tests.sensors.iio.tree import AK8963, HID_ACCEL, MPU6050, Tree, hid_sample, mpu6050_sample

TABLE: dict[str, Any] = {"kind": "iio", "modalities": ["acc", "gyro"], "name": "mpu6050"}
G = 9.80665


@pytest.fixture
def mpu6050(tree: Tree) -> Tree:
    tree.add(0, MPU6050)
    tree.add_trigger(0, "mpu6050-dev0")
    return tree


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A tree for many examples."""
    made = Tree(tmp_path_factory.mktemp("iio"))
    made.add(0, MPU6050)
    yield made
    made.close()


def blocks(items: Sequence[Item] | None) -> dict[str, Block]:
    """The blocks, by modality, of which there may be one each."""
    assert items is not None
    there = [each for each in items if isinstance(each, Block)]
    assert len(there) == len(items) == len({each.modality for each in there})
    return {each.modality: each for each in there}


def problem(source: IioSource, timeout_s: float | None = None) -> str:
    """What opening the source, or reading from it, says."""
    with pytest.raises(SensorError) as caught:
        if timeout_s is None:
            source.open()
        else:
            source.read(timeout_s)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Settings


def test_settings_are_read_and_written_again() -> None:
    for table in (
        TABLE,
        {"kind": "iio", "modalities": ["waist"], "label": "accel-base", "channels": {"waist": "accel"}, "rate_hz": 104},
        TABLE | {"at": "1-0068", "access": "buffer", "mount_matrix": [0, 1, 0, 1, 0, 0, 0, 0, -1], "trigger": "mekt"},
    ):
        settings = sensor_settings(table)
        assert sensor_settings(plain(settings)) == settings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, 'name: say which device by name, label or at, such as name = "mpu6050"'),
        (
            {"modalities": ["acc", "waist"]},
            'modalities: waist is none of acc, gyro, mag; say in channels which kind it is, such as {waist = "accel"}',
        ),
        (
            {"modalities": ["acc", "waist"], "channels": {"waist": "accel"}},
            "channels: two modalities are of one kind; a device has one of each",
        ),
        ({"channels": {"waist": "accel"}}, "channels: waist is not among the modalities"),
        ({"mount_matrix": [1.0]}, "mount_matrix: expected nine numbers by rows, got 1"),
        ({"rate_hz": 0}, "rate_hz: expected at least 0.1, got 0.0"),
        ({"access": "dma"}, "access: expected one of 'any', 'buffer', 'polled', got 'dma'"),
    ],
)
def test_settings_that_cannot_work_are_explained(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError) as caught:
        sensor_settings(TABLE | change)
    assert caught.value.problems == [said]


def test_a_source_says_what_it_gives_before_it_is_opened(tmp_path: Path) -> None:
    source = sensor_settings({"kind": "iio", "modalities": ["mag", "acc"], "name": "x", "rate_hz": 20}).source(tmp_path)
    assert source.modalities == (
        Modality(name="mag", shape=(3,), rate_hz=20, unit="uT"),
        Modality(name="acc", shape=(3,), rate_hz=20, unit="g"),
    )
    with pytest.raises(SensorError, match="open a source before it is read"):
        source.read(0)
    source.close()


# The buffer


def test_one_buffer_of_two_kinds_gives_two_modalities_of_the_same_instants(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"), access="buffer")
    source.open()
    now_s = mpu6050.clock.now_s
    mpu6050.send(mpu6050_sample((164, -16400, 820), (10, -20, 1000), now_s - 0.02))
    mpu6050.send(mpu6050_sample((0, 0, -32768), (32767, 0, 0), now_s))
    given = blocks(source.read(0))
    assert list(given) == ["acc", "gyro"]
    for each in given.values():
        np.testing.assert_allclose(each.t_s, [now_s - 0.02, now_s], rtol=0, atol=1e-9)
        assert each.values.dtype == np.float32
    # By hand: raw times scale, then the matrix [0 1 0; -1 0 0; 0 0 1] times the vector: (y, -x, z).
    one_g = 0.000598 / G
    np.testing.assert_allclose(
        given["acc"].values, [[-16400 * one_g, -164 * one_g, 820 * one_g], [0, 0, -32768 * one_g]], rtol=1e-6
    )
    np.testing.assert_allclose(
        given["gyro"].values,
        [[-20 * 0.001064724, -10 * 0.001064724, 1.064724], [0, -32767 * 0.001064724, 0]],
        rtol=1e-6,
    )
    source.close()


def test_garbage_above_the_bits_of_a_hid_sensor_does_not_count(tree: Tree) -> None:
    tree.add(3, HID_ACCEL, at="HID-SENSOR-200073.3.auto")
    tree.add_trigger(0, "accel_3d-dev3")
    source = tree.source(name="accel_3d", access="buffer")
    source.open()
    assert tree.text("trigger/current_trigger", 3) == "accel_3d-dev3"
    tree.send(hid_sample((1, -1000, 32767), tree.clock.now_s), 3)
    tree.send(hid_sample((-1, 0, 1000), tree.clock.now_s, garbage=0xFFFF), 3)
    acc = blocks(source.read(0))["acc"]
    np.testing.assert_allclose(acc.values, [[0.001, -1, 32.767], [-0.001, 0, 1]], rtol=1e-6)
    source.close()
    assert tree.text("trigger/current_trigger", 3) == ""


def test_what_the_buffer_is_set_to_and_in_which_order(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc",), rate_hz=60, batch_s=0.2)
    source.open()
    assert mpu6050.kernel.log == [
        ("sampling_frequency", "50"),
        ("current_timestamp_clock", "monotonic"),
        ("buffer0/in_temp_en", "0"),
        ("buffer0/in_accel_x_en", "1"),
        ("buffer0/in_accel_y_en", "1"),
        ("buffer0/in_accel_z_en", "1"),
        ("buffer0/in_timestamp_en", "1"),
        ("buffer0/length", "200"),
        ("buffer0/watermark", "10"),
        ("buffer0/enable", "1"),
    ]


def test_closing_stops_the_buffer_and_puts_back_all_that_was_changed(mpu6050: Tree) -> None:
    before = mpu6050.snapshot()
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    assert mpu6050.text("buffer0/enable") == "1"
    assert mpu6050.snapshot() != before
    source.close()
    assert mpu6050.snapshot() == before
    source.close()
    assert mpu6050.snapshot() == before


def test_a_buffer_that_a_killed_process_left_running_is_taken_over(tree: Tree) -> None:
    tree.add(0, MPU6050 | {"buffer0/enable": "1", "buffer0/in_anglvel_x_en": "1"})
    source = tree.source()
    source.open()
    assert tree.kernel.log[0] == ("buffer0/enable", "0")
    assert [tree.text(f"buffer0/{each}") for each in ("enable", "in_anglvel_x_en")] == ["1", "0"]


def test_channels_that_stay_enabled_are_counted_with(mpu6050: Tree) -> None:
    mpu6050.kernel.refused["in_temp_en"] = errno.EINVAL
    source = mpu6050.source()
    source.open()
    t_s = mpu6050.clock.now_s
    # Three axes and the temperature: eight bytes, then the time stamp.
    mpu6050.send(bytes.fromhex("0001 0002 0003 f8e0") + round(t_s * 1e9).to_bytes(8, "little"))
    acc = blocks(source.read(0))["acc"]
    np.testing.assert_allclose(acc.values, np.array([[2, -1, 3]]) * 0.000598 / G, rtol=1e-6)
    assert acc.t_s.tolist() == pytest.approx([t_s])


def test_reading_returns_with_nothing_when_nothing_comes_and_with_what_is_below_the_watermark(mpu6050: Tree) -> None:
    source = mpu6050.source()
    source.open()
    assert source.read(0.01) == []
    mpu6050.send(
        mpu6050_sample((1, 2, 3), (0, 0, 0), mpu6050.clock.now_s)[:6]
        + bytes(2)
        + round(mpu6050.clock.now_s * 1e9).to_bytes(8, "little")
    )
    assert len(blocks(source.read(0.01))["acc"].t_s) == 1
    assert source.read(0) == []


def test_a_sample_cut_in_two_is_one_sample(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    data = mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s)
    for byte in data[:-1]:
        mpu6050.send(bytes([byte]))
        assert source.read(0) == []
    mpu6050.send(data[-1:])
    np.testing.assert_allclose(blocks(source.read(0))["gyro"].values, np.array([[5, -4, 6]]) * 0.001064724, rtol=1e-6)


def test_a_flood_is_read_in_bounded_portions_and_completely(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    sample = mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s)
    # A pipe holds 64 KiB.
    for _ in range(2):
        mpu6050.send(sample * 2700)
        assert len(blocks(source.read(0))["acc"].t_s) == 2700


def test_the_mount_matrix_of_the_settings_replaces_the_drivers(mpu6050: Tree) -> None:
    source = mpu6050.source(mount_matrix=(0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    source.open()
    mpu6050.send(bytes.fromhex("0001 0002 0003 0000") + round(mpu6050.clock.now_s * 1e9).to_bytes(8, "little"))
    np.testing.assert_allclose(blocks(source.read(0))["acc"].values, np.array([[3, 1, 2]]) * 0.000598 / G, rtol=1e-6)


# Time


def test_samples_are_of_a_known_latency_before_their_stamps(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"), access="buffer", latency_s=0.0085)
    source.open()
    now_s = mpu6050.clock.now_s
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), now_s))
    for block in blocks(source.read(0)).values():
        np.testing.assert_allclose(block.t_s, [now_s - 0.0085], rtol=0, atol=1e-6)


def test_stamps_of_the_wall_clock_become_monotonic_where_the_clock_cannot_be_chosen(mpu6050: Tree) -> None:
    mpu6050.kernel.refused["current_timestamp_clock"] = errno.EINVAL
    source = mpu6050.source(modalities=("acc", "gyro"), access="buffer")
    source.open()
    now_s, wall_s = mpu6050.clock.now_s, mpu6050.clock.wall_s
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), now_s + wall_s - 0.1))
    # A wall clock's seconds are large; half a microsecond is what floats keep of them.
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [now_s - 0.1], rtol=0, atol=1e-6)


def test_an_old_kernel_that_does_not_say_which_clock_stamps_by_the_wall_clock(tree: Tree) -> None:
    tree.add(0, {name: text for name, text in MPU6050.items() if name != "current_timestamp_clock"})
    source = tree.source(modalities=("acc", "gyro"), access="buffer")
    source.open()
    tree.send(mpu6050_sample((1, 2, 3), (4, 5, 6), tree.clock.now_s + tree.clock.wall_s))
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [tree.clock.now_s], rtol=0, atol=1e-6)


def test_samples_stamped_before_the_wall_clock_was_set_are_dropped_and_those_behind_it_right(
    mpu6050: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    mpu6050.kernel.refused["current_timestamp_clock"] = errno.EINVAL
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    clock = mpu6050.clock
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), clock.now_s + clock.wall_s))
    clock.wall_s -= 3600
    assert source.read(0) == []
    assert "the clock was set; 1 samples have no time" in caplog.text
    clock.now_s += 0.02
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), clock.now_s + clock.wall_s))
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [clock.now_s], rtol=0, atol=1e-6)


def test_a_driver_that_stamps_with_nothing_is_timed_by_arrival(mpu6050: Tree, caplog: pytest.LogCaptureFixture) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"), rate_hz=50)
    source.open()
    sample = mpu6050_sample((1, 2, 3), (4, 5, 6), 0)
    mpu6050.send(sample * 3)
    now_s = mpu6050.clock.now_s
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [now_s - 0.04, now_s - 0.02, now_s])
    assert "its stamps are no times; samples are timed as they come" in caplog.text
    mpu6050.clock.now_s += 0.05
    mpu6050.send(sample * 2)
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [now_s + 0.025, now_s + 0.05])
    # After a pause nobody knows what was lost: a period apart, up to now.
    mpu6050.clock.now_s += 5
    mpu6050.send(sample * 2)
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [now_s + 5.03, now_s + 5.05])


def test_a_buffer_without_a_time_stamp_is_timed_by_arrival(tree: Tree) -> None:
    tree.add(0, {name: text for name, text in MPU6050.items() if "timestamp" not in name})
    source = tree.source(access="buffer")
    source.open()
    tree.send(bytes.fromhex("0001 0002 0003") * 2)
    assert blocks(source.read(0))["acc"].t_s.tolist() == pytest.approx([tree.clock.now_s - 0.02, tree.clock.now_s])


def test_single_samples_whose_stamps_are_no_times_are_dropped(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    now_s = mpu6050.clock.now_s
    for t_s in (now_s - 0.02, 0.0, now_s + 1e6, -1e9, now_s):
        mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), t_s))
    assert blocks(source.read(0))["acc"].t_s.tolist() == pytest.approx([now_s - 0.02, now_s])


# Garbage and the end


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=200), max_size=12))
def test_whatever_a_device_gives_is_samples_or_one_documented_error(lasting: Tree, reads: list[bytes]) -> None:
    source = lasting.source(modalities=("acc", "gyro"), access="buffer")
    source.open()
    given = 0
    for data in reads:
        lasting.send(data)
        lasting.clock.now_s += 0.1
        try:
            there = blocks(source.read(0))
        except SensorError:
            source.open()
            continue
        for each in there.values():
            assert np.isfinite(each.t_s).all()
            assert each.values.shape == (len(each.t_s), 3)
        given += len(there["acc"].t_s) if there else 0
    assert given <= sum(map(len, reads)) // 24
    source.close()


def test_stamps_that_cease_to_be_times_end_the_reading_so_that_it_begins_in_step_again(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s))
    assert len(blocks(source.read(0))) == 2
    # One byte too many, and every sample after it is out of step.
    mpu6050.send(b"\0")
    for _ in range(MOST_SENSELESS - 1):
        mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s))
        assert source.read(0) == []
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s))
    assert "its time stamps have ceased to be times" in problem(source, 0)
    source.open()
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s))
    assert len(blocks(source.read(0))) == 2


def test_an_unplugged_device_is_an_error_and_is_found_again_under_another_number(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    mpu6050.kernel.gone = True
    said = problem(source, 0)
    assert said == (
        "mpu6050 at 1-0068 (accel, anglvel): No such device;"
        " it was unplugged or its driver was unloaded: plug it in again"
    )
    mpu6050.remove(0)
    source.close()
    assert problem(source).endswith(
        'no device has name "mpu6050"; there is nothing: is the driver loaded, and the chip in the device tree?'
    )
    mpu6050.kernel.gone = False
    mpu6050.add(1, AK8963, at="1-000c")
    mpu6050.add(4, MPU6050)
    source.open()
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s), 4)
    assert len(blocks(source.read(0))["acc"].t_s) == 1
    source.close()


def test_a_node_that_ends_is_an_unplugged_device(mpu6050: Tree) -> None:
    source = mpu6050.source()
    source.open()
    mpu6050.remove(0)
    assert "plug it in again" in problem(source, 0)
    source.close()


def test_a_device_that_falls_silent_is_an_error_that_names_its_trigger(mpu6050: Tree) -> None:
    source = mpu6050.source()
    source.open()
    mpu6050.clock.now_s += SILENT_S
    assert source.read(0) == []
    mpu6050.clock.now_s += 0.1
    assert (
        "nothing for 10 s, buffered at 50 Hz by trigger mpu6050-dev0, stamped by the monotonic clock; look whether its"
        in problem(source, 0)
    )


# Finding


def test_devices_are_told_apart_by_label_or_bus_address_where_the_name_is_not_enough(tree: Tree) -> None:
    tree.add(0, MPU6050 | {"label": "accel-base"}, at="1-0068")
    tree.add(1, MPU6050 | {"label": "accel-display", "in_accel_scale": "0.002392"}, at="1-0069")
    assert problem(tree.source()).endswith(
        '2 devices have name "mpu6050": mpu6050 at 1-0068, label accel-base (accel, anglvel);'
        " mpu6050 at 1-0069, label accel-display (accel, anglvel); add `at` or `label` to the [[sensors]] table"
    )
    for wanted in (
        {"at": "1-0069"},
        {"name": "", "label": "accel-display"},
        {"label": "accel-display", "at": "1-0069"},
    ):
        source = tree.source(access="polled", **wanted)
        source.open()
        np.testing.assert_allclose(blocks(source.read(0))["acc"].values[0, 0], -16400 * 0.002392 / G, rtol=1e-6)
        source.close()


def test_a_device_without_the_kind_says_what_it_has(tree: Tree) -> None:
    tree.add(2, AK8963, at="1-000c")
    source = tree.source(name="ak8963", modalities=("acc", "mag"))
    with pytest.raises(SensorError) as caught:
        source.open()
    assert (
        str(caught.value) == "ak8963 at 1-000c (magn): has no three axes for acc; ask for what it has, or name another"
    )
    assert caught.value.entry is catalogue.MODALITY_MISSING


def test_what_is_found_opens_what_was_found(tree: Tree) -> None:
    tree.add(0, MPU6050, at="1-0068")
    tree.add(1, MPU6050, at="1-0069")
    tree.add(2, AK8963, at="1-000c")
    tree.add(3, HID_ACCEL | {"label": 'a "quoted" label'}, at="HID-SENSOR-200073.3.auto")
    tree.add(10, {"name": "bmp280", "in_pressure_input": "101.3"}, at="1-0076")
    there = found(tree.root)
    assert [(each.kind, each.name, each.text) for each in there] == [
        ("iio", "1-0068", "mpu6050 at 1-0068 (accel, anglvel)"),
        ("iio", "1-0069", "mpu6050 at 1-0069 (accel, anglvel)"),
        ("iio", "ak8963", "ak8963 at 1-000c (magn)"),
        ("iio", 'a "quoted" label', 'accel_3d at HID-SENSOR-200073.3.auto, label a "quoted" label (accel)'),
    ]
    for each in there:
        [table] = tomllib.loads(each.toml)["sensors"]
        settings = sensor_settings(table | {"root": str(tree.root), "nodes": str(tree.nodes)})
        assert isinstance(settings, IioSettings)
        source = IioSource(settings, kernel=tree.kernel)
        source.open()
        source.close()


def test_a_machine_without_iio_has_nothing(tmp_path: Path) -> None:
    assert found(tmp_path / "none") == ()


# Rights


@pytest.mark.parametrize("where", ["buffer0/in_accel_x_en", "dev/iio:device0", "buffer0/enable", "sampling_frequency"])
def test_without_rights_the_remedy_is_a_udev_rule_and_any_access_polls(
    mpu6050: Tree, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = mpu6050.snapshot()
    for refused in (mpu6050.kernel.refused, mpu6050.kernel.unreadable if where.startswith("dev") else {}):
        refused[where] = errno.EACCES
    said = problem(mpu6050.source(access="buffer"))
    assert "Permission denied; make the group (groupadd --system iio)" in said
    assert UDEV_RULE in said
    assert mpu6050.snapshot() == before
    source = mpu6050.source(access="any")
    source.open()
    assert "it is polled, which gives poorer samples" in caplog.text
    assert len(blocks(source.read(0))["acc"].t_s) == 1
    source.close()
    assert mpu6050.snapshot() == before


def test_a_read_only_sys_is_told_from_missing_rights(mpu6050: Tree) -> None:
    mpu6050.kernel.refused["sampling_frequency"] = errno.EROFS
    assert "/sys is read-only here" in problem(mpu6050.source(access="buffer"))


def test_another_program_that_has_the_device_is_named_as_the_reason(mpu6050: Tree) -> None:
    mpu6050.kernel.unreadable["dev/iio:device0"] = errno.EBUSY
    assert "another program uses it (iio-sensor-proxy?): stop that program" in problem(mpu6050.source())
    assert mpu6050.kernel.log == []


def test_a_container_without_the_node_polls(mpu6050: Tree) -> None:
    (mpu6050.nodes / "iio:device0").unlink()
    assert "let udev make it, or give it to the container" in problem(mpu6050.source(access="buffer"))
    source = mpu6050.source()
    source.open()
    assert len(blocks(source.read(0))["acc"].t_s) == 1


# Triggers


def test_a_trigger_of_the_settings_is_used_and_its_timer_set(mpu6050: Tree) -> None:
    timer = mpu6050.add_trigger(7, "mekt", sampling_frequency="100.000")
    source = mpu6050.source(trigger="mekt", rate_hz=25)
    source.open()
    assert mpu6050.text("trigger/current_trigger") == "mekt"
    assert (timer / "sampling_frequency").read_text() == "25\n"
    source.close()
    assert mpu6050.text("trigger/current_trigger") == "mpu6050-dev0"
    assert (timer / "sampling_frequency").read_text() == "100.000\n"


def test_a_trigger_that_is_not_there_is_told_with_those_that_are(mpu6050: Tree) -> None:
    assert 'no trigger "mekt"; triggers there are: mpu6050-dev0; name one as `trigger`, or make a timer' in problem(
        mpu6050.source(trigger="mekt", access="buffer")
    )


def test_a_buffer_that_cannot_be_enabled_says_what_would_help(tree: Tree) -> None:
    tree.add(0, MPU6050 | {"trigger/current_trigger": ""})
    kernel = tree.kernel
    write = kernel.write

    def refusing(path: Path, text: str) -> None:
        if path.name == "enable" and text == "1":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        write(path, text)

    kernel.write = refusing  # type: ignore[method-assign]
    before = tree.snapshot()
    assert "the buffer cannot be enabled with no trigger (Invalid argument); triggers there are: none" in problem(
        tree.source(access="buffer")
    )
    assert tree.snapshot() == before


# What a driver says wrongly


@pytest.mark.parametrize(
    ("attribute", "text", "said"),
    [
        ("in_accel_scale", "nan", "in_accel_scale: expected a finite number, got 'nan'"),
        ("in_accel_scale", "", "in_accel_scale: could not convert string to float: ''"),
        ("in_accel_mount_matrix", "1, 0; 0, 1", "expected three rows of three numbers, got '1, 0; 0, 1'"),
        ("buffer0/in_accel_y_type", "le:s16", "in_accel_y_type: has type 'le:s16'; expected text like le:s12/16>>4"),
        ("buffer0/in_accel_y_index", "0", "accel_y stands at 0, as another channel does"),
        ("sampling_frequency_available", "fast", "sampling_frequency_available: could not convert"),
    ],
)
def test_what_a_driver_says_wrongly_is_named_and_everything_put_back(
    tree: Tree, attribute: str, text: str, said: str
) -> None:
    tree.add(0, MPU6050 | {attribute: text})
    before = tree.snapshot()
    assert said in problem(tree.source())
    assert tree.snapshot() == before


def test_a_rate_that_is_refused_stays_and_is_reckoned_with(mpu6050: Tree, caplog: pytest.LogCaptureFixture) -> None:
    mpu6050.kernel.refused["sampling_frequency"] = errno.EINVAL
    source = mpu6050.source()
    source.open()
    assert "sampling_frequency 50 is refused (Invalid argument); it stays 20" in caplog.text
    assert mpu6050.text("buffer0/length") == "80"


# Polling


def test_polled_samples_come_at_the_rate_without_drift(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"), access="polled", rate_hz=50)
    source.open()
    began_s = mpu6050.clock.now_s
    times: list[float] = []
    given: dict[str, Block] = {}
    for timeout_s in (0.5, 0.013, 0.001, 0.5):
        before_s = mpu6050.clock.now_s
        given = blocks(source.read(timeout_s))
        assert mpu6050.clock.now_s - before_s <= timeout_s + 1e-9
        times += given["acc"].t_s.tolist() if given else []
    np.testing.assert_allclose(times, began_s + np.arange(len(times)) * 0.02, rtol=0, atol=1e-9)
    assert len(times) == 1 + int(1.014 / 0.02)
    np.testing.assert_allclose(given["acc"].values[-1], np.array([-16400, -164, 820]) * 0.000598 / G, rtol=1e-6)
    np.testing.assert_allclose(given["gyro"].values[-1], np.array([-20, -10, 1000]) * 0.001064724, rtol=1e-6)


def test_what_was_missed_while_nobody_read_is_not_made_up_for(mpu6050: Tree) -> None:
    source = mpu6050.source(access="polled", rate_hz=50)
    source.open()
    began_s = mpu6050.clock.now_s
    assert len(blocks(source.read(0))["acc"].t_s) == 1
    mpu6050.clock.now_s += 1.005
    times = [each for _ in range(3) for each in blocks(source.read(0.02))["acc"].t_s]
    np.testing.assert_allclose(times, began_s + np.array([1.005, 1.02, 1.04, 1.06]), rtol=0, atol=1e-9)


def test_a_magnetometer_is_polled_in_microtesla_with_a_scale_for_each_axis(tree: Tree) -> None:
    tree.add(2, AK8963 | {"in_magn_offset": "-4"}, at="1-000c")
    source = tree.source(name="ak8963", modalities=("mag",), rate_hz=10)
    source.open()
    mag = blocks(source.read(0))["mag"]
    expected = [96 * 0.001774 * 100, -196 * 0.001786 * 100, 304 * 0.001716 * 100]
    np.testing.assert_allclose(mag.values, [expected], rtol=1e-6)


def test_a_reading_that_fails_now_and_then_is_a_lost_sample_and_again_and_again_a_lost_device(mpu6050: Tree) -> None:
    source = mpu6050.source(access="polled", rate_hz=50)
    source.open()
    raw = mpu6050.root / "iio:device0" / "in_accel_y_raw"
    for text in ("?\n", "\n", "9" * 100 + "\n"):
        raw.write_text(text)
        assert source.read(0) == []
        raw.write_text("1\n")
        mpu6050.clock.now_s += 0.02
        assert len(blocks(source.read(0))["acc"].t_s) == 1
        mpu6050.clock.now_s += 0.02
    raw.write_text("?\n")
    for _ in range(MOST_FAILURES - 1):
        assert source.read(0) == []
        mpu6050.clock.now_s += 0.02
    assert "gives no numbers (could not convert string to float: '?')" in problem(source, 0)


def test_a_polled_device_that_is_unplugged_is_found_again(mpu6050: Tree) -> None:
    source = mpu6050.source(access="polled")
    source.open()
    mpu6050.kernel.gone = True
    assert "plug it in again" in problem(source, 0)
    mpu6050.kernel.gone = False
    source.close()
    mpu6050.remove(0)
    mpu6050.add(9, MPU6050)
    source.open()
    assert len(blocks(source.read(0))["acc"].t_s) == 1


def test_no_descriptor_is_left_open(mpu6050: Tree) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for access in ("buffer", "polled", "any"):
        source = mpu6050.source(access=access)
        source.open()
        source.open()
        source.close()
    mpu6050.kernel.refused["enable"] = errno.EACCES
    for access in ("buffer", "any"):
        source = mpu6050.source(access=access)
        if access == "buffer":
            problem(source)
        else:
            source.open()
        source.close()
    assert count() == before


# Rate and range


def test_a_range_is_set_before_the_scale_is_read_and_put_back(mpu6050: Tree) -> None:
    for access in ("buffer", "polled"):
        source = mpu6050.source(modalities=("acc", "gyro"), ranges={"acc": 8.0}, access=access)
        source.open()
        assert mpu6050.text("in_accel_scale") == "0.002392"
        assert mpu6050.text("in_anglvel_scale") == "0.001064724"
        mpu6050.send(mpu6050_sample((0, 16384, 0), (0, 0, 0), mpu6050.clock.now_s))
        largest = np.abs(blocks(source.read(0))["acc"].values).max()
        assert largest == pytest.approx(16384 * 0.002392 / G if access == "buffer" else 16400 * 0.002392 / G)
        source.close()
        assert mpu6050.text("in_accel_scale") == "0.000598"


def test_a_range_that_cannot_be_chosen_is_said(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    tree.add(3, HID_ACCEL)
    source = tree.source(name="accel_3d", ranges={"acc": 8.0})
    source.open()
    assert "the range of accel cannot be chosen; it stays as it is" in caplog.text
    source.close()


def test_a_chip_that_is_much_slower_than_asked_is_said(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    tree.add(0, MPU6050 | {"sampling_frequency_available": "10 20"})
    tree.source(rate_hz=50).open()
    assert "measures at 20 Hz, not at 50; windows of a faster rate are filled up between its samples" in caplog.text


def test_each_kind_that_has_a_rate_of_its_own_is_set(tree: Tree) -> None:
    # drivers/iio/imu/bno055 and the like: a rate by kind, the slowest counts.
    attributes = {name: text for name, text in MPU6050.items() if not name.startswith("sampling_frequency")}
    own = {
        "in_accel_sampling_frequency": "7.810000",
        "in_accel_sampling_frequency_available": "7.810000 15.630000 31.250000 62.500000",
        "in_anglvel_sampling_frequency": "12.000000",
        "in_anglvel_sampling_frequency_available": "12.000000 23.000000 47.000000",
    }
    tree.add(0, attributes | own)
    source = tree.source(modalities=("acc", "gyro"), batch_s=1.0)
    source.open()
    assert tree.text("in_accel_sampling_frequency") == "62.500000"
    assert tree.text("in_anglvel_sampling_frequency") == "47.000000"
    assert tree.text("buffer0/watermark") == "47"


# Bounds


def test_a_device_that_never_stops_giving_is_read_in_bounded_portions(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    sample = mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s)
    flood = sample * (CHUNK_BYTES // len(sample))
    mpu6050.kernel.take = lambda descriptor, size: flood  # type: ignore[method-assign]
    assert len(blocks(source.read(0))["acc"].t_s) == MOST_CHUNKS * (CHUNK_BYTES // len(sample))


def test_senseless_batches_count_only_in_a_row(mpu6050: Tree) -> None:
    source = mpu6050.source(modalities=("acc", "gyro"))
    source.open()
    for _ in range(3):
        mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s))
        assert len(blocks(source.read(0))) == 2
        for _ in range(MOST_SENSELESS - 1):
            mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), 0))
            assert source.read(0) == []


@pytest.mark.parametrize("attribute", ["in_temp_en", "length", "in_timestamp_en"])
def test_a_change_that_finds_the_device_busy_is_another_program(mpu6050: Tree, attribute: str) -> None:
    before = mpu6050.snapshot()
    mpu6050.kernel.refused[attribute] = errno.EBUSY
    assert "another program uses it" in problem(mpu6050.source())
    assert mpu6050.snapshot() == before


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES, errno.EINVAL])
def test_a_clock_that_stays_for_whatever_reason_is_reckoned_with(mpu6050: Tree, number: int) -> None:
    # Linux refuses while somebody listens to the device's events (iio_device_set_clock).
    mpu6050.kernel.refused["current_timestamp_clock"] = number
    source = mpu6050.source(modalities=("acc", "gyro"), access="buffer")
    source.open()
    mpu6050.send(mpu6050_sample((1, 2, 3), (4, 5, 6), mpu6050.clock.now_s + mpu6050.clock.wall_s))
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [mpu6050.clock.now_s], rtol=0, atol=1e-6)


def test_a_slow_device_may_be_silent_for_longer(mpu6050: Tree) -> None:
    source = mpu6050.source(rate_hz=0.5)
    # The chip cannot: what counts is what was asked for.
    source.open()
    mpu6050.clock.now_s += 39.9
    assert source.read(0) == []
    mpu6050.clock.now_s += 0.2
    assert "nothing for 40 s" in problem(source, 0)


def test_why_a_device_is_polled_is_said_once_not_at_every_opening(
    mpu6050: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    (mpu6050.nodes / "iio:device0").unlink()
    source = mpu6050.source()
    for _ in range(3):
        source.open()
    assert caplog.text.count("it is polled") == 1


def test_a_polled_sample_has_the_time_in_the_middle_of_its_reading(mpu6050: Tree) -> None:
    source = mpu6050.source(access="polled")
    source.open()
    began_s = mpu6050.clock.now_s
    again = mpu6050.kernel.again

    def slowly(descriptor: int) -> str:
        mpu6050.clock.now_s += 0.001
        return again(descriptor)

    mpu6050.kernel.again = slowly  # type: ignore[method-assign]
    np.testing.assert_allclose(blocks(source.read(0))["acc"].t_s, [began_s + 0.0015], rtol=0, atol=1e-9)


def test_polling_a_chip_slower_than_the_rate_leaves_out_samples_and_ends_in_time(mpu6050: Tree) -> None:
    source = mpu6050.source(access="polled", rate_hz=50)
    source.open()
    began_s = mpu6050.clock.now_s
    again = mpu6050.kernel.again

    def slowly(descriptor: int) -> str:
        mpu6050.clock.now_s += 0.01
        return again(descriptor)

    mpu6050.kernel.again = slowly  # type: ignore[method-assign]
    # 30 ms a sample: one each 40 ms, when one is due.
    t_s = blocks(source.read(0.4))["acc"].t_s
    assert mpu6050.clock.now_s - began_s <= 0.4 + 0.03 + 1e-9
    assert len(t_s) <= 14
    assert (np.diff(t_s) > 0.0299).all()


def test_an_unsigned_number_holds_as_much_above_its_middle_as_below(tree: Tree) -> None:
    # 16 bits unsigned, the middle taken off by the offset, hold no more than 16 signed ones.
    unsigned = {name: text.replace("be:s16", "be:u16") for name, text in MPU6050.items()}
    tree.add(0, unsigned | {"in_accel_offset": "-32768"})
    source = tree.source(ranges={"acc": 4.0})
    source.open()
    assert tree.text("in_accel_scale") == "0.001196"
    tree.send(bytes.fromhex("8000 c000 0000 0000") + round(tree.clock.now_s * 1e9).to_bytes(8, "little"))
    np.testing.assert_allclose(
        blocks(source.read(0))["acc"].values, np.array([[16384, 0, -32768]]) * 0.001196 / G, rtol=1e-6
    )
