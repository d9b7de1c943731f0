"""Weights in files, ``.npz`` or ``.safetensors``, which say how to draw them again.

Both hold the arrays by path, as they are stored, and beside them one JSON document: the seed, the
versions, and of each path its law, shape, layout and dtype. In an ``.npz`` it is the member
``isometry.json``, in a safetensors file the entry ``isometry`` of the metadata. Nothing is pickled.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import os
import pkgutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isometry.common import laws
from isometry.common.errors import InvalidArgument, IsometryError, unknown_name
from isometry.common.laws.fans import Fans
from isometry.common.laws.initializers import Initializer
from isometry.common.results import check_writable, write_atomically
from isometry.common.weights.named import Weight, Weights

__all__ = ["read_weights", "save_weights"]

SCHEMA = 1
Arrays = dict[str, np.ndarray]


def save_weights(weights: Weights, file: str | os.PathLike[str]) -> Path:
    """Write weights and their recipe to a file, whole or not at all; return where.

    The same weights give the same bytes. The folder is made; an existing file is replaced.

    Parameters
    ----------
    weights : Weights
    file : path
        Ends in ``.npz`` or ``.safetensors``.

    Raises
    ------
    InvalidArgument
        If the suffix is another one, the file cannot be written, a law has parameters that are not
        plain, or safetensors is not installed.
    """
    if not isinstance(weights, Weights):
        raise InvalidArgument(
            f"weights must be what iso.weights or iso.read_weights returns, with its recipe; "
            f"received {weights!r:.80} of type {type(weights).__name__}"
        )
    target = Path(file)
    pack, _ = _format(target)
    document = {
        "schema": SCHEMA,
        "seed": weights.seed,
        "versions": dict(weights.versions),
        "weights": {path: _encode(path, weight) for path, weight in weights.spec.items()},
    }
    data = pack(dict(weights), json.dumps(document, ensure_ascii=False))
    check_writable(target.parent)
    write_atomically(target, data)
    return target


def read_weights(file: str | os.PathLike[str]) -> Weights:
    """Return the weights that `save_weights` wrote, bit for bit.

    ``weights(read.spec, read.seed)`` draws them again.

    Raises
    ------
    InvalidArgument
        If the file cannot be read, is damaged, has no recipe, or was written by a newer version.
    """
    source = Path(file)
    _, unpack = _format(source)
    try:
        source.open("rb").close()
    except OSError as error:
        raise InvalidArgument(f"cannot read the weights {source}: {error.strerror}") from error
    try:
        arrays, text = unpack(source)
        return _weights(source, arrays, json.loads(text))
    except IsometryError:
        raise
    except Exception as error:  # a damaged file may raise anything, in three libraries
        raise _damaged(source, f"{type(error).__name__}: {error}") from error


def _weights(source: Path, arrays: Arrays, document: dict[str, Any]) -> Weights:
    if document["schema"] > SCHEMA:
        raise InvalidArgument(
            f"{source} was written by schema {document['schema']} of isometry's weights; this "
            f"version reads up to {SCHEMA}; upgrade isometry"
        )
    spec = {path: _decode(weight) for path, weight in document["weights"].items()}
    recipe = {path: (weight.shape, weight.dtype) for path, weight in spec.items()}
    if recipe != {path: (values.shape, str(values.dtype)) for path, values in arrays.items()}:
        raise _damaged(source, "its arrays are not those of its recipe")
    return Weights(spec, document["seed"], arrays, document["versions"])


def _damaged(source: Path, reason: str) -> InvalidArgument:
    return InvalidArgument(
        f"{source} is damaged or not a file of isometry's weights ({reason}); "
        "write it again with save_weights"
    )


# --- formats --------------------------------------------------------------------------------------


def _pack_npz(arrays: Arrays, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # a name alone has a fixed date: the same bytes each time
        archive.writestr(zipfile.ZipInfo("isometry.json"), text)
        for path, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{path}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)
    return buffer.getvalue()


def _unpack_npz(source: Path) -> tuple[Arrays, str]:
    arrays = {}
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        for name in (name for name in names if name != "isometry.json"):
            with archive.open(name) as member:
                path = name.removesuffix(".npy")
                arrays[path] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays, archive.read("isometry.json").decode()


def _pack_safetensors(arrays: Arrays, text: str) -> bytes:
    if "__metadata__" in arrays:
        raise InvalidArgument(
            "safetensors keeps the name '__metadata__' for itself; rename that path, or choose a "
            "file that ends in .npz"
        )
    whole = {path: np.asarray(values, order="C") for path, values in arrays.items()}
    return bytes(_safetensors().numpy.save(whole, metadata={"isometry": text}))


def _unpack_safetensors(source: Path) -> tuple[Arrays, str]:
    with _safetensors().safe_open(source, framework="numpy") as file:
        paths = file.keys()
        return {path: file.get_tensor(path) for path in paths}, file.metadata()["isometry"]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise InvalidArgument(
            f"safetensors is not installed ({error}): pip install "
            '"isometry[safetensors]", or choose a file that ends in .npz'
        ) from error
    return safetensors


Pack = Callable[[Arrays, str], bytes]
Unpack = Callable[[Path], tuple[Arrays, str]]
FORMATS: Mapping[str, tuple[Pack, Unpack]] = {
    ".npz": (_pack_npz, _unpack_npz),
    ".safetensors": (_pack_safetensors, _unpack_safetensors),
}


def _format(file: Path) -> tuple[Pack, Unpack]:
    if file.suffix not in FORMATS:
        raise unknown_name("suffix of a file of weights", file.suffix, FORMATS)
    return FORMATS[file.suffix]


# --- laws -----------------------------------------------------------------------------------------


def _encode(path: str, weight: Weight) -> dict[str, Any]:
    law = weight.law if isinstance(weight.law, str) else repr(weight.law)
    try:
        same = _law(law) == weight.law
    except (AttributeError, LookupError, TypeError, ValueError):
        same = False
    if not same:
        raise InvalidArgument(
            f"a file holds a law by name or as its class with plain numbers; received {law} for "
            f"{path!r}, which is not read back; write float(x) for a NumPy scalar"
        )
    return {**vars(weight), "law": law}


def _decode(encoded: dict[str, Any]) -> Weight:
    return Weight(**{**encoded, "law": _law(encoded["law"]), "shape": tuple(encoded["shape"])})


def _law(text: str) -> Any:
    """Return the law of its name, or of its repr, ``"Normal(mean=0.0, std=0.02)"``."""
    return _built(ast.parse(text, mode="eval").body) if "(" in text else text


def _built(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        parameters = {str(k.arg): _built(k.value) for k in node.keywords}
        return _classes()[node.func.id](**parameters)
    if isinstance(node, ast.Tuple):
        return tuple(map(_built, node.elts))
    return ast.literal_eval(node)


def _classes() -> dict[str, Callable[..., Any]]:
    """Return what the repr of a law may call: initializers, and their fans."""
    for module in pkgutil.iter_modules(laws.__path__, f"{laws.__name__}."):
        importlib.import_module(module.name)
    found = [Initializer]
    for cls in found:
        found += cls.__subclasses__()
    return {"Fans": Fans, **{cls.__name__: cls for cls in found}}
