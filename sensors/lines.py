"""Lines out of a stream of bytes that may begin anywhere, hold anything and never end. Pure; its memory is bounded."""

# Longer than any line of numbers; at the usual 115,200 baud a third of a second.
LONGEST_LINE_BYTES = 4096


class Lines:
    """Whole lines of text, without what stood before the first end of a line: nobody knows how that began.

    `overlong` and `garbled` count the lines that were longer than LONGEST_LINE_BYTES and those that are no text.
    """

    def __init__(self) -> None:
        self.overlong = 0
        self.garbled = 0
        self._part = b""
        # Whether the line that is under way is left out, up to its end.
        self._skips = True

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, without their ends and without the empty ones; LF and CR end a line."""
        *whole, rest = data.replace(b"\r", b"\n").split(b"\n")
        found: list[str] = []
        for line in whole:
            self._add(line)
            part, skips, self._part, self._skips = self._part, self._skips, b"", False
            if skips or not part:
                continue
            try:
                text = part.decode("utf-8").strip()
            except UnicodeDecodeError:
                self.garbled += 1
                continue
            if text:
                found.append(text)
        self._add(rest)
        return found

    def _add(self, data: bytes) -> None:
        if self._skips:
            return
        self._part += data
        if len(self._part) > LONGEST_LINE_BYTES:
            self.overlong += 1
            self._part, self._skips = b"", True
