"""Who may import whom, and what must run where torch and onnx are not installed."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "mekt": {"mekt"},
    "sensors": {"sensors", "mekt"},
    "export": {"export", "mekt"},
    "edge": {"edge", "sensors", "export", "mekt"},
    "coordinator": {"coordinator", "export", "sensors", "mekt"},
    "bench": {"bench", "coordinator", "edge", "export", "sensors", "mekt"},
}
# What a wearable imports; of `export`, only these may be known to `edge`.
LEAN_EXPORT = {"export.bundle", "export.manifest", "export.release", "export.session", "export.words"}
LEAN = {
    *("edge.account", "edge.audit", "edge.chain", "edge.contents"),
    "edge.fetching",
    *("edge.agreement", "edge.enrolment", "edge.infer", "edge.renewal", "edge.runtime", "edge.score"),
    *("edge.steps", "edge.turns"),
    *LEAN_EXPORT,
    *(
        "mekt.arrays",
        "mekt.fixedpoint",
        "mekt.masks",
        "mekt.shamir",
        "mekt.blobs",
        "mekt.broker",
        "mekt.catalogue",
        "mekt.clock",
        "mekt.connection",
        "mekt.credentials",
        "mekt.ed25519",
        "mekt.errors",
        "mekt.explain",
        "mekt.files",
        "mekt.identity",
        "mekt.inbox",
        "mekt.leash",
        "mekt.standin",
        "mekt.link",
        "mekt.login",
        "mekt.messages",
        "mekt.share",
    ),
    *("mekt.modality", "mekt.plan", "mekt.schema", "mekt.scores", "mekt.settings", "mekt.topics"),
    *(
        "mekt.__main__",
        "mekt.chaos",
        "mekt.database",
        "mekt.cli",
        "mekt.commands.command",
        "mekt.commands.daemons",
        "mekt.commands.questions",
        "mekt.commands.releases",
        "mekt.commands.sensors",
        "mekt.commands.trials",
        "mekt.commands.trust",
        "mekt.demo",
        "mekt.doctor",
        "mekt.attempt",
        "mekt.check",
        "mekt.machine",
        "mekt.outgoing",
        "mekt.packages",
        "mekt.patience",
        "mekt.permits",
        "mekt.reach",
        "mekt.visit",
        "mekt.parts",
        "mekt.post",
        "mekt.process",
        "mekt.scenes",
        "mekt.session",
        "mekt.signature",
        "mekt.strikes",
        "mekt.clock",
        "mekt.token",
        "mekt.traffic",
        "mekt.verdict",
        "mekt.watch",
    ),
}
# Beyond Python itself. protobuf and flatbuffers are onnxruntime's own.
LEAN_PACKAGES = {"numpy", "msgpack", "paho", "onnxruntime", "google", "flatbuffers", "packaging"}
BY_NAME = {"importlib.import_module", "import_module", "__import__"}
UNSAFE = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))}
LEAN |= {name for name in MODULES if re.match(r"(sensors\b|edge\.(updates|wearable)\.)", name)}


def imported(name: str) -> Iterator[tuple[int, str]]:
    """Line and full name of all that the module's source imports, inside functions too.

    Imports by name count as well, except for `mekt`, whose command line reaches the other parts that way.
    """
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BY_NAME and not name.startswith("mekt"):
            target = node.args[0]
            assert isinstance(target, ast.Constant), f"{name}:{node.lineno}: imports what nobody can check"
            yield node.lineno, str(target.value)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_package_may_know(name: str) -> None:
    package = name.split(".")[0]
    for line, other in imported(name):
        root = other.split(".")[0]
        assert root not in MAY_IMPORT or root in MAY_IMPORT[package], f"{name}:{line}: {package} must not know {other}"
        if package == "edge" and root == "export":
            assert other in LEAN_EXPORT, f"{name}:{line}: edge only reads releases and must not know {other}"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_imports_what_runs_code_from_data(name: str) -> None:
    assert [f"{name}:{line}: {other}" for line, other in imported(name) if other.split(".")[0] in UNSAFE] == []


@pytest.mark.parametrize("name", MODULES)
def test_arrays_are_never_loaded_with_pickle(name: str) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"{name}:{node.value.lineno}: allow_pickle must be False"
            assert node.value.value is False, f"{name}:{node.value.lineno}: allow_pickle must be False"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in {"load", "save"}, f"{name}:{node.lineno}: torch.{node.attr} pickles"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {name: {other for _, other in imported(name) if other in MODULES and other != name} for name in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", sorted(LEAN))
def test_what_a_wearable_needs_does_not_import_torch_or_onnx_later_either(name: str) -> None:
    assert {other.split(".")[0] for _, other in imported(name)} & {"torch", "onnx"} == set()


def test_architecture_marks_the_modules_that_a_wearable_needs() -> None:
    papers = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)\.py` \| .*\blean\*\) \|$", papers, re.MULTILINE)
    marked = {row.replace("/", ".") for row in rows}
    assert "### sensors: what a device senses (all *lean*)" in papers
    assert marked == {name for name in LEAN if not name.startswith("sensors")}


def test_what_a_wearable_needs_is_imported_without_torch_and_onnx() -> None:
    probe = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    files = [each for each in list(sys.modules) if getattr(sys.modules[each], '__file__', None)]\n"
        "    print(name, *sorted({each.split('.')[0] for each in files}))\n"
    )

    def loaded(*names: str) -> list[list[str]]:
        command = [sys.executable, "-c", probe, *names]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    # What an interpreter of this environment loads before any import of ours is not ours to answer for.
    [[_, *bare]] = loaded("sys")
    allowed = sys.stdlib_module_names | LEAN_PACKAGES | set(MAY_IMPORT) | set(bare)
    for name, *packages in loaded(*sorted(LEAN)):
        assert set(packages) - allowed == set(), f"{name} brings along what a wearable does not have"
