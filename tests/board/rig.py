"""A wearable on an emulated 64-bit Arm board whose plug is pulled: `python -m tests.board.rig`, or `make board`.

The board boots Debian from a card in which nothing but a wearable's packages, Mekt and a token are. It joins over TLS,
gets its first release over the air, and the next one while its plug is pulled again and again: what its kernel had not
given to the card is lost then. It has to decide after each start, and to end with the new release and a card without a
fault. What it decides of a recording is compared with this machine.
"""

import argparse
import contextlib
import json
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from export.release import read_release
from tests.board.board import PROCESSOR, Board, BoardError, Said
from tests.board.card import examine, make_card, parts
from tests.debian import MissingError, cache_folder
from tests.proofs.enrolled import enrolled, said
from tests.recordings import persons

ROOT = Path(__file__).parents[2]
COORDINATOR, NAME, HOST = "coordinator", "wrist-1", "10.0.2.2"
DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
FEDERATION, ROUNDS = "ward", 2
WEARER = 11
# Recordings are played so many times as fast.
SPEED = 4
TRIAL_S = 6.0
CUTS = 6
# A cut comes so long after the first decision at most: a rollout takes about as long.
LONGEST_WAIT_S = 30.0
COMMAND_S, DECIDED_S, GOOD_S = 300.0, 300.0, 600.0
# What two machines' arithmetic may make of a probability.
MOST_APART = 1e-4
# Whole numbers are rounded by another rule there.
LEAST_SAME = 0.98
ROLLOUT = re.compile(r"rollout (\d+): ([a-z-]+)")


class ProofError(Exception):
    """What should be so is not."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The plug is pulled `after_s` seconds after the wearable is at `phase`, or beyond it."""

    phase: str
    after_s: float


@dataclass
class Figures:
    """What was measured; times are in seconds."""

    boots_s: list[float] = field(default_factory=list)
    decided_s: list[float] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    compared: dict[str, dict[str, float]] = field(default_factory=dict)


PHASES = ("fetching", "testing", "trial", "good")
# How long a phase takes on the board, about.
LONGEST_S = {"fetching": 0.3, "testing": 15.0, "trial": TRIAL_S, "good": 2.0}


def draw(seed: int, count: int) -> list[Cut]:
    """So many cuts, in the order of phases, at moments that are drawn."""
    rng = np.random.default_rng(seed)
    phases = sorted((PHASES[index % len(PHASES)] for index in range(count)), key=PHASES.index)
    return [Cut(phase=phase, after_s=float(rng.uniform(0, LONGEST_S[phase]))) for phase in phases]


