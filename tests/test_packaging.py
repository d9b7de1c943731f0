"""What the installed wheel contains, and what importing it does not do."""

import subprocess
import sys
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

import isometry as iso

ROOT = Path(__file__).parents[1]
MAPPED = {"common": "common", "backends": "backends", "tests/conformance": "conformance"}
FRAMEWORKS = ("torch", "tensorflow", "jax", "mxnet", "keras", "autograd", "numpy", "scipy")


def installed() -> set[str]:
    files = distribution("isometry").files
    assert files is not None
    names = {str(f) for f in files}
    assert any(n.startswith("isometry/") for n in names), (
        "isometry is installed in editable mode: these tests judge the wheel; run them by tox, "
        "or after `pip install .`"
    )
    return names


def test_only_isometry_is_installed() -> None:
    tops = {Path(name).parts[0] for name in installed() if ".." not in name}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"isometry"}


@pytest.mark.parametrize("folder", MAPPED)
def test_every_file_ships(folder: str) -> None:
    kinds = (".py", ".json", ".html", ".css", ".js", ".jinja", ".md", ".npz")
    here = {
        f"isometry/{MAPPED[folder]}/{path.relative_to(ROOT / folder).as_posix()}"
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds and "__pycache__" not in path.parts
    }
    assert here
    assert here - installed() == set()


def test_type_marker_ships() -> None:
    assert "isometry/py.typed" in installed()


def test_adapters_are_registered() -> None:
    assert {e.name for e in entry_points(group="isometry.backends")} >= {
        "numpy",
        "torch",
        "tensorflow",
        "jax",
        "mxnet",
    }
    assert iso.names()[:5] == ("numpy", "torch", "tensorflow", "jax", "mxnet")


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    run = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    return set(run.stdout.split("\n")[-2].split())


HELP = "from isometry.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"


@pytest.mark.parametrize("code", ["import isometry", HELP], ids=["import", "help"])
def test_no_framework_is_loaded(code: str) -> None:
    loaded = loaded_by(code)
    assert "isometry" in loaded
    assert loaded.isdisjoint({*FRAMEWORKS, "matplotlib", "rich", "sklearn"})


def test_the_laziness_test_can_fail() -> None:
    assert "numpy" in loaded_by("import isometry; isometry.Result")


def test_every_public_name_resolves() -> None:
    for name in iso.__all__:
        assert getattr(iso, name) is not None
