"""Result files: what is read is what was written, and nothing else is read."""

import dataclasses
import hashlib
import io
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.common import results
from isometry.common.errors import InvalidArgument, ResultFileError
from isometry.common.results import Check, Quantity, Result


def make(quantities=None, **changes):
    fields = {
        "study": "xavier",
        "backend": "numpy",
        "parameters": {"depth": 50, "gain": 1.0, "law": "normal", "bias": False},
        "seed": 2**63 - 1,
        "quantities": quantities or {},
        "checks": (Check("0 is 0", 0.0, 0.0, 0.0, "arithmetic", "1", 1e-9),),
        "finding": "0 is 0, on every backend: σ² = 1.",
        "versions": {"isometry": "0.1.0", "python": "3.11", "numpy": "2.4"},
        "platform": "a machine",
        "device": "cpu",
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 0.25,
    }
    return Result(**{**fields, **changes})


def same(ours, theirs):
    """Equal in dtype, shape and bits; any NaN is like any other."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return False
    if ours.dtype.kind != "f":
        return bool(np.array_equal(ours, theirs))
    nan = np.isnan(ours)
    word = f"u{ours.dtype.itemsize}"
    return bool(
        np.array_equal(nan, np.isnan(theirs))
        and np.array_equal(ours.view(word)[~nan], theirs.view(word)[~nan])
    )


def document(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_everything_but_the_arrays_is_read_as_it_was_written(tmp_path):
    result = make()
    path = results.save(result, tmp_path / "new" / "folder" / "r.json")
    assert results.load(path) == result


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_any_float64_is_read_bit_for_bit(tmp_path_factory, words):
    values = np.array(words, dtype=np.uint64).view(np.float64)
    path = results.save(make({"q": Quantity(values)}), tmp_path_factory.mktemp("r") / "r.json")
    assert same(results.load(path).quantities["q"].values, values)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_any_float32_is_read_bit_for_bit(tmp_path_factory, words):
    values = np.array(words, dtype=np.uint32).view(np.float32)
    path = results.save(make({"q": Quantity(values)}), tmp_path_factory.mktemp("r") / "r.json")
    assert same(results.load(path).quantities["q"].values, values)


@pytest.mark.parametrize(
    "values",
    [
        np.array([True, False]),
        np.array([-(2**63), 2**63 - 1]),
        np.array([[0.0, -0.0], [np.inf, -np.inf]]),
        np.array(5e-324),
        np.zeros((0, 3), np.float32),
        np.arange(10_000),
        np.arange(10_001, dtype=np.float32).reshape(73, 137),
        np.full(20_000, np.nan),
    ],
    ids=lambda v: f"{v.dtype}{v.shape}",
)
def test_arrays_keep_dtype_shape_and_values(tmp_path, values):
    path = results.save(make({"a/b": Quantity(values, "nat", 4)}), tmp_path / "r.json")
    read = results.load(path).quantities["a/b"]
    assert (read.unit, read.ulp) == ("nat", 4)
    assert same(read.values, values)
    assert len(list(tmp_path.glob("*.npz"))) == (values.size > 10_000)


def test_checks_keep_numbers_that_json_lacks(tmp_path):
    check = Check("c", float("nan"), float("-inf"), float("inf"), "s")
    read = results.load(results.save(make(checks=(check,)), tmp_path / "r.json")).checks[0]
    assert np.isnan(read.observed)
    assert (read.expected, read.bound) == (float("-inf"), float("inf"))


def test_a_replaced_file_takes_its_arrays_with_it(tmp_path):
    path = tmp_path / "r.json"
    results.save(make({"q": Quantity(np.zeros(20_000))}), path)
    results.save(make({"q": Quantity(np.ones(20_000))}), path)
    (tmp_path / "r-of-another.npz").touch()
    assert len(list(tmp_path.glob("*.npz"))) == 2
    assert results.load(path).quantities["q"].values.all()
    results.save(make(), path)
    assert [p.name for p in tmp_path.glob("*.npz")] == ["r-of-another.npz"]


@pytest.mark.parametrize("size", [3, 20_000])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, size):
    path = results.save(make({"q": Quantity(np.zeros(size))}), tmp_path / "r.json")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        results.save(make({"q": Quantity(np.ones(size))}), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=r"cannot write to the folder .*file.*-o"):
        results.save(make(), tmp_path / "file" / "r.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantities": {"q": Quantity(np.zeros(1, np.float16))}}, "float16"),
        ({"quantities": {"q": Quantity(np.array([None]))}}, "object"),
        ({"parameters": {"gain": float("inf")}}, "finite"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path, changes, message):
    with pytest.raises(InvalidArgument, match=message):
        results.save(make(**changes), tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def edit(path, change):
    fields = document(path)
    change(fields)
    path.write_text(json.dumps(fields), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), r"written by schema 2; this version reads up to 1; upgrade"),
        (lambda d: d.update(schema="1"), "damaged"),
        (lambda d: d.pop("schema"), "no field 'schema'"),
        (lambda d: d.pop("seed"), "'seed' is a required property"),
        (lambda d: d.update(seed=-1), r"\$.seed"),
        (lambda d: d.update(more=1), "'more' was unexpected"),
        (lambda d: d["checks"][0].update(observed="infinite"), r"checks\[0\].observed"),
        (lambda d: d["quantities"]["q"].update(shape=[3]), r"'q' has 2 values for the shape \(3,"),
        (lambda d: d["quantities"]["q"].update(values=[1.0, True]), "'q' holds True"),
        (lambda d: d["quantities"]["q"].update(values=[1.0, "1"]), "'q' holds '1'"),
        (lambda d: d["quantities"]["q"].update(values=[1.0, [2.0]]), r"'q' holds \[2.0\]"),
        (lambda d: d["quantities"]["q"].update(dtype="object"), "dtype"),
        (lambda d: d["quantities"]["q"].update(dtype="int64"), "'q' holds 1.0"),
        (
            lambda d: d["quantities"]["q"].update(dtype="int64", values=[2**64, 0]),
            "'q' holds a value beyond int64",
        ),
        (
            lambda d: d["quantities"]["q"].update(dtype="float32", values=[1e300, 0]),
            "'q' holds values that are not float32",
        ),
        (lambda d: d["quantities"]["q"].update(file="../x-0123456789abcdef.npz"), "quantities.q"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    path = results.save(make({"q": Quantity(np.array([1.0, 2.0]))}), tmp_path / "r.json")
    edit(path, change)
    with pytest.raises(ResultFileError, match=message):
        results.load(path)


@pytest.mark.parametrize("part", [0, 1, 100, -2])
def test_a_truncated_file_is_damaged(tmp_path, part):
    path = results.save(make({"q": Quantity(np.arange(9.0))}), tmp_path / "r.json")
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(ResultFileError, match="damaged"):
        results.load(path)


@pytest.mark.parametrize("content", [b"[]", b"1", b"[" * 100_000, b"\xff\xfe", b"{}", b"NaN"])
def test_a_foreign_file_is_no_result(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=r"r\.json"):
        results.load(path)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ResultFileError, match="cannot read"):
            results.load(path)


def large(folder):
    path = results.save(make({"q": Quantity(np.zeros(20_000))}), folder / "r.json")
    return path, next(folder.glob("*.npz"))


def test_missing_arrays_are_named(tmp_path):
    path, arrays = large(tmp_path)
    arrays.unlink()
    with pytest.raises(ResultFileError, match=rf"{arrays.name}.*keep the .npz beside"):
        results.load(path)


def test_damaged_arrays_are_noticed(tmp_path):
    path, arrays = large(tmp_path)
    data = bytearray(arrays.read_bytes())
    data[1000] ^= 1
    arrays.write_bytes(data)
    with pytest.raises(ResultFileError, match="digest"):
        results.load(path)


@pytest.mark.parametrize("values", [np.array([{}], dtype=object), np.zeros(20_000, np.float32)])
def test_arrays_of_another_kind_are_refused_and_never_unpickled(tmp_path, values):
    path, _ = large(tmp_path)
    buffer = io.BytesIO()
    np.savez(buffer, q=values)
    name = f"r-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.npz"
    (tmp_path / name).write_bytes(buffer.getvalue())
    edit(path, lambda d: d["quantities"]["q"].update(file=name))
    with pytest.raises(ResultFileError, match="damaged"):
        results.load(path)


def test_the_schema_names_every_field_of_a_result(tmp_path):
    path = results.save(make({"q": Quantity(np.zeros(1))}), tmp_path / "r.json")
    assert document(path).keys() == {f.name for f in dataclasses.fields(Result)}
    assert document(path)["checks"][0].keys() == {f.name for f in dataclasses.fields(Check)}


def test_remove_takes_the_arrays_along(tmp_path):
    large = make({"draws": Quantity(np.zeros(results.INLINE + 1))})
    results.save(large, tmp_path / "a.json")
    (tmp_path / "b.json").write_text("another")
    assert len(list(tmp_path.iterdir())) == 3
    results.remove(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    results.remove(tmp_path / "a.json")