class Ward:
    """The coordinator's side, on this machine: a federation that has learned, an authority, and a broker with TLS."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        began_s = time.monotonic()
        recordings = folder / "recordings"
        recordings.mkdir()
        self.place = enrolled(folder, recordings, hosts=("127.0.0.1", HOST), devices=DEVICES, rounds=ROUNDS)
        stack.callback(self.place.made.end)
        self.place.made.start(COORDINATOR)
        for name in DEVICES:
            self.place.enrol(name)
            self.place.made.start(name)
        self.place.until_finished()
        print(f"{ROUNDS} rounds of {len(DEVICES)} devices: {time.monotonic() - began_s:.0f} s", flush=True)
        self.token = self.place.token(NAME, HOST)

    def mekt(self, *arguments: str) -> Any:
        """What a command says as JSON."""
        told = said(self.place.folder, *arguments, "--config", str(self.place.config), "--json")
        return json.loads(told.splitlines()[-1])

    def all_run(self, release: str) -> bool:
        """Whether the coordinator has heard from the wearable that this release is good."""
        return bool(self.mekt("status")["status"]["rollout"]["wearables"] == {release: 1})


def further_settings(wearer: str) -> str:
    """What a person adds to the settings with which a wearable begins; a trial is short, so that it ends here."""
    return (
        f'\n[[sensors]]\nkind = "replay"\nmodalities = ["acc", "gyro"]\nspeed = {SPEED}\n'
        f"recordings = {json.dumps([wearer] * 40)}\n"
        f"[updates.self_test]\nclasses_s = 20.0\n"
        f"[updates.trial]\nhours = {TRIAL_S / 3600}\nmost_starts = {CUTS + 2}\n"
    )


def checked(said: Said, what: str) -> Said:
    """What a command on the board has said, if it ended well."""
    if said.code:
        raise ProofError(f"{what} ended with {said.code}:\n" + "\n".join(said.lines))
    return said


class Wearable:
    """The wearable on the board: started after each boot, with what it has said of its rollouts."""

    def __init__(self, board: Board, figures: Figures) -> None:
        self.board, self.figures = board, figures

    @property
    def phase(self) -> tuple[int, str]:
        """The rollout that it spoke of last, and how far it was."""
        found = ROLLOUT.findall(self.board.text)
        return (int(found[-1][0]), found[-1][1]) if found else (0, "")

    def boot(self) -> None:
        """Switch the board on, and start it."""
        self.figures.boots_s.append(self.board.switch_on())
        self.board.start("python3 -m mekt infer --config wearable.toml")
        self.figures.decided_s.append(self.board.until_decided(DECIDED_S))

    def until(self, number: int, phase: str, patience_s: float) -> None:
        """Wait until it is so far with this rollout, or beyond."""
        ends_s = time.monotonic() + patience_s
        while not self.is_at(number, phase):
            if time.monotonic() > ends_s:
                raise ProofError(f"rollout {number} is not {phase} after {patience_s:.0f} s\n{self.board.last_words()}")
            time.sleep(0.05)

    def is_at(self, number: int, phase: str) -> bool:
        """Whether it is so far."""
        at, reached = self.phase
        if reached in ("refused", "rolled-back"):
            raise ProofError(f"rollout {at}: {reached}\n{self.board.last_words()}")
        return at == number and reached in PHASES and PHASES.index(reached) >= PHASES.index(phase)


def play(ward: Ward, board: Board, cuts: Sequence[Cut], figures: Figures) -> None:
    """All of it."""
    wearable = Wearable(board, figures)
    first, second = f"{FEDERATION}-00001", f"{FEDERATION}-00002"

    print("it joins, and gets its first release", flush=True)
    ward.mekt("release", "promote", first, "--now")
    figures.boots_s.append(board.switch_on())
    for line in checked(board.run("sed -n '/part/{p;q}' /proc/cpuinfo; python3 -V", COMMAND_S), "sed").lines:
        print(f"  {line}")
    join = "python3 -m mekt enroll join --token wrist.token --wearable"
    begin = f"echo 'repeat_s = 0' > wearable.toml; {join} >> wearable.toml && cat further.toml >> wearable.toml"
    checked(board.run(begin, COMMAND_S), "mekt enroll join")
    checked(board.run("python3 -m mekt doctor --config wearable.toml", COMMAND_S), "mekt doctor")
    board.start("python3 -m mekt infer --config wearable.toml")
    board.until_decided(GOOD_S)
    wearable.until(1, "good", GOOD_S)

    print("the next one, while its plug is pulled", flush=True)
    ward.mekt("release", "promote", second, "--now")
    for cut in cuts:
        wearable.until(2, cut.phase, GOOD_S)
        time.sleep(cut.after_s)
        board.cut()
        figures.met.append(wearable.phase[1])
        wearable.boot()
        print(
            f"  cut at {figures.met[-1]}; the next decision {figures.decided_s[-1]:.1f} s after power was back, "
            f"{figures.boots_s[-1]:.1f} s of them Linux",
            flush=True,
        )
    wearable.until(2, "good", GOOD_S)
    ends_s = time.monotonic() + GOOD_S
    while not ward.all_run(second):
        if time.monotonic() > ends_s:
            raise ProofError("the coordinator does not hear that the second release is good")

    print("and what it is like afterwards", flush=True)
    board.cut()
    board.switch_on()
    verified = checked(board.run("python3 -m mekt audit --verify --config wearable.toml", COMMAND_S), "mekt audit")
    print(f"  mekt audit --verify: {verified.lines[-1]}")
    arrived = checked(board.run("ls state/arriving state/releases | sed '/^$/d'", COMMAND_S), "ls")
    print(f"  files of releases: {len([line for line in arrived.lines if len(line) == 64])}")


def compared(board: Board, theirs: str, ours: Path, recording: Path) -> tuple[float, float, float]:
    """The share of windows of which board and this machine say the same, how far apart they are, and a window's ms."""
    question = "mekt infer --release {} --source {} --json"
    told = checked(board.run(f"python3 -m {question.format(theirs, recording.name)}", COMMAND_S), "mekt infer")
    here = said(recording.parent, *question.format(ours, recording).split()[1:])
    there, at_home = ([json.loads(line) for line in lines] for lines in (told.lines, here.splitlines()))
    if len(there) != len(at_home) or not there:
        raise ProofError(f"{len(there)} windows on the board, {len(at_home)} here")
    same = [a["label"] == b["label"] for a, b in zip(there, at_home, strict=True)]
    apart = max(abs(a["probability"] - b["probability"]) for a, b in zip(there, at_home, strict=True))
    return sum(same) / len(same), apart, float(np.median([each["latency_ms"] for each in there]))


