"""The same wrong call gives the same error on every backend: class and message."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isometry.common.errors import InvalidArgument
from isometry.conformance.examples import EXAMPLES
from isometry.conformance.wrong_calls import REFUSED, WRONG, array


@pytest.mark.clause("errors.same")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_call_gives_the_common_error(nx, case):
    call, message = WRONG[case]
    message = message.format(backend=nx.name, dtypes=", ".join(nx.dtypes))
    with pytest.raises(InvalidArgument) as caught:
        call(nx)
    assert str(caught.value) == message  # not match=, which reads the notes that JAX adds as well


@pytest.mark.clause("errors.any-wrong-value")
@pytest.mark.parametrize("argument", REFUSED)
@given(data=st.data())
@EXAMPLES
def test_every_wrong_value_is_refused(nx, argument, data):
    values, calls = REFUSED[argument]
    value = data.draw(values)
    for call in calls:
        with pytest.raises(InvalidArgument) as caught:
            call(nx, value)
        assert argument in str(caught.value)


@pytest.mark.clause("errors.before-work")
def test_a_refused_call_leaves_no_trace(nx):
    """A stream that refused a draw goes on as a fresh one."""
    stream = nx.stream(3)
    for refused in (
        lambda: stream.normal((4,), std=-1.0),
        lambda: stream.uniform((4,), low=1.0, high=0.0),
        lambda: stream.truncated_normal((0,)),
        lambda: stream.split(0),
        lambda: nx.initialize("he_normal", (4,), stream),
        lambda: nx.initialize("zeros", (4, 4), stream, layout="out"),
        lambda: nx.matrix_chain(stream, length=2, size=0),
    ):
        with pytest.raises(InvalidArgument):
            refused()
    fresh = nx.stream(3)
    for a, b in ((stream, fresh), (stream.split(1)[0], fresh.split(1)[0])):
        np.testing.assert_array_equal(nx.to_numpy(a.normal((4,))), nx.to_numpy(b.normal((4,))))


@pytest.mark.clause("errors.device")
def test_unknown_device(nx):
    for device in ("abacus", f"{nx.device.partition(':')[0]}:99"):
        with pytest.raises(InvalidArgument, match=rf"device '{device}'.*\bcpu"):
            type(nx)(device=device)


@pytest.mark.clause("errors.integer-array")
def test_integer_array_is_refused(nx):
    x = nx.asarray(np.arange(3, dtype=np.int32))
    message = f"x must have one of the dtypes {', '.join(nx.dtypes)}; received int32"
    with pytest.raises(InvalidArgument, match=f"^{re.escape(message)}$"):
        nx.sigmoid(x)


@pytest.mark.clause("errors.split-compiled")
def test_a_stream_inside_a_compiled_function_cannot_be_split(nx):
    def f(stream):
        (child,) = stream.split(1)
        return child.normal((2,))

    if "compiled" not in nx.capabilities:
        assert nx.shape_of(nx.compile(f)(nx.stream(0))) == (2,)
        return
    message = (
        "a stream cannot be split inside a compiled function; split it outside and pass a part"
    )
    with pytest.raises(InvalidArgument, match=f"^{re.escape(message)}"):  # JAX adds a note
        nx.compile(f)(nx.stream(0))


@pytest.mark.clause("errors.portable-compiled")
def test_a_portable_stream_cannot_enter_a_compiled_function(nx):
    f, stream = nx.compile(lambda stream: stream.normal((2,))), nx.portable_stream(0)
    if "compiled" not in nx.capabilities:
        assert nx.shape_of(f(stream)) == (2,)
        return
    message = "a portable stream draws in NumPy and cannot enter a compiled function; draw first"
    with pytest.raises(InvalidArgument, match=f"^{message}"):
        f(stream)


@pytest.mark.clause("errors.inside-compiled")
@pytest.mark.parametrize("done", ["gradient", "draw", "streams"])
def test_inside_a_compiled_function_it_is_done_or_refused(nx, done):
    def gradient(x):
        return nx.value_and_gradient(lambda x: nx.ops.sum(x * x))(x)[1]

    def sums(x, *streams):
        return sum((stream.uniform((2,)) for stream in streams), x)

    f, seeds = {
        "gradient": (gradient, ()),
        "draw": (lambda x: sums(x, nx.stream(7)), ()),
        "streams": (sums, (7, 8)),
    }[done]
    x = array(nx, 2)
    refused = ""
    try:
        observed = nx.compile(f)(x, *map(nx.stream, seeds))
    except InvalidArgument as error:
        refused = str(error)
    if refused:
        assert "outside" in refused  # the remedy
    else:
        with nx.scope():
            expected = f(x, *map(nx.stream, seeds))
        np.testing.assert_array_equal(nx.to_numpy(observed), nx.to_numpy(expected))


@pytest.mark.clause("errors.options-by-name")
def test_arrays_by_position_and_options_by_name(nx):
    x = array(nx, 2)
    with pytest.raises(TypeError, match="positional"):
        nx.sigmoid(x=x)
    with pytest.raises(TypeError, match="positional"):
        nx.leaky_relu(x, 0.1)
    with pytest.raises(TypeError, match="unexpected keyword"):
        nx.relu(x, slope=0.1)
