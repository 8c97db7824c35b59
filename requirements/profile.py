"""Says how much a wearable installs: packages, megabytes to fetch and on disk, for each machine and Python.

    .venv/bin/python requirements/profile.py

pip fetches the pinned wheels of requirements/wearable.txt for each, and checks their hashes. What is on disk is what is
in the wheels; Python compiles another fifth of it or so when it first runs, and Mekt itself is not in it.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from renew import HERE, MACHINES, PYTHONS

MOST_PACKAGES, MOST_FETCHED_MB = 8, 60.0


def fetched(machine: str, python: str, place: Path) -> list[Path]:
    """The wheels that pip fetches there."""
    tag = python.replace(".", "")
    platforms = [f"manylinux{each}_{machine}" for each in ("2014", "_2_17", "_2_27", "_2_28")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", python, "--require-hashes", "-r", str(HERE / "wearable.txt"), "--dest", str(place)]
    command += [word for each in platforms for word in ("--platform", each)]
    command += [word for each in (f"cp{tag}", "abi3", "none") for word in ("--abi", each)]
    subprocess.run(command, check=True)
    return sorted(place.glob("*.whl"))


def main() -> int:
    """Print a line for each; the exit code is 1 where one is too much."""
    code = 0
    print("| machine | Python | packages | fetched | on disk |\n| --- | --- | ---: | ---: | ---: |")
    for machine in MACHINES:
        for python in PYTHONS:
            with tempfile.TemporaryDirectory() as place:
                wheels = fetched(machine, python, Path(place))
                fetched_mb = sum(each.stat().st_size for each in wheels) / 1e6
                disk_mb = sum(file.file_size for each in wheels for file in zipfile.ZipFile(each).infolist()) / 1e6
            print(f"| {machine} | {python} | {len(wheels)} | {fetched_mb:.1f} MB | {disk_mb:.0f} MB |", flush=True)
            if len(wheels) > MOST_PACKAGES or fetched_mb > MOST_FETCHED_MB:
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
