"""Writes requirements/*.txt anew: every package of a device or a wearable, pinned with the hashes of its wheels.

    .venv/bin/python requirements/renew.py

Versions are those of constraints.txt. For each machine and Python below, pip says what it would install, without doing
it. A CPU build of torch for 64-bit Arm is on no index that pip asks by itself; torch is therefore not among them.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MACHINES = ("aarch64", "x86_64")
PYTHONS = ("3.11", "3.12", "3.13")
PARTS = {
    "wearable": ("msgpack", "numpy", "onnxruntime", "paho-mqtt"),
    # Those of torch itself stand here, so that it can be installed without asking for anything.
    "edge": ("msgpack", "numpy", "paho-mqtt", "filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions"),
}
INSTALL = {
    "wearable": "pip install --require-hashes -r requirements/wearable.txt && pip install --no-deps .",
    "edge": "pip install --require-hashes -r requirements/edge.txt && pip install --no-deps . && \\\n"
    "#     pip install --no-deps --index-url https://download.pytorch.org/whl/cpu torch=={torch}",
}


def wheels(packages: tuple[str, ...], machine: str, python: str) -> list[tuple[str, str, str]]:
    """Name, version and SHA-256 of every wheel that pip would install there."""
    tag = python.replace(".", "")
    platforms = [f"manylinux{each}_{machine}" for each in ("2014", "_2_17", "_2_27", "_2_28")]
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "--target", place, "--only-binary=:all:", "--implementation", "cp"]
        command += ["--python-version", python, "-c", str(HERE.parent / "constraints.txt")]
        command += [word for each in platforms for word in ("--platform", each)]
        command += [word for each in (f"cp{tag}", "abi3", "none") for word in ("--abi", each)]
        subprocess.run([*command, *packages], check=True)
        found = json.loads(report.read_text())["install"]
    return [(each["metadata"]["name"].lower(), each["metadata"]["version"], _sha256(each)) for each in found]


def _sha256(entry: dict[str, Any]) -> str:
    return str(entry["download_info"]["archive_info"]["hashes"]["sha256"])


def main() -> None:
    """Write both files."""
    lines = (HERE.parent / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    for part, packages in PARTS.items():
        hashes: dict[tuple[str, str], set[str]] = defaultdict(set)
        for machine in MACHINES:
            for python in PYTHONS:
                for name, version, sha256 in wheels(packages, machine, python):
                    hashes[name, version].add(sha256)
        where = f"Linux on {' and '.join(MACHINES)}, Python {', '.join(PYTHONS)}"
        lines = [f"# Written by requirements/renew.py, for {where}."]
        lines += ["#", f"#     {INSTALL[part].format(torch=pinned['torch'])}"]
        for (name, version), known in sorted(hashes.items()):
            lines.append(" \\\n    ".join([f"{name}=={version}", *(f"--hash=sha256:{each}" for each in sorted(known))]))
        (HERE / f"{part}.txt").write_text("\n".join(lines) + "\n")
        print(f"{part}.txt: {len(hashes)} packages")


if __name__ == "__main__":
    main()
