"""A camera's time stamps on the monotonic clock, which all live sources share. Pure."""

# A stamp this far ahead of the clock, or this long before the stream began, is none. Drivers that compute the instant
# of exposure from the camera's own clock err by some milliseconds; an exposure may have begun before the stream did.
AHEAD_S, BEFORE_S = 0.1, 1.0
# A clock that nobody knows: beyond this it was set anew, and below it drifts by so much a second at most.
LEAP_S, DRIFT = 2.0, 1e-3


class Stamps:
    """Turns the stamps of one stream, in order of arrival, into seconds of CLOCK_MONOTONIC.

    A stamp that cannot be is replaced by the instant at which its frame arrived.
    """

    def __init__(self, began_s: float) -> None:
        """`began_s`: when the stream began, in monotonic seconds, as all that is given here but for foreign stamps."""
        self._began_s = began_s
        self._offset_s: float | None = None
        self._told_s: float | None = None
        self._newest_s = self._heard_s = 0.0

    def monotonic(self, stamp_s: float, arrived_s: float) -> float:
        """A stamp of the monotonic clock; one that repeats is of a clock that stands still."""
        moves, self._told_s = stamp_s != self._told_s, stamp_s
        return stamp_s if moves and self._began_s - BEFORE_S <= stamp_s <= arrived_s + AHEAD_S else arrived_s

    def boottime(self, stamp_s: float, arrived_s: float, slept_s: float) -> float:
        """A stamp of CLOCK_BOOTTIME or of CLOCK_MONOTONIC; they differ by the time that the machine has slept.

        libcamera documents the first (control_ids_core.yaml, SensorTimestamp), and the kernel's drivers give it the
        second (libcamera's bug 254; both pipelines of the Raspberry Pi, vc4.cpp and pisp.cpp, pass on the stamp of the
        driver's buffer). What is later than the monotonic clock can only be the first.
        """
        return self.monotonic(stamp_s if stamp_s <= arrived_s + AHEAD_S else stamp_s - slept_s, arrived_s)

    def foreign(self, stamp_s: float, arrived_s: float) -> float:
        """A stamp of a clock whose zero is unknown.

        No frame arrives before it was taken: of the distances between stamp and arrival the smallest has the least
        delay in it, and is held, but for what the clocks may drift.
        """
        fresh_s = arrived_s - stamp_s
        if self._offset_s is None or abs(fresh_s - self._offset_s) > LEAP_S or stamp_s <= self._newest_s:
            # First, set anew, or a clock that stands still: as if there had been no delay.
            self._offset_s = fresh_s
        else:
            self._offset_s = min(fresh_s, self._offset_s + DRIFT * (arrived_s - self._heard_s))
        self._newest_s, self._heard_s = stamp_s, arrived_s
        return self.monotonic(stamp_s + self._offset_s, arrived_s)
