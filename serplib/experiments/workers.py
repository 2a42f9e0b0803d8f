"""What the workers of a Dask scheduler need: this project, its runs/ and its data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from serplib.data import BUILT_IN, DataError, exists, open_split
from serplib.experiments import records
from serplib.experiments.suites import Run

if TYPE_CHECKING:
    from distributed import Client

HEAD = 2**16  # bytes that are read of each file


class WorkerError(Exception):
    """A worker lacks what a run needs; the message is one line."""


def describe(names: list[str], shared: str) -> dict[str, str]:
    """Describe what a process would execute, and with which data.

    Args:
        names: of data sets.
        shared: a file in runs/.

    Returns:
        ``project``, its folder; ``revision``, by git; ``code``, a digest of what decides results;
        ``runs/``, whether the file is there; ``data NAME``, a checksum.
    """
    return {
        "project": str(records.project_root()),
        "revision": records._git()["revision"] or "unknown",
        "code": records.code_digest.__wrapped__(),  # a worker may be older than the files
        "runs/": "shared" if Path(shared).is_file() else "not shared",
        **{f"data {name}": _checksum(name) for name in names},
    }


def _checksum(name: str) -> str:
    """Digest names, sizes and the first 64 KiB of the files of a data set."""
    if not exists(name):
        return "not found"
    digest = hashlib.sha256()
    try:
        for split in ("train", "test"):
            source = open_split(name, split)
            for path in source.files:
                place = path.relative_to(source.root).as_posix()
                digest.update(f"{place} {path.stat().st_size}\n".encode())
                with open(path, "rb") as file:
                    digest.update(file.read(HEAD))
    except (DataError, OSError) as error:
        return " ".join(str(error).split())
    return digest.hexdigest()[:16]


def check(client: Client, runs: Iterable[Run]) -> None:
    """Compare the workers that a scheduler has now with this process.

    Raises:
        WorkerError: one has another project, revision, code or data, or another runs/.
    """
    keys = ("dataset", "test_dataset")
    given = {run.parameters.get(key, "") for run in runs for key in keys}
    names = sorted(given - {"", *BUILT_IN})
    folder = records.project_root() / "runs"
    try:
        folder.mkdir(exist_ok=True)
        file = NamedTemporaryFile(dir=folder, prefix=".shared")
    except OSError as error:
        raise WorkerError(f"{folder} cannot be written: {error.strerror}") from None
    with file:
        ours = describe(names, file.name)
        answers = client.run(describe, names, file.name, on_error="return")
    for worker, theirs in answers.items():
        if isinstance(theirs, BaseException):
            raise WorkerError(f"worker {worker} cannot run: {' '.join(repr(theirs).split())}")
        for key, value in ours.items():
            if theirs.get(key) != value:  # an older worker may lack one
                raise WorkerError(
                    f"worker {worker}: {key} is {theirs.get(key)!r}, here {value!r}; workers need "
                    "this folder on a shared disk, at the same revision, and the same SERP_DATA"
                )
