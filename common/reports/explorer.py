"""One interactive page: recorded runs and exact theory, moved through by sliders.

The file makes no request: Vega, Vega-Lite and Vega-Embed draw its charts, and stand in it whole. A
control chooses among what was recorded and among what a closed form gives, nothing between; each
chart has its numbers beside it as a table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws import chains
from isometry.common.laws.formats import FORMATS
from isometry.common.laws.gaussian import cut_normal
from isometry.common.laws.mean_field import critical_bias, mean_field
from isometry.common.lessons import TOPICS
from isometry.common.lessons.translations import translations
from isometry.common.networks.remedies import REMEDIES
from isometry.common.recipes.behaviours import BEHAVIOURS, LIBRARIES
from isometry.common.reports import html
from isometry.common.reports.agreement import distinct
from isometry.common.reports.html import Cell
from isometry.common.results import Result

__all__ = ["STUDIES", "missing", "write"]

STUDIES = ("default-layers", "matrix-chain", "layer-by-layer")
"""What the page is made from."""

OWN = {"torch": "torch", "keras": "tensorflow", "flax": "jax", "gluon": "mxnet"}
WIDTHS = [2**k for k in range(4, 13)]
LARGEST_WEIGHT, LARGEST_BIAS = 4.0, 1.0  # of the phase diagram, as variances
GRID = (41, 21)
DIGITS = 5
CUTS = np.arange(5, 41) / 10  # in standard deviations


def missing() -> list[str]:
    """Return which packages of the extra `page` are not installed."""
    return [] if find_spec("vl_convert") else ["vl-convert-python"]


def write(results: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    results : mapping of str to sequence of Result
        Study -> a result of each backend that ran it, for each of `STUDIES`.
    path : Path
        The file to write; an existing one is replaced in one step.

    Raises
    ------
    InvalidArgument
        If a study has no result, or the file cannot be written.
    """
    import vl_convert

    for study in STUDIES:
        if not results.get(study):
            raise InvalidArgument(
                f"the page needs a result of {', '.join(STUDIES)}; there is none of {study}: "
                f"isometry run {study} --backend numpy -o {study}.json makes one"
            )
    columns = {
        study: dict(zip(distinct(results[study]), results[study], strict=True)) for study in STUDIES
    }
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    data = {
        "libraries": _libraries(columns["default-layers"]),
        "chain": _chain(columns["matrix-chain"]),
        "phase": _phase(),
        "remedies": _remedies(columns["layer-by-layer"]),
        "normals": _normals(),
        "code": _code(),
    }
    html.write(
        path,
        "explorer.html",
        title="Isometry: what initialization does to a signal",
        summary=_summary([r for row in results.values() for r in row]),
        runs=_runs([r for row in results.values() for r in row]),
        data=data,
        # in a script's text "</script" would end it
        text=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/"),
        vega=vega.replace("</script", "<\\/script"),
        script=(Path(__file__).parent / "explorer.js").read_text(encoding="utf-8"),
    )


def _summary(results: Sequence[Result]) -> Cell:
    made = [check for result in results for check in result.checks]
    failed = sum(not check.passed for check in made)
    if failed:
        return Cell(f"{failed} of {len(made)} checks of these runs failed.", "fail")
    return Cell(f"All {len(made)} checks of these runs hold.", "pass")


def _runs(results: Sequence[Result]) -> list[dict[str, str]]:
    return [
        {
            "study": r.study,
            "backend": r.backend,
            "versions": ", ".join(f"{k} {v}" for k, v in r.versions.items()),
            "seed": str(r.seed),
            "created": r.created,
        }
        for r in results
    ]


