"""Files that mean harm: each test carries the exploit, and shows that it comes to nothing.

What may run: Python that is installed, and the notebooks of the project. What may not: anything
inside data, weights, checkpoints, records, suites and labels. No reader opens an archive, but for
the arrays of an ``.npz`` of a reader's own, which are not unpickled and are limited in size.
"""

import ast
import copy
import html.parser
import io
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import root, write_h5, write_tree  # noqa: F401 - root is a fixture
from test_suites import TINY, changed, project, write_suite  # noqa: F401 - project is a fixture

from serplib import checkpoint
from serplib.data import DataError, load
from serplib.data.formats import read_h5, read_npy, read_xyz
from serplib.data.pickled import read_dat
from serplib.experiments import records, render, report, suites, summaries

ROOT = Path(__file__).parents[2]


class Exploit:
    """Unpickling it makes a folder: the harm that the tests look for."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.fixture
def harm(tmp_path):
    """Where an exploit would leave its mark; the payloads themselves are shown to work."""
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Exploit(proof)))
    assert proof.is_dir()
    return tmp_path / "harm"


# ---- pickles ----


@pytest.mark.parametrize("reader", [read_npy, read_xyz, read_h5])
def test_a_pickle_named_as_data_is_not_opened(reader, harm, tmp_path):
    for name, content in (
        ("a.npy", pickle.dumps(Exploit(harm))),
        ("b.npy", _npy_of_objects(harm)),
        ("c.npy", b"\x93NUMPY" + pickle.dumps(Exploit(harm))),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            reader(path)
        assert not harm.exists()


def _npy_of_objects(harm):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Exploit(harm)], object), allow_pickle=True)
    return buffer.getvalue()


def test_a_header_of_npy_that_is_code_is_not_run(harm, tmp_path):
    """The header is a Python literal: an expression in its place must not be evaluated."""
    header = f"{{'descr': __import__('os').mkdir({str(harm)!r}), 'shape': (1, 3)}}".encode() + b"\n"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"a\.npy: not a plain \.npy array"):
        read_npy(path)
    assert not harm.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickled_data_set_runs_nothing(protocol, harm, root):  # noqa: F811
    """Point-BERT's ModelNet40 is a pickle: numpy's arrays are rebuilt, and nothing is called."""
    (root / "modelnet40").mkdir()
    path = root / "modelnet40" / "modelnet40_train_8192pts_fps.dat"
    cloud, label = np.ones((40, 3), "f4"), np.array([0])
    for content in (
        [[cloud, Exploit(harm)], [label, label]],
        [[cloud], [label], Exploit(harm)],
        [[np.array([Exploit(harm)], object)], [label]],
        Exploit(harm),
    ):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match=r"it names (posix|nt|os)\.mkdir, which is not run"):
            load("modelnet40", "train", num_points=8)
        assert not harm.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "open", "__import__"])
def test_builtins_have_no_name_in_a_pickled_data_set(name, tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(f"cbuiltins\n{name}\n(S'1'\ntR.".encode())
    with pytest.raises(DataError, match=rf"it names builtins\.{name}, which is not run"):
        read_dat(path)


def test_numpy_has_few_names_in_a_pickled_data_set(tmp_path):
    path = tmp_path / "a.dat"
    for call in (b"cnumpy\nload\n", b"cnumpy.core.multiarray\nfromfile\n", b"cnumpy\nmemmap\n"):
        path.write_bytes(call + b"(S'/etc/passwd'\ntR.")
        with pytest.raises(DataError, match=r"it names numpy\S* which is not run"):
            read_dat(path)
    path.write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I999999999999\ntS'b'\ntR."
    )
    with pytest.raises(DataError, match="not rebuilt as numpy does it"):
        read_dat(path)


def test_a_cache_that_was_replaced_is_made_again(harm, root):  # noqa: F811
    folder = write_tree(root / "ModelNet10", "npy")
    first = load("modelnet40", "train", num_points=32)
    (kept,) = (folder / "cache").iterdir()
    kept.write_bytes(pickle.dumps(Exploit(harm)))
    assert torch.equal(load("modelnet40", "train", num_points=32).points, first.points)
    assert not harm.exists()


def test_weights_that_are_a_pickle_are_refused(harm, tmp_path):
    for content in (pickle.dumps(Exploit(harm)), _torch_file(Exploit(harm))):
        path = tmp_path / "encoder.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"encoder\.safetensors: not a whole safetensors"):
            checkpoint.load_weights(path)
    assert not harm.exists()


def test_a_checkpoint_with_code_in_its_state_is_refused(harm, tmp_path):
    place = checkpoint.save(tmp_path / "c", 3, {"model": {"a": torch.ones(2)}}, {"epoch": 1})
    for content in (_torch_file({"epoch": Exploit(harm)}), pickle.dumps(Exploit(harm))):
        (place / "state.pt").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"state\.pt: not a whole state .*nothing in it was run"
        ):
            checkpoint.load(tmp_path / "c")
    assert not harm.exists()
    torch.load(io.BytesIO(_torch_file({"epoch": Exploit(harm)})), weights_only=False)
    assert harm.is_dir()  # the same file, opened without care, does run


def _torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


DANGEROUS = {  # what may not be called in the library or in an experiment, but as said
    "pickle.load": (), "pickle.Unpickler": (), "pickle.loads": (), "yaml.load": (),
    "yaml.unsafe_load": (), "eval": (),
    "exec": (), "os.system": (), "shutil.unpack_archive": (), "zipfile.ZipFile": (),
    "tarfile.open": (), "joblib.load": (), "np.load": (), "numpy.load": (),
    "torch.load": ("weights_only",), "subprocess.Popen": (), "__import__": (),
}  # fmt: skip


KNOWN = {  # this interpreter, with a call of ours
    ("kernels.py", "subprocess.Popen"): "[*start, '-c', call]",
    ("launcher.py", "subprocess.Popen"): "command",  # Accelerate's launcher, and our module
}


def test_nothing_in_the_library_could_run_what_it_reads():
    """Every call in serplib and in the experiment notebooks, by name."""
    import json

    sources = {path: path.read_text() for path in (ROOT / "serplib").rglob("*.py")}
    for path in (ROOT / "notebooks" / "experiments").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        sources[path] = "\n".join(code)
    calls = 0
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                calls += 1
                name, keywords = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
                if (path.name, name) in KNOWN:
                    assert ast.unparse(node.args[0]) == KNOWN[path.name, name]
                elif name in DANGEROUS:
                    assert DANGEROUS[name], f"{path}: {ast.unparse(node)}"
                    for wanted in DANGEROUS[name]:
                        assert ast.literal_eval(keywords[wanted]) is True, ast.unparse(node)
                assert "allow_pickle" not in keywords and "shell" not in keywords
    assert calls > 2000


# ---- files that point elsewhere ----


@pytest.mark.parametrize(
    "line",
    ["../secret.h5", "a/../../secret.h5", "..\\secret.h5", "secret.h5\x00.h5", "/etc/passwd"],
)
def test_lists_do_not_lead_out_of_the_folder(line, root):  # noqa: F811
    folder = write_h5(root / "modelnet40")
    (folder / "ply_data_train0.h5").rename(root / "secret.h5")
    (folder / "train_files.txt").write_text(line)
    with pytest.raises(DataError, match=r"train_files\.txt, line 1"):
        load("modelnet40", "train", num_points=8)


def test_absolute_lists_stay_in_the_folder(root):  # noqa: F811
    """The lists of the public set name files by the path they had on their author's machine."""
    folder = write_h5(root / "modelnet40")
    (folder / "ply_data_train0.h5").rename(root / "ply_data_train0.h5")
    (folder / "train_files.txt").write_text(str(root / "ply_data_train0.h5"))
    with pytest.raises(DataError, match=r"modelnet40/ply_data_train0\.h5: file not found"):
        load("modelnet40", "train", num_points=8)


