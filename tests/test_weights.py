"""The same weights everywhere: the names, the canonical order, blocks, bits, laws, and files."""

import hashlib
import itertools
import json
import math
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isometry as iso
from isometry.common import portable
from isometry.common.weights.named import stored_axes, words
from isometry.conformance.examples import EXAMPLES

ELEMENTWISE = (
    "zeros",
    "he_normal",
    "xavier_truncated",
    "lecun_uniform",
    iso.Normal(0.1, 0.3),
    iso.TruncatedNormal(-0.1, 0.3),
    iso.Uniform(-0.1, 0.7),
    iso.Bernoulli(0.3, 2.0),
)
SPEC = {
    "conv.kernel": iso.Weight("he_normal", (3, 3, 8, 16), "in_out"),
    "conv.bias": iso.Weight(iso.Normal(0.0, 0.1), (16,)),
    "dense.kernel": iso.Weight("xavier_uniform", (10, 64), dtype="float64"),
    "dense.mask": iso.Weight(iso.Bernoulli(0.5), (10,), dtype="float16"),
    "scale": iso.Weight("ones", ()),
}


def bits(values):
    return values.dtype, values.shape, values.tobytes()


# --- names and order ------------------------------------------------------------------------------


def test_values_are_those_of_the_portable_stream_at_the_hash_of_the_path():
    stream = portable.PortableStream(
        7, words("net.kernel"), convert=lambda v, dtype: v, dtypes=("float32",)
    )
    drawn = iso.Weight("he_normal", (5, 4, 3, 2)).draw(7, "net.kernel")
    assert bits(drawn) == bits(stream.normal((5, 4, 3, 2), std=math.sqrt(2 / 24)))
    digest = hashlib.blake2b("Gewichte/größe".encode(), digest_size=32).digest()
    assert words("Gewichte/größe") == tuple(np.frombuffer(digest, "<u8").tolist())


@pytest.mark.parametrize("law", [*ELEMENTWISE, "orthogonal"], ids=str)
def test_layout_is_a_transposition(law):
    out_in = iso.Weight(law, (16, 8, 3, 2)).draw(0, "w")
    in_out = iso.Weight(law, (3, 2, 8, 16), "in_out").draw(0, "w")
    assert np.array_equal(in_out, out_in.transpose(2, 3, 1, 0))
    matrix = iso.Weight(law, (16, 8)).draw(0, "w")
    assert np.array_equal(iso.Weight(law, (8, 16), "in_out").draw(0, "w"), matrix.T)


def test_a_vector_has_one_layout():
    law = iso.Normal()
    assert bits(iso.Weight(law, (9,), "in_out").draw(0, "b")) == bits(
        iso.Weight(law, (9,)).draw(0, "b")
    )
    assert stored_axes(0, "in_out") == ()


def test_nothing_depends_on_order_or_company():
    drawn = iso.weights(SPEC, 3)
    assert list(drawn) == list(SPEC)
    for order in itertools.islice(itertools.permutations(SPEC), 0, 120, 17):
        again = iso.weights([(path, SPEC[path]) for path in order], 3)
        assert {p: bits(w) for p, w in again.items()} == {p: bits(w) for p, w in drawn.items()}
    for path, weight in SPEC.items():
        assert bits(weight.draw(3, path)) == bits(drawn[path])


def test_a_part_of_a_model_is_drawn_as_in_the_whole():
    whole = iso.weights({f"encoder.{path}": weight for path, weight in SPEC.items()}, 0)
    part = iso.weights(SPEC, 0, "encoder")
    assert list(part) == list(whole)
    assert all(bits(part[path]) == bits(whole[path]) for path in whole)


def test_seeds_and_paths_are_independent():
    weight = iso.Weight(iso.Normal(), (512, 512))
    effects = {"independence": ("absolute", 0.012), "std": ("relative", 0.02)}
    first = weight.draw(0, "a")
    for second in (weight.draw(1, "a"), weight.draw(0, "b"), weight.draw(2**32, "a")):
        pair = np.stack([first, second])
        iso.assert_law(pair, iso.Normal(), false_alarm=1e-12, detects=effects)


# --- blocks ---------------------------------------------------------------------------------------


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4)))
    block = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        start = draw(st.integers(0, size - 1))
        block.append(slice(start, draw(st.integers(start + 1, size))))
    weight = iso.Weight(
        draw(st.sampled_from([*ELEMENTWISE, "orthogonal"])),
        shape,
        draw(st.sampled_from(["out_in", "in_out"])),
        draw(st.sampled_from(["float16", "float32", "float64"])),
    )
    return weight, tuple(block)


