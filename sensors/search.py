"""A search for every kind of sensor that can be found without being told where it is."""

from sensors import cameras, imu, picamera, serial
from sensors.found import Found
from sensors.iio import source as iio


def found(*, probe: bool = False) -> tuple[Found, ...]:
    """What this machine has. With `probe` I2C buses are asked too, which may disturb what else has those addresses."""
    return (*iio.found(), *imu.found(probe=probe), *cameras.found(), *picamera.found(), *serial.found())
