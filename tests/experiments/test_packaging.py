"""One place for dependencies, one lock, one conda door; serplib without Jupyter."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", LOCK, re.MULTILINE))


def declared() -> dict[str, str]:
    """Name to lower bound of every dependency in pyproject.toml."""
    lines = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    return dict(line.split(">=") for line in lines)


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


def test_environment_yml_uses_the_lock():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in content["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]
    python = next(str(d) for d in content["dependencies"] if str(d).startswith("python="))
    assert release(python.split("=")[1]) >= release(PROJECT["requires-python"])


def test_dependencies_are_named_in_one_place():
    for name in ("environment.yml", "Makefile", ".ci/run"):
        for line in (ROOT / name).read_text().splitlines():
            if line.lstrip().startswith("sed"):  # `make lock` cuts torch's local version off
                continue
            assert not re.search(r"\b(torch|numpy|papermill|plotly|nbval|jupyterlab)\s*[=<>]", line)


def test_every_folder_of_the_library_is_installed():
    folders = {"serplib"} | {
        f"serplib.{path.parent.name}" for path in (ROOT / "serplib").glob("*/__init__.py")
    }
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(settings["tool"]["setuptools"]["packages"]) == folders


def test_serplib_imports_without_jupyter():
    """Every module but the widgets, with the course's packages hidden."""
    code = """
import importlib, pathlib, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jupyterlab", "ipykernel", "ipywidgets", "plotly", "anywidget",
                                  "papermill", "distributed", "IPython", "nbformat", "numba"}:
            raise ImportError(name + " is hidden")
sys.meta_path.insert(0, Hidden())
root = pathlib.Path(sys.argv[1])
for path in sorted(root.rglob("*.py")):
    module = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(module)
from serplib import fast
assert not fast.AVAILABLE
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
        assert lines <= 370, f"{path.name} has {lines} lines: is it one idea?"