@settings(EXAMPLES, max_examples=300)
@given(case=cases(), seed=st.integers(0, 2**63 - 1))
def test_block_is_the_slice(case, seed):
    weight, block = case
    whole = weight.draw(seed, "w")
    assert whole.shape == weight.shape
    assert whole.dtype == weight.dtype
    assert bits(weight.draw(seed, "w", block)) == bits(whole[block])


@pytest.mark.parametrize("columns", [slice(0, 20_000), slice(8191, 8193), slice(None)])
def test_blocks_longer_than_what_is_transformed_at_once(columns):
    weight = iso.Weight(iso.Normal(), (3, 20_001))
    block = (slice(1, 3), columns)
    assert bits(weight.draw(0, "w", block)) == bits(weight.draw(0, "w")[block])


def test_a_block_of_a_matrix_that_no_machine_holds():
    size = 2**40
    weight = iso.Weight(iso.Normal(), (size, size), dtype="float64")
    drawn = weight.draw(5, "w", (slice(size - 2, size), slice(12345, 12352)))
    key = portable.PortableStream(5, words("w"), convert=None, dtypes=()).entropy(128)
    for row, values in zip((size - 2, size - 1), drawn, strict=True):
        counter, skipped = divmod(row * size + 12345, 4)
        philox = np.random.Philox(key=key, counter=counter)
        raw = philox.random_raw(skipped + 7)[skipped:]
        assert np.array_equal(values, portable.standard_normal(raw))


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_memory_is_the_result_and_a_constant(layout):
    weight = iso.Weight("he_normal", (2000, 3000), layout)
    weight.draw(0, "first")  # tables and imports
    for block, size in ((None, 6_000_000), ((slice(None), slice(0, 2)), 4000)):
        tracemalloc.start()
        assert weight.draw(0, "w", block).size == size
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= 4 * size + 2**20


def test_what_takes_more_than_a_word_a_value_has_no_blocks():
    class Laplace(iso.Normal):
        def draw(self, nx, stream, shape, /, *, dtype="float32"):
            return stream.uniform(shape, dtype=dtype) - stream.uniform(shape, dtype=dtype)

    class Mixture(iso.Normal):
        def draw(self, nx, stream, shape, /, *, dtype="float32"):
            return stream.split(2)[1].normal(shape, dtype=dtype)

    for law in (Laplace(), Mixture()):
        with pytest.raises(iso.InvalidArgument, match="from one word each"):
            iso.Weight(law, (3, 2)).draw(0, "w")


