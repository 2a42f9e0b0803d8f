"""Ask pip's index whether every package of the lock has a wheel on every supported platform.

    python tests/check_wheels.py [lock]

Run by hand after `make lock`; it takes 20 minutes, because pip fetches the metadata of each package
for each platform. Prints the packages that pip would have to build from source, or that refuse a
Python, and exits with status 1 if there are any.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")  # to pip these are 3.11.0, 3.12.0 and 3.13.0
MACOS = [f"macosx_{major}_0_arm64" for major in range(14, 10, -1)]
PLATFORMS = {  # glibc 2.28 (2018) and macOS 14 (2023), or newer systems
    "Linux x86_64": [f"manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_24", "2014")],
    "Linux arm64": [f"manylinux{tag}_aarch64" for tag in ("_2_28", "_2_27", "_2_24", "2014")],
    "macOS arm64": [*MACOS, "macosx_11_0_universal2", "macosx_10_9_universal2"],
    "Windows x86_64": ["win_amd64"],
}


def pins(lock: Path) -> list[str]:
    """The lines ``name==version`` of a lock, without comments and environment markers."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    return [line.split(";")[0].strip() for line in lines if re.match(r"[A-Za-z0-9]", line)]


def without_wheel(wanted: list[str], platforms: list[str], python: str) -> list[str]:
    """The pins that pip cannot install from a wheel on one platform.

    Raises:
        RuntimeError: pip stopped for another reason, such as a network that does not answer.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
    command += ["--ignore-installed", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", python]
    for platform in platforms:
        command += ["--platform", platform]
    remaining, missing = list(wanted), []
    with tempfile.TemporaryDirectory() as folder:
        while remaining:  # pip names the first missing wheel and stops
            done = subprocess.run(
                [*command, "--target", folder, *remaining], capture_output=True, text=True
            )
            if done.returncode == 0:
                break
            found = re.search(r"No matching distribution found for (\S+)", done.stderr)
            if not found or found[1] not in remaining:
                raise RuntimeError(done.stderr[-2000:])
            remaining.remove(found[1])
            missing.append(found[1])
    return missing


def main(lock: Path) -> int:
    wanted = pins(lock)
    lacking: dict[str, list[str]] = {}
    for name, platforms in PLATFORMS.items():
        for python in PYTHONS:
            missing = without_wheel(wanted, platforms, python)
            print(f"{name}, Python {python}: {len(missing)} of {len(wanted)} lack a wheel")
            for pin in missing:
                lacking.setdefault(pin, []).append(f"{name} {python}")
    for pin, where in sorted(lacking.items()):
        print(f"no wheel for {pin}: {', '.join(where)}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.lock"))
