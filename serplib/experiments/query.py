"""Read-only SQL over all records: the command ``serp query``."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd

from serplib.experiments import records
from serplib.experiments.tables import label_of

COLUMNS = tuple(  # the first columns of `table`, described in notebooks/experiments/README.md
    "suite profile name seed label part kind model dataset preset changes swept labels_per_class "
    "epochs seconds device revision finished hash source".split()
)
_KINDS = {"test": "finetune", "probes": "probe", "leakage": "leakage"}


class QueryError(ValueError):
    """A query that is refused or fails; the message is one line."""


def table() -> pd.DataFrame:
    """Build the table ``runs``, a row a run; a local copy of a committed record is left out.

    Returns:
        The columns of `COLUMNS`, then those of the metrics: entry ``a`` of metric ``m`` is column
        ``m_a``. Accuracies are between 0 and 1.
    """
    found: list[tuple[str, dict]] = []
    for path in sorted(records.results_folder().glob("*.json")):
        content = records.read_json(path)
        found += [("committed", record) for record in content.get("records", [])]
    for path in sorted((records.project_root() / "runs").glob("*/*/record.json")):
        if not path.parts[-3].endswith("-smoke"):
            found.append(("local", records.read_json(path)))
    kept_by_run = {  # without those of pipelines that were called from Python
        (*(record["run"][k] for k in ("suite", "hash")), record["finished"]): (source, record)
        for source, record in reversed(found)
        if record["run"]
    }
    kept = list(reversed(kept_by_run.values()))
    rows = pd.DataFrame([_row(*pair) for pair in kept], columns=[*COLUMNS])
    measured = pd.json_normalize([record["metrics"] for _, record in kept], sep="_")
    return rows.join(measured[sorted(measured.columns)])


def _row(source: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of `COLUMNS`."""
    run, parameters, environment = (record[k] for k in ("run", "parameters", "environment"))
    kinds = [kind for metric, kind in _KINDS.items() if metric in record["metrics"]]
    return {
        **{key: run[key] for key in ("suite", "profile", "name", "hash")},
        **{key: parameters.get(key) for key in ("seed", "model", "dataset", "preset")},
        "label": label_of(record),
        "part": run.get("group"),
        "kind": [*kinds, "pretrain" if record["history"] else "figure4"][0],
        "changes": json.dumps(parameters.get("changes", {})),
        "swept": json.dumps(run.get("grid", {}).get("values", {})),
        "labels_per_class": parameters.get("labels_per_class"),
        "epochs": len(record["history"]),
        "seconds": record["seconds"],
        "device": environment["device"],
        "revision": environment["git"]["revision"],
        "finished": record["finished"],
        "source": source,
    }


def ask(sql: str) -> pd.DataFrame:
    """Answer one SELECT over the table ``runs``; files and settings are out of its reach.

    Args:
        sql: in DuckDB's dialect.

    Raises:
        QueryError: no SELECT, or an error in it.
    """
    import duckdb

    try:
        with duckdb.connect() as connection:
            connection.register("frame", table())
            connection.execute(
                "CREATE TABLE runs AS SELECT * REPLACE (changes::JSON AS changes, "
                "swept::JSON AS swept) FROM frame;"
                "SET enable_external_access = false; SET lock_configuration = true"
            )
            connection.unregister("frame")
            kinds = [statement.type.name for statement in connection.extract_statements(sql)]
            if kinds != ["SELECT"]:
                given = " and ".join(kinds) or "nothing"
                raise QueryError(f"the query is {given}, wanted one SELECT over the table runs")
            return connection.sql(sql).df()
    except duckdb.Error as error:
        raise QueryError(" ".join(str(error).split("\n\nLINE")[0].split())) from None


def to_text(frame: pd.DataFrame, form: str, width: int) -> str:
    """Render an answer.

    Args:
        frame: of `ask`.
        form: ``"table"``, ``"csv"`` or ``"json"``.
        width: of the terminal; the columns of a wider table continue below.
    """
    if form == "csv":
        return frame.to_csv(index=False).rstrip("\n")
    if form == "json":
        return frame.to_json(orient="records", indent=1, double_precision=15, force_ascii=False)
    if frame.empty:
        return "no rows"
    frame = frame.set_axis([" ".join(str(name).split()) for name in frame.columns], axis=1)
    cells = frame.map(_cell)
    left = [f"{{:<{cells.iloc[:, i].str.len().max()}}}".format for i in range(cells.shape[1])]
    text = cells.to_string(index=False, line_width=width, justify="left", formatters=left)
    return re.sub(r" +\\?$", "", text, flags=re.MULTILINE)


def _cell(value: object) -> str:
    """Write a value in one line, a number with five digits, and nothing for NULL."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.5g}"
    return "" if value is None or value is pd.NA else " ".join(str(value).split())
