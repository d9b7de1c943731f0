"""The interactive page as a file; tests/browser opens it."""

import json
import re
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from isometry.backends.numpy_backend import NumpyBackend
from isometry.cli import main
from isometry.common import results as recorded
from isometry.common import studies
from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import TRUNCATED_STD
from isometry.common.laws.mean_field import mean_field
from isometry.common.lessons import FRAMEWORKS, TOPICS
from isometry.common.lessons.translations import translations
from isometry.common.recipes.behaviours import BEHAVIOURS
from isometry.common.reports import explorer

SMALL = {
    "default-layers": {
        "activations": "tanh",
        "widths": "16",
        "depths": "3",
        "networks": 1,
    },
    "matrix-chain": {"chains": 100, "paths": 3, "points": 10},
    "layer-by-layer": {"depth": 4, "networks": 1, "examples": 4},
}


@pytest.fixture(scope="module")
def results():
    nx = NumpyBackend()
    return {name: [studies.run(name, nx, parameters=p)] for name, p in SMALL.items()}


@pytest.fixture(scope="module")
def data(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    explorer.write(results, path)
    text = path.read_text(encoding="utf-8")
    assert text.count("</script>") == 3  # none within a script
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_runs_are_the_results(data, results):
    quantities = results["default-layers"][0].quantities
    for library in BEHAVIOURS["dense"]:
        for what in ("signal", "signal/theory", "gradient", "gradient/theory"):
            found = data["libraries"][library]["runs"]["tanh/16/3"][what]
            expected = quantities[f"{library}/tanh/16/3/{what}"].values
            np.testing.assert_allclose(found, expected, rtol=1e-4)
    path = results["matrix-chain"][0].quantities["path_log10_norm"].values
    np.testing.assert_allclose(
        np.transpose(data["chain"]["paths"]["numpy"]["log10"]), path, rtol=1e-4
    )


def test_exact_parts_are_the_laws(data):
    phase, normals = data["phase"], data["normals"]
    k, j = 20, 10
    law = mean_field("tanh", phase["weight"][k], phase["bias"][j])
    assert phase["chi"]["tanh"][j][k] == pytest.approx(law.chi_1, rel=1e-4)
    at = normals["cut"].index(2.0)
    assert normals["truncated"][at] == pytest.approx(TRUNCATED_STD, rel=1e-4)
    assert normals["inside"][at] == pytest.approx(0.9544997, rel=1e-4)
    for weight, bias in phase["line"]["tanh"]:
        assert mean_field("tanh", weight, bias).chi_1 == pytest.approx(1, abs=1e-3)
    widths = phase["width"]
    torch = phase["defaults"]["torch"][widths.index(512)]
    assert torch == pytest.approx([1 / 3, 1 / (3 * 512)])
    gluon = [w for w, _ in phase["defaults"]["gluon"]]
    assert gluon == pytest.approx([n * 0.07**2 / 3 for n in widths])


def test_every_step_is_there_in_five_frameworks(data):
    steps = [step for topic in TOPICS for step in translations(topic)]
    assert [step["code"] for step in data["code"]] == [step.code for step in steps]
    for step in steps:
        assert tuple(step.code) == FRAMEWORKS
        assert all(code.strip() for code in step.code.values())


def test_a_study_without_result_is_named(results, tmp_path):
    with pytest.raises(InvalidArgument, match="none of layer-by-layer: isometry run layer-by"):
        explorer.write({**results, "layer-by-layer": []}, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def page(*arguments):
    return CliRunner().invoke(main, ["page", *map(str, arguments)])


def test_it_is_made_from_recorded_results(results, tmp_path):
    files = []
    for name, (result,) in results.items():
        files.append(tmp_path / f"{name}.json")
        recorded.save(result, files[-1])
    found = page(*files, "-o", tmp_path / "page.html")
    assert found.exit_code == 0, found.output
    assert "page.html" in found.output
    assert page(*files, "--backends", "numpy").exit_code == 2
    lacking = page(*files[:2], "-o", tmp_path / "lacking.html")
    assert lacking.exit_code == 2
    assert not (tmp_path / "lacking.html").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.setattr(explorer, "find_spec", lambda name: None)
    found = page("-o", tmp_path / "page.html")
    assert found.exit_code == 3
    assert 'pip install "isometry[page]"' in found.output
