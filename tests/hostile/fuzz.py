"""Coverage-guided fuzzing of every decoder with atheris: `make fuzz`.

Each decoder gets an equal share of the inputs, in a process of its own, from valid messages on: four mutations of ten
are libFuzzer's, the others change what a message says (`tests.hostile.mutants`). An exception that no decoder
documents, a broken law, an input that takes too long or too much memory ends the run; the input is then in the folder.

At the end all that was kept is read once more under `coverage`, and both tables are printed.
"""

import argparse
import atexit
import json
import logging
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RSS_LIMIT_MB = 512
TIMEOUT_S = 10
LONGEST_INPUT = 8192
# What bytes of a peer run through. Beside it, these hold what writes messages, which no input reaches.
SOURCES = (
    *("mekt/messages.py", "mekt/schema.py", "mekt/topics.py", "mekt/arrays.py", "mekt/blobs.py", "mekt/plan.py"),
    *("mekt/modality.py", "mekt/post.py", "coordinator/delivery.py"),
)
COLUMNS = (
    *("decoder", "inputs", "valid", "inputs/s", "inputs/s of computing", "coverage: edges, features", "kept"),
    *("slowest", "peak memory, growth while decoding"),
)


def folder_of(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-")


def peak_bytes() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz_one(name: str, runs: int, folder: Path) -> None:
    """Read `runs` inputs with one decoder; what is told at the end lies in `told.json`."""
    import atheris

    with atheris.instrument_imports(include=["mekt", "coordinator"]):
        from tests.hostile.decoders import DECODERS
    logging.disable(logging.CRITICAL)
    decoder, place = DECODERS[name], folder_of(folder, name)
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(decoder.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    told = {"inputs": 0, "accepted": 0, "slowest_s": 0.0, "slowest_bytes": 0, "grown_bytes": 0}
    began_s = time.monotonic()

    def read(raw: bytes) -> None:
        before_bytes, start_s = peak_bytes(), time.thread_time()
        told["accepted"] += decoder.accepts(raw)
        took_s = time.thread_time() - start_s
        told["grown_bytes"] += peak_bytes() - before_bytes
        told["inputs"] += 1
        if took_s > told["slowest_s"]:
            told["slowest_s"], told["slowest_bytes"] = took_s, len(raw)

    def mutate(raw: bytes, largest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        # Most of what is kept is invalid, each in a way of its own: valid messages have to be gone back to.
        start = chance.choice(decoder.seeds) if chance.random() < 0.4 else bytes(raw)
        mutant = decoder.mutant(start, chance) if start and chance.random() < 0.6 else raw
        # What is unchanged, or too long, is for libFuzzer.
        return mutant if mutant != raw and len(mutant) <= largest else atheris.Mutate(raw, largest)

    def tell() -> None:
        told["wall_s"] = time.monotonic() - began_s
        told["computed_s"] = time.process_time()
        told["peak_bytes"] = peak_bytes()
        (place / "told.json").write_text(json.dumps(told), encoding="ascii")
        if told["inputs"] >= runs:
            # All is well and written; libFuzzer's own threads and alarms do not survive every end of an interpreter.
            sys.stdout.flush()
            os._exit(0)

    atexit.register(tell)
    options = [
        *(f"-atheris_runs={runs}", f"-max_len={LONGEST_INPUT}", f"-timeout={TIMEOUT_S}", "-len_control=0"),
        *(f"-rss_limit_mb={RSS_LIMIT_MB}", f"-artifact_prefix={place}/found-", "-print_final_stats=1", "-verbosity=1"),
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], read, custom_mutator=mutate)
    atheris.Fuzz()


def replay(folder: Path) -> None:
    """Read all that was kept, once."""
    from tests.hostile.decoders import DECODERS

    logging.disable(logging.CRITICAL)
    for name, decoder in DECODERS.items():
        for path in sorted(folder_of(folder, name).glob("corpus/*")):
            decoder.accepts(path.read_bytes())


def run_all(runs: int, folder: Path, only: Sequence[str], jobs: int) -> int:
    """Fuzz every decoder, `jobs` at a time, and print what came of it; 1 when one of them failed."""
    from tests.hostile.decoders import DECODERS

    names = [name for name in DECODERS if not only or name in only]
    share = -(-runs // len(names))
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{' --- |' * len(COLUMNS)}")
    total, failed = 0, 0
    with ThreadPoolExecutor(jobs) as pool:
        for name, told in zip(names, pool.map(lambda name: fuzzed(name, share, folder), names), strict=True):
            place = folder_of(folder, name)
            if isinstance(told, int):
                failed += 1
                print(f"| {name} | FAILED with exit code {told}, see {place}/log |", flush=True)
            else:
                total += told["inputs"]
                print(row(name, told, (place / "log").read_text(encoding="utf-8", errors="replace")), flush=True)
    print(f"\n{total} inputs; {failed} of {len(names)} decoders failed\n", flush=True)
    included = ",".join(f"*/{source}" for source in SOURCES)
    data = f"--data-file={folder}/coverage"
    under = [sys.executable, "-m", "coverage"]
    subprocess.run([*under, "run", data, "-m", "tests.hostile.fuzz", "--replay", "--folder", str(folder)], check=True)
    subprocess.run([*under, "report", data, f"--include={included}", "--show-missing"], check=True)
    return 1 if failed else 0


def fuzzed(name: str, runs: int, folder: Path) -> dict[str, Any] | int:
    """What a process that fuzzes this decoder tells at its end; its exit code when it failed."""
    place = folder_of(folder, name)
    place.mkdir(parents=True, exist_ok=True)
    (place / "told.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--one", name, "--runs", str(runs), "--folder", str(folder)]
    with (place / "log").open("w", encoding="utf-8") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0 or not (place / "told.json").exists():
        return done.returncode
    told: dict[str, Any] = json.loads((place / "told.json").read_text(encoding="ascii"))
    return told


def row(name: str, told: dict[str, Any], text: str) -> str:
    """A decoder's line of the table, from its own words and libFuzzer's last ones."""
    edges, features, kept = (re.findall(rf"\b{word}: (\d+)", text) or ["?"] for word in ("cov", "ft", "corp"))
    cells = (
        name,
        f"{told['inputs']:,}",
        f"{told['accepted']:,}",
        f"{told['inputs'] / told['wall_s']:,.0f}",
        f"{told['inputs'] / told['computed_s']:,.0f}",
        f"{edges[-1]}, {features[-1]}",
        kept[-1],
        f"{1000 * told['slowest_s']:.1f} ms, {told['slowest_bytes']:,} bytes",
        f"{told['peak_bytes'] / 1e6:.0f} MB, {told['grown_bytes'] / 1e6:.0f} MB",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs over all decoders (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-results"), help="what was found (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="decoders at a time (%(default)s)")
    parser.add_argument("--only", action="append", default=[], help="this decoder alone; may be given again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        fuzz_one(arguments.one, arguments.runs, arguments.folder)
        return 0
    if arguments.replay:
        replay(arguments.folder)
        return 0
    return run_all(arguments.runs, arguments.folder, arguments.only, arguments.jobs)


if __name__ == "__main__":
    sys.exit(main())
