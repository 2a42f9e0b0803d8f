"""`serp run --store`: copies of notebooks, records and the report at an fsspec address."""

import copy
import shutil
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from serplib.experiments import cli, records, runner, store, suites, workload

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A project whose runs write at once what a real one leaves behind; the runs that ran."""
    (record,) = records.read_suite("sim-to-real-quick")["records"]
    home = tmp_path / "project" / "notebooks" / "experiments"
    shutil.copytree(ROOT / "notebooks" / "experiments", home)
    monkeypatch.setenv("SERP_ROOT", str(tmp_path / "project"))
    ran = []

    def execute(runs, workers, scheduler, on_outcome, fresh, retries):
        outcomes = []
        for run in runs:
            (run.folder / "checkpoint").mkdir(parents=True)
            (run.folder / "checkpoint" / "state").write_text("large")
            (run.folder / "encoder.safetensors").write_text("large")
            (run.folder / "notebook.ipynb").write_text(f"notebook {run.seed}")
            made = copy.deepcopy(record)
            made["parameters"]["seed"] = run.seed
            made["run"] |= {"name": run.name, "hash": run.hash}
            records.write_json(run.folder / "record.json", made)
            outcome = {
                "name": run.name,
                "seed": run.seed,
                "state": "done",
                "message": "",
                "seconds": 1.0,
            }
            outcomes.append(outcome | {"notebook": str(run.folder / "notebook.ipynb")})
            on_outcome(outcomes[-1])
            ran.append(run)
        return outcomes

    monkeypatch.setattr(runner, "execute", execute)
    monkeypatch.setattr(workload, "require_data", lambda runs: None)  # ModelNet40 may be missing
    monkeypatch.setattr(runner, "execute_notebook", lambda name, path, given: path.touch())
    return ran


def serp(address: object, seeds: int = 2):
    words = ["run", "sim-to-real", "--seeds", str(seeds), "--store", str(address)]
    return CliRunner().invoke(cli.app, words)


def wanted(ran) -> set[str]:
    runs = {
        f"{run.folder.name}/{name}" for run in ran for name in ("notebook.ipynb", "record.json")
    }
    return runs | {"report.html", "report.md", "report.ipynb"}


@pytest.mark.parametrize("address", ["memory://serp{}", "file://{}/new/folder", "{}/plain"])
def test_notebooks_records_and_report_are_copied_and_no_checkpoint(ran, tmp_path, address):
    done = serp(address := address.format(tmp_path))
    assert done.exit_code == 0, done.output
    system, root = fsspec.core.url_to_fs(address)
    place = f"{root}/sim-to-real-quick/"
    found = {path.removeprefix(place) for path in system.find(root)}
    assert found == wanted(ran) and len(ran) == 2
    for run in ran:
        for name in ("notebook.ipynb", "record.json"):
            copied = system.cat_file(f"{place}{run.folder.name}/{name}")
            assert copied == (run.folder / name).read_bytes()


@pytest.mark.parametrize("failures", [1, 2, 1000])
def test_what_was_not_copied_is_copied_with_the_next_run(ran, tmp_path, monkeypatch, failures):
    from fsspec.implementations.local import LocalFileSystem as Local

    put, calls = Local.put_file, []

    def flaky(self, *words, **options):
        calls.append(words)
        if len(calls) <= failures:
            raise OSError("the network\nis away")
        return put(self, *words, **options)

    monkeypatch.setattr(Local, "put_file", flaky)
    done = serp(tmp_path / "store")
    told = f"not copied to {tmp_path / 'store'}: OSError: the network is away"
    assert told in done.output and len(ran) == 2, "the suite goes on"
    place = tmp_path / "store" / "sim-to-real-quick"
    found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert found == (set() if failures == 1000 else wanted(ran))
    assert done.exit_code == (1 if failures == 1000 else 0)
    if done.exit_code:
        assert done.stderr.strip().splitlines()[-1] == f"serp: 7 files {told}"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "store '' (ValueError: empty)"),
        ("nonsense://x", "Protocol not known: nonsense"),
        ("zip://a::file:///no/such/file", "No such file"),
        ("file:///dev/null/x", "Not a directory"),
        ("FILE/x", "Not a directory"),
    ],
)
def test_a_store_that_cannot_be_written_exits_with_2_before_anything_runs(
    ran, tmp_path, address, says
):
    (tmp_path / "file").touch()
    done = serp(address.replace("FILE", str(tmp_path / "file")))
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and says in line and line.startswith("serp: cannot write to the")
    assert not ran and not done.stdout
    assert not any(run.folder.exists() for run in suites.plan("sim-to-real"))


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(address):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(store.StoreError, match=r"'s3://b/x' \(ImportError: Install s3fs"):
        store.Store("s3://b/x")
