"""Memory over many rounds: `python -m tests.proofs.endurance`, or `make endurance`.

A federation as it is deployed, with little to learn, so that a round takes about a second. After every round the
resident memory of coordinator and devices is read from the kernel. From the round WARM on it may grow by LIMIT.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from mekt.messages import Status
from tests.federation import Federation, federation

DEVICES = {"pi-acc": ("acc",), "pi-gyro": ("gyro",)}
METHOD = "embedding = 8\nhidden = 16\nknowledge_rows = 64\nfollow_epochs = 1"
ROUNDS, WARM, WINDOW = 220, 20, 10
LIMIT = 0.05
# For one round.
PATIENCE_S = 600.0


def main() -> int:
    """Run it; 1 when something has grown by more than it may."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="every sample as JSON")
    options = parser.parse_args()
    if options.rounds < WARM + 2 * WINDOW:
        parser.error(f"--rounds: {WARM + 2 * WINDOW} at least")
    with tempfile.TemporaryDirectory(prefix="mekt-endurance-") as name:
        folder = Path(name)
        (folder / "recordings").mkdir()
        made = federation(
            folder,
            folder / "recordings",
            devices=DEVICES,
            rounds=options.rounds,
            method=METHOD,
            patience_s=PATIENCE_S,
            duration_s=100.0,
        )
        try:
            made.listen()
            made.start("coordinator", *DEVICES)
            samples, seconds = watched(made)
        finally:
            made.end()
    if options.out is not None:
        options.out.write_text(json.dumps({"seconds": seconds, "kB": samples}))
    return shown(samples, seconds)


def watched(made: Federation) -> tuple[dict[str, list[int]], float]:
    """Resident kB of every process after each round, and the seconds that all rounds took."""
    samples: dict[str, list[int]] = {name: [] for name in made.processes}
    began_s = time.monotonic()
    for number in range(made.rounds):
        made.until(Status, **({"phase": "finished"} if number + 1 == made.rounds else {"round": number + 1}))
        made.heard.clear()
        for name, process in made.processes.items():
            samples[name].append(resident_kb(process.pid))
        if (number + 1) % WARM == 0:
            print(f"round {number + 1}: " + ", ".join(f"{name} {each[-1]} kB" for name, each in samples.items()))
            sys.stdout.flush()
    return samples, time.monotonic() - began_s


def resident_kb(pid: int) -> int:
    """What the kernel says that a process has in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def shown(samples: dict[str, list[int]], seconds: float) -> int:
    """Say what was measured; 1 when something has grown by more than it may."""
    rounds = len(next(iter(samples.values())))
    print(f"{rounds} rounds in {seconds:.0f} s, {seconds / rounds:.2f} s each")
    grown = 0
    for name, kb in samples.items():
        early, late = (sum(part) / WINDOW for part in (kb[WARM : WARM + WINDOW], kb[-WINDOW:]))
        share = late / early - 1
        grown |= share > LIMIT
        print(
            f"{name:<12} {early / 1024:7.1f} MB after round {WARM}, {late / 1024:7.1f} MB at the end, "
            f"peak {max(kb[WARM:]) / 1024:7.1f} MB: {share:+.1%} (limit {LIMIT:+.0%})"
        )
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
