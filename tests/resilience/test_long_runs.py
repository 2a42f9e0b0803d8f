"""Hours of training and a thousand slider moves leave memory as it was."""

import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from serplib.course import widgets
from serplib.data import load

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux's /proc"
)


def resident():
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


TRAIN = """
import dataclasses, json, sys
sys.path.insert(0, {tests!r})
import torch
from serplib import classifier, training
from serplib.data import load
from serplib.presets import build
from serplib.pretext import Pretext
from test_long_runs import resident

steps, model = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
preset = build("quick")
optim = dataclasses.replace(preset.pretrain_transformer, epochs=steps // 10, batch_size=2,
                            warmup_epochs=1)
clouds = load("objects", "train", 20).points
seen = []
whole = training.validate_pretext
def watched(*arguments):
    seen.append(resident())
    return whole(*arguments)
training.validate_pretext = watched
task = Pretext(classifier.autoencoder(preset, model, steps), preset.corruption)
history = training.pretrain(task, clouds, clouds[:2], optim, 0)
print(json.dumps([len(history), seen]))
"""


def growth(steps, model):
    """Memory at the end of a training over memory after its first fifth."""
    code = TRAIN.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, str(steps), model],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    epochs, seen = json.loads(done.stdout.splitlines()[-1])
    assert epochs == len(seen) == steps // 10
    warm = seen[len(seen) // 5]
    return max(seen[-3:]) / warm - 1


def test_a_short_training_keeps_its_memory():
    assert growth(200, "transformer") < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("model", ["transformer", "pointnet", "vasp"])
def test_two_thousand_steps_keep_their_memory(model):
    assert growth(2000, model) < 0.05


# ---- widgets ----


def play(explorer, events):
    """Move the sliders of the perturbation explorer; seconds of each move, and what memory grew."""
    controls = explorer.controls
    moves = [
        (controls.sigma, lambda i: 0.01 + 0.001 * (i % 90)),
        (controls.num_patches, lambda i: 1 + i % 40),
        (controls.patch_size, lambda i: 5 + i % 30),
        (controls.seed, lambda i: i % 90),
    ]
    seconds, objects, memory = [], [], []
    for i in range(events):
        slider, value = moves[i % len(moves)]
        started = time.perf_counter()
        slider.value = value(i)
        seconds.append(time.perf_counter() - started)
        if i in (events // 5, events - 1):
            gc.collect()
            objects.append(len(gc.get_objects()))
            memory.append(resident())
    return sorted(seconds), objects[1] - objects[0], memory[1] / memory[0] - 1


@pytest.fixture
def explorer():
    pytest.importorskip("ipywidgets")
    pytest.importorskip("anywidget")
    torch.manual_seed(0)
    return widgets.perturbation_explorer(load("objects", "train", 90), "chair")


def test_fifty_slider_events_leak_nothing(explorer):
    seconds, objects, _ = play(explorer, 50)
    assert objects < 200 and seconds[len(seconds) // 2] < 0.15


@pytest.mark.slow
def test_a_thousand_slider_events_leak_nothing_and_do_not_lag(explorer):
    seconds, objects, memory = play(explorer, 1000)
    assert objects < 200 and memory < 0.05
    assert seconds[len(seconds) // 2] < 0.15  # the median; a collection of garbage takes longer
