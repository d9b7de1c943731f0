"""The atlas of the libraries that this project measures: what is known of their defaults is found.

What is asserted here was read in their sources; the code that measures knows nothing of it.
"""

import pytest

from isometry.common.natives import atlas

ENGINES = ("keras on tensorflow", "keras on jax", "keras on torch")
FLAX = ("flax.linen", "flax.nnx")
ALL = ("torch.nn", *ENGINES, *FLAX, "mxnet.gluon")
TRUNCATED = "truncated normal, variance 1/fan_in (lecun_truncated)"
XAVIER = "uniform, variance 2/(fan_in + fan_out) (xavier_uniform)"
THIRD = "uniform, variance 1/(3 fan_in)"
ANY_SHAPE = "uniform, from -0.07 to 0.07"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return atlas.run([], tmp_path_factory.mktemp("atlas"), lambda done, total, at_work: None)


@pytest.fixture(scope="module")
def found(measured):
    """Return a function of library and question: all answers, joined."""

    def answers(library, clause):
        (of,) = (m for m in measured.libraries if m.name == library)
        texts = [f.measured for f in of.findings if f.clause == clause]
        assert texts, (library, clause)
        return " | ".join(texts)

    return answers


def test_everything_is_measured_and_every_law_is_known(measured):
    assert {m.name: m.detail for m in measured.libraries if m.status != "measured"} == {}
    assert {m.name for m in measured.libraries} >= set(ALL)
    findings = [(m.name, f) for m in measured.libraries for f in m.findings]
    assert {f.verdict for _, f in findings} == {"measured"}
    assert [(name, f.clause) for name, f in findings if "unknown" in f.measured] == []
    assert [(name, f.clause) for name, f in findings if "none of the" in f.measured] == []
    assert (measured.failed, measured.complete) == (False, True)


@pytest.mark.parametrize("layer", ["dense", "conv2d", "conv2d_grouped"])
def test_dense_and_convolution(found, layer):
    fused = "uniform, variance 2/(fan_in + 4 fan_out)" if layer == "conv2d_grouped" else XAVIER
    for library in ENGINES:  # groups are left out of Keras' fan_out
        assert fused in found(library, f"{layer}.weight")
    for library in FLAX:
        assert TRUNCATED in found(library, f"{layer}.weight")
    assert THIRD in found("torch.nn", f"{layer}.weight")
    assert THIRD in found("torch.nn", f"{layer}.bias")
    assert ANY_SHAPE in found("mxnet.gluon", f"{layer}.weight")
    for library in (*ENGINES, *FLAX, "mxnet.gluon"):
        assert "constant 0" in found(library, f"{layer}.bias")


def test_fans_of_depthwise_and_transposed_kernels(found):
    for library in ENGINES:
        assert "where fan_in is 576 and fan_out 9" in found(library, "conv2d_depthwise.weight")
    assert "1/(3 fan_out)" in found("torch.nn", "conv2d_transposed.weight")
    assert "1/(3 fan_out)" in found("torch.nn", "conv2d_transposed.bias")
    for library in FLAX:
        assert TRUNCATED in found(library, "conv2d_transposed.weight")


def test_embedding(found):
    assert "normal, std 1" in found("torch.nn", "embedding.weight")
    assert ANY_SHAPE in found("mxnet.gluon", "embedding.weight")
    for library in ENGINES:
        assert "uniform, from -0.05 to 0.05" in found(library, "embedding.weight")
    for library in FLAX:
        assert ": normal, variance 1/fan_out" in found(library, "embedding.weight")


def test_recurrent_layers(found):
    for layer, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):
        for library in ENGINES:
            law = XAVIER if gates == 1 else f"uniform, variance 2/(fan_in + {gates} fan_out)"
            assert law in found(library, f"{layer}.input")
            assert f"(256, {256 * gates}): orthogonal" in found(library, f"{layer}.recurrent")
        for library in FLAX:
            assert TRUNCATED in found(library, f"{layer}.input")
            assert ": orthogonal" in found(library, f"{layer}.recurrent")
            assert "constant 0" in found(library, f"{layer}.bias")
        assert "uniform, variance 1/(3 fan_out)" in found("torch.nn", f"{layer}.input")
        assert "uniform, variance 1/(3 fan_out)" in found("torch.nn", f"{layer}.bias")
    for library in ENGINES:
        assert "by gate 0, 1, 0, 0" in found(library, "lstm.bias")
    # one orthogonal matrix for all gates, or one for each
    assert "dense_h/kernel (256, 1024)" in found("flax.nnx", "lstm.recurrent")
    assert "hf/kernel, hg/kernel, hi/kernel, ho/kernel (256, 256)" in found(
        "flax.linen", "lstm.recurrent"
    )