# --- laws and bits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "law",
    [
        f"{family}_{distribution}"
        for family in ("he", "xavier", "lecun")
        for distribution in ("normal", "truncated", "uniform")
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_law(law, dtype):
    weight = iso.Weight(law, (3, 3, 256, 128), "in_out", dtype)
    effects = {"std": ("relative", 0.02), "distribution": ("absolute", 0.02)}
    values = weight.draw(11, "layer.kernel").ravel()
    iso.assert_law(values, weight.resolved(), false_alarm=1e-12, detects=effects)


def test_law_of_a_mask_and_of_an_orthogonal_matrix():
    mask = iso.Weight(iso.Bernoulli(0.2, 5.0), (512, 1024)).draw(0, "mask")
    iso.assert_law(mask, iso.Bernoulli(0.2, 5.0), false_alarm=1e-12)
    weight = iso.Weight(iso.Orthogonal(2.0), (8, 8))
    drawn = np.stack([weight.draw(seed, "q") for seed in range(1000)])
    iso.assert_law(drawn, iso.Orthogonal(2.0), false_alarm=1e-12)


# sha256, first 16 digits, of little-endian values in canonical order
RECORDED = {
    "xavier_normal float32": "c83394e3a49fd5f0",
    "xavier_normal float64": "7105b25933f57bb4",
    "xavier_truncated float32": "820fe1417ca0b89d",
    "xavier_truncated float64": "0849d4d3d1b8a187",
    "he_uniform float32": "5d4b2f23dbb0e4fd",
    "he_uniform float64": "cbe0fbf5e5276fb8",
    "Bernoulli(keep=0.3, scale=2.0) float32": "c12ba0f4ab8e601c",
    "Normal(mean=0.1, std=0.3) float16": "ac32d70ae66e6daa",
}


def fingerprint(law, dtype):
    values = iso.Weight(law, (64, 32, 3, 3), dtype=dtype).draw(2024, "encoder.layer1.weight")
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def test_bits_are_those_recorded():
    laws = {str(law): law for law in ("xavier_normal", "xavier_truncated", "he_uniform")}
    laws |= {str(law): law for law in (iso.Bernoulli(0.3, 2.0), iso.Normal(0.1, 0.3))}
    found = {
        name: fingerprint(laws[name.rpartition(" ")[0]], name.rpartition(" ")[2])
        for name in RECORDED
    }
    assert found == RECORDED


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("he_normal", (0, 3)), "sizes of at least 1; received (0, 3)"),
        (("he_normal", (-2, 3)), "sizes of at least 1; received (-2, 3)"),
        (("he_normal", (3,)), "at least 2 dimensions"),
        (("he_normal", 3), "tuple of integers"),
        (("he_normel", (3, 2)), "did you mean 'he_normal'"),
        ((3.0, (3, 2)), "initializer must be"),
        (("he_normal", (3, 2), "OIHW"), "unknown layout 'OIHW'"),
        (("he_normal", (3, 2), "out_in", "bfloat16"), "unknown dtype 'bfloat16'"),
    ],
)
def test_wrong_weight(arguments, message):
    with pytest.raises(iso.InvalidArgument) as raised:
        iso.Weight(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ((slice(0, 11),), "0:11 on an axis of size 10"),
        ((slice(None), slice(20, 21)), "20:21 on an axis of size 20"),
        ((slice(-1, None),), "-1:10 on an axis"),
        ((slice(3, 3),), "3:3 on an axis"),
        ((slice(0, 4, 2),), "without steps"),
        ((slice(0.0, 4),), "must be an integer"),
        ((3,), "without steps; received 3"),
        ((slice(None),) * 3, "at most 2 slices"),
        (slice(0, 3), "tuple of at most 2 slices"),
    ],
)
def test_wrong_block(block, message):
    with pytest.raises(iso.InvalidArgument) as raised:
        iso.Weight("he_normal", (10, 20)).draw(0, "w", block)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: iso.weights([("a", w), ("b", w), ("a", w)], 0), "received twice: a;"),
        (lambda w: iso.weights({"a": "he_normal"}, 0), "must be a Weight"),
        (lambda w: iso.weights({"": w}, 0), "printable characters"),
        (lambda w: iso.weights({"a\nb": w}, 0), "printable characters"),
        (lambda w: iso.weights({3: w}, 0), "received 3"),
        (lambda w: iso.weights({"a": w}, 0, path="\0"), "printable characters"),
        (lambda w: iso.weights({"a": w}, -1), "seed must be between 0"),
        (lambda w: w.draw(2**63, "a"), "seed must be between 0"),
        (lambda w: iso.weights(w, 0), "spec must map paths to Weights"),
        (lambda w: iso.weights([3], 0), "spec must map paths to Weights"),
        (lambda w: iso.save_weights({"a": w.draw(0, "a")}, "a.npz"), "weights must be what"),
        (lambda w: iso.load_weights(3, {"a": w.draw(0, "a")}, {}), "weights must be what"),
        (lambda w: iso.load_weights(3, iso.weights({}, 0), "out_in"), "layouts must be a mapping"),
    ],
)
def test_wrong_call(call, message):
    with pytest.raises(iso.InvalidArgument) as raised:
        call(iso.Weight("he_normal", (3, 2)))
    assert message in str(raised.value)


# --- files ----------------------------------------------------------------------------------------

SUFFIXES = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
LAWS = (
    *ELEMENTWISE,
    "orthogonal",
    iso.DeltaOrthogonal(2.0),
    iso.VarianceScaling(mode="fan_avg", distribution="uniform"),
    iso.Normal(-0.5, 1e-30),
)


