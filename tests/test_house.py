"""The house's papers agree with the code: build steps, the list of modules, the table of errors."""

import ast
import re
import tomllib
from pathlib import Path
from typing import get_args

from mekt import errors
from mekt.messages import Trouble

ROOT = Path(__file__).parents[1]
PACKAGES = ("mekt", "sensors", "edge", "export", "coordinator")
# The bench is in no image, but in the papers.
LISTED = (*PACKAGES, "bench")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pip_commands(name: str) -> list[str]:
    return re.findall(r'-m (pip install .*?"\.\[[a-z,]+\]")', text_of(name))


def errors_of_the_code() -> dict[str, int]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MektError)]
    return {each.__name__: each.exit_code for each in found}


def test_the_images_install_what_make_demo_installs() -> None:
    for_demo = next(command for command in pip_commands("Makefile") if "-e" in command)
    assert pip_commands("Dockerfile") == [for_demo]


def test_every_pip_command_keeps_to_the_constraints() -> None:
    for name in ("Makefile", "Dockerfile"):
        assert all("-c constraints.txt" in command for command in pip_commands(name))


def test_the_constraints_name_one_version_of_each_package_that_pyproject_asks_for() -> None:
    lines = [line for line in text_of("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines), "versions without +cpu"
    pinned = [re.split("==", line)[0].lower().replace("_", "-") for line in lines]
    assert len(set(pinned)) == len(pinned)
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    assert {re.split(r"[<>=~!\[; ]", each)[0].lower().replace("_", "-") for each in wanted} <= set(pinned)


def test_the_images_hold_every_package_and_may_copy_all_that_they_copy() -> None:
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", text_of("Dockerfile"), re.M) for word in line.split()}
    assert set(PACKAGES) <= copied
    sent = {line[1:] for line in text_of(".dockerignore").splitlines() if line.startswith("!")}
    assert {path.split("/")[0] for path in copied} == sent
    assert all((ROOT / path).exists() for path in copied)


def test_the_dockerfile_has_the_two_daemons_and_no_root() -> None:
    dockerfile = text_of("Dockerfile")
    assert re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.M) == [
        ("python:3.11-slim", "base"),
        ("base", "coordinator"),
        ("base", "edge"),
    ]
    assert dockerfile.index("USER mekt") < dockerfile.index('ENTRYPOINT ["mekt"]')


def test_architecture_lists_every_module_once_and_no_other() -> None:
    listed = re.findall(rf"^\| `((?:{'|'.join(LISTED)})/\S+\.py)` \|", text_of("ARCHITECTURE.md"), re.M)
    there = {
        str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for package in LISTED
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py"
    }
    missing = [f"| `{path}` | {there[path].splitlines()[0]} |" for path in sorted(set(there) - set(listed))]
    assert missing == [], "add to the tables of ARCHITECTURE.md:\n" + "\n".join(missing)
    assert sorted(set(listed) - set(there)) == [], "ARCHITECTURE.md lists modules that are not there"
    assert len(set(listed)) == len(listed)


def test_the_papers_name_every_exit_code_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| .+ \| .+ \|$", text_of("docs/errors.md"), re.M)
    assert {name: int(code) for code, name in rows} == errors_of_the_code()
    assert {int(code) for code in re.findall(r"^\| (\d+) \| ", text_of("README.md"), re.M)} == {
        0,
        *errors_of_the_code().values(),
    }


def test_every_trouble_with_a_message_has_its_row() -> None:
    section = text_of("docs/errors.md").partition("## Messages that something is wrong with")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| .+ \| .+ \|$", section, re.M)
    assert sorted(rows) == sorted(get_args(Trouble))


def test_every_error_has_a_section_with_remedies() -> None:
    sections = re.findall(r"^## (\d+): `(\w+)`$", text_of("docs/errors.md"), re.M)
    assert {name: int(code) for code, name in sections} == errors_of_the_code()


def test_the_readme_starts_with_the_two_commands() -> None:
    first_block = text_of("README.md").split("```")[1]
    commands = [line.split("#")[0].strip() for line in first_block.splitlines()[1:] if line]
    assert commands == ["make demo", "make test"]


def test_the_settings_in_the_readme_are_toml() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", text_of("README.md"), re.S)
    assert len(blocks) >= 2
    assert all(tomllib.loads(block) for block in blocks)


def test_the_readme_shows_the_commands_that_the_images_run() -> None:
    for command in re.findall(r"^CMD (.*)$", text_of("Dockerfile"), re.M):
        *words, path = ast.literal_eval(command)
        assert f"mekt {' '.join(words)} {Path(path).name}" in text_of("README.md")
        assert path in text_of("README.md")


def test_links_between_the_papers_lead_somewhere() -> None:
    for paper in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", paper.read_text(encoding="utf-8")):
            assert (paper.parent / target).exists(), f"{paper.name} links to {target}"
