"""The sensors of a device as settings, a table each; what each kind can be told stands beside its source."""

from collections.abc import Mapping
from typing import Annotated, Any

from mekt.schema import Kinds, build_one_of
from sensors.source import Settings

# Only what a device has is imported: each kind brings along what its sensors need.
KINDS = {
    "replay": "sensors.replay.ReplaySettings",
    "simulator": "sensors.simulator.SimulatorSettings",
    "iio": "sensors.iio.source.IioSettings",
    "imu": "sensors.imu.ImuSettings",
    "v4l2": "sensors.v4l2.V4L2Settings",
    "picamera": "sensors.picamera.PicameraSettings",
    "csv": "sensors.csv.CsvSettings",
    "mqtt": "sensors.mqtt.MqttSettings",
    "serial": "sensors.serial.SerialSettings",
}
SensorSettings = Annotated[Settings, Kinds(KINDS)]


def sensor_settings(table: Mapping[str, Any]) -> Settings:
    """The settings that one table holds.

    Raises:
        SchemaError: naming everything that cannot work.
    """
    settings: Settings = build_one_of(SensorSettings, table)
    return settings
