"""A device's settings file: what is accepted, and that every mistake is one error which names file and key."""

from pathlib import Path

import pytest

from edge.settings import DeviceSettings, PrivateWindows, read_device
from mekt.errors import SettingsError
from sensors.quality import Limits
from sensors.replay import ReplaySettings

README = """
federation = "ward-3"
device = "pi-3"
state = "state"

[[sensors]]
kind = "replay"
recordings = ["subject07.npz"]
modalities = ["acc", "gyro"]

[broker]
host = "coordinator.example.org"
port = 8883
tls = { ca = "ca.pem", certificate = "pi-3.pem", key = "/etc/mekt/pi-3.key" }
password_file = "password"
"""
SHORTEST = """
federation = "ward-3"
device = "pi-3"
[[sensors]]
kind = "simulator"
subject = 1
modalities = ["acc", "gyro"]
"""
FULL = (
    """
threads = 2
architectures = { acc = "lstm" }
"""
    + SHORTEST
    + """
[windows]
capacity = 100
least = 10
whole_source = true
size_mb = 100
most_age_s = 86400
encrypt = true
key_file = "windows.key"
worst_gap_share = 0.2
worst_saturated_share = 0.1
worst_resampling_error = 0.5
ranges = { acc = [-8, 8.0] }
"""
)


def written(folder: Path, text: str) -> Path:
    path = folder / "device.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problem_of(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(SettingsError) as caught:
        read_device(path)
    for line in str(caught.value).splitlines():
        assert line.startswith(f"{path}: ")
    return str(caught.value).replace(f"{path}: ", "")


def test_the_file_in_the_readme_is_read(tmp_path: Path) -> None:
    settings = read_device(written(tmp_path, README))
    assert (settings.federation, settings.device, settings.state) == ("ward-3", "pi-3", "state")
    assert settings.modalities == ("acc", "gyro")
    [sensor] = settings.sensors
    assert isinstance(sensor, ReplaySettings) and sensor.recordings == ("subject07.npz",)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    settings = read_device(written(tmp_path, SHORTEST))
    assert settings.state == "state" and settings.threads is None
    assert settings.windows == PrivateWindows(capacity=4096, least=64, whole_source=False)
    assert settings.architectures == {}
    assert (settings.broker.host, settings.broker.port, settings.broker.tls) == ("127.0.0.1", 1883, None)


def test_everything_that_may_be_said_is_read(tmp_path: Path) -> None:
    settings = read_device(written(tmp_path, FULL))
    assert settings.threads == 2 and settings.architectures == {"acc": "lstm"}
    assert settings.windows == PrivateWindows(
        capacity=100,
        least=10,
        whole_source=True,
        size_mb=100.0,
        most_age_s=86400.0,
        encrypt=True,
        key_file="windows.key",
        worst_gap_share=0.2,
        worst_saturated_share=0.1,
        worst_resampling_error=0.5,
        ranges={"acc": (-8.0, 8.0)},
    )
    assert settings.windows.limits == Limits(gap_share=0.2, saturated_share=0.1, resampling_error=0.5)
    assert settings.windows.ends == {"acc": (-8.0, 8.0)}


def test_unless_limits_are_set_every_window_is_learned_from() -> None:
    assert PrivateWindows().limits == Limits() and PrivateWindows().ends == {}


