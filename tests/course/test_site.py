"""`make site`: built once from copies, with one notebook more that tries to break out."""

import ast
import base64
import contextlib
import dataclasses
import functools
import hashlib
import html
import http.server
import io
import json
import math
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_helpers import NOTEBOOKS, ROOT, cells
from PIL import Image
from test_browser import chromium

from serplib.bottlenecks import code_use
from serplib.course import widgets
from serplib.course.pretrained import pretrained
from serplib.course.widgets import perturbation
from serplib.geometry import farthest_point_sample, gather
from serplib.patches import make_patches
from serplib.perturbation import Perturbation

sys.path.insert(0, str(ROOT / "notebooks" / "site"))
import states

pytestmark = pytest.mark.slow  # the build alone takes 20 s of one core

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ALT = 'One pixel, "quoted" <b>and</b> marked up.'
PLANTED = new_notebook(
    metadata={"widgets": {"state": "planted()"}},
    cells=[
        new_markdown_cell(
            "# Planted\n\n<script>planted()</script>\n\nText with <b onclick='planted()'>HTML</b>, "
            "[the licence](../LICENSE), [a page](00_welcome.ipynb)."
        ),
        new_markdown_cell("<details><summary>Hint</summary>\n\nFolded, $a < b$.\n\n</details>"),
        new_code_cell(
            "1 < 2",
            outputs=[
                new_output("stream", name="stdout", text="<script>planted()</script>\n"),
                new_output(
                    "display_data",
                    {"text/html": "<img src=x onerror='planted()'>", "text/plain": "<plain>"},
                ),
                new_output(
                    "display_data",
                    {"application/javascript": "planted()", "text/plain": "script left out"},
                ),
                new_output("display_data", {"application/json": {"json": "alone"}}),
                new_output("display_data", {"application/vnd.plotly.v1+json": {"data": []}}),
                new_output("display_data", {}),
                new_output(
                    "display_data",
                    {"image/png": PIXEL, "text/plain": "pixel"},
                    metadata={"image/png": {"alt": ALT}},
                ),
            ],
        ),
    ],
)


