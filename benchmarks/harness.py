"""What the benchmarks share: contestants that take turns, and a table with its baseline, versions and hardware.

A benchmark is a module with `measure(quick) -> Table` that ends in `harness.main(measure)`:

    .venv/bin/python benchmarks/TABLE.py            prints the table and writes results/TABLE.md and .csv
    .venv/bin/python benchmarks/TABLE.py --quick    smaller sizes, fewer rounds; prints, and writes nothing

Contestants take turns, round after round, so that whatever else the machine does meets them all alike. A
cell is the median of the rounds; behind it, in brackets, how many times the baseline's it is: the median of
the ratios within a round.
"""

import argparse
import csv
import io
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from captchalab.errors import UserError

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("tensorflow", "keras", "captcha", "pillow", "numpy", "onnxruntime", "mlflow", "dvc")

Figures = Mapping[str, float]  # column -> value


@dataclass
class Table:
    """Rows of figures, each measured once a round."""

    title: str
    about: str  # what is measured, against what, in sentences
    rows: dict[str, list[Figures]] = field(default_factory=dict)  # row -> its figures of each round
    baselines: Mapping[str, str] = field(default_factory=dict)  # row -> the row it is compared to
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for rounds in self.rows.values() for one in rounds for column in one))

    def values(self, row: str, column: str) -> list[float]:
        """Of each round."""
        return [one[column] for one in self.rows[row] if column in one]

    def cell(self, row: str, column: str) -> str:
        values = self.values(row, column)
        if not values:
            return ""
        shown = number(statistics.median(values))
        others = self.values(self.baselines[row], column) if row in self.baselines else []
        if not others:
            return shown
        ratios = [value / other for value, other in zip(values, others, strict=False) if other]
        return f"{shown} ({statistics.median(ratios):.2f} x)" if ratios else shown

    def markdown(self, heading: str) -> str:
        lines = [f"# {self.title}", "", self.about, "", heading, ""]
        lines += [f"| | {' | '.join(self.columns)} |", f"|---|{'---|' * len(self.columns)}"]
        lines += [f"| {row} | {' | '.join(self.cell(row, column) for column in self.columns)} |" for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def csv(self) -> str:
        """Every figure of every round."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("row", "column", "round", "value"))
        for row, rounds in self.rows.items():
            writer.writerows((row, column, i, value) for i, one in enumerate(rounds) for column, value in one.items())
        return text.getvalue()


def take_turns(contestants: Mapping[str, Callable[[], Figures]], rounds: int) -> dict[str, list[Figures]]:
    """Figures of each contestant and round; all run once before any runs again."""
    figures: dict[str, list[Figures]] = {name: [] for name in contestants}
    for i in range(rounds):
        for name, contestant in contestants.items():
            progress(f"round {i + 1} of {rounds}: {name}")
            figures[name].append(contestant())
    return figures


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest of the values."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def number(value: float) -> str:
    """Three digits or so: 1,234; 56.7; 8.90; 0.123."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def heading(rounds: int) -> str:
    """When, on what, and with which versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    memory = psutil.virtual_memory().total / 2**30
    medians = f"Medians of {rounds} rounds; in brackets the ratio to the baseline. " if rounds > 1 else ""
    return (
        f"{medians}{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, "
        f"{os.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f} at the end; captchalab {_commit()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def main(measure: Callable[[bool], Table]) -> None:
    """The command line of one benchmark."""
    name = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(prog=f"benchmarks/{name}.py")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds; writes nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    started = time.perf_counter()
    try:
        table = measure(options.quick)
    except UserError as error:
        sys.exit(f"captchalab: {error}")
    text = table.markdown(heading(max(map(len, table.rows.values()), default=0)))
    print(text)
    if not options.quick:
        write(options.out, name, text, table.csv())
    progress(f"{name} took {time.perf_counter() - started:.0f} s")


def write(out: Path, name: str, text: str, raw: str | None = None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    if raw is not None:
        (out / f"{name}.csv").write_text(raw, encoding="utf-8")


def progress(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The commit that was measured; with + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    sha = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    paths = ["--", ":/", f":(exclude){RESULTS}"]  # what the benchmarks before this one wrote is no change of the code
    status = subprocess.run([*git, "status", "--porcelain", "-uno", *paths], capture_output=True, text=True)
    changed = status.stdout.strip()
    return f"{sha or 'without git'}{'+' if changed else ''}"