@SUFFIXES
def test_a_file_gives_back_the_bits_and_the_recipe(tmp_path, suffix):
    spec = {
        f"law {k}/µ": iso.Weight(law, (3, 3, 8, 16), layout)
        for k, (law, layout) in enumerate(itertools.product(LAWS, ["out_in", "in_out"]))
        if layout == "in_out" or not isinstance(law, iso.DeltaOrthogonal)
    }
    drawn = iso.weights({**SPEC, **spec}, 2**63 - 1)
    file = iso.save_weights(drawn, tmp_path / "new" / f"weights{suffix}")
    first = file.read_bytes()
    read = iso.read_weights(file)
    assert (read.spec, read.seed) == (drawn.spec, drawn.seed)
    assert read.versions == {"isometry": iso.__version__, "numpy": np.__version__}
    assert {p: bits(w) for p, w in read.items()} == {p: bits(w) for p, w in drawn.items()}
    again = iso.weights(read.spec, read.seed)
    assert all(np.array_equal(again[path], read[path]) for path in read)
    assert iso.save_weights(read, file).read_bytes() == first
    if suffix == ".npz":  # no date, which may be the same by accident
        with zipfile.ZipFile(file) as archive:
            assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert [f.name for f in file.parent.iterdir()] == [file.name]


def test_files_are_read_without_isometry(tmp_path):
    from safetensors import safe_open

    drawn = iso.weights(SPEC, 1)
    iso.save_weights(drawn, tmp_path / "w.npz")
    iso.save_weights(drawn, tmp_path / "w.safetensors")
    with np.load(tmp_path / "w.npz") as archive:
        assert all(bits(archive[path]) == bits(values) for path, values in drawn.items())
        recipe = json.loads(archive["isometry.json"])
    assert (recipe["seed"], recipe["weights"]["conv.bias"]["law"]) == (
        1,
        "Normal(mean=0.0, std=0.1)",
    )
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        assert all(np.array_equal(file.get_tensor(path), drawn[path]) for path in drawn)
        assert json.loads(file.metadata()["isometry"]) == recipe


def test_wrong_files(tmp_path, monkeypatch):
    drawn = iso.weights(SPEC, 0)
    with pytest.raises(
        iso.InvalidArgument, match=r"unknown suffix .* '.pt': known are .npz, .safe"
    ):
        iso.save_weights(drawn, tmp_path / "w.pt")
    with pytest.raises(iso.InvalidArgument, match=r"cannot read the weights .*No such file"):
        iso.read_weights(tmp_path / "absent.npz")
    (tmp_path / "folder").touch()
    with pytest.raises(iso.InvalidArgument, match="cannot write"):
        iso.save_weights(drawn, tmp_path / "folder" / "w.npz")
    scalar = iso.weights({"a": iso.Weight(iso.Normal(np.float64(0.1), 1.0), (3,))}, 0)
    with pytest.raises(iso.InvalidArgument, match=r"plain numbers; .* for 'a'.* write float\(x\)"):
        iso.save_weights(scalar, tmp_path / "w.npz")
    reserved = iso.weights({"__metadata__": iso.Weight("ones", (3,))}, 0)
    with pytest.raises(iso.InvalidArgument, match="keeps the name '__metadata__' for itself"):
        iso.save_weights(reserved, tmp_path / "w.safetensors")
    assert iso.save_weights(reserved, tmp_path / "w.npz")
    iso.save_weights(drawn, tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda f: iso.save_weights(drawn, f), iso.read_weights):
        with pytest.raises(iso.InvalidArgument, match=r'pip install "isometry\[safetensors\]"'):
            call(tmp_path / "w.safetensors")