class Page(HTMLParser):
    """The tags of a page with their attributes, its ids, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.tags, self.ids, self.text = path, [], set(), ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.ids |= {attrs.get("id"), attrs.get("name")} - {None}

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, key: str) -> list[str]:
        return [attrs[key] for name, attrs in self.tags if name == tag and attrs.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Every page of a site built with warnings as errors, by its path."""
    folder = tmp_path_factory.mktemp("course")
    generated = shutil.ignore_patterns("_build", "api", "__pycache__")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=generated)
    shutil.rmtree(folder / "notebooks" / "site" / "notebooks", ignore_errors=True)
    nbformat.write(PLANTED, folder / "notebooks" / "99_planted.ipynb")
    for name in ("LICENSE", "README.md", "datasets", "serplib", "tests"):
        (folder / name).symlink_to(ROOT / name)  # what a notebook may link to
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    done = subprocess.run(
        [*command, str(folder / "notebooks" / "site"), str(folder / "html")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr[-4000:]
    html_folder = folder / "html"
    return {
        str(path.relative_to(html_folder)): Page(path)
        for path in sorted(html_folder.rglob("*.html"))
    }


def root_of(site) -> Path:
    return site["index.html"].path.parent


def test_every_notebook_has_its_page_with_its_folds(site):
    listed = site["index.html"].all("a", "href")
    for name in NOTEBOOKS:
        page = site[f"notebooks/{name}.html"]
        assert f"notebooks/{name}.html" in listed
        for cell in cells(name, "markdown"):
            for summary in re.findall(r"<summary>(.*?)</summary>", cell.source):
                assert f"<details><summary>{summary}</summary>" in page.source
        title = cells(name, "markdown")[0].source.splitlines()[0].removeprefix("# ")
        assert title in page.text


def test_every_stored_picture_is_there_with_its_text(site):
    found = 0
    for name in NOTEBOOKS:
        shown = [attrs for tag, attrs in site[f"notebooks/{name}.html"].tags if tag == "img"]
        texts = {(Path(attrs["src"]).name, attrs.get("alt")) for attrs in shown}
        for cell in cells(name, "code"):
            for output in cell.outputs:
                if "image/png" not in output.get("data", {}):
                    continue
                digest = hashlib.sha256(base64.b64decode(output.data["image/png"])).hexdigest()
                alt = output.metadata["image/png"]["alt"]
                assert (f"{digest}.png", alt) in texts, alt
                assert (root_of(site) / "_images" / f"{digest}.png").stat().st_size > 100
                found += 1
    assert found > 20


def test_every_output_that_is_a_picture_shows(site):
    """Plotly or not: an output in a form that no page can show has a PNG or a text beside it."""
    for name in NOTEBOOKS:
        for cell in cells(name, "code"):
            for output in cell.outputs:
                if output.output_type in ("display_data", "execute_result"):
                    assert {"image/png", "text/plain", "text/markdown"} & set(output.data), cell.id


def test_every_public_function_is_in_the_reference(site):
    ids = set().union(*(page.ids for path, page in site.items() if path.startswith("api/")))
    missing = []
    for path in sorted((ROOT / "serplib").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                if any("family(" in ast.unparse(d) for d in node.decorator_list):
                    continue  # the decorator makes it an object: one entry of a table of shapes
                if f"{module}.{node.name}" not in ids:
                    missing.append(f"{module}.{node.name}")
    assert not missing, missing
    assert len(ids) > 150


def test_the_results_page_shows_every_table(site):
    page = site["results.html"]
    text = (ROOT / "notebooks/experiments/results/README.md").read_text(encoding="utf-8")
    assert len([tag for tag, _ in page.tags if tag == "table"]) == text.count("\n| --- |")
    shown = page.text.replace("\u2019", "'")  # Sphinx sets typographic apostrophes
    titles = re.findall(r"^## (.+)$", text.replace("`", ""), re.MULTILINE)
    assert [title for title in titles if title not in shown] == []


def test_nothing_comes_from_another_server(site):
    keys = {"src", "srcset", "poster", "data", "background"}
    for path, page in site.items():
        for tag, attrs in page.tags:
            sources = [attrs[key] for key in keys & set(attrs)]
            if tag == "link":
                sources.append(attrs["href"])
            sources += re.findall(r"url\((.*?)\)", attrs.get("style") or "")
            for source in sources:
                assert not re.match(r"(https?:)?//", source.strip("'\" ")), f"{path}: {source}"
        assert not re.search(r"import\s*\(?['\"]https?:|@import|url\(['\"]?http", page.source), path
    for path in root_of(site).rglob("*.css"):
        assert not re.search(r"@import[^;]*//|url\(['\"]?(https?:)?//", path.read_text()), path


def test_mathjax_is_local(site):
    for path, page in site.items():
        if 'class="math' in page.source:
            (source,) = [s for s in page.all("script", "src") if "MathJax" in s]
            assert (page.path.parent / urlsplit(source).path).resolve().is_file(), path
    fonts = root_of(site) / "_static" / "mathjax" / "fonts" / "HTML-CSS" / "STIX-Web" / "woff"
    assert len(list(fonts.glob("*.woff"))) > 20


def test_links_between_pages_lead_somewhere(site):
    root = root_of(site)
    for path, page in site.items():
        for link in page.all("a", "href"):
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("http", "https", "mailto"), link
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            assert target.is_file(), f"{path}: {link}"
            other = site.get(str(target.relative_to(root.resolve())))
            if parts.fragment and other:
                assert unquote(parts.fragment) in other.ids, f"{path}: {link}"
    assert "02_perturbation.html" in site["notebooks/01_point_clouds.html"].all("a", "href")


def test_pages_say_nothing_of_this_machine(site):
    for path, page in site.items():
        for place in {str(ROOT), str(root_of(site).parent), sys.prefix, str(Path.home())} - {"/"}:
            assert not re.search(rf"{re.escape(place)}(?![\w-])", page.source), f"{path}: {place}"


def test_what_is_shown_is_escaped(site):
    page = site["notebooks/99_planted.html"]
    assert "planted()" not in "".join(re.findall(r"<script.*?</script>", page.source, re.DOTALL))
    assert not [attrs for _, attrs in page.tags if "planted()" in str(attrs)]
    assert page.source.count(html.escape("<script>planted()</script>", quote=False)) == 2
    assert "<plain>" in page.text and "script left out" in page.text
    assert page.text.count("(an output that these pages cannot show)") == 3
    assert "<details><summary>Hint</summary>" in page.source
    assert ALT in page.all("img", "alt")
    assert "the licence" in page.text and "00_welcome.html" in page.all("a", "href")


def test_bibliography_has_what_is_cited(site):
    """By arXiv number, and by the surname before "et al."."""
    texts = ["\n".join(cell.source for cell in NOTEBOOKS[name].cells) for name in NOTEBOOKS]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "serplib").rglob("*.py")]
    texts.append((ROOT / "datasets" / "README.md").read_text(encoding="utf-8"))
    text, page = " ".join("\n".join(texts).split()), site["bibliography.html"]
    numbers = set(re.findall(r"arXiv(?:\.org/abs/|[ :]*)(\d{4}\.\d{4,5})", text, re.IGNORECASE))
    assert "2209.06067" in numbers
    for number in numbers:
        assert f"https://arxiv.org/abs/{number}" in page.source, number
    for name in set(re.findall(r"(\w+) et al\b", text)):
        assert re.search(rf"\b{name}\b", page.text), name


@contextlib.contextmanager
def visiting(site, width: int):
    """A Chromium page on the served site, and its address; every other address is refused."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from playwright.sync_api import sync_playwright

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(root_of(site)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own, wrong = f"http://127.0.0.1:{server.server_port}/", []

    def gate(route):
        if route.request.url.startswith(own):
            route.continue_()
        elif not route.request.url.startswith("data:"):
            wrong.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.route("**/*", gate)
            page.on("response", lambda a: wrong.append(a.url) if a.status >= 400 else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            yield page, own
            browser.close()
    finally:
        server.shutdown()
        server.server_close()  # else its socket is a warning in whichever test comes next
    assert not wrong


WIDE = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_read_without_a_network(site, width):
    """In Chromium, with every address but the pages' own refused: equations, fonts, no overflow."""
    with visiting(site, width) as (page, own):
        notebook = "notebooks/02_perturbation.html"
        api = "api/serplib.course.exercises.perturbation.html"  # a long name for a narrow screen
        for path in ("index.html", "glossary.html", "results.html", api, notebook):
            page.goto(own + path)
            equations = site[path].source.count('class="math notranslate')
            page.wait_for_function(
                "count => document.querySelectorAll('.math.notranslate .MathJax').length == count"
                " && !document.querySelector('.MathJax_Error, .MathJax_Processing')",
                arg=equations,
                timeout=60_000,
            )
            assert not page.locator(".merror").count()
            pictures = "[...document.images].every(image => image.complete && image.naturalWidth)"
            assert page.evaluate(pictures)
            assert page.evaluate(WIDE), path
        assert page.locator("article details").first.is_visible()


LEFT_OUT = """name => {
    const used = new Set(serp.patches(serpShapes[name], 64, 32).flat());
    return serpShapes[name].length - used.size;
}"""


class Stated:
    """The generator that explore.md states, in Python: mulberry32, normals by Box and Muller."""

    device = torch.device("cpu")

    def __init__(self, seed: int) -> None:
        self.state = seed

    def next(self) -> float:
        self.state = (self.state + 0x6D2B79F5) % 2**32
        t = (self.state ^ self.state >> 15) * (1 | self.state) % 2**32
        t ^= (t + (t ^ t >> 7) * (61 | t)) % 2**32
        return ((t ^ t >> 14) >> 8) / 2**24

    def normal(self) -> float:
        return math.sqrt(-2 * math.log(1 - self.next())) * math.cos(2 * math.pi * self.next())


@pytest.fixture
def stated(monkeypatch):
    """The library draws its random numbers from `Stated`, and computes in float64."""

    def filled(draw, *shape, generator, device=None):
        shape = tuple(shape[0]) if isinstance(shape[0], tuple | torch.Size) else shape
        return torch.tensor([draw(generator) for _ in range(math.prod(shape))]).view(shape)

    def randint(low, high, shape, **of):
        return (low + (high - low) * torch.rand(shape, **of)).long()

    monkeypatch.setattr(torch, "rand", functools.partial(filled, Stated.next))
    monkeypatch.setattr(torch, "randn", functools.partial(filled, Stated.normal))
    monkeypatch.setattr(torch, "randint", randint)
    monkeypatch.setattr(perturbation, "named_generator", lambda _, seed, device: Stated(seed))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def models():
    """The stored models whose weights the page has, in float64."""
    return {name: pretrained(name)[0].model.double() for name in states.MODELS}


NOISES = [Perturbation(20, 40, 0.1), Perturbation(20, 20, 0.03, "fps"), Perturbation(noise="rigid")]
PERTURB = """([name, steps, seed]) => {
    const chosen = typeof steps == "string" ? serp.families[steps] : [serp.noise(steps)];
    const made = serp.perturb(serpShapes[name], chosen, seed);
    const model = typeof steps == "string" ? "transformer-affine" : "transformer-restore";
    window.models ??= {};
    window.models[model] ??= serpModel(serpModels[model]);
    const restored = window.models[model](made.points);
    const [distance, mended] = [made.points, restored].map((points) =>
        serp.chamfer(points, serpShapes[name]));
    return {...made, model, restored, distance, mended};
}"""


@pytest.mark.browser
def test_the_explorers_of_the_pages_compute_what_the_library_does(site, models, stated):
    """Same cloud and seed: the same points, marks, restored points and distances in JavaScript."""
    out, gains = [], {}
    settings = [
        {"patches": p.num_patches, "size": p.patch_size, "sigma": p.sigma, "centers": p.centers}
        | {"vector": "patch" if p.noise == "rigid" else "point"}
        for p in NOISES
    ]
    pairs = [*zip(NOISES, settings), *((steps, name) for name, steps in widgets.FAMILIES.items())]
    with visiting(site, 390) as (page, own):
        page.goto(own + "explore.html")
        assert page.evaluate("Object.keys(serp.families)") == list(widgets.FAMILIES)
        for seed, name in enumerate(page.evaluate("Object.keys(serpShapes)")):
            cloud = torch.tensor(page.evaluate("name => serpShapes[name]", name))  # (N, 3)
            for ours, theirs in pairs:
                found = page.evaluate(PERTURB, [name, theirs, seed])
                model = models[found["model"]]
                expected = widgets.explore_perturbation(cloud, ours, seed, {"it": model.restore})
                assert found["touched"] == expected.touched.tolist(), (name, theirs)
                assert found["changed"] == expected.changed.tolist(), (name, theirs)
                torch.testing.assert_close(torch.tensor(found["points"]), expected.perturbed)
                restored = torch.tensor(found["restored"])
                torch.testing.assert_close(restored, expected.restored["it"], rtol=0, atol=1e-6)
                assert found["distance"] == pytest.approx(expected.copy_chamfer, rel=1e-5)
                assert found["mended"] == pytest.approx(expected.chamfer["it"], rel=1e-5)
                gains.setdefault(str(theirs), []).append(found["distance"] - found["mended"])
            farthest = page.evaluate("name => serp.farthest(serpShapes[name], 64)", name)
            assert farthest == farthest_point_sample(cloud[None], 64)[0].tolist()
            out.append(page.evaluate(LEFT_OUT, name))
        for text in (f"{min(out)} to {max(out)} points", f"{len(out)} shapes"):
            assert text in site["explore.html"].text
    undone = {name for name, found in gains.items() if sum(found) > 0}
    assert undone == {str(settings[0]), "affine maps", "affine maps, local drops"}


def explored(page, heading: str):
    """The box of an explorer, its line of text, and its first canvas."""
    box = page.locator(f"#{heading} .explorer")
    return box, box.get_by_role("status"), box.locator("canvas").first


def settled(page, status) -> None:
    """Wait until the third panel shows what the network made of the second."""
    page.wait_for_function("line => !line.innerText.endsWith('...')", arg=status.element_handle())


RESTORE_SECONDS = """() => {
    const restore = serpModel(serpModels["transformer-restore"]);
    const taken = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(() => {
        const started = performance.now();
        restore(serpShapes.chair);
        return performance.now() - started;
    });
    return Math.min(...taken) / 1000; // a busy machine adds to some
}"""


def numbers(status) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", status.inner_text())]


@pytest.mark.browser
def test_the_denoising_explorer_shows_what_the_model_restores(site):
    task, _ = pretrained("transformer-restore")
    noise, gains, first = task.corruption.perturbation, {}, {}
    with visiting(site, 1280) as (page, own):
        page.goto(own + "explore.html")
        box, status, _ = explored(page, "restore-a-shape")
        slider = box.get_by_role("slider", name="sigma")
        for name in states.RESTORED:
            box.get_by_role("combobox", name="shape").select_option(name)
            cloud = torch.tensor(page.evaluate("name => serpShapes[name]", name))
            slider.focus()
            page.keyboard.press("Home")
            for sigma in states.SIGMAS:
                setting = dataclasses.replace(noise, sigma=sigma)
                shown = widgets.explore_denoising(cloud, setting, {"model": task.model}, seed=0)
                copied, restored = shown.copy_chamfer, shown.chamfer["model"]
                expected = [shown.num_touched, 1024, copied, restored]
                assert slider.get_attribute("aria-valuetext") == str(sigma)
                assert numbers(status) == pytest.approx(expected, rel=0.01, abs=6e-6), name
                gains[name, sigma] = copied - restored
                if abs(copied - restored) > 0.01 * copied:  # else equal for another processor
                    assert ("better" if restored < copied else "worse") in status.inner_text()
                if restored < 0.99 * copied:
                    first.setdefault(name, sigma)
                page.keyboard.press("ArrowRight")
    assert first == {"airplane": 0.05, "lamp": 0.05, "chair": 0.1, "toilet": 0.15}
    text = "Airplane and lamp from sigma 0.05 on, chair from 0.1 on, toilet from 0.15 on."
    assert text in site["explore.html"].text
    for sigma in states.SIGMAS:
        assert min(states.RESTORED, key=lambda name: gains[name, sigma]) == "toilet"


@pytest.mark.browser
def test_the_codebook_explorer_shows_the_states_of_the_training(site):
    stored = json.loads(states.CODEBOOK.read_text(encoding="utf-8"))
    cloud = torch.tensor(states.shapes()["chair"])[None]  # (1, 1024, 3)
    cloud = gather(cloud, farthest_point_sample(cloud, states.POINTS))  # (1, N, 3)
    index = make_patches(cloud, states.SMALL.num_centers, states.SMALL.patch_size).index[0]
    with visiting(site, 1280) as (page, own):
        page.goto(own + "explore.html")
        cut = "cloud => serp.patches(cloud, serpStates.codebook.patches, serpStates.codebook.size)"
        assert page.evaluate(cut, cloud[0].tolist()) == index.tolist()
        box, status, _ = explored(page, "watch-a-codebook")
        for name, training in stored["trainings"].items():
            box.get_by_text(name, exact=True).click()
            box.get_by_role("slider", name="step").focus()
            page.keyboard.press("Home")
            for step, state in zip(stored["steps"], training):
                use = code_use(torch.tensor(state["counts"]))
                live, most = sum(n > 0 for n in state["counts"]), max(state["counts"])
                code = state["counts"].index(most)
                patches = sum(row.count(code) for row in state["codes"])
                expected = [step, round(use["perplexity"].item(), 1), states.K, live, code, most]
                expected += [960, round(100 * most / 960, 1), patches]
                assert numbers(status) == pytest.approx(expected, abs=0.11), name
                box.get_by_role("button", name="next step").click()


def test_the_states_of_the_codebook_are_not_stale():
    """Train again; where this fails after an intended change: python notebooks/site/states.py."""
    stored = json.loads(states.CODEBOOK.read_text(encoding="utf-8"))
    found = states.codebook()
    for name in ("codes", "points", "patches", "size", "steps"):
        assert found[name] == stored[name]
    for name, losses in stored["losses"].items():
        assert found["losses"][name] == pytest.approx(losses, rel=1e-3), name
        ours, theirs = (  # processors round differently, and training multiplies the difference
            [
                code_use(torch.tensor(state["counts"]))["perplexity"].item()
                for state in one["trainings"][name]
            ]
            for one in (found, stored)
        )
        assert ours[-1] == pytest.approx(theirs[-1], rel=0.3), name
        assert max(theirs[2], ours[2]) < 1.5, name  # "in the first 20 steps"
        if name == "cured":  # "at step 50"
            assert theirs[4] < 3 and theirs[5] > 20 and ours[6] > 20


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_explorers_of_the_pages_answer_the_keyboard(site, width):
    def colors() -> int:
        picture = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
        return len(picture.getcolors(1 << 24))

    sliders = {
        "perturb-a-shape": "points a patch",
        "cut-a-shape-into-patches": "centres",
        "restore-a-shape": "sigma",
        "watch-a-codebook": "step",
    }
    with visiting(site, width) as (page, own):
        page.goto(own + "explore.html")
        for heading, slider in sliders.items():
            box, status, canvas = explored(page, heading)
            before = status.inner_text()
            box.get_by_role("slider", name=slider).focus()
            page.keyboard.press("ArrowLeft")
            assert status.inner_text() != before
            assert colors() > 20
            drawn = [canvas.screenshot(), box.locator("canvas").nth(1).screenshot()]
            canvas.focus()
            page.keyboard.press("ArrowLeft")
            turned = [canvas.screenshot(), box.locator("canvas").nth(1).screenshot()]
            assert all(now != then for now, then in zip(turned, drawn))
        assert page.evaluate(WIDE)


@pytest.mark.browser
def test_the_page_of_explorers_works_as_a_file(site):
    """From file://: menus, toggle buttons, typed numbers, a drag; a change redraws in 150 ms."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page, wrong = browser.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(site["explore.html"].path.as_uri())
        box, status, canvas = explored(page, "perturb-a-shape")
        family = box.get_by_role("combobox", name="family")
        assert family.locator("option").all_inner_texts()[1:] == list(widgets.FAMILIES)
        family.select_option("random drops")
        assert status.inner_text().startswith("512 of 1024 clean points moved, dropped or replaced")
        settled(page, status)
        ending = r"restored by transformer-affine \d+\.\de-4 \(worse\)\.$"
        assert re.search(ending, status.inner_text())
        assert box.get_by_role("slider", name="sigma").is_disabled()
        family.select_option("noise (the paper)")
        fewer = numbers(status)[0]
        box.get_by_text("fps", exact=True).click()
        assert numbers(status)[0] > fewer + 20  # patches that lie apart
        box.get_by_role("spinbutton", name="patches, typed").fill("7")
        assert "(7 x 20 = 140 picks)" in status.inner_text()
        drawn, place = canvas.screenshot(), canvas.bounding_box()
        page.mouse.move(place["x"] + 80, place["y"] + 80)
        page.mouse.down()
        page.mouse.move(place["x"] + 140, place["y"] + 90, steps=3)
        page.mouse.up()
        assert canvas.screenshot() != drawn
        seconds = page.evaluate(
            """() => [...document.querySelectorAll(".explorer [type=range]")].map(slider => {
                const taken = [1, 2, 3, 4, 5].map(n => {
                    slider.value = n;
                    const started = performance.now();
                    slider.dispatchEvent(new Event("input", { bubbles: true }));
                    return performance.now() - started;
                });
                return Math.min(...taken) / 1000; // a busy machine adds to some
            })"""
        )
        assert len(seconds) == 10 and max(seconds) < 0.15, seconds
        assert page.evaluate(RESTORE_SECONDS) < 0.15
        browser.close()
    assert not wrong
