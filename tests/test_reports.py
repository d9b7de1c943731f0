"""Figures and page, drawn from real results of the reference backend."""

import dataclasses
import itertools
import re
import shlex
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import isometry as iso
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.isolation import Outcome
from isometry.common.reports import agreement, figures, page
from isometry.common.results import Check, Quantity

SMALL = {
    "sigmoid-gradient": {"points": 41, "tail_points": 81},
    "matrix-chain": {"length": 20, "chains": 50, "paths": 4, "points": 20},
    "xavier": {"depth": 6, "width": 128, "networks": 2},
    "symmetry": {"steps": 10, "batch": 32},
    "normalization": {"batch": 32, "steps": 5},
    "signal-propagation": {"depth": 6, "width": 64, "networks": 2, "steps": 1, "examples": 16},
    "default-layers": {"activations": "tanh,relu", "widths": "32", "depths": "5", "networks": 1},
    "edge-of-chaos": {"depth": 16, "width": 128, "networks": 2, "grid": 4},
    "dynamical-isometry": {"depth": 4, "width": 64, "networks": 12, "convolutions": 10},
    "sample-variance": {
        "depth": 10,
        "widths": "32",
        "samples": 16,
        "networks": 2,
        "training_depth": 3,
        "steps": 4,
    },
    "gradient-variance": {"shapes": "12x6,4+12x5", "networks": 200},
    "ten-thousand-layers": {
        "depth": 16,
        "contrasts": "bias",
        "rungs": 0,
        "convolutional": 0,
    },
    "vanishing-curvature": {
        "depths": "8",
        "chains": 200,
        "net_depths": "4",
        "nets": 50,
        "remedy_nets": 1,
    },
    "hessian-spectrum": {
        "examples": 32,
        "width": 8,
        "depths": "5",
        "lanczos": 20,
        "steps": 10,
    },
    "matrix-products": {"size": 4, "pairs": 20, "depth": 3},
    "coordinate-check": {"widths": "128,512", "seeds": 6, "steps": 1},
    "batch-norm": {"steps": 4, "seeds": 1},
    "input-scaling": {"examples": 200, "features": 3},
    "divergence": {"momenta": "0.9", "conditions": "5,30", "size": 4, "steps": 40},
    "momentum-paths": {},
    "fix-after-the-fact": {
        "depth": 4,
        "steps": 10,
        "remedies": "clip by norm,NovoGrad,Adam,initialization",
    },
    "layer-by-layer": {"depth": 5, "networks": 2, "examples": 8},
    "saturation": {"depth": 3, "networks": 2, "steps": 0},
    "newton-and-saddles": {"largest": 2, "starts": 300, "size": 3, "matrices": 2000},
    "warm-up": {"depths": "4"},
    "large-batch": {"batches": "32,1536"},
}
LABELS = {  # figure -> texts that it must show
    "sigmoid-gradient": {"x", "value", "sigmoid, exact", "derivative, exact"},
    "sigmoid-gradient-tails": {"x", "derivative of the sigmoid", "float32", "float64"},
    "matrix-chain-paths": {
        "number of factors",
        "norm of the first column",
        "largest float16",
        "largest bfloat16 and float32",
        "largest float64",
        "exact Lyapunov line",
    },
    "matrix-chain-law": {
        "fraction of chains below",
        "norm of the product's first column",
        "index",
        "Lyapunov exponent (nat per factor)",
    },
    "xavier-variance": {
        "layer",
        "signal variance",
        "gradient variance",
        "linear, forward",
        "relu, backward",
        "he_normal, theory",
    },
    "symmetry-distance": {"step", "largest difference between units", "exactly 0", "2 units"},
    "symmetry-rounding": {"step", "distance between equal units", "bound of rounding"},
    "normalization-error": {"mean / std", "largest output error", "two-pass"},
    "normalization-running": {"step", "running mean", "running variance", "population"},
    "edge-of-chaos": {
        "variance of biases",
        "variance of weights, times fan-in",
        "critical, ReLU",
        "order",
        "chaos",
        "layer",
    },
    "dynamical-isometry-spectra": {
        "singular value",
        "share below",
        "gaussian, exact",
        "tanh, q = 1/depth",
    },
    "dynamical-isometry-variance": {
        "variance of squared singular values",
        "orthogonal, theory",
        "norm of the image",
        "delta-orthogonal",
    },
    "signal-propagation": {
        "layer",
        "second moment of the signal",
        "cosine of two digits",
        "variance of the gradient",
        "mean field",
    },
    "coordinate-check": {
        "standard",
        "NTK",
        "muP",
        "width",
        "power of the width",
        "wide limit",
    },
    "batch-norm": {
        "by initial scale",
        "by batch size",
        "drift",
        "Lipschitz constant",
        "batches of one class",
    },
    "batch-norm-law": {"batch of 2", "batch of 32", "standardized value", "exact"},
    "sample-variance": {
        "layer",
        "mean over samples / deviation over samples",
        "loss (nat)",
        "gradient step",
        "infinite width, exact recursion",
    },
    "gradient-variance": {
        "variance of the gradient's log-norm (nat²)",
        "fourth moment / (second moment)²",
        "5 beta",
        "exact",
    },
    "vanishing-curvature": {
        "layers",
        "median gradient",
        "median Hessian",
        "chains",
        "ReLU nets, He",
    },
    "vanishing-curvature-escape": {
        "steps off the plateau",
        "median gradient",
        "gradient flow, closed form",
    },
    "matrix-products-bounds": {
        "index",
        "singular value of AB",
        "layer",
        "condition number",
        "between the bounds",
        "Lyapunov slope",
    },
    "hessian-spectrum": {
        "eigenvalue",
        "share below",
        "largest eigenvalue, untrained",
        "not reached",
    },
    "ten-thousand-layers-training": {"step", "layers"},
    "ten-thousand-layers-theory": {"layer", "mean square q of a unit"},
    "input-scaling": {"condition number", "steps to 90 %", "closed form", "raw", "whitened"},
    "divergence": {
        "rate, times curvature",
        "growth per step",
        "distance to the minimum",
        "steps to a thousandth",
        "heavy ball, exact",
        "diverges",
    },
    "momentum-paths": {"first weight", "second weight", "minimum", "Newton: 1", "heavy ball: 16"},
    "fix-after-the-fact": {"steps to 90 %", "the dying net", "the exploding net", "NovoGrad"},
    "fix-after-the-fact-layers": {"layer", "theory", "rms of z", "batch norm"},
    "default-layers": {"layer", "preactivations", "their gradient", "gluon, theory", "tanh"},
    "layer-by-layer": {"layer", "preactivations", "gradient in h", "nothing", "SkipInit"},
    "saturation-gradient": {"layer", "gradient, of the last", "wide nets"},
    "saturation-units": {"layer", "share saturated", "share dead"},
    "saturation-laws": {
        "standard deviation of z",
        "inputs at right angles",
        "sigmoid, exact",
        "tanh, exact",
        "bias -3",
    },
    "newton-and-saddles": {
        "gradient descent",
        "damped Newton",
        "Newton",
        "minimum",
        "saddle",
        "maximum",
        "dimensions",
        "size",
        "exact",
        "minima among all",
    },
    "warm-up": {
        "rate",
        "steps to 90 %",
        "blocks",
        "sharpness at the start",
        "Fixup, exact mean",
        "Adam, exact",
    },
    "large-batch": {"batch", "accuracy", "rate kept", "guessing", "LARS"},
}


