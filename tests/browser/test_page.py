"""The interactive page in headless Chromium: every control, by keyboard, and no fault on the way.

The browser is the system's: without one these tests fail, and say so.
"""

import json
import math
import re
import shutil

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from isometry.backends.numpy_backend import NumpyBackend
from isometry.common import studies
from isometry.common.lessons.translations import translations
from isometry.common.reports import explorer

PARAMETERS = {
    "default-layers": {"widths": "16,32", "depths": "3,6", "networks": 1},
    "matrix-chain": {"chains": 100, "paths": 4, "points": 20},
    "layer-by-layer": {"depth": 6, "networks": 2, "examples": 8},
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"desk": (1100, 900), "phone": (360, 740)}
SLIDERS = ("defaults-depth", "defaults-width", "chain-factors", "phase-width", "normals-cut")
RADIOS = {
    "defaults-library": ("torch", "keras", "flax", "gluon"),
    "defaults-activation": ("tanh", "relu", "sigmoid"),
    "phase-activation": ("tanh", "relu"),
    "remedies-name": (
        *("nothing", "residual", "dense", "highway", "SkipInit", "batch norm", "initialization"),
    ),
}
SELECTS = ("chain-backend", "remedies-backend", "code-step")
CHARTS = (
    *("defaults-signal", "defaults-gradient", "chain-paths", "phase-plane"),
    *("remedies-signal", "remedies-gradient", "normals-density"),
)


@pytest.fixture(scope="module")
def results():
    nx = NumpyBackend()
    return {name: [studies.run(name, nx, parameters=p)] for name, p in PARAMETERS.items()}


