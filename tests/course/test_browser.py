"""The live widgets of 02, 03, 05 and 07 in a real browser: JupyterLab, Chromium, software WebGL."""

import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--no-first-run",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]

SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def chromium() -> str:
    """The path of Debian's Chromium; skips the test, with the reason, where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium on this machine: 'apt-get install chromium' to run this test")
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, as its address with the token filled in."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium()
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {key: value for key, value in os.environ.items() if key != "SERP_DATA"}
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        environment[name] = str(folder / name.lower())  # nothing of the user's settings
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    for plugin, settings in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / "workspaces")
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--port-retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"{address}/api?token={token}", timeout=2) as answer:
                    json.load(answer)
                break
            except OSError:
                if server.poll() is not None:
                    break
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not answer within a minute")
        if server.poll() is not None:
            pytest.fail(f"JupyterLab ended: {(folder / 'lab.log').read_text()[-2000:]}")
        yield lambda notebook: f"{address}/lab/tree/notebooks/{notebook}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(20)


# Code of more than a megabyte, which is plotly's, takes three seconds to load: a slow machine.
SLOW = """(() => {
    const make = URL.createObjectURL;
    const wait = "await new Promise(loaded => setTimeout(loaded, 3000));";
    URL.createObjectURL = (it) => make.call(
        URL, it.size > 1e6 ? new Blob([wait, it], { type: it.type }) : it);
})();"""


@pytest.fixture(scope="module")
def page(lab):
    """A Chromium page, 1,300 pixels wide, in which plotly loads slowly."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(60_000)
        page.add_init_script(SLOW)
        yield page
        browser.close()


def run_all(page, address: str) -> None:
    """Open a notebook, run all its cells and wait until none of them waits any more."""
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    waiting = "[...document.querySelectorAll('.jp-InputPrompt')].some(p => p.innerText == '[*]:')"
    for _ in range(6):  # until the kernel has connected, the command is dropped
        page.wait_for_timeout(2000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_timeout(1000)
        if page.evaluate(waiting):
            break
    else:
        raise AssertionError("JupyterLab did not run the cells")
    page.wait_for_function(f"() => !{waiting}", timeout=240_000)


def show(page, selector: str):
    """Scroll to an output; all are in the page, since the fixture turns lazy drawing off."""
    found = page.locator(selector).first
    found.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)  # for the figure to be drawn
    return found


STATUS = ".jp-OutputArea-output [role=status]"


def press(page, label: str, times: int, readout: str) -> None:
    """Move a slider to the right by keyboard until the readout says what it should."""
    slider = page.locator(".widget-slider").filter(has=page.get_by_text(label, exact=True))
    slider.get_by_role("slider").focus()
    started = time.monotonic()
    for _ in range(times):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([status, text]) => document.querySelector(status).innerText.includes(text)",
        arg=[STATUS, readout],
    )
    assert time.monotonic() - started < 10  # a few key strokes, drawn in software


def drawn(page, selector: str) -> None:
    """A picture is there: many colours, none of which is all of it; and nothing was complained."""
    from PIL import Image

    page.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB")
    colors = picture.getcolors(1 << 24)
    assert len(colors) > 50, f"{selector} is empty"
    assert max(count for count, _ in colors) < picture.width * picture.height
    assert not page.locator(".jp-OutputArea-output[data-mime-type*=stderr]").count()


def drag(page) -> None:
    """Turn the left panel with the mouse: the other one turns with it."""
    plot = ".jp-OutputArea-output .js-plotly-plot"
    eyes = f"""() => ["scene", "scene2"].map(
        name => document.querySelector("{plot}")._fullLayout[name].camera.eye.x)"""
    before, box = page.evaluate(eyes), page.locator(plot).first.bounding_box()
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 10, steps=4)
    page.mouse.up()
    page.wait_for_function(
        f"before => {{ const [a, b] = ({eyes})(); return a == b && a != before; }}", arg=before[0]
    )


@pytest.fixture
def opened(page, lab, request):
    """A notebook run from top to bottom, its explorer in view; the file itself stays as it is."""
    path = ROOT / "notebooks" / request.param
    stored = path.read_bytes()
    run_all(page, lab(request.param))
    show(page, STATUS)
    yield page
    assert path.read_bytes() == stored


@pytest.mark.parametrize("opened", ["02_perturbation.ipynb"], indirect=True)
def test_perturbation_explorer_answers_the_keyboard(opened):
    status = opened.locator(STATUS).first

    def touched() -> int:
        return int(re.match(r"(\d+) of 1024 points touched", status.inner_text())[1])

    before = touched()
    press(opened, "num_patches", 10, "(30 x 20 = 600 picks)")
    more = touched()
    assert more > before
    opened.get_by_role("button", name="fps").focus()
    opened.keyboard.press("Space")
    opened.wait_for_function(
        "([status, n]) => parseInt(document.querySelector(status).innerText) > n",
        arg=[STATUS, more + 20],
    )  # patches that lie apart touch more points
    before = status.inner_text()
    family, category = (opened.locator(".jp-OutputArea-output select").nth(i) for i in (0, 1))
    family.focus()
    opened.keyboard.press("ArrowDown")
    opened.wait_for_function(
        "status => document.querySelector(status).innerText.includes('moved, dropped or')",
        arg=STATUS,
    )
    opened.keyboard.press("ArrowUp")
    opened.wait_for_function(
        "([status, text]) => document.querySelector(status).innerText == text",
        arg=[STATUS, before],
    )
    category.focus()
    opened.keyboard.press("ArrowDown")
    opened.wait_for_function(
        "([status, text]) => document.querySelector(status).innerText != text",
        arg=[STATUS, before],
    )
    drawn(opened, ".jp-OutputArea-output canvas")
    drag(opened)


@pytest.mark.parametrize("opened", ["03_tokenization.ipynb"], indirect=True)
def test_patch_explorer_answers_the_keyboard(opened):
    press(opened, "patch", 5, "Patch 5:")
    press(opened, "patch_size", 8, "(64 x 40 = 2560 picks)")
    drawn(opened, ".jp-OutputArea-output canvas")


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["07_vasp.ipynb"], indirect=True)
def test_codebook_explorer_answers_the_keyboard(opened):
    shown = opened.locator(STATUS).first.inner_text()
    code = int(re.match(r"Code (\d+):", shown)[1])
    press(opened, "code", 1, f"Code {code + 1}:")
    drawn(opened, ".jp-OutputArea-output .js-plotly-plot")


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["05_serp_pointnet.ipynb"], indirect=True)
def test_denoising_explorer_answers_the_keyboard(opened):
    def touched() -> int:
        return int(re.search(r"(\d+) of \d+ points touched", status.inner_text())[1])

    status = opened.locator(STATUS).first
    before = touched()
    press(opened, "num_patches", 10, "points touched")
    opened.wait_for_function(
        "([status, n]) => parseInt(document.querySelector(status).innerText.match(/\\d+/)) > n",
        arg=[STATUS, before],
    )
    drawn(opened, ".jp-OutputArea-output .js-plotly-plot")
