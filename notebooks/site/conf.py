"""Sphinx settings of the course's pages (`make site`).

Notebooks are not executed: the pages show the stored outputs. The pages load nothing from another
server: MathJax is copied from a locked package, fonts and scripts are part of the theme.
"""

import base64
import dataclasses
import hashlib
import html
import inspect
import json
import pkgutil
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import jupyter_server_mathjax
import torch.utils.flop_counter  # noqa: F401  # fails where `autodoc_mock_imports` has Triton
from docutils import nodes

import serplib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # Sphinx does not
import states  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*_*.ipynb"))
SHOWN = {"image/png", "image/svg+xml", "image/jpeg", "text/plain", "text/markdown", "text/latex"}

project = "SeRP, step by step"
html_title = project
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Stored outputs: HTML, scripts and widgets are skipped in favour of the picture or the text.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [
    ("html", "text/html", None),
    ("html", "application/javascript", None),
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "application/vnd.plotly.v1+json", None),
]
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # notebooks may skip a level of headings

# MathJax 2.7 with its fonts, as Jupyter ships it.
myst_update_mathjax = False
mathjax_path = "mathjax/MathJax.js"
mathjax2_config = {
    "config": ["TeX-AMS-MML_HTMLorMML-full.js"],
    "messageStyle": "none",
    "fast-preview": {"disabled": True},  # no preview in other fonts
    "showMathMenu": False,
    "tex2jax": {
        "inlineMath": [["\\(", "\\)"]],
        "displayMath": [["\\[", "\\]"]],
        "processClass": "math",
        "ignoreClass": ".*",
    },
    "HTML-CSS": {
        "availableFonts": [],
        "preferredFont": None,
        "webFont": "STIX-Web",
        "imageFont": None,
        "scale": 92,
    },
}

# The library: Google-style docstrings; `name` is a cross-reference if the name exists.
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "undoc-members": True,  # see skip_member
    "ignore-module-all": True,
    "member-order": "bysource",
}
autodoc_preserve_defaults = True
autodoc_mock_imports = [] if find_spec("triton") else ["triton"]  # not on every machine
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
default_role = "py:obj"
add_module_names = False

