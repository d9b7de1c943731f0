"""The project of a stranger in examples/outside_backends, as far as it shows without MLX.

The suite itself judges MLX in tox's environment `outside`.
"""

import ast
import configparser
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from isometry import cli
from isometry.common.contract import Backend
from isometry.common.ops import VOCABULARY
from isometry.common.streams import Stream
from isometry.conformance import specification

FOLDER = Path(__file__).parents[1] / "examples" / "outside_backends"
ADAPTER = (FOLDER / "mlx_backend.py").read_text(encoding="utf-8")
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
FAILURES = tomllib.loads((FOLDER / "mlx_failures.toml").read_text(encoding="utf-8"))


def tox_command() -> list[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(FOLDER / "tox.ini", encoding="utf-8")
    return shlex.split(parser["testenv:isometry"]["commands"])


def defined(name: str) -> set[str]:
    """Return what a class of the adapter defines."""
    tree = ast.parse(ADAPTER)
    (cls,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    targets = [t for n in cls.body if isinstance(n, ast.Assign) for t in n.targets]
    functions = [n for n in cls.body if isinstance(n, ast.FunctionDef)]
    return {f.name for f in functions} | {t.id for t in targets if isinstance(t, ast.Name)}


def test_the_adapter_is_short() -> None:
    assert len(ADAPTER.splitlines()) <= 160


@pytest.mark.parametrize(("name", "base"), [("MlxBackend", Backend), ("MlxStream", Stream)])
def test_the_adapter_defines_what_is_abstract(name: str, base: type) -> None:
    abstract = base.__abstractmethods__  # type: ignore[attr-defined]
    assert abstract
    assert abstract <= defined(name)


def test_the_entry_point_leads_to_the_adapter() -> None:
    ((name, reference),) = PROJECT["project"]["entry-points"]["isometry.backends"].items()
    module, _, cls = reference.partition(":")
    assert module in PROJECT["tool"]["setuptools"]["py-modules"]
    assert (FOLDER / f"{module}.py").exists()
    assert {"name", "dtypes", "capabilities"} <= defined(cls)
    assert f'name = "{name}"' in ADAPTER
    assert tox_command()[:3] == ["isometry", "conform", name]


def test_tox_hands_conform_what_it_takes() -> None:
    words = [w for w in tox_command()[3:] if w != "{posargs}"]
    options = dict(zip(words[::2], words[1::2], strict=True))
    shown = CliRunner().invoke(cli.main, ["conform", "--help"]).output
    assert options.keys() == {"--expect", "--output"}
    assert all(option in shown for option in options)
    assert (FOLDER / Path(options["--expect"]).name).exists()


def test_the_workflow_reads_what_conform_writes() -> None:
    workflow = (FOLDER / "github-actions.yml").read_text(encoding="utf-8")
    assert "tox run -e isometry" in workflow
    folder = Path(dict(zip(tox_command(), tox_command()[1:], strict=False))["--output"]).name
    assert folder in workflow
    assert {"summary.md", "badge.json"} <= set(re.findall(r"\w+\.(?:md|json)", workflow))


def test_declared_failures_name_clauses_and_their_cases() -> None:
    clauses = specification.clauses()
    words = {*VOCABULARY, *(n for n in vars(Backend) if n[0] != "_"), "native", "portable"}
    words |= {*vars(Stream), "float16", "bfloat16", "float32", "float64", "eager", "compiled"}
    for key in FAILURES:
        clause, _, cases = key.removesuffix("]").partition("[")
        assert clause in clauses
        assert set(filter(None, cases.split(","))) <= words


def test_the_readme_links_to_files_that_exist() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    linked = {target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target}
    assert {"mlx_backend.py", "mlx_failures.toml", "tox.ini", "github-actions.yml"} <= linked
    assert all((FOLDER / target).exists() for target in linked)