# ---- suites ----


@pytest.mark.parametrize(
    "notebook", ["../00_welcome", "/tmp/evil", "..", "", None, "suites/../../00_welcome", 3]
)
def test_suites_run_the_notebooks_of_the_project_alone(project, notebook):  # noqa: F811
    write_suite(project, changed(scratch={"notebook": notebook}))
    message = "no notebook" if isinstance(notebook, str) else "scratch.notebook: Input should be"
    with pytest.raises(suites.SuiteError, match=message):
        suites.plan("tiny")


def test_a_link_to_a_notebook_elsewhere_is_not_followed(project, tmp_path_factory):  # noqa: F811
    outside = tmp_path_factory.mktemp("outside") / "evil.ipynb"
    outside.write_text((ROOT / "notebooks" / "experiments" / "pretrain.ipynb").read_text())
    (project / "notebooks" / "experiments" / "evil.ipynb").symlink_to(outside)
    write_suite(project, changed(scratch={"notebook": "evil"}))
    with pytest.raises(suites.SuiteError, match="no notebook 'evil'"):
        suites.plan("tiny")


@pytest.mark.parametrize("name", ["../../up", "a/b", "", "a b", "\u202e", "con\x00"])
def test_names_of_runs_cannot_be_paths(project, name):  # noqa: F811
    content = changed()
    content["runs"][name] = content["runs"]["scratch"]
    write_suite(project, content)
    with pytest.raises(suites.SuiteError, match="wanted a name of letters, digits"):
        suites.plan("tiny")


