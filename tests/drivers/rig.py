"""Sources against the kernel's own drivers: `python -m tests.drivers.rig`, or `make drivers`.

Debian's kernel boots in qemu, without KVM and without root, with a camera (vivid), an I2C bus (i2c-stub) and a hub of
HID sensors (/dev/uhid). The checks in `guest/` run there; what they say comes back over a serial port.
"""

import argparse
import compileall
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from mekt.leash import leashed
from tests.debian import MissingError, cache_folder
from tests.drivers.initramfs import Archive, add_modules, add_python
from tests.drivers.packages import Machine, machine

ROOT = Path(__file__).parents[2]
OURS = ("mekt", "sensors", "edge", "tests/drivers")
PACKAGES = (
    "numpy",
    "numpy.libs",
    "msgpack",
    "paho",
    "pytest",
    "_pytest",
    "py",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
)
MODULES = {
    "uhid": "",
    "hid-sensor-hub": "",
    "hid-sensor-accel-3d": "",
    "hid-sensor-gyro-3d": "",
    "i2c-dev": "",
    "i2c-stub": "chip_addr=0x68,0x69",
    "bmi160_i2c": "",
    # One camera and nothing else of what it can pretend to be.
    "vivid": "n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0 multiplanar=1 no_error_inj=0",
}
MEMORY_MB = 1024
CHECKS_S, ALL_S = 1200.0, 1800.0
NICE = 1


@dataclass
class Run:
    """What a guest has said."""

    booted: dict[str, Any] = field(default_factory=dict)
    collected: list[str] = field(default_factory=list)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: str = ""
    end: dict[str, Any] | None = None
    foreign: list[str] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        """One line of it."""
        try:
            said = json.loads(line)
        except ValueError:
            self.foreign.append(line.decode(errors="replace").rstrip())
            return
        match said.pop("what"):
            case "booted":
                self.booted = said
                print(f"the guest is up: {said['kernel']}, {said['uptime_s']:.0f} s after its start", flush=True)
            case "loaded":
                print(f"{said['modules']} modules are loaded, {said['uptime_s']:.0f} s after its start", flush=True)
            case "collected":
                self.collected = said["checks"]
            case "begun":
                self.running = said["name"]
            case "check":
                self.running = ""
                self.checks[said["name"]] = said
                shown(said)
            case "end":
                self.end = said
            case unknown:
                self.foreign.append(str(unknown))

    def problems(self) -> list[str]:
        """Why this run proves nothing; empty when every check has passed."""
        found = [f"{name}: {each['outcome']}" for name, each in self.checks.items() if each["outcome"] != "passed"]
        found += [f"{name}: never ended" for name in self.collected if name not in self.checks]
        if not self.collected:
            found.append("no check was there to run")
        if self.end is None:
            found.append("the guest did not come to its end")
        elif self.end["code"] != 0:
            found.append(f"pytest in the guest: {self.end['code']}")
        return found


