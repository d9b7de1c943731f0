"""`isometry grade`: planted mistakes are named, right answers pass, accidents are told in words.

Error rates: what is judged by a law costs a false alarm of at most 1e-9 a grading (the shares of
`isometry.identify` and `assert_law`, whose own rates are tested beside them); everything else is
exact. What is detected is computed below: every known law is told from every initializer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from isometry.cli import main
from isometry.common.errors import InvalidArgument
from isometry.common.grading import activations, initializers
from isometry.common.grading.grader import SUBJECTS, grade
from isometry.common.grading.questions import Request
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.fans import fans
from isometry.common.laws.initializers import INITIALIZERS
from isometry.common.statistics.apart import told_apart
from isometry.common.statistics.identify import TESTS
from isometry.common.statistics.known import classes


def initializer(*lines):
    """Return a file whose initializer has these lines; n is fan_in, m fan_out."""
    body = "\n    ".join(lines)
    return function("initializer(shape, rng)", "m, n = shape", body)


def function(signature, *lines):
    body = "\n    ".join(lines)
    return f"import numpy as np\n\ndef my_{signature}:\n    {body}\n"


def graded(tmp_path, code, **options):
    file = tmp_path / "student.py"
    file.write_text(textwrap.dedent(code))
    return grade(file, **options)


def only(tmp_path, code, **options):
    (one,) = graded(tmp_path, code, **options).grades
    return one


NORM = "x, scale, shift, eps"
TWO_PASS = "return (x - x.mean(0)) / np.sqrt(x.var(0) + eps) * scale + shift"

# --- right answers ------------------------------------------------------------------------------

KERNEL = (
    "import numpy as np\n\n"
    "def my_initializer(shape, rng):\n"
    "    fan_in = np.prod(shape[:-1])\n"
    "    return rng.normal(0, np.sqrt(2 / fan_in), shape).astype('float32')\n"
)
ORTHOGONAL = (
    "q, r = np.linalg.qr(rng.normal(size=(max(n, m), min(n, m))))",
    "q = q * np.sign(np.diag(r))",
    "return q if q.shape == shape else q.T",
)
REDRAWN = (
    "z = rng.normal(size=shape)",
    "while (bad := np.abs(z) > 2).any():",
    "    z[bad] = rng.normal(size=bad.sum())",
    "return z * np.sqrt(2 / n) / 0.87962566103423978",
)
RIGHT = {
    "he_normal": (initializer("return rng.normal(0, np.sqrt(2 / n), shape)"), "he_normal"),
    "he_normal in float32": (
        initializer("return np.float32(np.sqrt(2 / n)) * rng.standard_normal(shape, 'float32')"),
        "he_normal",
    ),
    "xavier_uniform": (
        initializer("b = np.sqrt(6 / (n + m))", "return rng.uniform(-b, b, shape)"),
        "xavier_uniform",
    ),
    "lecun_uniform": (
        initializer("b = np.sqrt(3 / n)", "return b * (2 * rng.random(shape) - 1)"),
        "lecun_uniform",
    ),
    "he_truncated": (initializer(*REDRAWN), "he_truncated"),
    "orthogonal": (initializer(*ORTHOGONAL), "orthogonal"),
    "zeros": (initializer("return np.zeros(shape)"), "zeros"),
    "identity": (initializer("return np.eye(*shape)"), "identity"),
    "any known law": (initializer("return rng.uniform(-0.05, 0.05, shape)"), None),
    "loops": (
        initializer(
            "w = np.zeros(shape)",
            "for row in w:",
            "    for k in range(len(row)):",
            "        row[k] = rng.normal(0, (1 / n) ** 0.5)",
            "return w",
        ),
        "lecun_normal",
    ),
    "sigmoid": (
        function(
            "sigmoid(x)", "e = np.exp(-np.abs(x))", "return np.where(x < 0, e, 1.0) / (1 + e)"
        ),
        None,
    ),
    "the usual sigmoid": (function("sigmoid(x)", "return 1 / (1 + np.exp(-x))"), None),
    "sigmoid_gradient": (
        function("sigmoid_gradient(x)", "e = np.exp(-np.abs(x))", "return e / (1 + e) ** 2"),
        None,
    ),
    "tanh": (function("tanh(x)", "return np.tanh(x)"), None),
    "tanh by expm1": (
        function("tanh(x)", "e = np.expm1(-2 * np.abs(x))", "return np.copysign(-e / (e + 2), x)"),
        None,
    ),
    "tanh_gradient": (function("tanh_gradient(x)", "return 1 / np.cosh(x) ** 2"), None),
    "relu": (function("relu(x)", "return x * (x > 0)"), None),
    "relu_gradient": (function("relu_gradient(x)", "return x > 0"), None),
    "another subgradient of relu": (function("relu_gradient(x)", "return (x >= 0) * 1"), None),
    "leaky_relu": (function("leaky_relu(x, slope)", "return np.where(x > 0, x, slope * x)"), None),
    "batch_norm": (function(f"batch_norm({NORM})", TWO_PASS), None),
    "layer_norm": (
        function(
            f"layer_norm({NORM})",
            "c = x - x.mean(-1, keepdims=True)",
            "v = (c ** 2).mean(-1, keepdims=True)",
            "return c / np.sqrt(v + eps) * scale + shift",
        ),
        None,
    ),
    "batch_norm by a running mean": (
        function(
            f"batch_norm({NORM})",
            "m, s = np.zeros(x.shape[1]), np.zeros(x.shape[1])",
            "for k, row in enumerate(x):",
            "    d = row - m",
            "    m = m + d / (k + 1)",
            "    s = s + d * (row - m)",
            "return (x - m) / np.sqrt(s / len(x) + eps) * scale + shift",
        ),
        None,
    ),
    "rms_norm": (
        function(
            "rms_norm(x, scale, eps)",
            "return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + eps) * scale",
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(tmp_path, name):
    code, law = RIGHT[name]
    one = only(tmp_path, code, law=law)
    assert one.outcome == "right", one
    assert all(finding.passed for finding in one.findings)


def test_a_mistake_that_is_the_default_of_a_library_is_known_by_both_names(tmp_path):
    code = initializer("b = 1 / np.sqrt(n)", "return rng.uniform(-b, b, shape)")
    one = only(tmp_path, code)
    assert one.outcome == "right"
    assert "torch.nn: Linear, Conv, weights and biases" in one.said
    assert "lecun_uniform, its std taken for its bound: off by 1/sqrt(3)" in one.said
    assert only(tmp_path, code, law="lecun_uniform").outcome == "wrong"


def test_a_right_kernel_of_a_convolution_passes(tmp_path):
    options = {"law": "he_normal", "layout": "in_out", "convolution": True}
    assert only(tmp_path, KERNEL, **options).outcome == "right"


def test_right_batch_norm_of_images_passes(tmp_path):
    code = """
        def my_batch_norm(x, scale, shift, eps):
            axes = (0, *range(2, x.ndim))
            scale, shift = (a.reshape(-1, *[1] * (x.ndim - 2)) for a in (scale, shift))
            c = x - x.mean(axes, keepdims=True)
            return c / ((c * c).mean(axes, keepdims=True) + eps) ** 0.5 * scale + shift
    """
    assert only(tmp_path, code, convolution=True).outcome == "right"


# --- planted mistakes ---------------------------------------------------------------------------

BOUND = ("b = np.sqrt(6 / (n + m))",)
HE = "np.sqrt(2 / n)"
WRONG = {
    "LeCun's for Xavier's": (
        initializer("return rng.normal(0, np.sqrt(1 / n), shape)"),
        "xavier_normal",
        "this is LeCun's law, not Xavier's: lecun_normal",
    ),
    "the bound as the standard deviation": (
        initializer(*BOUND, "return rng.normal(0, b, shape)"),
        "xavier_uniform",
        "xavier_uniform, its bound taken for the std of a normal law: off by sqrt(3)",
    ),
    "both": (
        initializer("return rng.normal(0, np.sqrt(3 / n), shape)"),
        "xavier_uniform",
        "this is LeCun's law, not Xavier's: lecun_uniform, its bound taken for the std of a normal "
        "law: off by sqrt(3)",
    ),
    "the standard deviation as the bound": (
        initializer(f"b = {HE}", "return rng.uniform(-b, b, shape)"),
        "he_uniform",
        "this is he_uniform, its std taken for its bound: off by 1/sqrt(3)",
    ),
    "the gain forgotten": (
        initializer("return rng.normal(0, np.sqrt(1 / n), shape)"),
        "he_normal",
        "this is LeCun's law, not He's: lecun_normal = he_normal, its gain forgotten",
    ),
    "the variance as the standard deviation": (
        initializer("return rng.normal(0, 2 / n, shape)"),
        "he_normal",
        "this looks like he_normal with the variance given for the standard deviation",
    ),
    "the other fan": (
        initializer("return rng.normal(0, np.sqrt(2 / m), shape)"),
        "he_normal",
        "this is he_normal, fan_out for fan_in (or the weight is of the other layout",
    ),
    "the other family": (
        initializer(f"b = np.sqrt(3) * {HE}", "return rng.uniform(-b, b, shape)"),
        "he_normal",
        "this is he_uniform, not he_normal",
    ),
    "a truncation not corrected": (
        initializer(*REDRAWN[:-1], f"return z * {HE}"),
        "he_truncated",
        "he_truncated, not corrected for the cut: off by 0.8796",
    ),
    "clamped instead of redrawn": (
        initializer(
            f"s = {HE} / 0.87962566103423978",
            "return np.clip(rng.normal(0, s, shape), -2 * s, 2 * s)",
        ),
        "he_truncated",
        "values clamped, not redrawn",
    ),
    "one side of a uniform law": (
        initializer(*BOUND, "return rng.uniform(0, b, shape)"),
        "xavier_uniform",
        "a one-sided law",
    ),
    "a mistake without a law asked for": (
        initializer("return rng.normal(0, np.sqrt(6 / n), shape)"),
        None,
        "this is he_uniform, its bound taken for the std of a normal law: off by sqrt(3)",
    ),
    "QR without its signs": (
        initializer(ORTHOGONAL[0], ORTHOGONAL[2]),
        "orthogonal",
        "multiply the columns of Q by the signs of R's diagonal",
    ),
    "no law at all": (
        initializer("return rng.laplace(0, 0.1, shape)"),
        "he_normal",
        "this is no known law: closest to",
    ),
    "a generator of its own": (
        initializer(f"return np.random.default_rng(0).normal(0, {HE}, shape)"),
        "he_normal",
        "every generator gives the same numbers: it ignores rng, or sets a seed of its own",
    ),
    "a global seed": (
        initializer("np.random.seed(0)", f"return np.random.normal(0, {HE}, shape)"),
        "he_normal",
        "it ignores rng, or sets a seed of its own; draw with rng.normal, rng.uniform and the like."
        " They come from NumPy's global generator (np.random.*)",
    ),
    "the global generator": (
        initializer(f"return np.random.normal(0, {HE}, shape)"),
        "he_normal",
        "two generators in the same state gave different numbers: it does not draw from rng",
    ),
    "a copy of the generator": (
        initializer("import copy", f"return copy.deepcopy(rng).normal(0, {HE}, shape)"),
        "he_normal",
        "each call with one generator gives the same numbers: it does not move rng on",
    ),
    "one row copied": (
        initializer(f"return np.tile(rng.normal(0, {HE}, shape[1]), (m, 1))"),
        "he_normal",
        "this is no known law",
    ),
    "NaN among the weights": (
        initializer("with np.errstate(all='ignore'):", "    return np.log(rng.normal(size=shape))"),
        "he_normal",
        "values are NaN or infinite, at shape (210, 340)",
    ),
    "y (1 - y)": (
        function("sigmoid_gradient(x)", "y = 1 / (1 + np.exp(-x))", "return y * (1 - y)"),
        None,
        "this is y (1 - y): 1 - y is 0 once y rounds to 1; at x = 36.7",
    ),
    "1 - y**2": (
        function("tanh_gradient(x)", "return 1 - np.tanh(x) ** 2"),
        None,
        "this is 1 - y**2: it is 0 once y rounds to 1; at x = ",
    ),
    "overflow of exp": (
        function("sigmoid(x)", "return np.exp(x) / (1 + np.exp(x))"),
        None,
        "exp(x) overflows, and infinity / infinity is NaN; at x = 710 it gives nan, exact is 1",
    ),
    "overflow of the square": (
        function("sigmoid_gradient(x)", "return np.exp(-x) / (1 + np.exp(-x)) ** 2"),
        None,
        "this is exp(-x) / (1 + exp(-x))**2: the square overflows",
    ),
    "cancellation near 0": (
        function("tanh(x)", "return 2 / (1 + np.exp(-2 * x)) - 1"),
        None,
        "this is 2 sigmoid(2x) - 1: the difference cancels near 0",
    ),
    "the input for the output": (
        function("sigmoid_gradient(x)", "return x * (1 - x)"),
        None,
        "the formula y (1 - y) given the input instead of the output",
    ),
    "0 / 0 at 0": (
        function("relu_gradient(x)", "return np.maximum(x, 0) / x"),
        None,
        "this is relu(x) / x: 0 / 0 is NaN at 0",
    ),
    "the slope on the wrong side": (
        function("leaky_relu_gradient(x, slope)", "return np.where(x > 0, slope, 1.0)"),
        None,
        "this is the slope on the wrong side",
    ),
    "float32 inside": (
        function("tanh(x)", "return np.tanh(x.astype('float32'))"),
        None,
        "it returns float32 for float64: digits are lost",
    ),
    "E[x**2] - E[x]**2": (
        function(
            f"batch_norm({NORM})",
            "m = x.mean(0)",
            "v = np.abs((x ** 2).mean(0) - m ** 2)",
            "return (x - m) / np.sqrt(v + eps) * scale + shift",
        ),
        None,
        "digits are lost where the mean is large: as E[x**2] - E[x]**2 cancels",
    ),
    "eps outside the root": (
        function(
            f"batch_norm({NORM})",
            "return (x - x.mean(0)) / (x.std(0) + eps) * scale + shift",
        ),
        None,
        "eps is added outside the root",
    ),
    "the unbiased variance": (
        function(f"batch_norm({NORM})", TWO_PASS.replace("var(0)", "var(0, ddof=1)")),
        None,
        "the variance is the unbiased one, over n - 1",
    ),
    "two mistakes": (
        function(
            f"batch_norm({NORM})",
            "return (x - x.mean(0)) / (x.std(0, ddof=1) + eps) * scale + shift",
        ),
        None,
        "the variance is the unbiased one, over n - 1; it must be over n; eps is added outside",
    ),
    "the wrong axis": (
        function(f"layer_norm({NORM})", TWO_PASS),
        None,
        "mean and variance are over the wrong axis",
    ),
    "the variance for its root": (
        function(f"batch_norm({NORM})", TWO_PASS.replace("np.sqrt", "")),
        None,
        "it divides by the variance, not by its root",
    ),
    "scale and shift forgotten": (
        function(f"batch_norm({NORM})", TWO_PASS.removesuffix(" * scale + shift")),
        None,
        "scale and shift are not used",
    ),
    "layer norm for RMS norm": (
        function(
            "rms_norm(x, scale, eps)",
            "c = x - x.mean(-1, keepdims=True)",
            "return c / np.sqrt((c ** 2).mean(-1, keepdims=True) + eps) * scale",
        ),
        None,
        "the mean is subtracted, as layer norm does",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_planted_mistakes_are_named(tmp_path, name):
    code, law, words = WRONG[name]
    one = only(tmp_path, code, law=law)
    assert one.outcome == "wrong", one
    assert words in one.said
    assert not all(finding.passed for finding in one.findings)


def test_a_receptive_field_left_out_is_named_where_it_shows(tmp_path):
    code = KERNEL.replace("np.prod(shape[:-1])", "shape[-2]")
    options = {"law": "he_normal", "layout": "in_out"}
    assert only(tmp_path, code, **options).outcome == "right"
    said = only(tmp_path, code, convolution=True, **options).said
    assert "the receptive field of a weight in_out left out" in said
    assert "so at (3, 5, 40, 64), and right at the other shapes" in said


def test_one_standard_deviation_for_all_shapes_is_not_the_law(tmp_path):
    code = initializer("return rng.normal(0, np.sqrt(2 / 340), shape)")
    said = only(tmp_path, code, law="he_normal").said
    assert "so at (430, 170), and right at the other shapes" in said


# --- error rates --------------------------------------------------------------------------------


def test_every_known_law_is_told_from_every_initializer():
    """Or it is the same law at every shape: with a miss of 1e-6 at most, and the grader's rates."""
    rate = initializers.FALSE_ALARM / len(initializers.DENSE) / TESTS
    told = {}
    for shape in initializers.DENSE:
        known, _ = classes(*fans(shape))
        for of in known:
            for one in known:
                if not (isinstance(of.law, Distribution) and isinstance(one.law, Distribution)):
                    continue
                if of.law.atoms or one.law.atoms or not INITIALIZERS.keys() & set(of.names):
                    continue
                same = of is one
                apart = not same and told_apart(
                    of.law, one.law, int(np.prod(shape)), rate=rate, dtype="float64"
                )
                for name in INITIALIZERS.keys() & set(of.names):
                    for other in one.names:
                        told.setdefault((name, other), []).append("same" if same else apart)
    assert len(told) > 500
    for pair, verdicts in told.items():
        assert any(v is True for v in verdicts) or set(verdicts) == {"same"}, pair