@pytest.mark.parametrize("suite", ["../suites/tiny", "/etc/passwd", "tiny.yaml", ""])
def test_names_of_suites_cannot_be_paths(project, suite):  # noqa: F811
    with pytest.raises(suites.SuiteError, match="no suite"):
        suites.plan(suite)


def test_yaml_that_builds_objects_is_refused(project, harm):  # noqa: F811
    path = project / "notebooks" / "experiments" / "suites" / "tiny.yaml"
    path.write_text(f"title: !!python/object/apply:os.mkdir ['{harm}']\n" + path.read_text())
    with pytest.raises(suites.SuiteError, match="not YAML"):
        suites.plan("tiny")
    assert not harm.exists()


def test_parameters_are_values_and_never_code(project, harm):  # noqa: F811
    """papermill writes parameters into a cell: text that ends its string must stay text."""
    from papermill.translators import PythonTranslator

    evil = f'x\'"\n"""\n__import__(\'os\').mkdir({str(harm)!r})\n#'
    write_suite(project, changed(scratch={"dataset": evil}))
    with pytest.raises(suites.SuiteError, match="no data set"):
        suites.plan("tiny")
    drawn = {"notebook": "figure4", "preset": "quick", "kinds": evil}
    write_suite(project, changed(drawn=drawn))
    run = next(run for run in suites.plan("tiny") if run.name == "drawn")
    cell = PythonTranslator.codify(run.parameters)
    values = {}
    exec(cell, values)
    assert values["kinds"] == evil and not harm.exists()


# ---- what is shown ----

LABEL = "<script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ [red] | {0} ](javascript:x)"


@pytest.fixture
def hostile():
    """The records of the quick suite, with harm in every text that a suite or data can set."""
    found = copy.deepcopy(records.read_suite("quick-quick")["records"])
    for record in found:
        for key in ("label", "group"):
            if key in record["run"]:
                record["run"][key] += LABEL
        for about in record["data"].values():
            about["name"] += LABEL
        record["environment"]["device"] += LABEL
    return found


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes = set(), set()

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attributes}


def test_the_report_shows_labels_as_text(hostile, project):  # noqa: F811
    failed = [{"name": LABEL, "seed": 0, "state": "failed", "message": LABEL}]
    shown = report.write("tiny", "quick", hostile, failed)
    page = shown.path.read_text()
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.seen and tags.seen >= {"table", "img", "li"}
    assert not {name for name in tags.attributes if name.startswith("on")}
    assert page.count("&lt;script&gt;alert(1)") > 3
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)  # nothing is fetched
    assert "[red]" in shown.to_text()  # markup of terminals is text as well


def test_markdown_for_the_readme_and_the_site_holds_no_html_and_no_link(hostile):
    text = render.to_markdown(summaries.summarize(hostile))
    assert "alert(1)" in text and not re.search(r"<[A-Za-z/!?]", text) and "](" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)\|", line)) > 2 for line in rows)


def test_tables_stay_between_their_marks(hostile, monkeypatch):
    """A label that holds the end mark cannot write into the rest of the results page."""
    for record in hostile:
        if "label" in record["run"]:
            record["run"]["label"] += "<!-- end of quick-quick -->"
    before = "# top\n<!-- results quick-quick -->\nold\n<!-- end of quick-quick -->\nthe rest\n"
    monkeypatch.setattr(records, "read_suite", lambda name: {"records": hostile})
    once = report.renew(before)
    assert once.startswith("# top\n") and once.endswith("<!-- end of quick-quick -->\nthe rest\n")
    assert report.renew(once) == once


def test_the_tiny_suite_is_harmless_itself(project):  # noqa: F811
    """So that the refusals above are of the harm, and not of the suite."""
    write_suite(project, TINY)
    assert len(suites.plan("tiny")) == 6