html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto"}
html_theme_options = {
    "footer_content_items": [],
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search field is in the sidebar
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "use_repository_button": False,
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False


def gather() -> dict[str, str]:
    """Copy the notebooks to notebooks/site/notebooks.

    Links to repository files that are not pages of the site are replaced by their text. An output
    that no page can show, such as JSON alone, becomes a line of text.

    Returns:
        Alternative texts by SHA-256 of the picture.
    """
    for folder in ("notebooks", "api"):
        shutil.rmtree(HERE / folder, ignore_errors=True)
    shutil.copytree(ROOT / "notebooks" / "figures", HERE / "notebooks" / "figures")
    pages = {path.name for path in NOTEBOOKS}

    def link(match: re.Match) -> str:
        path = match[2].split("#")[0]
        inside = path in pages or path.startswith("figures/")
        return match[0] if inside or not (ROOT / "notebooks" / path).exists() else match[1]

    texts = {}
    for path in NOTEBOOKS:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"] = {"language_info": {"name": "python"}}  # no state of widgets
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                source = "".join(cell["source"])
                cell["source"] = re.sub(r"\[([^\]\n]+)\]\(([^)#:\s][^):\s]*)\)", link, source)
            for output in cell.get("outputs", []):
                if "data" in output and not SHOWN & set(output["data"]):
                    output["data"] = {"text/plain": "(an output that these pages cannot show)"}
                picture = output.get("data", {}).get("image/png")
                if picture:
                    name = hashlib.sha256(base64.b64decode("".join(picture))).hexdigest()
                    texts[name] = output.get("metadata", {}).get("image/png", {}).get("alt", "")
        target = HERE / "notebooks" / path.name
        target.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")
    return texts


def copy_results() -> None:
    """Write results.md: the results page, with its pictures found and links to files as text."""
    page = (ROOT / "notebooks" / "experiments" / "results" / "README.md").read_text("utf-8")
    page = page.replace("](../../figures/", "](notebooks/figures/")
    page = re.sub(r"(?<!!)\[([^\]\n]+)\]\((?!https?:)[^)\s]+\)", r"\1", page)
    (HERE / "results.md").write_text(page, encoding="utf-8")


def list_modules() -> None:
    """Write the page from which autosummary generates one page a module."""
    found = pkgutil.walk_packages(serplib.__path__, "serplib.")
    names = sorted(module.name for module in found)
    text = (HERE / "library.txt").read_text(encoding="utf-8")
    (HERE / "api").mkdir()
    (HERE / "api" / "index.rst").write_text(
        text + "".join(f"   {name}\n" for name in names), encoding="utf-8"
    )


ALT = gather()
copy_results()
list_modules()

KEPT = re.compile(r"&lt;(/?(?:details|summary|sub|sup)|details open|br ?/?)&gt;")


def fold_only(text: str) -> str:
    """Escape HTML in Markdown, except folds and a few harmless tags."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return KEPT.sub(r"<\1>", html.escape(html.unescape(text), quote=False))


def finish_document(app, document) -> None:
    """Give each stored picture its alternative text and escape HTML other than folds."""
    for image in document.findall(nodes.image):
        image["alt"] = ALT.get(Path(image["uri"]).stem, image.get("alt", ""))
    for raw in list(document.findall(nodes.raw)):
        text = fold_only(raw.astext())
        raw.replace_self(nodes.raw(text, text, format="html"))


# A literal block, a ``literal`` or a `reference`; the text between them is plain.
MARKED = re.compile(r"(::\n\n(?:[ ]+[^\n]*\n|\n)+|``.+?``|`[^`]+`)", re.DOTALL)
ARGUMENT = re.compile(r"(    .*?\.) ((?:\w+, )*\w+): (\S.*)")
FIELD = re.compile(r"    (\w+): [^#=]+  # (.+)")


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Convert docstrings to reStructuredText: ``|`` and ``*`` in prose are not markup.

    Arguments that share a line get a line each. The attributes of a dataclass, and the fields of a
    named tuple with the comments beside them, become arguments of the class.
    """
    if what == "class" and hasattr(obj, "_fields"):
        fields = map(FIELD.match, inspect.getsource(obj).split("\n"))
        lines += ["", "Args:", *(f"    {field[1]}: {field[2]}" for field in fields if field), ""]
    # Napoleon would read the text before the first colon of a "Returns:" as a type.
    lines[:] = [":returns:" if line == "Returns:" else line for line in lines]
    if what == "class" and dataclasses.is_dataclass(obj):
        lines[:] = ["Args:" if line == "Attributes:" else line for line in lines]
    known = what in ("class", "function", "method") and inspect.signature(obj).parameters
    for i, line in enumerate(lines):  # the list grows during the loop
        found = ARGUMENT.fullmatch(line)
        if known and found and set(found[2].split(", ")) <= set(known):
            lines[i : i + 1] = [found[1], f"    {found[2]}: {found[3]}"]
    parts = MARKED.split("\n".join(lines))
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", parts[i])
    lines[:] = "".join(parts).split("\n")


def skip_member(app, what, name, obj, skip, options) -> bool | None:
    """Show the functions and classes of a module, and the documented members of a class."""
    if not getattr(obj, "__module__", "serplib").startswith("serplib"):
        return True  # made by matplotlib
    if what == "module":
        return None if callable(obj) else True
    described = getattr(obj, "__doc__", None) and type(obj).__name__ != "_tuplegetter"
    return None if described else True


def resolve_short(app, env, node, contnode):
    """Resolve `perturbation.Perturbation` as `serplib.perturbation.Perturbation`."""
    if node.get("refdomain") != "py":
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"serplib.{node['reftarget']}", node, contnode
    )


def copy_mathjax(app) -> None:
    """Copy the parts of MathJax that the pages use."""
    source = Path(jupyter_server_mathjax.__file__).parent / "static"
    unused = shutil.ignore_patterns("SVG", "a11y", "localization", "mhchem*")
    shutil.copytree(
        source, Path(app.outdir) / "_static" / "mathjax", ignore=unused, dirs_exist_ok=True
    )


def write_states(app) -> None:
    """Write what the explorers of `explore.md` show, as scripts."""
    states.write_scripts(Path(app.outdir) / "_static")


def add_explorers(app, pagename, templatename, context, doctree) -> None:
    """Load the explorers' scripts on their own page alone."""
    if pagename == "explore":
        for name in ("shapes", "states", "models", "serp", "restore", "explore"):
            app.add_js_file(f"{name}.js")


def setup(app) -> None:
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", write_states)
    app.connect("html-page-context", add_explorers)
    app.connect("doctree-read", finish_document)
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve_short)