def _short(values: Any) -> Any:
    """Return nested lists of numbers of a few digits; null for what is not finite."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [_short(v) for v in values]
    return float(f"{values:.{DIGITS}g}") if math.isfinite(values) else None


# --- what was recorded --------------------------------------------------------------------------


def _libraries(columns: Mapping[str, Result]) -> dict[str, Any]:
    """Return library -> its default and its nets, of the backend it is built on if that ran."""
    found = {}
    for library, dense in BEHAVIOURS["dense"].items():
        backend = OWN[library] if OWN[library] in columns else next(iter(columns))
        result = columns[backend]
        runs: dict[str, Any] = {}
        for name, quantity in result.quantities.items():
            owner, _, rest = name.partition("/")
            if owner == library:
                key, what = "/".join(rest.split("/")[:3]), "/".join(rest.split("/")[3:])
                runs.setdefault(key, {})[what] = _short(quantity.values)
        found[library] = {
            "title": LIBRARIES[library].title,
            "weight": str(dense.kernel),
            "bias": str(dense.bias),
            "framework": OWN[library],
            "backend": backend,
            "runs": runs,
        }
    return found


def _chain(columns: Mapping[str, Result]) -> dict[str, Any]:
    first = next(iter(columns.values()))
    size = int(first.parameters["size"])
    return {
        "size": size,
        "decades": float(chains.log_norm_law(size, 1).mean / math.log(10)),  # of each factor
        "limits": {name: math.log10(FORMATS[name].largest) for name in FORMATS},
        "paths": {
            name: {
                "step": _short(result.quantities["path_step"].values),
                "log10": _short(result.quantities["path_log10_norm"].values.T),
            }
            for name, result in columns.items()
        },
    }


def _remedies(columns: Mapping[str, Result]) -> dict[str, Any]:
    first = next(iter(columns.values()))
    names = [q.partition("/")[2] for q in first.quantities if q.startswith("signal/")]
    return {
        "gain": first.parameters["gain"],
        "depth": first.parameters["depth"],
        "why": {name: REMEDIES[name].why for name in names},
        "runs": {
            backend: {
                name: {what: _rms(result, f"{what}/{name}") for what in ("signal", "gradient")}
                for name in names
            }
            for backend, result in columns.items()
        },
    }


def _rms(result: Result, name: str) -> Any:
    """Return the root mean square over nets."""
    return _short(np.sqrt(np.mean(np.square(result.quantities[name].values), axis=0)))


# --- what is exact ------------------------------------------------------------------------------


def _phase() -> dict[str, Any]:
    """Return chi_1 over the plane of variances, the critical line, and where defaults stand."""
    weights, biases = (
        np.linspace(0.1, LARGEST_WEIGHT, GRID[0]),
        np.linspace(0, LARGEST_BIAS, GRID[1]),
    )
    tanh = [[mean_field("tanh", float(w), float(b)).chi_1 for w in weights] for b in biases]
    line = [
        (float(w), critical_bias("tanh", float(w))[1]) for w in np.linspace(1, LARGEST_WEIGHT, 61)
    ]
    return {
        "weight": _short(weights),
        "bias": _short(biases),
        "chi": {"tanh": _short(np.array(tanh)), "relu": [_short(weights / 2) for _ in biases]},
        "line": {
            "tanh": [_short(list(point)) for point in line if point[1] <= LARGEST_BIAS],
            "relu": [[2.0, 0.0], [2.0, LARGEST_BIAS]],
        },
        "width": WIDTHS,
        "defaults": {
            name: [_variances(name, width) for width in WIDTHS] for name in BEHAVIOURS["dense"]
        },
    }


def _variances(library: str, width: int) -> list[float]:
    """Return (sigma_w^2, sigma_b^2) of a library's dense layer of this width."""
    dense = BEHAVIOURS["dense"][library]
    sizes = {"fan_in": width, "fan_out": width}
    weight, bias = (law.exact(sizes).moments[1] for law in (dense.kernel, dense.bias))
    return [width * weight, bias]


def _normals() -> dict[str, Any]:
    """Return what cutting and clamping N(0, 1) at each cut does to it."""
    inside, truncated, clamped = cut_normal(CUTS)
    return {
        "cut": _short(CUTS),
        "inside": _short(inside),
        "truncated": _short(truncated),
        "clamped": _short(clamped),
    }


def _code() -> list[dict[str, Any]]:
    return [
        {"topic": TOPICS[topic].partition(":")[0], "heading": step.heading, "code": step.code}
        for topic in TOPICS
        for step in translations(topic)
    ]
