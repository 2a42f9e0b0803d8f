"""`course.pretrained`: the models in notebooks/weights are those of their cards."""

import json
import shutil

import pytest

from serplib.course import pretrained
from serplib.experiments import records

CARDS = records.read_json(pretrained.FOLDER / "cards.json")


@pytest.mark.parametrize("name", CARDS)
def test_a_stored_model_scores_what_its_card_says(name):
    task, card = pretrained.pretrained(name)
    found = pretrained.score_sample(task)
    assert found == pytest.approx(card["restoration"], rel=0.01)
    assert not task.training and (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 1.2e6


@pytest.mark.parametrize("name", [n for n in CARDS if n.endswith("restore")])
def test_a_stored_model_restores_better_than_copying(name):
    restoration = CARDS[name]["restoration"]
    if name.startswith("pointnet"):
        assert restoration["restored"] < restoration["copy_input"]
        assert restoration["touched_moved"] < restoration["touched_copy"]
    else:
        assert restoration["patch"] < restoration["patch_copy"]


def test_another_file_or_name_is_refused(tmp_path):
    folder = shutil.copytree(pretrained.FOLDER, tmp_path / "weights")
    name, *_ = CARDS
    with pytest.raises(ValueError, match="no trained model 'resnet', wanted one of"):
        pretrained.pretrained("resnet", folder)
    path = folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match="the card says"):
        pretrained.pretrained(name, folder)


def test_cards_say_where_a_model_comes_from():
    for card in CARDS.values():
        assert {"run", "seed", "data", "environment", "command", "sha256"} <= card.keys()
    assert "/home" not in json.dumps(CARDS) and "/root" not in json.dumps(CARDS)