def test_the_rates_are_said(tmp_path):
    one = only(tmp_path, RIGHT["he_normal"][0], law="he_normal")
    assert "called wrong with probability at most 1e-09" in one.rates
    assert "3.02% off or more is passed with probability at most 1e-06" in one.rates


def test_a_seed_gives_the_same_answer_and_another_one_other_draws(tmp_path):
    code, _, _ = WRONG["the gain forgotten"]
    first, same, other = (
        only(tmp_path, code, law="he_normal", seed=seed).said for seed in (3, 3, 4)
    )
    assert first == same != other


def test_every_named_formula_is_a_mistake(tmp_path):
    """None of the formulas keeps the budget: what is named is wrong."""
    for name, mistakes in activations.MISTAKES.items():
        (question,) = activations.ask(name, Request())
        x = question.arguments[0]
        for words, formula in mistakes.items():
            with np.errstate(all="ignore"):
                y = np.asarray(formula(x), np.float64)
                off = activations._distance(name, x, y, activations._exact(name))
            assert (off > activations.BUDGET).any(), words
            assert activations._mistake(name, x, y) == words


# --- accidents ----------------------------------------------------------------------------------

ACCIDENTS = {
    "an error": (
        function("relu(x)", "return x.clip(0) / undefined"),
        "not graded",
        "raised NameError: name 'undefined' is not defined (line 4: return x.clip(0) / undefined)",
    ),
    "an if of an array": (
        function("relu(x)", "return x if x > 0 else 0"),
        "not graded",
        "raised ValueError: The truth value of an array with more than one element is ambiguous",
    ),
    "the wrong arguments": (
        function("batch_norm(x)", "return x"),
        "not graded",
        "it is called as my_batch_norm(x, scale, shift, eps)",
    ),
    "the end of the program": (
        function("relu(x)", "raise SystemExit(0)"),
        "not graded",
        "raised SystemExit: 0",
    ),
    "the end of the process": (
        function("relu(x)", "import os; os._exit(0)"),
        "not graded",
        "gave no answer: it ended its own process",
    ),
    "a crash": (
        function("relu(x)", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
        "not graded",
        "gave no answer: crashed: killed by SIGSEGV",
    ),
    "too much memory": (
        function("relu(x)", "kept = [np.empty(2**27) for _ in range(8)]", "return kept[0]"),
        "not graded",
        ", of which it has 2048 MiB (line 4: kept = [np.empty(2**27) for _ in range(8)])",
    ),
    "a question": (function("relu(x)", "return float(input())"), "not graded", "raised EOFError"),
    "nothing": (
        function("relu(x)", "np.maximum(x, 0)"),
        "wrong",
        "returned None: is a return missing?",
    ),
    "a list": (
        function("relu(x)", "return x.tolist()"),
        "wrong",
        "returned a list; it must return",
    ),
    "the wrong shape": (
        initializer("return rng.normal(0, 1, (n, m))"),
        "wrong",
        "returned an array of shape (340, 210) and dtype float64; it must return a NumPy array",
    ),
    "complex numbers": (function("relu(x)", "return x + 0j"), "wrong", "and dtype complex128"),
    "the argument overwritten": (
        function("relu(x)", "x[x < 0] = 0", "return x"),
        "wrong",
        "overwrote its argument: work on a copy",
    ),
    "weights of any size": (
        initializer("return rng.normal(0, 1e200, shape)"),
        "wrong",
        "the squares of weights must be finite",
    ),
}


@pytest.mark.parametrize("name", ACCIDENTS)
def test_accidents_are_told_in_words(tmp_path, name):
    code, outcome, words = ACCIDENTS[name]
    one = only(tmp_path, code)
    assert one.outcome == outcome, one
    assert words in one.said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def my_relu(x:\n", "the file itself raised SyntaxError: "),
        ("import absent_module\n", "ModuleNotFoundError: No module named 'absent_module' (line 1"),
        ("import sys; sys.exit('bye')\n", "the file itself raised SystemExit: bye"),
        ("import os; os.abort()\n", "the file itself did not come to its end: crashed: killed by"),
        ("", "there is no function that can be graded: name it my_initializer(shape, rng), my_sig"),
        ("def my_relo(x): pass\n", "not looked at: my_relo, no name of an exercise"),
    ],
)
def test_a_file_that_cannot_be_graded(tmp_path, code, words):
    found = graded(tmp_path, code)
    assert found.outcome == "not graded"
    assert not found.grades
    assert words in found.said


