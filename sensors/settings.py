"""The sensors of a device as settings, a table each; what each kind can be told stands beside its source."""

from collections.abc import Mapping
from typing import Any

from mekt.schema import build_one_of
from sensors.csv import CsvSettings
from sensors.iio.source import IioSettings
from sensors.imu import ImuSettings
from sensors.mqtt import MqttSettings
from sensors.picamera import PicameraSettings
from sensors.replay import ReplaySettings
from sensors.serial import SerialSettings
from sensors.simulator import SimulatorSettings
from sensors.v4l2 import V4L2Settings

# Each has a `kind`, names its `modalities`, and gives its source (`sensors.source.Settings`).
SensorSettings = (
    ReplaySettings
    | SimulatorSettings
    | IioSettings
    | ImuSettings
    | V4L2Settings
    | PicameraSettings
    | CsvSettings
    | MqttSettings
    | SerialSettings
)


def sensor_settings(table: Mapping[str, Any]) -> SensorSettings:
    """The settings that one table holds.

    Raises:
        SchemaError: naming everything that cannot work.
    """
    settings: SensorSettings = build_one_of(SensorSettings, table)
    return settings