@pytest.fixture(scope="module")
def file(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    explorer.write(results, path)
    return path


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(f"not run: there is no browser; install one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, file):
    """Open the page at a size; when the test ends it must have asked for nothing, and not erred."""
    pages, said = [], []

    def open_at(size="desk", **options):
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto(file.as_uri())
        settle(page)
        pages.append(page)
        return page

    yield open_at
    for page in pages:
        page.close()
    asked = [text for text in said if text != file.as_uri() and not text.startswith("data:")]
    assert asked == []


def settle(page):
    """Wait until no chart is being drawn."""
    for chart in CHARTS:
        page.wait_for_selector(f"#{chart}[data-ready=true] svg")


def pictures(page):
    return {c: page.locator(f"#{c} svg").evaluate("e => e.outerHTML") for c in CHARTS}


def told(page, section):
    return page.locator(f"#{section}-told").inner_text()


def test_it_is_one_file_of_at_most_5_mb(file):
    assert file.stat().st_size <= 5e6
    text = file.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text


@pytest.mark.parametrize("slider", SLIDERS)
def test_sliders_move_by_keyboard_through_their_values(opened, slider):
    page = opened()
    section = slider.partition("-")[0]
    page.focus(f"#{slider}")
    page.keyboard.press("Home")
    seen = {}
    for _ in range(int(page.get_attribute(f"#{slider}", "max")) + 1):
        value = page.locator(f"#{slider}-value").inner_text()
        assert page.get_attribute(f"#{slider}", "aria-valuetext") == value
        seen[value] = told(page, section)
        page.keyboard.press("ArrowRight")
    assert len(seen) == int(page.get_attribute(f"#{slider}", "max")) + 1
    assert len(set(seen.values())) > 1
    last = pictures(page)
    page.keyboard.press("Home")
    settle(page)
    assert pictures(page) != last


@pytest.mark.parametrize(("group", "values"), RADIOS.items())
def test_every_choice_changes_what_is_told_and_drawn(opened, group, values):
    page = opened()
    found = page.locator(f"#{group} input").evaluate_all("all => all.map(e => e.value)")
    assert tuple(found) == values
    seen, drawn = set(), set()
    page.focus(f"#{group} input:checked")
    for _ in values:
        settle(page)  # the key press has been answered: what it asked for is being drawn, or is
        seen.add(told(page, group.partition("-")[0]))
        drawn.add(json.dumps(pictures(page)))
        page.keyboard.press("ArrowDown")
    assert len(seen) == len(drawn) == len(values)


@pytest.mark.parametrize("name", SELECTS)
def test_every_option_can_be_chosen(opened, name):
    page = opened()
    values = page.locator(f"#{name} option").evaluate_all("all => all.map(e => e.value)")
    assert values
    for value in values:
        page.select_option(f"#{name}", value)
        assert page.locator(f"#{name}").input_value() == value


def test_defaults_are_the_recorded_numbers(opened, results):
    page = opened()
    quantities = results["default-layers"][0].quantities
    for library in RADIOS["defaults-library"]:
        page.check(f"#defaults-library input[value={library}]")
        key = f"{library}/tanh/32/6"
        (signal,), (gradient,) = (quantities[f"{key}/{w}"].values for w in ("signal", "gradient"))
        factors = re.findall(r" by ([-\d.e]+)(?:,|\.$)", told(page, "defaults"))
        expected = signal[-1] / signal[0], gradient[0] / gradient[-1]
        np.testing.assert_allclose([float(f) for f in factors], expected, rtol=0.05)
        rows = page.locator("#defaults-table tbody tr").evaluate_all(
            "all => all.map(r => [...r.cells].map(c => Number(c.textContent)))"
        )
        columns = np.array(rows).T
        for column, name in enumerate(("signal", "signal/theory", "gradient", "gradient/theory")):
            values = np.ravel(quantities[f"{key}/{name}"].values)
            np.testing.assert_allclose(columns[column + 1], values, rtol=0.05)


def test_remedies_are_the_recorded_numbers(opened, results):
    page = opened()
    quantities = results["layer-by-layer"][0].quantities
    for name in RADIOS["remedies-name"]:
        page.check(f"#remedies-name input[value='{name}']")
        rows = page.locator("#remedies-table tbody tr td:nth-child(2)").all_text_contents()
        values = np.sqrt(np.mean(np.square(quantities[f"signal/{name}"].values), axis=0))
        np.testing.assert_allclose([float(text) for text in rows], values, rtol=0.05)


def test_the_formats_end_where_the_law_says(opened):
    page = opened()
    first, last = (
        page.locator(f"#chain-table tbody {cell}").all_text_contents()
        for cell in ("th", "td:last-child")
    )
    found = dict(zip(first, map(int, last), strict=True))
    rate = (math.log(2) + 0.42278433509846713) / 2 / math.log(10)  # psi(2) = 1 - gamma, n = 4
    ends = {"float16": 65504.0, "float32": 3.4028234663852886e38, "float64": 1.797e308}
    assert {n: math.ceil(math.log10(x) / rate) for n, x in ends.items()}.items() <= found.items()


def test_every_step_has_its_code_in_five_tabs(opened):
    page = opened()
    steps = page.locator("#code-step option").count()
    assert steps >= 20
    first = translations("sigmoid")[0]
    assert page.locator("#code-text").inner_text() == first.code["numpy"]
    page.focus("#code-tabs [aria-selected=true]")
    for framework in ("torch", "tensorflow", "jax", "mxnet"):
        page.keyboard.press("ArrowRight")
        assert page.locator("#code-text").inner_text() == first.code[framework]
        assert page.locator("#code-tabs :focus").get_attribute("id") == f"code-{framework}"
        assert page.locator("#code-panel").get_attribute("aria-labelledby") == f"code-{framework}"
    page.keyboard.press("ArrowRight")
    assert page.locator("#code-text").inner_text() == first.code["numpy"]
    page.keyboard.press("End")
    assert page.locator("[aria-selected=true]").get_attribute("id") == "code-mxnet"
    for step in range(steps):
        page.select_option("#code-step", str(step))
        assert page.locator("#code-text").inner_text().strip()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened, size, scheme):
    page = opened(size, color_scheme=scheme)
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    page = opened("phone")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    widths = page.locator(".chart svg").evaluate_all("all => all.map(e => e.clientWidth)")
    assert all(250 < width <= 360 for width in widths)


def test_it_prints(opened):
    page = opened()
    assert page.pdf().startswith(b"%PDF")
