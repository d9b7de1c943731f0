"""Verdicts made from results alone."""

import dataclasses

import numpy as np
import pytest

from isometry.common.reports.agreement import agree, distinct
from isometry.common.results import Check, Quantity, Result


def make(backend, values=(1.0,), *, ulp=2, dtype="float32", observed=0.0, **changes):
    result = Result(
        study="s",
        backend=backend,
        parameters={"n": 1},
        seed=0,
        quantities={
            "q": Quantity(np.array(values, dtype), "1", ulp),
            "own": Quantity(np.random.default_rng(0).random(3)),
        },
        checks=(Check("c", observed, 0.0, 1.0, "s"),),
        finding="",
        versions={"isometry": "0", backend: "1.0"},
        platform="",
        device="cpu",
        created="",
        seconds=0.0,
    )
    return dataclasses.replace(result, **changes)


def difference(ours, theirs):
    (row,) = agree([theirs, ours]).shared
    return row.differences[ours.backend]


ULP = float(np.finfo("float32").eps)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict", "ulp"),
    [
        ([1.0], [1.0], "agrees", 0),
        ([1 + 2 * ULP], [1.0], "agrees", 2),
        ([1 + 3 * ULP], [1.0], "differs", 3),
        ([-1e-45], [1e-45], "agrees", 2),
        ([0.0], [-0.0], "agrees", 0),
        ([np.nan, np.inf], [np.nan, np.inf], "agrees", 0),
        ([np.nan], [1.0], "differs", np.inf),
        ([np.inf], [np.finfo("float32").max], "differs", np.inf),
        ([], [], "agrees", 0),
    ],
)
def test_distance_is_counted_in_ulp(ours, theirs, verdict, ulp):
    found = difference(make("torch", ours), make("numpy", theirs))
    assert (found.verdict, found.ulp) == (verdict, ulp)


def test_whole_numbers_and_truth_values_are_counted():
    assert difference(make("a", [3], dtype="int64"), make("b", [5], dtype="int64")).ulp == 2
    found = difference(make("a", [True], dtype="bool", ulp=0), make("b", [0], dtype="bool", ulp=0))
    assert (found.verdict, found.ulp) == ("differs", 1)


@pytest.mark.parametrize("other", [make("a", dtype="float64"), make("a", [1.0, 1.0])])
def test_another_dtype_or_shape_differs(other):
    found = difference(other, make("numpy"))
    assert (found.verdict, found.ulp) == ("differs", None)
    assert "here" in found.detail


def test_another_seed_or_parameter_is_not_comparable():
    for other, reason in (
        (make("a", [9.0], seed=1), "seed is 1 here and 0"),
        (make("a", [9.0], parameters={"n": 2}), "n is 2 here and 1"),
        (make("a", [9.0], parameters={"n": 1, "m": 2}), "m is 2 here and None"),
    ):
        found = difference(other, make("numpy"))
        assert found.verdict == "not comparable"
        assert reason in found.detail


def test_a_quantity_that_is_missing_was_not_run():
    assert difference(make("a", quantities={}), make("numpy")).verdict == "not run"


def test_numpy_is_the_reference_wherever_it_stands():
    verdict = agree([make("torch"), make("numpy"), make("jax")])
    assert verdict.backends == ("torch", "numpy", "jax")
    assert verdict.reference == "numpy"
    assert agree([make("torch"), make("jax")]).reference == "torch"
    assert [row.quantity for row in verdict.shared] == ["q"]


def test_one_backend_alone_is_compared_with_nothing():
    assert agree([make("numpy")]).shared == ()


def test_claims_are_rows_and_a_claim_not_made_is_absent():
    other = make("torch", checks=(Check("d", 2.0, 0.0, 1.0, "s"),))
    claims = {row.claim: row for row in agree([make("numpy"), other]).claims}
    assert list(claims["c"].checks) == ["numpy"]
    assert claims["c"].passed
    assert not claims["d"].passed


def test_passed_needs_every_claim_and_every_array():
    assert agree([make("numpy"), make("a")]).passed
    assert not agree([make("numpy"), make("a", observed=2.0)]).passed
    assert not agree([make("numpy"), make("a", observed=float("nan"))]).passed
    assert not agree([make("numpy"), make("a", [2.0])]).passed


def test_columns_have_different_names():
    new = make("numpy", versions={"isometry": "0", "numpy": "2.0"})
    assert distinct([make("numpy"), make("torch")]) == ("numpy", "torch")
    assert distinct([make("numpy"), new]) == ("numpy 1.0", "numpy 2.0")
    assert distinct([new, new, make("torch")]) == ("numpy 2.0 (1)", "numpy 2.0 (2)", "torch")