@pytest.fixture(scope="module")
def results():
    nx = iso.load("numpy")
    return {
        study: [studies.run(study, nx, seed=seed, parameters=SMALL[study]) for seed in (0, 1)]
        for study in studies.NAMES
    }


@pytest.fixture(scope="module")
def drawn(results, tmp_path_factory):
    return figures.draw(results, tmp_path_factory.mktemp("figures") / "new")


def columns(row):
    return dict(zip(agreement.distinct(row), row, strict=True))


def every_drawing():
    return [(study, d) for study, row in figures.DRAWINGS.items() for d in row]


# --- figures ----------------------------------------------------------------------------------


def test_every_study_has_figures_and_every_figure_its_expected_labels():
    assert figures.DRAWINGS.keys() == set(studies.NAMES)
    assert {d.name for _, d in every_drawing()} == LABELS.keys()


def test_draw_writes_a_vector_and_a_print_file_of_each_figure(drawn):
    assert sorted(path.name for path in drawn) == sorted(
        f"{name}.{suffix}" for name in LABELS for suffix in ("svg", "png")
    )
    for path in drawn:
        data = path.read_bytes()
        if path.suffix == ".png":
            width, _ = struct.unpack(">II", data[16:24])
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
            assert width == round(figures.WIDTH * figures.DPI)
        else:
            root = ET.fromstring(data)
            assert root.get("width") == f"{figures.WIDTH * 72:g}pt"
            assert not root.findall(".//{http://www.w3.org/2000/svg}text")  # text as paths


@pytest.mark.parametrize("name", LABELS)
def test_figure_shows_its_labels(drawn, name):
    # Matplotlib writes each text that it turns into paths as a comment
    svg = next(path for path in drawn if path.name == f"{name}.svg").read_text()
    shown = {unescape(text.strip()) for text in re.findall("<!--(.*?)-->", svg, re.DOTALL)}
    assert LABELS[name] <= shown


