"""Results: what a study found on one backend, as data, in a versioned JSON file.

A `Result` holds named arrays with units (`Quantity`), claims with the numbers that decide them
(`Check`), and everything needed to repeat the run. Reports are made from results alone.

A file holds small arrays as lists of numbers and large ones in an ``.npz`` beside it, whose name
ends in its own digest: a JSON file never meets the arrays of another run, and replacing the JSON
file, which is atomic, replaces both. Nothing is ever pickled.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isometry.common.errors import InvalidArgument, ResultFileError

__all__ = ["SCHEMA", "Check", "Quantity", "Result", "check_writable", "load", "remove", "save"]

SCHEMA = 1
INLINE = 10_000  # entries; beyond it an array goes to the .npz
DTYPES = ("bool", "int64", "float32", "float64")
NON_FINITE = ("inf", "-inf", "nan")  # JSON has no number for them


@dataclass(frozen=True)
class Quantity:
    """A named array of a result.

    Parameters
    ----------
    values : numpy.ndarray
        bool, integer, float32 or float64.
    unit : str
        ``"1"`` for a pure number, ``"nat"`` for a natural logarithm, ``"step"``, ``"layer"``...
    ulp : int, optional
        Set for a quantity that is the same function of the same input on every backend: two
        backends agree if they differ by at most this many units in the last place.
    """

    values: np.ndarray
    unit: str = "1"
    ulp: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", np.asarray(self.values))


@dataclass(frozen=True)
class Check:
    """A claim of a study, decided by ``|observed - expected| <= bound``.

    Parameters
    ----------
    claim : str
        One sentence, the same on every backend: it is the row's name in a comparison.
    observed, expected, bound : float
        In `unit`. A NaN fails.
    source : str
        Where `expected` and `bound` come from: formula, paper and equation, or oracle.
    false_alarm : float
        Upper bound of the probability that a right implementation fails; 0 if deterministic.
    """

    claim: str
    observed: float
    expected: float
    bound: float
    source: str
    unit: str = "1"
    false_alarm: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the claim holds."""
        if math.isinf(self.expected) or math.isinf(self.observed):
            return self.observed == self.expected
        return abs(self.observed - self.expected) <= self.bound


@dataclass(frozen=True)
class Result:
    """What one study found on one backend, with all that is needed to repeat it."""

    study: str
    backend: str
    parameters: dict[str, Any]
    seed: int
    quantities: dict[str, Quantity]
    checks: tuple[Check, ...]
    finding: str
    """One paragraph with its numbers."""
    versions: dict[str, str]
    """isometry, python, numpy, the framework by its distribution name."""
    platform: str
    device: str
    created: str
    """ISO 8601, UTC."""
    seconds: float
    schema: int = field(default=SCHEMA)

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)


# --- writing ----------------------------------------------------------------------------------


def save(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result as JSON, whole or not at all.

    Every finite number is read back bit for bit; a NaN is read back as NaN. Integer arrays are
    stored as int64.

    Parameters
    ----------
    path : path
        The JSON file; its folder is made. An existing file is replaced in one step.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidArgument
        If the folder cannot be written, or the result holds what a file cannot.
    """
    target = Path(path)
    arrays = {name: _storable(name, q.values) for name, q in result.quantities.items()}
    large = {name: values for name, values in arrays.items() if values.size > INLINE}
    archive = _archive(large)
    beside = f"{target.stem}-{hashlib.sha256(archive).hexdigest()[:16]}.npz"
    document = {
        "schema": result.schema,
        **{name: getattr(result, name) for name in _PLAIN},
        "checks": [_encode_check(check) for check in result.checks],
        "quantities": {
            name: {
                "unit": q.unit,
                "ulp": q.ulp,
                "dtype": str(arrays[name].dtype),
                "shape": arrays[name].shape,
                **({"file": beside} if name in large else {"values": _encode(arrays[name])}),
            }
            for name, q in result.quantities.items()
        },
    }
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"the parameters of a result must be finite numbers, strings or truth values; "
            f"received {result.parameters!r} ({error})"
        ) from error
    check_writable(target.parent)
    if large:
        write_atomically(target.with_name(beside), archive)
    write_atomically(target, text.encode())
    _remove_older(target, beside if large else "")
    return target


_PLAIN = (
    "study",
    "backend",
    "parameters",
    "seed",
    "finding",
    "versions",
    "platform",
    "device",
    "created",
    "seconds",
)
_NUMBERS = ("observed", "expected", "bound", "false_alarm")


def _storable(name: str, values: np.ndarray) -> np.ndarray:
    stored = values.astype(np.int64) if values.dtype.kind in "iu" else values
    if str(stored.dtype) not in DTYPES:
        raise InvalidArgument(
            f"quantity {name!r} must have one of the dtypes {', '.join(DTYPES)}; "
            f"received {values.dtype}"
        )
    return stored


def _encode_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _encode(values: np.ndarray) -> list[Any]:
    flat: list[Any] = values.ravel().tolist()
    return [_encode_number(v) for v in flat] if values.dtype.kind == "f" else flat


def _encode_check(check: Check) -> dict[str, Any]:
    return {
        name: _encode_number(float(value)) if name in _NUMBERS else value
        for name, value in asdict(check).items()
    }


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an .npz; unlike `numpy.savez` it takes any name and is the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside the target, then rename it: a reader sees the old or the new one.

    Raises
    ------
    InvalidArgument
        If it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InvalidArgument(
                f"cannot write {path}: {error.strerror}; choose another place, or make room"
            ) from error
        raise


def remove(path: Path) -> None:
    """Remove a result and its arrays, if they are there."""
    path.unlink(missing_ok=True)
    _remove_older(path, "")


def _remove_older(target: Path, current: str) -> None:
    """Remove the arrays of the file that `target` replaced."""
    older = re.compile(rf"{re.escape(target.stem)}-[0-9a-f]{{16}}\.npz")
    for file in target.parent.iterdir():
        if older.fullmatch(file.name) and file.name != current:
            file.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make a folder and raise InvalidArgument unless files can be written to it."""
    probe = folder / f".{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InvalidArgument(
            f"cannot write to the folder {folder}: {error.strerror}; choose another with -o"
        ) from error


