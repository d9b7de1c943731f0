"""Every mutant of a source file: one small change each, of the kinds that a slip would make.

The operators of mutmut (https://pypi.org/project/mutmut) change numbers, strings, booleans,
comparisons, arithmetic, assignments and the arguments of calls. They are used as a library: as a
tool mutmut leaves out decorated functions and code at module level, which in an adapter are the
activations and the vocabulary. `_OWN` adds what it lacks and an adapter can get wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import libcst as cst
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    WhitespaceInclusivePositionProvider,
)
from mutmut.mutation.mutators import mutation_operators


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Parameters
    ----------
    name : str
        ``function: text [before -> after] text``, wherever in the file the function stands.
    lines : range
        The changed lines of the original file.
    statement : range
        The lines of the statement around them.
    text : str
        The whole mutated file.
    """

    name: str
    lines: range
    statement: range
    text: str


def mutants(source: str) -> list[Mutant]:
    """Return every mutant of a source text that is another program, in the order of the text."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(PositionProvider)
    parents = wrapper.resolve(ParentNodeProvider)
    modules = _imported(wrapper.module)
    found: dict[str, Mutant] = {}
    for node in _mutable(wrapper.module):
        for changed in _changes(node, modules):
            text = _replaced(wrapper, source, node, changed)
            if text == source or text in found or not _compiles(text):
                continue
            path = list(_ancestors(node, parents))
            statement = next(n for n in path if isinstance(n, _STATEMENTS))
            span = positions[statement]
            lines, difference = _difference(source, text)
            found[text] = Mutant(
                name=f"{_function(path)}: {difference}",
                lines=lines,
                statement=range(span.start.line, span.end.line + 1),
                text=text,
            )
    return sorted(found.values(), key=lambda mutant: mutant.lines.start)


def _replaced(
    wrapper: MetadataWrapper, source: str, node: cst.CSTNode, changed: cst.CSTNode
) -> str:
    if isinstance(node, cst.BaseCompoundStatement):
        return wrapper.module.deep_replace(node, changed).code
    # the same for what stands within a statement, a hundred times faster
    span = wrapper.resolve(WhitespaceInclusivePositionProvider)[node]
    lines = source.splitlines(keepends=True)
    start = sum(map(len, lines[: span.start.line - 1])) + span.start.column
    end = sum(map(len, lines[: span.end.line - 1])) + span.end.column
    return source[:start] + wrapper.module.code_for_node(changed) + source[end:]


_STATEMENTS = (cst.SimpleStatementLine, cst.BaseCompoundStatement, cst.Module)


def _mutable(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield the nodes that run: no imports, annotations, documentation or `__all__`."""
    if isinstance(node, cst.Import | cst.ImportFrom | cst.Annotation):
        return
    if isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString):
        return
    if isinstance(node, cst.Assign) and "__all__" in cst.Module([]).code_for_node(node):
        return
    yield node
    for child in node.children:
        yield from _mutable(child)


def _changes(node: cst.CSTNode, modules: set[str]) -> Iterator[cst.CSTNode]:
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            # of a string's changes the first is enough: other letter cases are as unknown a name
            yield from islice(operator(node), 1 if isinstance(node, cst.BaseString) else None)
    for kind, operator in _OWN.items():
        if isinstance(node, kind):
            yield from operator(node)
    if isinstance(node, cst.Call):
        yield from _call_left_out(node, modules)


# --- operators that mutmut does not have --------------------------------------------------------


def _returns_none(node: cst.Return) -> Iterable[cst.CSTNode]:
    if node.value is not None:
        yield node.with_changes(value=None)


def _negated(node: cst.If | cst.While) -> Iterable[cst.CSTNode]:
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))


_OPPOSITE = {
    cst.LessThan: cst.GreaterThanEqual,
    cst.LessThanEqual: cst.GreaterThan,
    cst.GreaterThan: cst.LessThanEqual,
    cst.GreaterThanEqual: cst.LessThan,
}


def _opposite(node: cst.ComparisonTarget) -> Iterable[cst.CSTNode]:
    if type(node.operator) in _OPPOSITE:
        yield node.with_changes(operator=_OPPOSITE[type(node.operator)]())


def _statement_left_out(node: cst.Expr) -> Iterable[cst.CSTNode]:
    yield cst.Pass()


def _minus_left_out(node: cst.UnaryOperation) -> Iterable[cst.CSTNode]:
    if isinstance(node.operator, cst.Minus):
        yield node.expression


