"""What tests in several files ask for."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """Register libraries of `natives_by_hand` as an installed distribution would."""

    def register(*names):
        folder = tmp_path / "site" / "by_hand-1.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: by-hand\nVersion: 1\n")
        lines = [f"hand.{name} = natives_by_hand:{name}" for name in names]
        (folder / "entry_points.txt").write_text("\n".join(["[isometry.natives]", *lines]))
        monkeypatch.syspath_prepend(folder.parent)
        monkeypatch.setenv("PYTHONPATH", f"{folder.parent}:{HERE}")
        return [f"hand.{name}" for name in names]

    return register