def test_figure_names_every_column(results, drawn):
    names = agreement.distinct(results["xavier"])
    svg = next(path for path in drawn if path.name == "xavier-variance.svg").read_text()
    assert all(f"<!-- {name} -->" in svg for name in names)


@pytest.mark.parametrize(("study", "drawing"), every_drawing(), ids=lambda v: getattr(v, "name", v))
def test_no_text_is_smaller_than_8_points_and_no_axis_without_label(results, study, drawing):
    figure = Figure(figsize=(figures.WIDTH, drawing.height))
    with matplotlib.rc_context(figures.STYLE):
        drawing.paint(figure, columns(results[study]))
        figure.draw_without_rendering()
    assert all(t.get_fontsize() >= 8 for t in figure.findobj(Text) if t.get_text())
    for ax in figure.axes:
        shared_x = len(ax.get_shared_x_axes().get_siblings(ax)) > 1
        shared_y = len(ax.get_shared_y_axes().get_siblings(ax)) > 1
        assert ax.get_xlabel() or shared_x
        titled = ax.get_title() or ax.get_title(loc="left")  # a panel's title may say what is up
        assert ax.get_ylabel() or titled or shared_y or drawing.name == "normalization-running"


def test_the_flush_points_are_those_of_the_result(results, drawn):
    svg = next(p for p in drawn if p.name == "sigmoid-gradient-tails.svg").read_text()
    for dtype in ("float32", "float64"):
        result = results["sigmoid-gradient"][0]
        x = float(result.quantities[f"flush_native_sigmoid_gradient_{dtype}"].values)
        assert f": 0 from x = {x:.5g} -->" in svg


def test_the_same_results_give_the_same_files(results, drawn, tmp_path):
    again = figures.draw({"symmetry": results["symmetry"]}, tmp_path)
    for path in again:
        first = next(p for p in drawn if p.name == path.name)
        assert path.read_bytes() == first.read_bytes()


def test_drawing_changes_no_setting_and_loads_no_pyplot(results, tmp_path):
    before = dict(matplotlib.rcParams)
    figures.draw({"normalization": results["normalization"]}, tmp_path)
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys, pathlib, isometry as iso\n"
        "from isometry.common import studies\n"
        "from isometry.common.reports import figures\n"
        "r = studies.run('normalization', iso.load('numpy'), parameters={'steps': 1})\n"
        "figures.draw({'normalization': [r]}, pathlib.Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, cwd=tmp_path)


def broken(result, value):
    """Return a result whose every measured number is `value`."""
    quantities = {
        name: dataclasses.replace(q, values=np.full_like(q.values, value))
        for name, q in result.quantities.items()
        if q.values.dtype.kind == "f"
    }
    return dataclasses.replace(result, quantities={**result.quantities, **quantities})


def test_broken_backends_are_drawn_too(results, tmp_path):
    """A report is needed most when every value is NaN, infinite or 0."""
    row = {
        study: [good, *(broken(other, value) for value in (np.nan, np.inf, 0.0))]
        for study, (good, other) in results.items()
    }
    assert len(figures.draw(row, tmp_path)) == 2 * len(LABELS)


def test_results_of_other_parameters_are_not_drawn_beside_the_first(results, tmp_path):
    first = results["symmetry"][0]
    longer = studies.run(
        "symmetry", iso.load("numpy"), parameters={**SMALL["symmetry"], "steps": 12}
    )
    other = dataclasses.replace(longer, backend="other")
    figures.draw({"symmetry": [first, other]}, tmp_path)
    svg = (tmp_path / "symmetry-distance.svg").read_text()
    assert "<!-- numpy -->" in svg
    assert "<!-- other -->" not in svg


