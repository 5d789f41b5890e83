"""Tables of benchmarks: medians, ratios to a baseline, and every figure in the raw file."""

import pytest
from benches import load

harness = load("harness")

ROWS = {
    "plain": [{"images/s": 100.0}, {"images/s": 50.0}, {"images/s": 200.0}],
    "ours": [{"images/s": 200.0, "ms": 3.0}, {"images/s": 150.0, "ms": 1.0}, {"images/s": 380.0, "ms": 2.0}],
}


@pytest.fixture
def table():
    return harness.Table("Speed", "Of both.", ROWS, {"ours": "plain"}, ["A note."])


def test_a_cell_is_the_median_and_its_ratio_the_median_of_the_rounds_ratios(table):
    assert table.cell("plain", "images/s") == "100"
    assert table.cell("ours", "images/s") == "200 (2.00 x)"  # 2.0, 3.0 and 1.9 times


def test_a_figure_that_the_baseline_lacks_has_no_ratio(table):
    assert (table.cell("ours", "ms"), table.cell("plain", "ms")) == ("2.00", "")


def test_the_table_as_markdown(table):
    assert table.markdown("On this machine.") == (
        "# Speed\n\nOf both.\n\nOn this machine.\n\n"
        "| | images/s | ms |\n|---|---|---|\n| plain | 100 |  |\n| ours | 200 (2.00 x) | 2.00 |\n\nA note.\n"
    )


def test_the_raw_file_holds_every_figure_of_every_round(table):
    lines = table.csv().splitlines()
    assert lines[0] == "row,column,round,value"
    assert len(lines) == 1 + 3 + 6
    assert "ours,images/s,2,380.0" in lines


@pytest.mark.parametrize(
    ("value", "shown"), [(12345.6, "12,346"), (99.95, "100.0"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123")]
)
def test_numbers_have_three_digits_or_so(value, shown):
    assert harness.number(value) == shown


def test_contestants_take_turns(capsys):
    calls = []
    contestants = {name: lambda name=name: calls.append(name) or {"s": len(calls)} for name in "ab"}
    assert harness.take_turns(contestants, 2) == {"a": [{"s": 1}, {"s": 3}], "b": [{"s": 2}, {"s": 4}]}
    assert calls == ["a", "b", "a", "b"]
    assert "round 2 of 2: b" in capsys.readouterr().err


def test_a_percentile_is_one_of_the_values():
    assert [harness.percentile([3, 1, 2, 4], share) for share in (0.0, 0.5, 0.99)] == [1, 3, 4]


def test_a_heading_names_hardware_commit_and_versions():
    found = harness.heading(3)
    assert all(word in found for word in ("3 rounds", "cores", "GiB", "captchalab ", "keras 3.", "onnxruntime 1."))


@pytest.mark.parametrize(("options", "written"), [(["--quick"], []), ([], ["speed.csv", "speed.md"])])
def test_only_full_sizes_are_kept(table, tmp_path, monkeypatch, capsys, options, written):
    monkeypatch.setattr("sys.argv", ["benchmarks/speed.py", "--out", str(tmp_path / "out"), *options])
    asked = []
    harness.main(lambda quick: asked.append(quick) or table)
    assert asked == [bool(options)]
    assert "| ours | 200 (2.00 x) | 2.00 |" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").glob("*")) == written
