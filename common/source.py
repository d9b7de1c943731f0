"""The code of an operation, as it stands in the adapter: the adapters are teaching material.

What an adapter does itself is shown from its file, with the functions, classes and constants of
that file that it uses; what is composed once for all backends is shown from `common/`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from isometry.common import chains, composed
from isometry.common.contract import Backend
from isometry.common.errors import unknown_name
from isometry.common.ops import VOCABULARY

__all__ = ["Listing", "of"]

_COMPOSED = {**vars(composed), **vars(chains)}
"""Where the methods that the contract composes hand on to the function of their own name."""


@dataclass(frozen=True)
class Listing:
    """A piece of source code and where it stands."""

    title: str
    module: str
    line: int
    code: str


def of(backend: type[Backend], operation: str) -> tuple[Listing, ...]:
    """Return the code of an operation on a backend, and of what it uses in the same file.

    Parameters
    ----------
    backend : type of Backend
    operation : str
        A method of the contract ("sigmoid_gradient"), or a word of `nx.ops` ("scan"; "ops.tanh"
        where a method has the same name).

    Raises
    ------
    InvalidArgument
        If there is no such operation.
    """
    methods = {
        name
        for name, member in inspect.getmembers_static(backend)
        if inspect.isfunction(member) and not name.startswith("_")
    }
    if operation in methods:
        return _method(backend, operation)
    word = operation.removeprefix("ops.")
    if word in VOCABULARY:
        meaning = _listing(VOCABULARY[word], f"ops.{word}: what it means")
        return (meaning, *_entry(backend, word))
    raise unknown_name("operation", operation, sorted(methods | VOCABULARY.keys()))


def _method(backend: type[Backend], name: str) -> tuple[Listing, ...]:
    function = inspect.unwrap(getattr(backend, name))
    if function.__module__.startswith("isometry.common"):
        return (_listing(_COMPOSED.get(name, function), f"{name}: composed once for all backends"),)
    owner = next(cls for cls in backend.__mro__ if name in vars(cls))
    file = _File(owner)
    return file.listings(file.method(name), f"{name} of backend {backend.name}")


def _entry(backend: type[Backend], word: str) -> tuple[Listing, ...]:
    """Return the entry of a word in the adapter's table, the dictionary that holds all words."""
    file = _File(backend)
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Dict):
            entries = {
                key.value: value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            }
            if word in entries and entries.keys() <= VOCABULARY.keys():
                return file.listings(entries[word], f"{word} of backend {backend.name}")
    return ()


def _listing(function: Callable[..., Any], title: str) -> Listing:
    lines, first = inspect.getsourcelines(function)
    return Listing(title, function.__module__, first, textwrap.dedent("".join(lines)))


class _File:
    """The file of an adapter, as text and as a tree."""

    def __init__(self, owner: type) -> None:
        module = inspect.getmodule(owner)
        assert isinstance(module, ModuleType)
        source = inspect.getsource(module)
        self.module = module.__name__
        self.lines = source.splitlines(keepends=True)
        self.tree = ast.parse(source)
        self.body = next(
            node.body
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ClassDef) and node.name == owner.__name__
        )
        self.definitions = dict(self._definitions(owner.__name__))

    def _definitions(self, owner: str) -> Iterator[tuple[str, ast.stmt]]:
        """Yield what has a name in the module, and what is private to the adapter's class."""
        helpers = [n for n in self.body if isinstance(n, ast.FunctionDef) and n.name[0] == "_"]
        nested = [n for helper in helpers for n in helper.body if isinstance(n, ast.FunctionDef)]
        for node in (*nested, *helpers, *self.tree.body):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name != owner:
                yield node.name, node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from ((t.id, node) for t in targets if isinstance(t, ast.Name))

    def method(self, name: str) -> ast.stmt:
        return next(n for n in self.body if isinstance(n, ast.FunctionDef) and n.name == name)

    def listings(self, first: ast.AST, title: str) -> tuple[Listing, ...]:
        """Return the code of a node, then all that it uses, in the order of the file."""
        used: dict[int, ast.stmt] = {}
        waiting = [first]
        while waiting:
            for node in self._mentioned(waiting.pop()):
                if node is not first and id(node) not in used:
                    used[id(node)] = node
                    waiting.append(node)
        pieces = sorted(used.values(), key=lambda node: node.lineno)
        return (
            self._listing(first, title),
            *(self._listing(node, "which uses") for node in pieces),
        )

    def _mentioned(self, node: ast.AST) -> Iterator[ast.stmt]:
        """Yield the definitions of the names in a node, and what is said of them afterwards."""
        names = _names(node)
        yield from (self.definitions[name] for name in sorted(names & self.definitions.keys()))
        for statement in self.tree.body:
            if isinstance(statement, ast.Expr) and _subject(statement) in names:
                yield statement

    def _listing(self, node: Any, title: str) -> Listing:
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        code = textwrap.dedent("".join(self.lines[start - 1 : node.end_lineno]))
        return Listing(title, self.module, start, code)


def _names(node: ast.AST) -> set[str]:
    """Return the names that code mentions, and those it reads from `self`."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
    }


def _subject(statement: ast.Expr) -> str | None:
    """Return about what a call in the module's body speaks: f in ``f.defjvp(g)``, ``rule(f, g)``.

    So are derivatives attached to functions.
    """
    call = statement.value
    if not isinstance(call, ast.Call):
        return None
    if isinstance(call.func, ast.Attribute):
        about: ast.expr | None = call.func.value
    else:
        about = call.args[0] if call.args else None
    return about.id if isinstance(about, ast.Name) else None
