"""How many frames of a stream were lost, by the numbers that the driver gives them. Pure."""

NUMBERS = 2**32
# Frames that come in another order than they were taken are so many apart at most; further back, counting began anew.
SWAPPED = 16
# Nobody loses so many in a row: the driver counts something else.
MOST_LOST = 2**20


class Numbering:
    """Takes the frames' numbers, which wrap at 2**32, and counts those that never came."""

    def __init__(self) -> None:
        self.lost = 0
        self._newest: int | None = None

    def take(self, number: int) -> None:
        """A frame with this number has come."""
        step = 1 if self._newest is None else (number - self._newest) % NUMBERS
        if 0 < step <= MOST_LOST:
            self.lost += step - 1
        elif step >= NUMBERS - SWAPPED:
            # It was counted as lost when the one behind it came first.
            self.lost = max(0, self.lost - 1)
            return
        if step:
            self._newest = number