@SUFFIXES
def test_damaged_files(tmp_path, suffix):
    file = iso.save_weights(iso.weights(SPEC, 0), tmp_path / f"w{suffix}")
    whole = file.read_bytes()
    for data in (
        b"",
        b"no archive at all",
        whole[: len(whole) // 2],
        whole.replace(b"Normal", b"N"),
    ):
        file.write_bytes(data)
        with pytest.raises(iso.InvalidArgument, match="is damaged or not a file of isometry's"):
            iso.read_weights(file)


def test_foreign_and_newer_archives(tmp_path):
    file = tmp_path / "w.npz"
    np.savez(file, a=np.zeros(3))
    with pytest.raises(iso.InvalidArgument, match="not a file of isometry's weights"):
        iso.read_weights(file)
    recipe = {"schema": 1, "seed": 0, "versions": {}, "weights": {}}
    for change, message in (
        ({"schema": 2}, "reads up to 1; upgrade isometry"),
        ({"weights": {"a": {"law": "ones", "shape": [3]}}}, "not those of its recipe"),
        ({"weights": {"a": {"law": "Normol(mean=0.0)", "shape": [3]}}}, "damaged"),
        ({"weights": {"a": {"law": "exit()", "shape": [3]}}}, "damaged"),
    ):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("isometry.json", json.dumps({**recipe, **change}))
        with pytest.raises(iso.InvalidArgument, match=message):
            iso.read_weights(file)


# --- loading, by a library that is written here ---------------------------------------------------

LIBRARY = """
import numpy as np
from isometry.common.weights.loading import Parameter

class Model:
    def __init__(self, **shapes):
        self.arrays = {n: s if s is None else np.full(s, 7, "float32") for n, s in shapes.items()}

def load_weights(model, place):
    own = {n: Parameter(None if a is None else a.shape, "float32") for n, a in model.arrays.items()}
    for name, values in place(own):
        assert values.flags.c_contiguous and values.flags.owndata
        model.arrays[name] = values
    return model
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library registered as an installed distribution registers it."""
    folder = tmp_path / "handmade-1.dist-info"
    folder.mkdir()
    (tmp_path / "handmade.py").write_text(LIBRARY)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: handmade\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[isometry.weights]\nhandmade = handmade:load_weights\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("handmade")
    del sys.modules["handmade"]


def test_loading_transposes_from_any_layout_to_any(library):
    spec = {
        "kernel": iso.Weight(iso.Normal(), (3, 2, 5, 4), "in_out"),
        "matrix": iso.Weight(iso.Normal(), (5, 4)),
        "bias": iso.Weight(iso.Normal(), (6,)),
        "scale": iso.Weight(iso.Normal(), ()),
    }
    drawn = iso.weights(spec, 0)
    model = library.Model(k=(4, 5, 3, 2), matrix=(4, 5), bias=(6,), scale=())
    layouts = {"kernel": "out_in", "matrix": "in_out"}
    assert iso.load_weights(model, drawn, layouts, names={"kernel": "k"}) is model
    assert np.array_equal(model.arrays["k"], drawn["kernel"].transpose(3, 2, 0, 1))
    assert np.array_equal(model.arrays["matrix"], drawn["matrix"].T)
    assert np.array_equal(model.arrays["bias"], drawn["bias"])
    assert np.array_equal(model.arrays["scale"], drawn["scale"])


def test_one_error_lists_everything_and_nothing_changes(library):
    spec = {name: iso.Weight(iso.Normal(), (3, 2)) for name in "abcdefgh"}
    spec["b"] = iso.Weight(iso.Normal(), (3, 2), dtype="float64")
    drawn = iso.weights(spec, 0)
    model = library.Model(a=(3, 2), b=(3, 2), c=(3, 2), d=(3, 2), e=None, g=(3, 2), y=(1,), z=(1,))
    layouts = dict.fromkeys("abcdfgh", "out_in") | {"a": "in_out", "c": "IO", "q": "in_out"}
    layouts["e"] = layouts["h"] = "out_in"
    del layouts["d"]
    with pytest.raises(iso.InvalidArgument) as raised:
        iso.load_weights(model, drawn, layouts, names={"h": "g", "r": "z"})
    assert str(raised.value).splitlines()[1:] == [
        "  a: float32 (2, 3) in the model's layout, where the model has float32 (3, 2)",
        "  b: float64 (3, 2) in the model's layout, where the model has float32 (3, 2)",
        "  c: unknown layout 'IO': known are out_in, in_out",
        "  d: layouts must say whether the model stores it out_in or in_out",
        "  e: the model has no values there yet; build, initialize or call it first",
        "  f: the model has no parameter 'f'",
        "  g: filled twice, by 'g' and 'h'",
        "  layouts: 'q' is no path of the weights",
        "  names: 'r' is no path of the weights",
        "  y: missing, no weight is placed there",
        "  z: missing, no weight is placed there",
    ]
    values = [a for a in model.arrays.values() if a is not None]
    assert all((a == 7).all() for a in values)


def test_models_that_cannot_be_loaded(library, monkeypatch):
    drawn = iso.weights({"a": iso.Weight("ones", (3,))}, 0)
    with pytest.raises(iso.InvalidArgument, match=r"unknown library of a model 'builtins.int'"):
        iso.load_weights(3, drawn, {})
    with pytest.raises(iso.InvalidArgument, match="no parameters yet; build, initialize or call"):
        iso.load_weights(library.Model(), drawn, {})
    monkeypatch.delitem(sys.modules, "isometry.backends.flax_native", raising=False)
    monkeypatch.setitem(sys.modules, "flax", None)
    monkeypatch.setitem(sys.modules, "flax.linen", None)
    with pytest.raises(iso.BackendNotInstalled, match=r'pip install "isometry\[natives\]"'):
        iso.load_weights({"params": {}}, drawn, {})
