"""`make site`: built once from copies, with one notebook more that tries to break out."""

import ast
import base64
import contextlib
import functools
import hashlib
import html
import http.server
import io
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

from serplib.geometry import chamfer_l2, farthest_point_sample
from serplib.perturbation import Perturbation

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
    assert all(title in page.text for title in re.findall(r"^## (.+)$", text, re.MULTILINE))


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
    const cloud = serpShapes[name], used = new Set();
    for (const i of serp.farthest(cloud, 64, 0)) {
        serp.nearest(cloud, cloud[i], 32).forEach(j => used.add(j));
    }
    return cloud.length - used.size;
}"""


@pytest.mark.browser
def test_the_explorers_of_the_pages_compute_what_the_library_does(site):
    """Same cloud, centres and noise: the same points and Chamfer distance in JavaScript."""
    perturbation, out = Perturbation(num_patches=12, patch_size=30, sigma=0.1), []
    with visiting(site, 390) as (page, own):
        page.goto(own + "explore.html")
        for name in page.evaluate("Object.keys(serpShapes)"):
            cloud = torch.tensor([page.evaluate("name => serpShapes[name]", name)])  # (1, N, 3)
            generator = torch.Generator().manual_seed(3)
            expected = perturbation(cloud, generator)
            generator.manual_seed(3)
            torch.rand(cloud.shape[:2], generator=generator)  # that picked the centres
            noise = 0.1 * torch.randn(12, 30, 3, generator=generator)
            found = page.evaluate(
                """([cloud, centers, noise]) => {
                    const made = serp.perturb(cloud, centers, 30, noise);
                    return {...made, distance: serp.chamfer(made.points, cloud),
                            farthest: serp.farthest(cloud, 64, 0)};
                }""",
                [cloud[0].tolist(), expected.centers[0].tolist(), noise.tolist()],
            )
            assert found["touched"] == expected.touched[0].tolist(), name
            torch.testing.assert_close(torch.tensor(found["points"]), expected.points[0])
            distance = float(chamfer_l2(expected.points, cloud))
            assert found["distance"] == pytest.approx(distance, rel=1e-5)
            assert found["farthest"] == farthest_point_sample(cloud, 64)[0].tolist()
            out.append(page.evaluate(LEFT_OUT, name))
        for text in (f"{min(out)} to {max(out)} points", f"{len(out)} shapes"):
            assert text in site["explore.html"].text


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_explorers_of_the_pages_answer_the_keyboard(site, width):
    def colors() -> int:
        picture = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
        return len(picture.getcolors(1 << 24))

    with visiting(site, width) as (page, own):
        page.goto(own + "explore.html")
        for place, slider in enumerate(("points a patch", "centres")):
            box = page.locator(".explorer").nth(place)
            status, canvas = box.get_by_role("status"), box.locator("canvas").first
            before = status.inner_text()
            box.get_by_label(slider).focus()
            page.keyboard.press("ArrowRight")
            assert status.inner_text() != before
            assert colors() > 20
            drawn = canvas.screenshot()
            canvas.focus()
            page.keyboard.press("ArrowLeft")
            assert canvas.screenshot() != drawn
        assert page.evaluate(WIDE)
