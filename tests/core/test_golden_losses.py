"""A change of code that changes learning is seen: the losses of the first 20 training steps."""

import json

import golden_losses
import pytest

from serplib.experiments import records

KEPT = json.loads(golden_losses.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", golden_losses.CASES)
def test_the_first_twenty_losses_are_those_of_the_file(case):
    """Exactly on the processor family that made the file, within 6 % elsewhere."""
    found, kept = golden_losses.losses(case), KEPT["losses"][case]
    if golden_losses.machine() == KEPT["machine"]:
        assert found == kept, "learning has changed: see 'What is learnt' in CONTRIBUTING.md"
    assert golden_losses.difference(found, kept) < golden_losses.TOLERANCE


@pytest.mark.parametrize(
    "changes",
    [{"corruption__perturbation__sigma": 0.06}, {"pretrain_pointnet__lr": 2e-3}],
    ids=["sigma", "lr"],
)
def test_a_change_of_the_settings_is_seen_on_every_processor(changes):
    found = golden_losses.losses("pointnet, cd-l2", **changes)
    assert (
        golden_losses.difference(found, KEPT["losses"]["pointnet, cd-l2"]) > golden_losses.TOLERANCE
    )


def test_the_file_holds_twenty_steps_of_every_model():
    assert list(KEPT["losses"]) == list(golden_losses.CASES)
    assert all(len(x) == 20 for kept in KEPT["losses"].values() for x in kept.values())


def test_the_code_is_vouched_for():
    """Else all records count as stale: python -m tests.core.golden_losses --vouch."""
    known = records.read_json(records.results_folder() / "code.json")
    assert known.get(records.code_digest()) == golden_losses.losses_digest()
