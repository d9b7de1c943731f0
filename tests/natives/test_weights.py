"""The same weights in every framework, and in every library's own models."""

from pathlib import Path

import pytest

import isometry as iso

HERE = Path(__file__).parents[1]
PAGE = HERE.parent / "docs" / "weights.md"

SPEC = {
    "kernel": iso.Weight("he_normal", (3, 2, 16, 24), "in_out"),
    "matrix": iso.Weight("xavier_uniform", (96, 64), dtype="float64"),
    "table": iso.Weight(iso.TruncatedNormal(0.0, 0.02), (100, 32)),
    "half": iso.Weight(iso.Normal(), (999,), dtype="float16"),
}


@pytest.mark.parametrize("name", iso.names())
def test_bits_are_the_same_in_every_framework(name):
    nx = iso.load(name)
    for path, weight in SPEC.items():
        values = weight.draw(2**40 + 1, path)
        with nx.scope():
            array = nx.asarray(values)
        assert nx.dtype_of(array) == weight.dtype
        assert nx.to_numpy(array).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("library", "engine"),
    [
        ("torch", "jax"),
        ("keras", "tensorflow"),
        ("keras", "torch"),
        ("keras", "jax"),
        ("linen", "jax"),
        ("nnx", "jax"),
        ("gluon", "jax"),
    ],
)
def test_models_of_every_library(library, engine, run):
    assert "of its bound" in run([HERE / "check_weights.py", library], engine)


def test_page(run, tmp_path):
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    program = "\n".join(block.partition("```")[0] for block in blocks)
    (tmp_path / "page.py").write_text(program)
    run(["page.py"], "jax")