# --- reading ----------------------------------------------------------------------------------


def load(path: str | os.PathLike[str]) -> Result:
    """Return the result of a file that `save` wrote.

    Raises
    ------
    ResultFileError
        If the file cannot be read, is damaged, is no result of isometry, or was written by a
        newer schema; or if its ``.npz`` is missing or damaged.
    """
    source = Path(path)
    document = _parse(source)
    _validate(source, document)
    return Result(
        schema=document["schema"],
        **{name: document[name] for name in _PLAIN},
        checks=tuple(_decode_check(check) for check in document["checks"]),
        quantities=_quantities(source, document["quantities"]),
    )


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ResultFileError(
            f"cannot read the result file {path}: {error.strerror}; "
            "write one with `isometry run STUDY --backend B -o FILE`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is not JSON: {error}") from error


def _damaged(path: Path, reason: str) -> ResultFileError:
    return ResultFileError(
        f"the result file {path} is damaged or not a result: {reason}; "
        "record it again with `isometry run`"
    )


def _validate(path: Path, document: Any) -> None:
    from jsonschema.exceptions import best_match

    if not isinstance(document, dict) or "schema" not in document:
        raise ResultFileError(
            f"{path} is not a result file of isometry: it has no field 'schema'; "
            "write one with `isometry run STUDY --backend B -o FILE`"
        )
    schema = document["schema"]
    if isinstance(schema, int) and schema > SCHEMA:
        raise ResultFileError(
            f"{path} was written by schema {schema}; this version reads up to {SCHEMA}; "
            "upgrade isometry"
        )
    error = best_match(_validator().iter_errors(document))
    if error is not None:
        message = error.message if len(error.message) < 200 else f"{error.message[:200]}..."
        raise _damaged(path, f"{error.json_path}: {message}")


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    file = importlib.resources.files("isometry.common") / "result.schema.json"
    return Draft202012Validator(json.loads(file.read_text(encoding="utf-8")))


def _decode_check(fields: dict[str, Any]) -> Check:
    return Check(**{**fields, **{name: float(fields[name]) for name in _NUMBERS}})


def _quantities(path: Path, fields: dict[str, Any]) -> dict[str, Quantity]:
    archives = {
        name: _read_archive(path, name)
        for name in sorted({entry["file"] for entry in fields.values() if "file" in entry})
    }
    return {
        name: Quantity(
            _decode(path, name, entry, archives.get(entry.get("file", ""), {})),
            unit=entry["unit"],
            ulp=entry["ulp"],
        )
        for name, entry in fields.items()
    }


def _read_archive(path: Path, name: str) -> dict[str, np.ndarray]:
    beside = path.with_name(name)
    try:
        data = beside.read_bytes()
    except OSError as error:
        raise ResultFileError(
            f"the arrays of {path} cannot be read: {beside}: {error.strerror}; "
            "keep the .npz beside the JSON file"
        ) from error
    if not name.endswith(f"-{hashlib.sha256(data).hexdigest()[:16]}.npz"):
        raise _damaged(beside, "its content does not have the digest in its name")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise _damaged(beside, str(error)) from error


_ENTRIES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int64": (int,),
    "float32": (int, float),
    "float64": (int, float),
}


def _decode(
    path: Path, name: str, entry: dict[str, Any], archive: Mapping[str, np.ndarray]
) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    if "file" in entry:
        values = archive.get(name)
        if values is None or (values.dtype, values.shape) != (dtype, shape):
            raise _damaged(path, f"{entry['file']} does not hold {name!r} as {dtype} {shape}")
        return values
    flat = entry["values"]
    if len(flat) != math.prod(shape):
        raise _damaged(path, f"{name!r} has {len(flat)} values for the shape {shape}")
    allowed = _ENTRIES[entry["dtype"]]
    for value in flat:
        if type(value) not in allowed and not (float in allowed and value in NON_FINITE):
            raise _damaged(path, f"{name!r} holds {value!r}, which is not {dtype}")
    try:
        wide = np.array(flat, dtype=np.float64 if dtype.kind == "f" else dtype)
    except OverflowError as error:
        raise _damaged(path, f"{name!r} holds a value beyond {dtype}: {error}") from error
    with np.errstate(over="ignore"):
        stored = wide.astype(dtype)
    if not np.array_equal(stored, wide, equal_nan=True):
        raise _damaged(path, f"{name!r} holds values that are not {dtype}")
    return stored.reshape(shape)