def compare(ward: Ward, board: Board, recording: Path, figures: Figures) -> None:
    """A round's release, and what wearables run of it, by both machines."""
    state = ward.place.config.parent / "state"
    listed = checked(board.run("ls state/releases", COMMAND_S), "ls").lines
    shipped = [state / "shipped" / name for name in listed if (state / "shipped" / name).is_file()]
    newest = max(shipped, key=lambda path: read_release(path).manifest.round)
    for name, theirs, ours, least in (
        ("as the round wrote it", "release.zip", state / "releases" / f"{FEDERATION}-{ROUNDS:05d}.zip", 1.0),
        ("as it was shipped", f"state/releases/{newest.name}", newest, LEAST_SAME),
    ):
        manifest = read_release(ours).manifest
        forms = ", ".join(manifest.file_to_run(each) for each in manifest.encoders)
        same, apart, latency_ms = compared(board, theirs, ours, recording)
        figures.compared[name] = {"same": same, "apart": apart, "latency_ms": latency_ms}
        told = f"{same:.1%} of windows as here, {apart:.1e} apart at most, {latency_ms:.0f} ms each"
        print(f"  the release {name} ({forms}): {told}", flush=True)
        if same < least or (least == 1 and apart > MOST_APART):
            raise ProofError(f"the release {name} is another one on the board")


def main() -> int:
    """Run it; 1 when something is not as it should be, 2 when it could not be run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "board", help="the console's text, and figures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cuts", type=int, default=CUTS, help=f"how often the plug is pulled ({CUTS})")
    parser.add_argument("--processor", default=PROCESSOR, help=f"as qemu names it ({PROCESSOR})")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    began_s = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "console.log"
    log.unlink(missing_ok=True)
    figures = Figures()
    with contextlib.ExitStack() as stack:
        try:
            made = parts(cache_folder("mekt-board"))
        except MissingError as error:
            print(f"make board: {error}", file=sys.stderr)
            return 2
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mekt-board-")))
        try:
            ward = Ward(folder, stack)
            recording = Path(persons(folder / "recordings", [WEARER])[0])
            release = folder / COORDINATOR / "state" / "releases" / f"{FEDERATION}-{ROUNDS:05d}.zip"
            files = {
                "further.toml": further_settings(recording.name).encode(),
                "wrist.token": ward.token.read_bytes(),
                "release.zip": release.read_bytes(),
                recording.name: recording.read_bytes(),
            }
            image = folder / "card"
            make_card(made, image, files)
            board = stack.enter_context(Board(made, image, log, options.processor))
            play(ward, board, draw(options.seed, options.cuts), figures)
            compare(ward, board, recording, figures)
            board.switch_off()
            if faults := examine(image):
                raise ProofError(f"the card: {faults}")
            print("  e2fsck finds nothing wrong with the card")
        except (ProofError, BoardError) as error:
            print(f"NOT PROVED: {error}", flush=True)
            return 1
    seconds = time.monotonic() - began_s
    told = {"processor": options.processor, "seed": options.seed, "seconds": round(seconds, 1), **asdict(figures)}
    (options.out / "results.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"proved, in {seconds:.0f} s; the board's console is in {log}", flush=True)
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    # So that what is open is closed.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
