"""What a device's log says that has left it, and whether that is all: `mekt audit`.

It reads only, also while the device is at work. What a proof means: every entry is as it was written, and none is
missing up to the one that the anchor names; those after it, of the last seconds, follow each other, but their end could
have been cut off. What it cannot mean: who may write to the state folder, as root may, can make up a log and an anchor
that fit. Then only what others saw tells: what the broker or the coordinator got, or what an earlier proof said, whose
number and hash are those of an entry in every later log.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from edge.audit import ANCHOR, FOLDER, GAP, OWN_KINDS, REPAIR, segments
from edge.chain import BrokenChainError, Entry, Head, read_anchor, read_line
from edge.settings import DeviceSettings, read_device
from edge.updates.settings import UpdateSettings
from edge.wearable.settings import read_wearable
from mekt import catalogue
from mekt.errors import SettingsError, StateError
from mekt.login import located
from mekt.post import one_line
from mekt.settings import read_table

# A file that is compressed while it is looked for is there under its other name.
TRIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Break:
    """Where a log is not what was written: the first entry that is wrong or missing, and how."""

    number: int
    text: str


@dataclass(slots=True)
class Account:
    """What a walk through a log has found: messages and bytes by kind, and the first break."""

    folder: Path
    head: Head = field(default_factory=Head)
    anchor: Head | None = None
    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    repairs: list[int] = field(default_factory=list)
    broken: Break | None = None
    # What stands behind the last entry: one that is being written, or was when the machine stopped.
    rest_bytes: int = 0

    def count(self, entry: Entry) -> None:
        """Take one more entry into account."""
        if entry.kind == REPAIR:
            self.repairs.append(entry.number)
        if entry.kind == GAP:
            self.breaks(entry.number, f"entry {entry.number} says: {entry.says.get('contained')}")
        if entry.kind in OWN_KINDS:
            return
        size, time = entry.says.get("bytes"), str(entry.says.get("time"))
        self.messages[entry.kind] += 1
        self.bytes[entry.kind] += size if type(size) is int else 0
        self.first, self.last = self.first or time, time

    def breaks(self, number: int, text: str) -> None:
        """Something is wrong here; what was found first stays."""
        self.broken = self.broken or Break(number=number, text=text)

    @property
    def unanchored(self) -> int:
        """How many of the newest entries the anchor does not name yet."""
        return self.head.count - (self.anchor.count if self.anchor else 0)

    def sentence(self) -> str:
        """For people."""
        if self.broken is not None:
            return f"{self.folder / FOLDER}: {self.broken.text}"
        total, size = self.messages.total(), self.bytes.total()
        span = f", from {self.first} to {self.last}" if total else ""
        words = f"{self.folder / FOLDER}: {total} messages, {size} bytes{span}, no gap"
        if self.unanchored:
            words += f"; the newest {self.unanchored} entries are not anchored yet"
        if self.repairs:
            words += f"; an entry cut off by a stop of the machine before: {', '.join(map(str, self.repairs))}"
        if self.rest_bytes:
            words += f"; behind the last entry, {self.rest_bytes} bytes of one that is being written, or never was"
        return f"{words}; entry {self.head.count} has the hash {self.head.hash}"

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return {
            "folder": str(self.folder / FOLDER),
            "messages": self.messages.total(),
            "bytes": self.bytes.total(),
            "kinds": {kind: {"messages": n, "bytes": self.bytes[kind]} for kind, n in sorted(self.messages.items())},
            "from": self.first,
            "to": self.last,
            "entries": self.head.count,
            "hash": self.head.hash,
            "unanchored": self.unanchored,
            "repairs": self.repairs,
            "rest_bytes": self.rest_bytes,
            "broken": None if self.broken is None else {"entry": self.broken.number, "text": self.broken.text},
        }


def walk(account: Account) -> Iterator[Entry]:
    """Every entry in the account's folder that can be read, the oldest first; the account grows meanwhile.

    Raises:
        StateError: when there is no log, or it cannot be read.
    """
    folder = account.folder
    # Before the lines: it names only what is there by then.
    raw_anchor = _read(folder / ANCHOR)
    account.anchor = None if raw_anchor is None else read_anchor(raw_anchor)
    there = segments(folder / FOLDER)
    if not there and raw_anchor is None:
        raise StateError(
            f"{folder / FOLDER}: no log is there; the device has not run yet, or somebody removed it",
            catalogue.AUDIT_MISSING,
        )
    head = account.head
    for number, each in enumerate(there):
        for line in _lines(each.path, account):
            is_torn = not line.endswith(b"\n") and number == len(there) - 1
            if is_torn and account.broken is None and account.anchor and account.anchor.count <= head.count:
                account.rest_bytes = len(line)
                break
            try:
                entry = read_line(head, line)
            except BrokenChainError as problem:
                account.breaks(head.count + 1, f"{each.path.name}: {problem}")
                if problem.entry is None:
                    continue
                entry = problem.entry
            if account.anchor and entry.number == account.anchor.count and entry.hash != account.anchor.hash:
                account.breaks(entry.number, f"entry {entry.number} is not the one that was durable under this number")
            head = entry.head
            account.count(entry)
            yield entry
        account.head = head
    _check_end(account)


def _check_end(account: Account) -> None:
    last = account.head.count
    if account.anchor is None:
        account.breaks(last + 1, f"the anchor is gone or damaged; what was after entry {last} cannot be known")
    elif account.anchor.count > last:
        account.breaks(last + 1, f"entries {last + 1} to {account.anchor.count} are missing at the end: cut off")


def _lines(path: Path, account: Account) -> Iterator[bytes]:
    """The lines of a segment, newlines included."""
    data = _read(path)
    for _ in range(TRIES):
        if data is None:
            # Compressed since its folder was read.
            path = path.with_name(f"{path.name}.gz")
            data = _read(path)
    try:
        raw = gzip.decompress(data) if data is not None and path.suffix == ".gz" else data or b""
    except (EOFError, OSError, zlib.error) as error:
        account.breaks(account.head.count + 1, f"{path.name}: it cannot be read ({error}): it was changed")
        return
    # At newlines alone, which the lines' text has none of.
    begin = 0
    while begin < len(raw):
        end = raw.find(b"\n", begin) + 1 or len(raw)
        yield raw[begin:end]
        begin = end


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            f"{path}: cannot be read ({error.strerror}); mend the disk or its permissions", catalogue.of_disk(error)
        ) from error


def places(config: Path) -> list[Path]:
    """The folders with a log, by a settings file: of its identity, where it was enrolled by a token, and of its state.

    Raises:
        SettingsError: when the settings cannot be used, or are those of a wearable that takes no updates.
    """
    settings: DeviceSettings | UpdateSettings | None
    base, table = config.parent, read_table(config)
    if table.keys() & {"release", "updates"} and "device" not in table:
        settings = read_wearable(config).updates
    else:
        settings = read_device(config)
    if settings is None:
        raise SettingsError(
            f"{config}: without [updates] a wearable is part of no federation, and keeps no log",
            catalogue.ARGUMENTS_UNFIT,
        )
    found = [base / settings.state]
    tls = located(settings.broker, base).tls if isinstance(settings, UpdateSettings) else settings.broker.tls
    if tls is not None and tls.certificate is not None:
        identity = Path(tls.certificate).parent
        if (identity / ANCHOR).exists() or (identity / FOLDER).exists():
            found.insert(0, identity)
    return list({path.resolve(): path for path in found}.values())


def show_audit(config: Path, *, verify: bool, since: int | None, as_json: bool, out: TextIO) -> int:
    """Print what has left this machine, of rounds from `since` on (the first is 1), or prove that nothing is missing.

    Raises:
        SettingsError: when the settings cannot be used.
        StateError: when there is no log, it cannot be read, or, with `verify`, it is broken.
    """
    accounts = [Account(folder) for folder in places(config)]
    if verify:
        return _verify(accounts, as_json=as_json, out=out)
    show = _list_json if as_json else _list
    show(accounts, since, out)
    return 0


def _verify(accounts: list[Account], *, as_json: bool, out: TextIO) -> int:
    for account in accounts:
        for _ in walk(account):
            pass
    if as_json:
        print(json.dumps({"logs": [account.plain() for account in accounts]}), file=out)
    for account in accounts:
        if account.broken is not None:
            raise StateError(f"{account.sentence()}; keep the folder, and find out who did it", catalogue.AUDIT_BROKEN)
        if not as_json:
            print(account.sentence(), file=out)
    return 0


def _selected(account: Account, since: int | None) -> Iterator[Entry]:
    for entry in walk(account):
        number = entry.says.get("round")
        if since is None or not isinstance(number, int) or number + 1 >= since:
            yield entry


def _list(accounts: list[Account], since: int | None, out: TextIO) -> None:
    messages: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for account in accounts:
        print(f"{account.folder / FOLDER}", file=out)
        print(f"{'entry':>8}  {'time':<24}  {'kind':<9} {'round':>5} {'bytes':>8}  {'sha256':<12}  contained", file=out)
        for entry in _selected(account, since):
            print(_row(entry), file=out)
            if entry.kind not in OWN_KINDS:
                messages[entry.kind] += 1
                size[entry.kind] += entry.says["bytes"] if type(entry.says.get("bytes")) is int else 0
        if account.broken is not None:
            print(f"BROKEN: {one_line(account.broken.text)}", file=out)
    print(f"\n{'kind':<12} {'messages':>9} {'bytes':>12}", file=out)
    for kind in sorted(messages):
        print(f"{one_line(kind):<12} {messages[kind]:>9} {size[kind]:>12}", file=out)
    print(f"{'all':<12} {messages.total():>9} {size.total():>12}", file=out)


def _row(entry: Entry) -> str:
    says = entry.says
    number = says.get("round")
    shown = number + 1 if isinstance(number, int) else "-"
    text = (
        f"{entry.number:>8}  {says.get('time', '')!s:<24}  {entry.kind:<9} {shown:>5} {says.get('bytes', '-')!s:>8}  "
        f"{str(says.get('sha256', '-'))[:12]:<12}  {says.get('contained', '')}"
    )
    return one_line(text)


def _list_json(accounts: list[Account], since: int | None, out: TextIO) -> None:
    """One document, written as it is read: a year of entries need not fit into a device's memory."""
    out.write('{"entries": [')
    lead = "\n"
    for account in accounts:
        for entry in _selected(account, since):
            plain = {"n": entry.number, **entry.says, "previous": entry.previous, "hash": entry.hash}
            out.write(lead + json.dumps({"folder": str(account.folder / FOLDER), **plain}))
            lead = ",\n"
    out.write(f'\n], "logs": {json.dumps([account.plain() for account in accounts])}}}\n')
