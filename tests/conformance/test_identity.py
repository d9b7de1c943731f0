"""Who the backend says it is: signatures and declarations."""

from __future__ import annotations

from types import FunctionType

import pytest

from isometry.common.contract import CAPABILITIES, Backend
from isometry.common.laws.formats import FORMATS
from isometry.common.streams import Stream
from isometry.conformance import asserts, specification


def _public_methods(cls: type) -> list[str]:
    return [n for n, m in vars(cls).items() if isinstance(m, FunctionType) and n[0] != "_"]


@pytest.mark.clause("identity.signatures")
@pytest.mark.parametrize("method", ["__init__", *_public_methods(Backend)])
def test_signature_equals_the_contract(nx, method):
    asserts.same_signature(getattr(type(nx), method), getattr(Backend, method))


@pytest.mark.clause("identity.stream-signatures")
@pytest.mark.parametrize("method", _public_methods(Stream))
def test_stream_signature_equals_the_contract(nx, method):
    asserts.same_signature(getattr(type(nx.stream(0)), method), getattr(Stream, method))


@pytest.mark.clause("identity.declarations")
def test_declarations_are_known(nx):
    assert nx.name.isidentifier()
    assert nx.framework
    assert nx.version[0].isdigit()
    assert nx.device
    assert isinstance(nx.capabilities, frozenset)
    assert nx.capabilities <= CAPABILITIES.keys()
    assert {"float32", "float64"} <= set(nx.dtypes) <= FORMATS.keys()
    assert ("bfloat16" in nx.dtypes) == ("bfloat16" in nx.capabilities)
    assert isinstance(nx.dtype_of(nx.asarray(0.0)), str)


@pytest.mark.clause("identity.expected-failures")
def test_expected_failures_name_clauses_and_reasons(nx):
    known = specification.clauses()
    assert {key.partition("[")[0] for key in nx.expected_failures} <= known.keys()
    assert all(nx.expected_failures.values())


@pytest.mark.clause("identity.capabilities")
def test_a_function_is_compiled_only_if_declared(nx):
    def f(x):
        return x * 2

    assert (nx.compile(f) is f) == ("compiled" not in nx.capabilities)


@pytest.mark.clause("identity.device")
def test_a_device_is_named_as_it_may_be_asked_for(nx):
    assert isinstance(nx.device, str)
    again = type(nx)(device=nx.device)
    assert again.device == nx.device
    with nx.scope():  # one place: what either makes meets what the other makes
        total = nx.asarray(1.0) + again.asarray(2.0)
        total = total + again.stream(0).normal((), mean=4.0, std=0.0)
    assert float(nx.to_numpy(total)) == 7
