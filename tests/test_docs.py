"""The documentation's Python runs, page by page, with NumPy alone."""

import re
from pathlib import Path

import pytest

import isometry as iso

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("index", "conformance", "porting", "optimizers")
"""Pages whose blocks need no framework; tests/natives runs those of weights.md."""


@pytest.mark.parametrize("page", PAGES)
def test_its_code_runs(page: str) -> None:
    blocks = re.findall(
        r"^( *)```python\n(.*?)^ *```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL | re.M
    )
    assert blocks
    names: dict[str, object] = {}
    for indent, block in blocks:
        exec(re.sub(f"^{indent}", "", block, flags=re.M), names)


def test_every_page_is_listed_once() -> None:
    listed = re.findall(r"^([a-z-]+)$", (DOCS / "index.md").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(p.stem for p in DOCS.glob("*.md") if p.stem != "index")


def test_the_reference_names_what_is_public() -> None:
    named = set(re.findall(r"isometry\.(\w+)$", (DOCS / "api.md").read_text("utf-8"), re.M))
    assert named - {"common"} <= set(iso.__all__)
