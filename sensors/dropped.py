"""What a source was given and could not use: counted by cause, and each cause logged once."""

import logging
from collections import Counter

from mekt.post import one_line

log = logging.getLogger(__name__)

MOST_CAUSES = 64
LONGEST_DETAIL = 160


class MisfitError(ValueError):
    """Foreign data that does not fit. `cause` is one of a few words of ours; the detail may quote the data."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.detail = detail


class Dropped:
    """How much was dropped, by cause. `name` says of which source, for the log."""

    def __init__(self, name: str) -> None:
        self.counts: Counter[str] = Counter()
        self._name = name

    def note(self, cause: str, detail: str = "", count: int = 1) -> None:
        """Count what was dropped; the first of a cause is logged, on one line however foreign the detail."""
        if cause not in self.counts and len(self.counts) >= MOST_CAUSES:
            cause, detail = "other causes", ""
        self.counts[cause] += count
        if self.counts[cause] == count:
            more = f" ({one_line(detail[:LONGEST_DETAIL])})" if detail else ""
            log.warning("%s: dropped: %s%s; more of the kind are counted only", self._name, cause, more)
