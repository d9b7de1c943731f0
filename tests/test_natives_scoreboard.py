"""The scoreboard as it is run: real processes; right, wrong, crashing and absent libraries."""

import io
import json
import re

import pytest
from rich.console import Console

from isometry.common.errors import InvalidArgument
from isometry.common.natives import scoreboard
from isometry.common.natives.scoreboard import Declaration
from isometry.common.reports import natives as reports


def run(names, folder):
    told = []
    board = scoreboard.run(names, folder, lambda *event: told.append(event))
    return board, told


def terminal(board):
    console = Console(width=160, file=io.StringIO())
    console.print(reports.terminal(board))
    return console.file.getvalue()


def test_right_library_is_as_named_and_recorded(registered, tmp_path):
    board, told = run(registered("right"), tmp_path)
    (library,) = board.libraries
    assert library.status == "measured"
    assert set(board.counts()) == {"as named"}
    assert (board.failed, board.complete) == (False, True)
    assert told[-1][0] == told[-1][1] >= len(library.findings) > 100
    document = json.loads((tmp_path / "scoreboard.json").read_text())
    assert document["schema"] == scoreboard.SCHEMA
    assert document["libraries"][0]["versions"].keys() == {"numpy"}
    finding = document["libraries"][0]["findings"][0]
    assert finding["statistics"][0]["count"] > 0
    assert 0 < finding["false_alarm"] <= 1e-11
    assert "as named, 0 deviate" in terminal(board)


def test_crash_costs_one_answer_and_no_more(registered, tmp_path):
    board, _ = run(registered("crashing", "absent"), tmp_path)
    crashed, absent = board.libraries
    assert crashed.status == "measured"
    found = {f.clause: f for f in crashed.findings}
    assert {c: f.verdict for c, f in found.items()} == {
        "relu.at-zero": "as named",
        "layer_norm.eps": "crashed",
        "layer_norm.variance": "crashed",
        "layer_norm.accuracy": "crashed",
        "leaky_relu.at-zero": "as named",
        "leaky_relu.slope": "as named",
    }
    assert "SIGABRT" in found["layer_norm.eps"].measured
    assert absent.status == "not run"
    assert "No module named 'absent'" in absent.detail
    assert "pip install" in absent.detail
    assert (board.failed, board.complete) == (True, False)
    text = terminal(board)
    assert "crashed: hand.crashing, layer_norm.eps" in text
    assert "not run: hand.absent" in text


def test_library_that_keeps_crashing_is_asked_no_more(registered, tmp_path, monkeypatch):
    monkeypatch.setattr(scoreboard, "CRASHES", 2)
    board, _ = run(registered("crashing"), tmp_path)
    (library,) = board.libraries
    assert library.status == "crashed"
    assert [f.verdict for f in library.findings] == ["as named", "crashed", "crashed"]


def test_error_of_a_native_is_a_finding_like_any_other(registered, tmp_path):
    board, _ = run(registered("raising"), tmp_path)
    (library,) = board.libraries
    assert library.status == "measured"
    assert {f.verdict for f in library.findings} == {"crashed"}
    assert "ArithmeticError: no layer norm today" in library.findings[0].measured
    assert board.failed


def test_slow_library_is_ended(registered, tmp_path, monkeypatch):
    monkeypatch.setattr(scoreboard, "TIMEOUT", 5.0)
    board, _ = run(registered("slow"), tmp_path)
    assert board.libraries[0].status == "timed out"
    assert board.failed


def test_what_is_declared_must_be_found_and_what_is_found_declared(
    registered, tmp_path, monkeypatch
):
    declared = [
        Declaration("hand.wrong", "layer_norm.eps", "by design", "https://example.org/why"),
        Declaration("hand.wrong", "layer_norm.variance", "mistaken", "https://example.org"),
        Declaration("hand.elsewhere", "layer_norm.eps", "not measured", "https://example.org"),
    ]
    monkeypatch.setattr(scoreboard, "declarations", lambda: declared)
    board, _ = run(registered("wrong"), tmp_path)
    assert [f.clause for _, f in board.undeclared()] == ["global_norm.formula"]
    assert board.not_found() == [declared[1]]
    assert scoreboard.complaints(board) == [
        "undeclared: hand.wrong, global_norm.formula",
        "declared, not found: hand.wrong, layer_norm.variance",
    ]
    assert board.failed
    document = json.loads((tmp_path / "scoreboard.json").read_text())
    found = {f["clause"]: f for f in document["libraries"][0]["findings"]}
    assert found["layer_norm.eps"]["declared"]["reason"] == "by design"
    assert found["global_norm.formula"]["declared"] is None
    assert [d["clause"] for d in document["not_found"]] == ["layer_norm.variance"]
    page = tmp_path / "scoreboard.html"
    reports.write(board, page)
    text = page.read_text()
    assert "difference (undeclared)" in text
    assert "Declared, not found" in text
    assert "by design" in text
    assert "<script" not in text
    assert not re.search(r'(?:src|@import)\s*=?\s*"?https?:', text)


def test_unknown_library_names_the_known_ones(tmp_path):
    with pytest.raises(InvalidArgument, match=r"torch\.nn"):
        scoreboard.run(["troch.nn"], tmp_path, lambda *event: None)


def test_engines_are_rows_of_their_own():
    engines = [name for name in scoreboard.names() if name.startswith("keras")]
    assert engines == ["keras on tensorflow", "keras on jax", "keras on torch"]


def test_declarations_are_reasons_with_links_and_no_measured_numbers():
    found = scoreboard.declarations()
    pairs = [(d.library, d.clause) for d in found]
    assert len(set(pairs)) == len(pairs) > 100
    assert {d.library for d in found} <= set(scoreboard.names())
    for entry in found:
        assert entry.link.startswith("https://")
        assert len(entry.reason) > 20
        assert not re.search(r"\d[\d.]*e-|\d\.\d{2}|%", entry.reason), entry.reason