def test_attention(found):
    packed = "in_proj_weight (1536, 512): uniform, variance 2/(fan_in + 3 fan_out)"
    assert packed in found("torch.nn", "attention.weight")
    assert f"out_proj.weight (512, 512): {THIRD}" in found("torch.nn", "attention.weight")
    assert "in_proj_bias (1536,): constant 0" in found("torch.nn", "attention.bias")
    for library in ENGINES:
        assert XAVIER in found(library, "attention.weight")
    for library in FLAX:
        assert TRUNCATED in found(library, "attention.weight")


@pytest.mark.parametrize(
    ("clause", "torch", "keras", "flax", "mxnet"),
    [
        ("batch_norm.eps", "1e-05", "0.001", "1e-05", "1e-05"),
        ("layer_norm.eps", "1e-05", "0.001", "1e-06", "1e-05"),
        ("group_norm.eps", "1e-05", "0.001", "1e-06", "1e-05"),
        ("instance_norm.eps", "1e-05", None, "1e-06", "1e-05"),
        ("batch_norm.momentum", "of the new", "0.99 is", "0.99 is", "0.9 is"),
        ("batch_norm.running-variance", "unbiased", "biased", "biased", "biased"),
        ("batch_norm.updated-in", "forward", "forward", "forward", "backward"),
        ("batch_norm_layer.scale", "constant 1", "constant 1", "constant 1", "constant 1"),
        ("group_norm_layer.scale", "(64,)", "(64,)", "(64,)", "(4,)"),
        ("instance_norm_layer.scale", "there is none", None, "constant 1", "constant 1"),
    ],
)
def test_norms(found, clause, torch, keras, flax, mxnet):
    wanted = {"torch.nn": torch, "mxnet.gluon": mxnet} | dict.fromkeys(FLAX, flax)
    wanted |= dict.fromkeys(ENGINES, keras) if keras else {}
    for library, words in wanted.items():
        assert words in found(library, clause), library
        assert words != "biased" or "unbiased" not in found(library, clause), library


@pytest.mark.parametrize(
    ("clause", "torch", "keras", "optax", "mxnet"),
    [
        ("momentum.form", "rate v", "rate g", "rate v", "rate g"),
        ("momentum_decay.decay", "coupled", "decoupled", "coupled", "coupled"),
        ("adam.eps", "1e-08, added after", "1e-07, added before", "1e-08, added after", "1e-08, a"),
        ("adam_decay.decay", "coupled", "decoupled", None, "coupled"),
        ("adamw.default-decay", "0.01, times", "0.004, times", "0.0001, times", None),
        ("momentum_default.default", "0: each", "0: each", "0: each", "0: each"),
        ("momentum_nesterov.nesterov", "rate (g", "- (rate g", "rate (g", "- (rate g"),
        ("adam.betas", *("0.9 and 0.999",) * 4),
        ("rmsprop.form", "0.99, from 0, not c", *("0.9, from 0, not c",) * 3),
        ("rmsprop.eps", "1e-08, outside", "1e-07, inside", "1e-08, inside", "1e-08, inside"),
        ("adagrad.start", "0", "0.1", "0.1", "0"),
        ("adagrad.eps", "1e-10, outside", None, None, "1e-07, inside"),
        ("adagrad_eps.eps", None, "1e-07, inside", "1e-07, inside", None),
        ("global_norm.formula", "norm + 1e-06", "/ norm, to", "/ norm, to", "norm + 1e-08"),
    ],
)
def test_optimizers_and_clipping(found, clause, torch, keras, optax, mxnet):
    wanted = {"torch.nn": torch, "optax": optax, "mxnet.gluon": mxnet}
    wanted |= dict.fromkeys(ENGINES, keras)
    for library, words in wanted.items():
        if words:
            text = found(library, clause)
            assert words in text, library
            assert words != "coupled" or not text.startswith("decoupled"), library


def test_learning_rates(found):
    """Optax has none; the others differ in three of five."""
    wanted = {
        "momentum_default": ("0.001", "0.01", "0.01"),
        "adam": ("0.001", "0.001", "0.001"),
        "adamw": ("0.001", "0.001", None),
        "rmsprop": ("0.01", "0.001", "0.001"),
        "adagrad": ("0.01", "0.001", "0.01"),
    }
    for claims, (torch, keras, mxnet) in wanted.items():
        rates = {"torch.nn": torch, "mxnet.gluon": mxnet} | dict.fromkeys(ENGINES, keras)
        for library, rate in rates.items():
            if rate:
                assert set(found(library, f"{claims}.rate").split(" | ")) == {rate}, library
        assert found("optax", f"{claims}.rate") == "there is none: the call has to say it"
