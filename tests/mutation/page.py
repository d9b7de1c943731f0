"""Write docs/mutation.md from the recorded runs and the reasons in explained.toml."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "mutation.md"
MODULES = (
    "numpy_backend",
    "torch_backend",
    "tensorflow_backend",
    "jax_backend",
    "mxnet_backend",
    "mxnet_graph",
)
COLUMNS = ("mutants", "killed", "timed out", "survived")


def _table(runs: dict[str, dict[str, object]]) -> str:
    lines = [
        "| file | " + " | ".join(COLUMNS) + " | of these explained | recorded | minutes |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for module in MODULES:
        if module not in runs:
            lines.append(f"| `{module}.py` " + "| not run " * (len(COLUMNS) + 3) + "|")
            continue
        run = runs[module]
        framework = run["backend"]
        alive = run.get("survived", 0) + run.get("explained", 0)
        cells = [*(run.get(column, 0) for column in COLUMNS[:-1]), alive]
        cells.append(alive - len(run["unexplained"]))
        cells.append(f"{run['date']}, {framework} {run['versions'][framework]}")
        cells.append(run["minutes"])
        lines.append(f"| `{module}.py` | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _reasons(module: str, entries: list[dict[str, object]]) -> str:
    parts = [f"### {module}.py"]
    for entry in entries:
        names = "\n".join(f"- `{name}`" for name in entry["mutants"])
        parts.append(f"{entry['reason']}\n\n{names}")
    return "\n\n".join(parts)


def _open(runs: dict[str, dict[str, object]]) -> str:
    names = [f"- {m}: `{name}`" for m in MODULES if m in runs for name in runs[m]["unexplained"]]
    return "\n".join(names) or "None."


def main() -> None:
    runs = {path.stem: json.loads(path.read_text()) for path in (HERE / "recorded").glob("*.json")}
    reasons = tomllib.loads((HERE / "explained.toml").read_text(encoding="utf-8"))
    for module, run in runs.items():  # by the reasons of today
        explained = {name for entry in reasons.get(module, ()) for name in entry["mutants"]}
        run["unexplained"] = [name for name in run["survivors"] if name not in explained]
    page = (HERE / "page.md").read_text(encoding="utf-8")
    PAGE.write_text(
        page.format(
            table=_table(runs),
            open=_open(runs),
            reasons="\n\n".join(_reasons(m, reasons[m]) for m in MODULES if m in reasons),
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