def test_paths_of_certificates_and_passwords_start_at_the_file(tmp_path: Path) -> None:
    broker = read_device(written(tmp_path, README)).broker
    assert broker.tls is not None
    assert broker.tls.ca == str(tmp_path / "ca.pem")
    assert broker.tls.certificate == str(tmp_path / "pi-3.pem")
    assert broker.tls.key == "/etc/mekt/pi-3.key"
    assert broker.password_file == str(tmp_path / "password")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('federation = "ward-3"', "", "federation: missing; expected text"),
        ('device = "pi-3"', 'device = "pi 3"', "device: expected text like"),
        ('device = "pi-3"', 'device = "pi/3"', "device: expected text like"),
        ('device = "pi-3"', "device = 3", "device: expected text, got 3"),
        ('device = "pi-3"', 'device = "pi-3"\ndevise = 1', 'devise: unknown key (did you mean "device"?)'),
        ('device = "pi-3"', 'device = "pi-3"\nstate = ""', "state: expected at least 1 characters"),
        ('device = "pi-3"', 'device = "pi-3"\nstate = "a\\u0000b"', "state: expected text like"),
        ('device = "pi-3"', 'device = "pi-3"\nthreads = "2"', "threads: expected a whole number, got '2' (remove the"),
        ('device = "pi-3"', 'device = "pi-3"\nthreads = 0', "threads: expected at least 1, got 0"),
        ('device = "pi-3"', 'device = "pi-3"\nwindows.least = 5000', "windows.least: 5000 windows are more than the"),
        (
            'device = "pi-3"',
            'device = "pi-3"\nwindows.whole_source = 1',
            "windows.whole_source: expected true or false",
        ),
        (
            'device = "pi-3"',
            'device = "pi-3"\nwindows.worst_gap_share = 2',
            "windows.worst_gap_share: expected at most 1",
        ),
        ('device = "pi-3"', 'device = "pi-3"\nwindows.ranges.acc = [8, -8]', "windows.ranges.acc: expected the lower"),
        ('device = "pi-3"', 'device = "pi-3"\nwindows.ranges.acc = [8]', "windows.ranges.acc: expected at least 2"),
        ('device = "pi-3"', 'device = "pi-3"\nwindows.ranges.mag = [0, 1]', "windows.ranges: no sensor here gives mag"),
        ('device = "pi-3"', 'device = "pi-3"\narchitectures.acc = "gru"', "architectures.acc: expected one of 'conv',"),
        ('device = "pi-3"', 'device = "pi-3"\narchitectures.mag = "conv"', "architectures: no sensor here gives mag"),
        ("subject = 1", "", "sensors[0].subject: missing; expected a whole number"),
        ('["acc", "gyro"]', '["acc", "mag"]', "sensors[0].modalities: the simulator has no mag"),
        ('["acc", "gyro"]', '["acc", "acc"]', "sensors[0].modalities: a name occurs twice"),
        ("subject = 1", "subject = 1\n[broker]\nport = 70000\n[[sensors]]", "broker.port: expected at most 65535"),
        ('device = "pi-3"', "device = pi-3", "line 3, column 10: Invalid value (text needs quotes)"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(before: str, after: str, says: str, tmp_path: Path) -> None:
    assert before in SHORTEST
    assert says in problem_of(tmp_path, SHORTEST.replace(before, after))


def test_a_device_without_sensors_is_refused(tmp_path: Path) -> None:
    assert "sensors: missing" in problem_of(tmp_path, 'federation = "f"\ndevice = "d"')


def test_a_modality_comes_from_one_sensor_alone(tmp_path: Path) -> None:
    twice = SHORTEST + '[[sensors]]\nkind = "simulator"\nsubject = 2\nmodalities = ["gyro"]\n'
    assert "sensors: two of them give the same modality" in problem_of(tmp_path, twice)


def test_more_modalities_than_a_presence_can_name_are_refused(tmp_path: Path) -> None:
    sensors = "".join(
        f'[[sensors]]\nkind = "replay"\nrecordings = ["a.npz"]\nmodalities = ["m{number}", "n{number}"]\n'
        for number in range(9)
    )
    text = 'federation = "f"\ndevice = "d"\n' + sensors
    assert "sensors: 18 modalities are more than 16" in problem_of(tmp_path, text)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = SHORTEST.replace('"ward-3"', "1").replace('"pi-3"', "2").replace("subject = 1", 'subject = "1"')
    lines = problem_of(tmp_path, text).splitlines()
    assert [line.split(":")[0] for line in lines] == ["federation", "device", "sensors[0].subject"]


def test_a_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"device\.toml: no such file"):
        read_device(tmp_path / "device.toml")


def test_settings_are_valid_wherever_they_are_made() -> None:
    with pytest.raises(ValueError, match="least: 2 windows are more than the capacity of 1"):
        PrivateWindows(capacity=1, least=2)
    with pytest.raises(ValueError, match="architectures"):
        DeviceSettings(federation="f", device="d", sensors=(), architectures={"acc": "conv"})
