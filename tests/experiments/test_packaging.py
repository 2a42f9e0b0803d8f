"""Dependencies are declared once and locked; every way to install uses the lock."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import check_wheels
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", LOCK, re.MULTILINE))


def declared() -> dict[str, str]:
    """Name to lower bound of every dependency that the lock contains: all but the bench extra."""
    lines = list(PROJECT["dependencies"])
    for name, extra in PROJECT["optional-dependencies"].items():
        lines += extra if name != "bench" else []
    return dict((*line.split(",")[0].split(">="), "0")[:2] for line in lines)


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def test_lock_pins_every_dependency_at_or_above_its_bound():
    assert len(declared()) > 15
    for name, bound in declared().items():
        assert name in PINS, f"{name} is not in requirements.lock: make lock"
        assert release(PINS[name]) >= release(bound), name


def test_lock_is_exact_and_names_no_place():
    for line in LOCK.splitlines():
        if line and not line.lstrip().startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+", line), line
    assert PINS["torch"] == "2.13.0"


@pytest.mark.parametrize(
    "filename, more, wanted",
    [
        ("a-1.0-py3-none-any.whl", {}, True),
        ("a-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", {}, True),
        ("a-1.0-cp39-abi3-manylinux2014_x86_64.whl", {}, True),
        ("a-1.0-cp312-cp312-manylinux_2_34_x86_64.whl", {}, False),  # a newer glibc
        ("a-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", {}, False),
        ("a-1.0-cp312-cp312-win_amd64.whl", {}, False),
        ("a-1.1-py3-none-any.whl", {}, False),
        ("a-1.0.tar.gz", {}, False),
        ("a-1.0-py3-none-any.whl", {"yanked": True}, False),
        ("a-1.0-py3-none-any.whl", {"requires-python": ">=3.13"}, False),
    ],
)
def test_a_wheel_that_pip_would_not_install_does_not_count(filename, more, wanted):
    linux = check_wheels.PLATFORMS["Linux x86_64"]
    files = [{"filename": filename, **more}]
    assert check_wheels.has_wheel("a==1.0", files, "3.12.0", linux) is wanted


def test_environment_yml_uses_the_lock():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in content["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    python = next(str(d) for d in content["dependencies"] if str(d).startswith("python="))
    assert release(python.split("=")[1]) >= release(PROJECT["requires-python"])


def test_binder_devcontainer_and_workflow_use_the_lock():
    assert (ROOT / ".binder" / "requirements.txt").read_text() == "-r ../requirements.lock\n"
    assert "pip install --no-deps" in (ROOT / ".binder" / "postBuild").read_text()
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup"
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    for line in commands.splitlines():
        if "pip install" in line:
            assert "-r requirements.lock" in line or "--no-deps -e ." in line, line
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", commands):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons == ["3.11", "3.12", "3.13"]
    for step in steps:
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), step["uses"]


def test_the_citation_file_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    assert {"message", "title", "authors"} <= set(citation)
    assert "2209.06067" in citation["preferred-citation"]["url"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_dependencies_are_named_in_one_place():
    for name in ("environment.yml", "Makefile", ".ci/run", ".github/workflows/ci.yml"):
        for line in (ROOT / name).read_text().splitlines():
            if line.lstrip().startswith("sed"):  # `make lock` cuts torch's local version off
                continue
            assert not re.search(r"\b(torch|numpy|papermill|plotly|nbval|jupyterlab)\s*[=<>]", line)


def test_every_folder_of_the_library_is_installed():
    """setuptools finds each folder with an ``__init__.py``; the type marker is package data."""
    assert SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"] == ["serplib*"]
    for path in (ROOT / "serplib").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path.parent
    assert SETTINGS["tool"]["setuptools"]["package-data"] == {"serplib": ["py.typed"]}
    assert (ROOT / "serplib" / "py.typed").is_file()


def test_serplib_imports_without_jupyter():
    """With the course's packages, Numba and Triton hidden; geometry then uses plain PyTorch."""
    code = """
import importlib, pathlib, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jupyterlab", "ipykernel", "ipywidgets", "plotly", "anywidget",
                                  "papermill", "distributed", "IPython", "nbformat", "numba",
                                  "triton"}:
            raise ImportError(name + " is hidden")
sys.meta_path.insert(0, Hidden())
root = pathlib.Path(sys.argv[1])
for path in sorted(root.rglob("*.py")):
    module = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
    # The accelerators' own modules are loaded by accel.searches, where there is what they need.
    if module not in {f"serplib.accel.{name}" for name in ("cpu", "numba_ops", "triton_ops")}:
        importlib.import_module(module)
import torch
from serplib import accel
assert accel.searches(torch.zeros(1, 4, 3)) is None
print("imported")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "serplib")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "imported"


def test_modules_are_small():
    for path in (ROOT / "serplib").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 500, f"{path.name} has {lines} lines: is it one topic?"


def test_the_modules_of_the_paper_can_be_read_in_an_evening():
    names = "geometry perturbation pretext pointnet patches transformer bottlenecks vasp point_mae"
    names += " presets classifier training checkpoint"
    paths = [ROOT / "serplib" / f"{name}.py" for name in names.split()]
    assert sum(len(path.read_text().splitlines()) for path in paths) <= 2_500