def test_an_endless_loop_costs_its_function_and_those_after_it(tmp_path):
    code = (
        function("initializer(shape, rng)", "return np.zeros(shape)")
        + function("sigmoid(x)", "while True: pass")
        + function("tanh(x)", "return np.tanh(x)")
    )
    found = graded(tmp_path, code, timeout=10)
    assert [one.outcome for one in found.grades] == ["right", "not graded", "not graded"]
    assert "gave no answer: timed out: no end in 10 s; is there a loop" in found.grades[1].said
    assert found.grades[2].said.startswith("it was not reached: timed out")
    assert found.outcome == "not graded"


def test_what_it_prints_and_its_own_classes_do_not_matter(tmp_path):
    code = """
        from __future__ import annotations
        import sys
        from dataclasses import dataclass
        import numpy as np

        print("hello", file=sys.stderr, end="", flush=True)

        @dataclass
        class Relu:
            low: float

            def __call__(self, x):
                print("x" * 100_000)
                print("half a line", end="", file=sys.stderr, flush=True)
                return np.maximum(x, self.low)

        my_relu = Relu(0.0)
        if __name__ == "__main__":
            my_relu = None
    """
    assert only(tmp_path, code).outcome == "right"


def test_wrong_arguments_name_what_is_allowed(tmp_path):
    for options, message in (
        ({"law": "he_norml"}, "did you mean 'he_normal'"),
        ({"law": "dirac"}, "a law of kernels alone needs --convolution"),
        ({"law": "forget_gate_bias"}, "one of biases cannot be graded"),
        ({"layout": "io"}, "unknown layout 'io': known are out_in, in_out"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            graded(tmp_path, "", **options)
    with pytest.raises(InvalidArgument, match="FILE must be a file of Python code"):
        grade(tmp_path / "absent.py")


# --- the command line ---------------------------------------------------------------------------


def command(*args):
    return CliRunner().invoke(main, ["grade", *map(str, args)])


def test_the_command_answers_in_words_and_by_its_exit_code(tmp_path):
    for code, status, words in (
        (WRONG["both"][0], 1, "this is LeCun's law, not Xavier's: lecun_uniform"),
        (initializer("return 1"), 1, "returned a int"),
        (RIGHT["xavier_uniform"][0], 0, "my_initializer(shape, rng): right"),
        ("x = 1", 2, "there is no function that can be graded"),
    ):
        file = tmp_path / "homework.py"
        file.write_text(code)
        found = command(file, "--law", "xavier_uniform")
        assert found.exit_code == status, found.output
        assert words in found.output
    wrong = command(file, "--law", "xavier")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "unknown law 'xavier'" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


def test_the_command_prints_json(tmp_path):
    file = tmp_path / "homework.py"
    file.write_text(WRONG["eps outside the root"][0] + RIGHT["tanh"][0])
    found = command(file, "--json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert document["outcome"] == "wrong"
    outcomes = {one["function"]: one["outcome"] for one in document["grades"]}
    assert outcomes == {"my_tanh(x)": "right", SUBJECTS["my_batch_norm"].signature: "wrong"}


def test_the_help_names_every_function_and_what_the_limits_are_for():
    text = " ".join(command("--help").output.split())
    assert "guard against accidents, not against attacks" in text
    for name, subject in SUBJECTS.items():
        assert subject.signature in text or name.removesuffix("_gradient") in text


def test_the_example_of_the_page_is_answered_as_it_says(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "grading.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    one = only(tmp_path, code, law="xavier_uniform")
    assert one.outcome == "wrong"
    assert f"{one.said} - draws from rng" in " ".join(page.split())
    assert f"{one.rates} ``` " in " ".join(page.split())
    for subject in SUBJECTS.values():
        assert subject.signature in page or "_gradient" in subject.signature


def test_in_a_process_and_a_folder_of_its_own(tmp_path):
    (tmp_path / "homework.py").write_text(RIGHT["sigmoid_gradient"][0])
    (tmp_path / "random.py").write_text("raise RuntimeError('shadowed')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "isometry", "grade", "homework.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("my_sigmoid_gradient(x): right")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["homework.py", "random.py"]