# --- page -------------------------------------------------------------------------------------

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Document(HTMLParser):
    """Elements and text of a page; fails on a tag that is not closed, or closed out of order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]


def written(results, outcomes, drawn, path):
    verdicts = {study: agreement.agree(row) for study, row in results.items() if row}
    page.write(results, outcomes, verdicts, drawn, path)
    return Document(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def outcomes():
    return [Outcome("numpy", study, "ran") for study in SMALL] + [
        *(Outcome("mxnet", study, "not installed", 'pip install "x[mxnet]"') for study in SMALL),
        Outcome("jax", "xavier", "crashed", "killed by signal 9"),
        Outcome("torch", "xavier", "timed out", "no answer within 600 s"),
    ]


@pytest.fixture(scope="module")
def document(results, outcomes, drawn, tmp_path_factory):
    return written(results, outcomes, drawn, tmp_path_factory.mktemp("page") / "index.html")


def normal(text):
    return re.sub(r"\s+", " ", text)


def test_page_makes_no_request(document):
    for tag, attributes, _ in document.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("data:image/", "#")), (tag, name, value[:80])
    policy = [m for m in document.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none'")
    assert not document.all("script")


def test_page_is_small(results, drawn, tmp_path):
    written(results, [], drawn, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < len(studies.NAMES) * 200 * 2**10


def test_page_is_accessible(document):
    assert document.all("html") == [{"lang": "en"}]
    assert [a["alt"] for a in document.all("img")] == [d.alt for _, d in every_drawing()]
    assert len(document.all("figure")) == len(document.all("figcaption")) == len(LABELS)
    assert len(document.all("caption")) == len(document.all("table"))
    assert all(th.get("scope") in {"col", "row"} for th in document.all("th"))
    levels = [int(tag[1]) for tag, *_ in document.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [a["id"] for _, a, _ in document.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in document.all("a")} <= set(ids)
    assert any(m.get("name") == "viewport" for m in document.all("meta"))
    tables = [parents for tag, _, parents in document.elements if tag == "table"]
    assert all(parents[-1] == "div" for parents in tables)  # each scrolls in its own box


def luminance(color):
    channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_at_least_4_5_in_light_and_dark():
    """WCAG 2.2, success criterion 1.4.3, for every text colour on both backgrounds."""
    css = (Path(page.__file__).parent / "base.html").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{\s*(--text: #[0-9a-f]{6};.*?)\}", css, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for ground in ("page", "card"):
            for name in ("text", "quiet", "link", "pass", "fail", "absent"):
                pair = sorted(luminance(colors[c]) + 0.05 for c in (name, ground))
                assert pair[1] / pair[0] >= 4.5, (name, ground)


def test_page_shows_every_claim_finding_and_parameter(results, document):
    for study, row in results.items():
        assert study in document.text
        assert normal(studies.find(study).question) in document.text
        for result in row:
            assert normal(result.finding) in document.text
            for check in result.checks:
                assert normal(check.claim) in document.text
                assert normal(check.source) in document.text
            settings = [shlex.quote(f"{n}={v}") for n, v in SMALL[study].items()]
            assert all(f"--set {setting}" in document.text for setting in settings)
    command = document.text.split("How to repeat it")[-1]
    assert "isometry compare sigmoid-gradient matrix-chain" in command
    assert "--set initializers" not in command  # left at its default
    assert "--set chains=50" in command
    made = [check for row in results.values() for result in row for check in result.checks]
    assert document.text.count("✓ pass") == sum(check.passed for check in made)
    assert document.text.count("✗ FAIL") == sum(not check.passed for check in made)


def test_page_says_what_did_not_run(document):
    assert 'mxnet: not installed pip install "x[mxnet]"' in document.text
    assert "jax, xavier: crashed killed by signal 9" in document.text
    assert document.text.count("○ not installed") == len(SMALL)
    assert document.text.count("○ not run") == 2 * (len(SMALL) - 1)  # jax, torch: xavier only
    assert "✗ crashed" in document.text
    assert "✗ timed out" in document.text
    assert "Not all as promised: 2 of the runs did not end" in document.text


def test_page_shows_a_failed_check_and_a_difference(results, drawn, tmp_path):
    good = results["symmetry"][0]
    failed = Check("two and two is five", 4.0, 5.0, 0.5, "arithmetic", false_alarm=1e-9)
    steps = good.quantities["step"].values
    bad = dataclasses.replace(
        good,
        backend="other",
        checks=(*good.checks, failed),
        finding="<script>alert(1)</script>",
        quantities={**good.quantities, "step": Quantity(steps + 1, "step", ulp=0)},
    )
    good = dataclasses.replace(
        good, quantities={**good.quantities, "step": Quantity(steps, "step", ulp=0)}
    )
    document = written({"symmetry": [good, bad]}, [], drawn, tmp_path / "page.html")
    assert "two and two is five arithmetic; false alarm at most 1e-09 5 ± 0.5" in document.text
    assert document.text.count("✗ FAIL") == 1
    assert document.text.count("✗ differs") == 1
    assert "○ not run 4 ✗ FAIL" in document.text  # numpy did not make the claim
    assert "1 of " in document.text
    assert "1 of the shared quantities differed" in document.text
    assert "<script>alert(1)</script>" in document.text  # as text, not as an element
    assert not document.all("script")


def test_page_without_results_says_so(tmp_path):
    document = written({}, [], [], tmp_path / "page.html")
    assert "○ No study ran." in document.text


def test_page_is_written_whole_or_not_at_all(results, drawn, tmp_path):
    path = tmp_path / "index.html"
    path.write_text("old")
    with pytest.raises(KeyError):  # no verdicts for the study
        page.write({"symmetry": results["symmetry"]}, [], {}, drawn, path)
    assert path.read_text() == "old"
    folder = tmp_path / "folder"
    (folder / "occupied").mkdir(parents=True)
    with pytest.raises(InvalidArgument, match="folder"):
        written({}, [], [], folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "index.html"]