def main() -> int:
    """Run it; 1 when a check has failed, 2 when it could not be run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "drivers", help="results and the guest's console")
    parser.add_argument("--only", default="", help="checks whose names match, as for pytest -k")
    parser.add_argument("--nice", type=int, default=NICE, help="how far the guest stands back behind other processes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    began_s = time.monotonic()
    try:
        made = machine(cache_folder("mekt-drivers"))
    except MissingError as error:
        print(f"make drivers: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mekt-drivers-") as name:
        image = Path(name) / "initramfs"
        image.write_bytes(initramfs(made, options.only))
        print(f"the guest's files: {image.stat().st_size / 1e6:.0f} MB", flush=True)
        run = boot(made, image, options.out, options.nice)
    seconds = time.monotonic() - began_s
    problems = run.problems()
    results = {"seconds": round(seconds, 1), "booted": run.booted, "checks": run.checks, "problems": problems}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"{len(run.checks)} checks in {seconds:.0f} s; all of it is in {options.out}")
    for line in [*run.foreign, *problems]:
        print(f"  {line}", file=sys.stderr)
    if run.end is None or not run.checks:
        console = (options.out / "console.log").read_text(encoding="utf-8", errors="replace")
        print("the guest's console ends with:\n" + "\n".join(console.splitlines()[-40:]), file=sys.stderr)
    return int(bool(problems))


def initramfs(made: Machine, only: str) -> bytes:
    """The guest's files, with what it shall do."""
    archive = Archive()
    for path in ("/proc", "/sys", "/dev", "/tmp", "/run"):
        archive.folder(path)
    add_python(archive, PACKAGES)
    for name in OURS:
        # Compiled here, where it takes no time.
        compileall.compile_dir(ROOT / name, quiet=1)
        archive.copy_tree(ROOT / name, f"/mekt/{name}")
    archive.copy(ROOT / "tests/__init__.py", "/mekt/tests/__init__.py")
    checks = sorted(f"tests/drivers/guest/{path.name}" for path in (ROOT / "tests/drivers/guest").glob("checks_*.py"))
    arguments = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.drivers.guest.reporter",
        "--noconftest",
        "-c",
        "/dev/null",
    ]
    arguments += ["--rootdir", "/mekt", "-W", "error", "--tb=short", *checks, *(["-k", only] if only else [])]
    plan = {
        "modules": add_modules(archive, made.modules, MODULES),
        "arguments": arguments,
        "patience_s": CHECKS_S,
        "environment": {
            "PYTHONPATH": "/mekt:/site",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/tmp",
            "PATH": "/bin",
            "TERM": "dumb",
        },
    }
    archive.add("/plan.json", json.dumps(plan).encode())
    script = (ROOT / "tests/drivers/guest/init.py").read_bytes()
    archive.add("/init", f"#!{Path(sys.executable).resolve()} -IS\n".encode() + script, mode=0o755)
    return archive.pack()


def boot(made: Machine, image: Path, out: Path, nice: int) -> Run:
    """Start the guest and listen until it is off."""
    console = out / "console.log"
    console.unlink(missing_ok=True)
    command = [
        *made.emulator.command,
        *("-accel", "tcg", "-machine", "pc", "-cpu", "max", "-smp", "1", "-m", str(MEMORY_MB)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-serial", f"file:{console}", "-serial", "stdio"),
        *("-kernel", str(made.kernel), "-initrd", str(image)),
        *("-append", "console=ttyS0 panic=-1 loglevel=5 mitigations=off no_timer_check rdinit=/init"),
    ]
    run = Run()
    with (
        (out / "qemu.log").open("wb") as complaints,
        subprocess.Popen(
            leashed(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=os.environ | made.emulator.environment,
        ) as process,
    ):
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
            assert process.stdout is not None
            listen(process.stdout, run, time.monotonic() + ALL_S)
        finally:
            process.kill()
    return run


def listen(port: IO[bytes], run: Run, until_s: float) -> None:
    """Take every line until the guest is off, or its time is up."""
    os.set_blocking(port.fileno(), False)
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(port, selectors.EVENT_READ)
        while (left_s := until_s - time.monotonic()) > 0:
            if selector.select(left_s):
                data = os.read(port.fileno(), 1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    run.take(line)
    print(
        f"the guest was not off after {ALL_S:.0f} s and was stopped; it ran {run.running or 'no check'}",
        file=sys.stderr,
    )


def shown(check: dict[str, Any]) -> None:
    """Say how one has ended, with what it measured."""
    name = check["name"].rsplit("/", 1)[-1]
    figures = ", ".join(f"{key} {value}" for key, value in check["figures"].items())
    print(f"{check['outcome']:<7} {check['seconds']:6.1f} s  {name}{': ' if figures else ''}{figures}", flush=True)
    if check["outcome"] != "passed":
        print("    " + check["text"].replace("\n", "\n    "), flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    # So that `finally` ends the guest.
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