def _decorator_left_out(node: cst.FunctionDef | cst.ClassDef) -> Iterable[cst.CSTNode]:
    for k in range(len(node.decorators)):
        yield node.with_changes(decorators=[*node.decorators[:k], *node.decorators[k + 1 :]])


def _context_left_out(node: cst.With) -> Iterable[cst.CSTNode]:
    if len(node.items) == 1 and node.items[0].asname is None:
        yield cst.If(cst.Name("True"), node.body, leading_lines=node.leading_lines)
    for k in range(len(node.items) if len(node.items) > 1 else 0):
        *kept, last = [*node.items[:k], *node.items[k + 1 :]]
        last = last.with_changes(comma=node.items[-1].comma)
        yield node.with_changes(items=[*kept, last])


def _neighbours_value(node: cst.Dict) -> Iterable[cst.CSTNode]:
    """Give an entry the value of the next."""
    for k, (here, after) in enumerate(zip(node.elements, node.elements[1:], strict=False)):
        if isinstance(here, cst.DictElement) and isinstance(after, cst.DictElement):
            changed = here.with_changes(value=after.value)
            yield node.with_changes(elements=[*node.elements[:k], changed, *node.elements[k + 1 :]])


_OWN = {
    cst.Return: _returns_none,
    cst.If: _negated,
    cst.While: _negated,
    cst.ComparisonTarget: _opposite,
    cst.Expr: _statement_left_out,
    cst.UnaryOperation: _minus_left_out,
    cst.FunctionDef: _decorator_left_out,
    cst.ClassDef: _decorator_left_out,
    cst.With: _context_left_out,
    cst.Dict: _neighbours_value,
}


def _call_left_out(node: cst.Call, modules: set[str]) -> Iterator[cst.CSTNode]:
    """``x.f(...)`` becomes ``x``, and ``module.f(x, ...)`` and ``f(x, ...)`` become ``x``."""
    function = node.func
    if isinstance(function, cst.Attribute) and _root(function) not in modules:
        yield function.value
    elif node.args and not node.args[0].star and node.args[0].keyword is None:
        yield node.args[0].value


def _root(node: cst.BaseExpression) -> str | None:
    while isinstance(node, cst.Attribute):
        node = node.value
    return node.value if isinstance(node, cst.Name) else None


def _imported(module: cst.Module) -> set[str]:
    """Return the names that the file's imports bind: those are modules, not arrays."""
    names = set()
    for node in _walk(module):
        if isinstance(node, cst.ImportAlias):
            alias = node.evaluated_alias or node.evaluated_name
            names.add(alias.split(".")[0])
    return names


# --- naming -------------------------------------------------------------------------------------


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _ancestors(node: cst.CSTNode, parents: object) -> Iterator[cst.CSTNode]:
    while True:
        yield node
        if isinstance(node, cst.Module):
            return
        node = parents[node]


def _function(path: list[cst.CSTNode]) -> str:
    names = [n.name.value for n in path if isinstance(n, cst.FunctionDef | cst.ClassDef)]
    return ".".join(reversed(names)) or "module"


def _difference(before: str, after: str) -> tuple[range, str]:
    """Return the changed lines' numbers, and their text once with ``[old -> new]`` in it."""
    old, new = ([line.strip() for line in text.splitlines()] for text in (before, after))
    first, end = _differing(old, new)
    texts = (" ".join(map(_code, lines[first : len(lines) - end])) for lines in (old, new))
    a, b = (re.findall(r"\w+|\W", " ".join(text.split())) for text in texts)
    head, tail = _differing(a, b)
    middle = " -> ".join("".join(words[head : len(words) - tail]) for words in (a, b))
    name = "".join(a[:head]) + f"[{middle}]" + "".join(a[len(a) - tail :])
    return range(first + 1, len(old) - end + 1), name


def _code(line: str) -> str:
    return line.partition("  # ")[0]


def _differing(a: list[str], b: list[str]) -> tuple[int, int]:
    """Return how many items two lists have in common at the beginning, and then at the end."""
    head = _shared(a, b)
    return head, _shared(a[head:][::-1], b[head:][::-1])


def _shared(a: list[str], b: list[str]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((k for k, (x, y) in pairs if x != y), min(len(a), len(b)))


def _compiles(text: str) -> bool:
    try:
        compile(text, "<mutant>", "exec")
    except SyntaxError:
        return False
    return True
