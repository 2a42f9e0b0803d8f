"""Ask the package index whether each package of the lock has a wheel on each supported platform.

    python tests/check_wheels.py [lock]

Run by hand after `make lock`; it takes less than a minute. The files of a release are read from
PyPI's simple index (PEP 691). Prints the packages that pip would have to build from source, or that
refuse a Python, and exits with status 1 if there are any.
"""

import json
import re
import sys
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from packaging import tags
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[1]
INDEX = "https://pypi.org/simple/"
PYTHONS = ("3.11.0", "3.12.0", "3.13.0")
PLATFORMS = {  # glibc 2.28 (2018) and macOS 14 (2023), or newer systems
    "Linux x86_64": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)]
    + [f"manylinux{tag}_x86_64" for tag in ("2014", "2010", "1")],
    "Linux arm64": [f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)]
    + ["manylinux2014_aarch64"],
    "macOS arm64": list(tags.mac_platforms((14, 0), "arm64")),
    "Windows x86_64": ["win_amd64"],
}


def pins(lock: Path) -> list[str]:
    """The lines ``name==version`` of a lock, without comments and environment markers."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line.split(";")[0].strip() for line in lines if re.match(r"[A-Za-z0-9]", line)]


def supported(python: str, platforms: list[str]) -> set[tags.Tag]:
    """The wheel tags that pip accepts with this CPython on these platforms."""
    major_minor = tuple(int(part) for part in python.split(".")[:2])
    return set(
        chain(
            tags.cpython_tags(major_minor, platforms=platforms),
            tags.compatible_tags(major_minor, f"cp{major_minor[0]}{major_minor[1]}", platforms),
        )
    )


def has_wheel(pin: str, files: Iterable[dict], python: str, platforms: list[str]) -> bool:
    """Tell whether one of a package's files is a wheel of this release that pip would install.

    Args:
        pin: ``name==version``.
        files: the entries ``files`` of the index's answer, of any release.
    """
    version, accepted = Version(pin.split("==")[1]), supported(python, platforms)
    for file in files:
        if not file["filename"].endswith(".whl") or file.get("yanked"):
            continue
        try:
            _, release, _, own = parse_wheel_filename(file["filename"])
        except InvalidWheelFilename:
            continue
        if release != version or not own & accepted:
            continue
        if Version(python) in SpecifierSet(file.get("requires-python") or ""):
            return True
    return False


def files_of(pin: str) -> list[dict]:
    """The files that the index has for a package."""
    address = f"{INDEX}{canonicalize_name(pin.split('==')[0])}/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(address, headers=accept), timeout=60) as it:
        return json.load(it)["files"]


def main(lock: Path) -> int:
    wanted = pins(lock)
    with ThreadPoolExecutor(4) as pool:
        files = dict(zip(wanted, pool.map(files_of, wanted), strict=True))
    lacking: dict[str, list[str]] = {}
    for name, platforms in PLATFORMS.items():
        for python in PYTHONS:
            missing = [pin for pin in wanted if not has_wheel(pin, files[pin], python, platforms)]
            print(f"{name}, Python {python}: {len(missing)} of {len(wanted)} lack a wheel")
            for pin in missing:
                lacking.setdefault(pin, []).append(f"{name} {python}")
    for pin, where in sorted(lacking.items()):
        print(f"no wheel for {pin}: {', '.join(where)}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.lock"))
