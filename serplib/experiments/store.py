"""Copies of executed notebooks, records and reports at an fsspec address (`serp run --store`)."""

from __future__ import annotations

from pathlib import Path

from serplib.experiments import records
from serplib.experiments.render import counted


class StoreError(ValueError):
    """A store that cannot be written; the message is one line."""


class Store:
    """A folder at an fsspec address, such as ``s3://bucket/serp``, with the layout of runs/.

    Args:
        address: an fsspec address; without a protocol a local folder.

    Raises:
        StoreError: nothing can be written there.
    """

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        self.address = address
        self.waiting: dict[Path, None] = {}  # files not copied yet, in their order
        try:
            if not address:
                raise ValueError("empty")
            self.system, self.root = url_to_fs(address)
            self.system.makedirs(self.root, exist_ok=True)
            probe = f"{self.root.rstrip('/')}/.serp"
            self.system.pipe_file(probe, b"")
            self.system.rm_file(probe)
        except Exception as error:  # each file system has errors of its own
            raise StoreError(
                f"cannot write to the store {address!r} ({_reason(error)}): wanted an fsspec "
                "address, such as s3://BUCKET/FOLDER, with its package and credentials"
            ) from None

    def add(self, *paths: Path) -> str:
        """Copy files of runs/, first those that could not be copied before.

        Args:
            paths: files that exist are copied, others are left out.

        Returns:
            Why some files are still not copied, in one line; empty where all are.
        """
        self.waiting |= dict.fromkeys(path for path in paths if path.is_file())
        home = records.project_root() / "runs"
        for path in list(self.waiting):
            place = f"{self.root.rstrip('/')}/{path.relative_to(home).as_posix()}"
            try:
                self.system.makedirs(place.rpartition("/")[0], exist_ok=True)
                self.system.put_file(str(path), place)
            except Exception as error:  # the network may be back with the next run
                files = counted(len(self.waiting), "file")
                return f"{files} not copied to {self.address}: {_reason(error)}"
            del self.waiting[path]
        return ""


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
