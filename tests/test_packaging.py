"""What is installed is complete; the files that say what to install say the same; nothing of a machine is in them."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kdtheory

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [
    requirement
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for requirement in map(Requirement, group)
    if requirement.name != "kdtheory"
]
TOP_LEVEL = {
    *("README.md", "environment.yml", "pyproject.toml", "constraints.txt", "Makefile", "LICENSE", "CITATION.cff"),
    *("CHANGELOG.md", ".ci", ".github", ".gitignore", "kdtheory", "proofs", "notebooks", "figures", "tests"),
}
NOT_OURS = {".git", ".venv", "build", "kdtheory.egg-info"}  # left by git, make and pip, as .gitignore says
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".yml",
    ".cff",
    ".cfg",
    ".json",
    ".csv",
    ".ipynb",
    ".bib",
    ".tex",
    ".mplstyle",
    "",
}
IGNORED = re.compile(r"__pycache__|\.\w+_cache|\.hypothesis|\.ipynb_checkpoints|\.egg-info")
# a home or scratch folder, a file address, a package index that is not public
MACHINE = re.compile(r"/(?:home|root|Users|tmp|opt|work)/[\w.]|file://|/simple/|[A-Z]:\\\\Users")


def tracked():
    """Every file of the project."""
    for entry in sorted(ROOT.iterdir()):
        if entry.name not in NOT_OURS and not IGNORED.search(entry.name):
            for path in sorted(entry.rglob("*")) if entry.is_dir() else [entry]:
                if path.is_file() and not IGNORED.search(str(path.relative_to(ROOT))):
                    yield path


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line and not line.startswith("#")]
    assert all(found), "constraints.txt: every line is name==version, without build or address"
    return {canonicalize_name(match[1]): match[2] for match in found}


# -- one list of dependencies ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_environment_yml_adds_nothing_of_its_own():
    lines = [line.strip("- ") for line in (ROOT / "environment.yml").read_text().splitlines() if "- " in line]
    python = Requirement(f"python{PROJECT['requires-python']}")
    assert lines == ["conda-forge", "python=3.11", "pip", "make", "pip:", "c constraints.txt", "e .[dev]"]
    assert python.specifier.contains("3.11")


def test_make_installs_from_the_same_list():
    text = (ROOT / "Makefile").read_text()
    assert "EXTRAS ?= dev\n" in text
    assert "pip install -c constraints.txt -e '.[$(EXTRAS)]'" in text
    assert "$(READY): pyproject.toml constraints.txt" in text


def test_both_ways_of_continuous_integration_run_make_test():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "- run: .ci/run\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_one_version():
    version = kdtheory.__version__
    assert PROJECT["version"] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version} " in (ROOT / "CHANGELOG.md").read_text()


# -- what is installed -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names in a wheel built from a copy, so that nothing is left in the repository."""
    import shutil

    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "kdtheory", source / "kdtheory", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w"]
    subprocess.run([*command, str(out), str(source)], check=True)
    (path,) = out.glob("*.whl")
    return set(zipfile.ZipFile(path).namelist())


def test_the_wheel_holds_every_file_of_the_package(wheel):
    files = {str(path.relative_to(ROOT)) for path in tracked() if path.is_relative_to(ROOT / "kdtheory")}
    assert {"kdtheory/py.typed", "kdtheory/claims/sources.csv", "kdtheory/figures/kdtheory.mplstyle"} <= files
    assert files - wheel == set()


def test_the_wheel_holds_nothing_else(wheel):
    assert {name.split("/")[0] for name in wheel} == {"kdtheory", f"kdtheory-{kdtheory.__version__}.dist-info"}


# -- what is in the repository -----------------------------------------------------------------------------------------
def test_no_top_level_entry_beyond_the_design():
    found = {path.name for path in ROOT.iterdir() if path.name not in NOT_OURS and not IGNORED.search(path.name)}
    assert found == TOP_LEVEL


def test_no_machine_path_in_a_file():
    found = []
    for path in tracked():
        if path.suffix in TEXT and path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in MACHINE.finditer(text)]
    assert found == []


@pytest.mark.parametrize("text", ["/home/x/y", "file:///a", "https://index/simple/", "/tmp/a"])
def test_a_machine_path_would_be_found(text):
    assert MACHINE.search(text)


def test_modules_stay_small():
    long = [path.name for path in tracked() if path.suffix == ".py" and len(path.read_text().splitlines()) > 300]
    assert [name for name in long if not name.startswith("test_")] == []


ROOMS = ("simplex", "divergences", "transport", "students", "ledger", "claims", "figures", "publish")


def imports(path):
    """Names of kdtheory's rooms that a file imports."""
    return set(re.findall(r"^\s*(?:from|import) kdtheory\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("room", ["divergences", "transport", "ledger"])
def test_imports_point_one_way(room):
    """A room never imports one that stands after it."""
    later = set(ROOMS[ROOMS.index(room) + 1 :]) | {"cli", "reproduce"}
    for path in (ROOT / "kdtheory" / room).rglob("*.py"):
        assert imports(path) & later == set(), path.name


# -- README ------------------------------------------------------------------------------------------------------------
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_training_loop_of_the_readme_trains():
    """Its code, word for word, on a student that is a table of logits."""
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    tokens = torch.arange(7).repeat(2, 1)
    batch = SimpleNamespace(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))
    generator = torch.Generator().manual_seed(0)
    teacher, student = (
        torch.nn.Embedding.from_pretrained(torch.randn(7, 7, generator=generator), freeze=False) for _ in range(2)
    )
    optimiser = torch.optim.SGD(student.parameters(), lr=1.0)
    names = {"teacher": teacher, "student": student, "optimiser": optimiser}
    losses = []
    for steps in (1, 100):
        exec(code, names | {"loader": [batch] * steps}, scope := {})
        losses.append(scope["value"].item())
    assert losses[1] < 0.1 * losses[0]


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_of_the_readme_lead_somewhere(link):
    assert (ROOT / link).exists()
