"""Notes below the tables of a suite: what a reader has to know before using them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from serplib.experiments.records import code_changed

TEST_SHAPES = 2468  # ModelNet40's test split
DIVISOR = 2560  # what the authors' code divides by: 20 batches of 128
POWER_NOTE = (
    "Power: the chance that a paired t-test, two-sided at 5 %, finds an effect. 'Found with 80 % "
    "power' is the smallest effect that so many seeds find in four of five repetitions, if the sd "
    "is right. The sd is itself estimated: the true one is, at 95 % confidence, 0.52 to 6.28 times "
    "as large with 3 seeds, 0.60 to 2.87 times with 5, 0.69 to 1.83 times with 10. The seeds "
    "needed for the gains of the paper's Tables 1 and 2 stand only in rows with all labels and at "
    "least 5 seeds."
)
FEWEST = 5  # seeds that estimate an sd for that
CLEARLY = 0.05  # share by which a restoration has to be better than its input
RISE = 1.0  # points of training accuracy in the last quarter: more means not converged
LEARNT = 0.9  # of the loss of a constant: an autoencoder above it has learnt too little
LEARNT_NOTE = (
    "'none': the loss of the full autoencoder is more than 0.9 times that of the constant. Its "
    "gain is too small a denominator for a share."
)
DIRECT_NOTE = (
    "Affine maps and local drops change two things against SeRP: the perturbation, and the frame "
    "of the loss (that of the cloud instead of that of the patch). Rows that name a frame change "
    "one of them alone. The frames differ in origin and unit: only the patch's frame divides each "
    "patch by its standard deviation. The suite eight has a third frame that separates the two."
)


def notes_of(
    found: list[dict[str, Any]], fine_tuned: pd.DataFrame, frozen: pd.DataFrame,
    restored: pd.DataFrame, robust: pd.DataFrame,
) -> list[str]:  # fmt: skip
    """List what a reader has to know of the records and of the frames of `tables`."""
    unpaired = [f"{row.label!s} ({row.unpaired!s})" for frame in (fine_tuned, frozen)
                for row in frame.itertuples() if row.unpaired]  # fmt: skip
    metrics = set().union(*(r["metrics"] for r in found))
    tests = [r["data"]["test"] for r in found if "test" in r["data"]]
    others = {test["name"] for test in tests} - {"modelnet40"}
    sizes = {test["num_shapes"] for test in tests if test["name"] == "modelnet40"} - {TEST_SHAPES}
    small = {r["parameters"]["preset"] for r in found} - {"paper", "authors_code"}
    episodes = any("_way_" in key for r in found for key in r["metrics"].get("probes", ()))
    old = "clean_in_box" not in robust or robust["clean_in_box"].isna().any()
    changed = {code_changed(r["environment"]) for r in found}
    dirty = sum(r["environment"]["git"].get("clean") is False for r in found)
    across = across_devices(found)
    rising: list[str] = []
    if not fine_tuned.empty:
        late = fine_tuned[fine_tuned["rise"] > RISE + 1e-9]
        columns = (late[key].tolist() for key in ("label", "group", "size"))
        rising = [f"{label} ({group or size})" for label, group, size in zip(*columns)]
    better = []
    if not restored.empty:
        restored = restored[restored["copy_input"] > 0]
        clearly = restored["restored"] < (1 - CLEARLY) * restored["copy_input"]
        better = restored[clearly]["label"].tolist()
    pretrained = {r["data"]["train"]["name"] for r in found
                  if "restoration" in r["metrics"] and "train" in r["data"]}  # fmt: skip
    notes = [  # whether it applies, and the text
        (metrics & {"test", "probes"},
         "Accuracies are hits over the true number of test shapes; the epoch is never chosen on "
         "the test set. The gain is paired by seed. Its 95 % interval (Student's t over seeds) "
         "decides whether it is significant. The bootstrap interval over test shapes and McNemar's "
         "test in each seed vary the test shapes only: they say nothing about another seed."),
        (rising,
         f"Not converged, for training accuracy still rose by more than {RISE:g} point over the "
         "last quarter of the epochs (mean of the last tenth against the tenth that ends at three "
         f"quarters): {'; '.join(rising)}. More epochs may change their gains. A learning rate "
         "that falls to zero raises the training accuracy at the end, so longer runs fail this "
         "criterion, too."),
        (unpaired,
         "No interval over shapes and no McNemar's test where variants were tested on different "
         f"shapes or in another order: {'; '.join(unpaired)}."),
        (not fine_tuned.empty and fine_tuned["published"].notna().any(),
         f"'Corrected' is the paper's figure over {TEST_SHAPES:,} shapes: its authors' code "
         f"divides by {DIVISOR:,}."),
        (others,
         f"Tested on {listed(others)}, not on ModelNet40: only the sign and the order of the "
         "gains are comparable with the paper's."),
        (sizes, f"Not the whole test split: {listed(sizes)} of its {TEST_SHAPES:,} shapes."),
        (small,
         f"Models and schedule are those of the preset {listed(small)}, smaller than the "
         "paper's."),
        (not robust.empty and old,
         "Robustness: measured before density, density_inc, occlusion, lidar and the frame of all "
         "corruptions were corrected. Run the suite again before using the corruption columns."),
        (not robust.empty and not old,
         "Robustness: corruptions are this library's, with the strengths and the frame of "
         "ModelNet40-C; occlusion, lidar and density_inc are approximated from the cloud. Only "
         "the table of ModelNet40-C's own files is comparable with published figures."),
        ("protocol" in metrics,
         "Protocol: rows whose names say so choose on the test set, to measure what this adds. "
         "Nothing that is trained or reported elsewhere depends on them. Rows that are never "
         "negative by construction, or follow from the divisor, have no interval."),
        (episodes,
         "Few-shot columns such as '5 way 10 shot' drew support and queries from the test split "
         "and left small classes out. They are not comparable with published figures; columns "
         "such as 5w10s are."),
        (dirty,
         f"Revision: {dirty} of {len(found)} runs were made with uncommitted changes; a star marks "
         "their revisions."),
        (across,
         "Not on the processor of their baseline: "
         f"{'; '.join(across.values())}. Such a pair shares the seed's order and first weights, "
         "but not the rounding, which alone can change an accuracy as another seed does."),
        (True in changed,
         "Code: the code that computes these numbers has changed since they were measured. Run the "
         "suite again before comparing them with new runs."),
        (True not in changed and None in changed,
         "Code: it is unknown whether it has changed since these numbers were measured."),
        (not restored.empty and not better,
         f"No model here restores better than copying its input by {CLEARLY:.0%} or more. Reasons "
         "may be a short training, a small network, and patches that do not hold all points. So "
         "these gains say nothing about SeRP trained in full."),
        (0 < len(better) < len(restored),
         f"Only these restore better than copying the input by {CLEARLY:.0%} or more: "
         f"{'; '.join(better)}."),
        (pretrained - {"shapenet55"},
         f"Pre-trained on {listed(pretrained)} instead of ShapeNet."),
    ]  # fmt: skip
    return [note for applies, note in notes if applies]


def across_devices(found: list[dict[str, Any]]) -> dict[str, str]:
    """Find the variants that ran on another device than the same seed of their baseline.

    Returns:
        The label and group of each, by run name, in the order of the suite.
    """
    devices = {(r["run"]["name"], r["parameters"]["seed"]): r["environment"]["device"]
               for r in found}  # fmt: skip
    labels = {}
    for r in found:
        baseline = r["run"].get("scratch"), r["parameters"]["seed"]
        if devices.get(baseline, r["environment"]["device"]) != r["environment"]["device"]:
            label = r["run"].get("label", r["run"]["name"])
            labels[r["run"]["name"]] = f"{label} ({r['run'].get('group', '')})"
    return labels


def listed(values: Iterable[object]) -> str:
    """Return the sorted texts of values, separated by commas."""
    return ", ".join(sorted(map(str, values)))


def revision_of(environment: dict[str, Any]) -> str:
    """Shorten the revision of a record; a star marks uncommitted changes."""
    git = environment["git"]
    return (git["revision"] or "unknown")[:10] + "*" * (git.get("clean") is False)


def environment_line(found: list[dict[str, Any]]) -> str:
    """Name the runs, the minutes, devices, torch versions and revisions of the records."""
    environments = [r["environment"] for r in found]
    revisions = {revision_of(e) for e in environments}
    return (
        f"{len(found)} runs, {sum(r['seconds'] for r in found) / 60:.1f} minutes of computing on "
        f"{listed({e['device'] for e in environments})}; "
        f"torch {listed({e['packages']['torch'] for e in environments})}; "
        f"revision {listed(revisions)}"
    )
