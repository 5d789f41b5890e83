"""Does searching with TPE and pruning find more than random search, in the same wall time?

    .venv/bin/python benchmarks/search_arms.py --seeds 1 2 3     half an hour for each seed, on two quiet cores
    .venv/bin/python benchmarks/search_arms.py --table           the table again, from the CSV

Both arms search the space of params.yaml from the present parameters on. A trial has half its images, a minute of
training and 2,000 captchas to validate with, so that half an hour has room for twenty. One arm proposes by TPE, after
few trials at random, and ends trials that are behind; the other draws at random and runs each trial to its end. Arms of
one seed share captchas and initial weights and run side by side, a thread each, so that both meet the same noise of the
machine. An arm is `captchalab search run`, with a storage of its own below --work. Every trial of every arm is a row of
the CSV; a seed that is in it is not run again.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from captchalab import files, yaml
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind

ARMS = {
    "TPE and pruning": ("--sampler", "tpe", "--pruning"),
    "random": ("--sampler", "random", "--no-pruning"),
}
SHARE = 0.5  # of search.images, and of the images before which no trial is ended
MAX_S = 60.0  # of training, in a trial
VALID_IMAGES = 2000  # eight validations with all 5,000 take half as long again as the training
STARTS = 4  # trials at random before TPE proposes, and trials that run to their end before any is pruned
NO_LIMIT = 1_000_000  # trials: time alone ends an arm
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


class Row(NamedTuple):
    """One trial of one arm, as the CSV has it."""

    kind: str
    arm: str
    seed: int
    trial: int
    state: str  # Optuna's
    score: float | None  # exact match on valid, of a trial that is complete
    ended_s: float | None  # since the arm's first trial began; None: it was running when the arm ended
    images_seen: int
    values: str  # JSON


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare TPE with pruning to random search at equal wall time.")
    parser.add_argument("--kind", choices=KINDS, default="ctc")
    parser.add_argument("--minutes", type=float, default=30.0, help="of each arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--at", type=float, nargs="+", default=[10.0, 20.0, 30.0], help="minutes of the table")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "search_arms.csv")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "search-arms", help="where the arms run"
    )
    parser.add_argument("--table", action="store_true", help="print the table, and run nothing")
    words = parser.parse_args()
    rows = read(words.csv) if words.csv.exists() else []
    if not words.table:
        for seed in words.seeds:
            if not any((row.kind, row.seed) == (words.kind, seed) for row in rows):
                rows += run(words.kind, seed, 60 * words.minutes, words.work)
                write(sorted(rows, key=lambda row: row[:4]), words.csv)
    if not rows:
        sys.exit(f"{words.csv} has no trials: run this without --table first.")
    for kind in dict.fromkeys(row.kind for row in rows):
        print(f"\n{kind}\n\n{table([row for row in rows if row.kind == kind], words.at)}")


def run(kind: Kind, seed: int, limit_s: float, work: Path) -> list[Row]:
    """Both arms with one seed, side by side to their end; their trials."""
    outside = ("DVC_ROOT", "MLFLOW_TRACKING_URI", "OPTUNA_STORAGE")
    environment = {key: value for key, value in os.environ.items() if key not in outside}
    running = {}
    for arm, options in ARMS.items():
        study = f"{kind}-{arm.split()[0].lower()}-{seed}"
        project = copy(Project.find(), seed, work / study)
        forget(project, study)
        search = ["search", "run", "--kind", kind, "--study", study, "--trials", NO_LIMIT, "--timeout", limit_s]
        command = [sys.executable, "-m", "captchalab.cli", *map(str, search), *options]
        print(f"{arm}, seed {seed}, {limit_s / 60:g} min: {project.root / 'log.txt'}", flush=True)
        with (project.root / "log.txt").open("w") as log:
            running[arm] = (
                project,
                study,
                subprocess.Popen(command, cwd=project.root, env=environment, stdout=log, stderr=log),
            )
    found = []
    for arm, (project, study, process) in running.items():
        if process.wait():
            sys.exit(f"{arm} ended with exit status {process.returncode}: see {project.root / 'log.txt'}.")
        found += trials(project, kind, arm, seed, study)
    return found


def copy(project: Project, seed: int, folder: Path) -> Project:
    """A project with another seed and shorter trials, whose searches end by time alone."""
    content = yaml.read(project.params)
    content["seed"] = seed
    content["splits"]["valid"]["images"] = VALID_IMAGES
    budget = content["search"]
    budget.update(patience_trials=NO_LIMIT, startup_trials=STARTS, images=int(SHARE * budget["images"]), max_s=MAX_S)
    warmup = {kind: int(SHARE * images) for kind, images in budget["pruner"]["warmup_images"].items()}
    budget["pruner"].update(startup_trials=STARTS, warmup_images=warmup)
    files.write_text(folder / "params.yaml", yaml.dump(content))
    shutil.copyfile(project.root / "dvc.yaml", folder / "dvc.yaml")
    return Project(folder)


def forget(project: Project, study: str) -> None:
    """Remove what an arm has left that was stopped before its time: it begins anew, with all its minutes."""
    import optuna

    storage = f"sqlite:///{project.studies}"
    if project.studies.exists() and study in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=study, storage=storage)
    shutil.rmtree(project.search / study, ignore_errors=True)


def trials(project: Project, kind: Kind, arm: str, seed: int, study: str) -> list[Row]:
    """The trials of an arm that has ended."""
    import optuna

    found = optuna.load_study(study_name=study, storage=f"sqlite:///{project.studies}").get_trials()
    began = min(trial.datetime_start for trial in found if trial.datetime_start)
    rows = []
    for trial in found:
        score = trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None
        ended = trial.datetime_complete
        seconds = None if ended is None else round((ended - began).total_seconds(), 1)
        seen = int(trial.user_attrs.get("images_seen", 0))
        values = json.dumps(trial.params)
        rows.append(Row(kind, arm, seed, trial.number, trial.state.name, score, seconds, seen, values))
    return rows


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Row(
                row["kind"],
                row["arm"],
                int(row["seed"]),
                int(row["trial"]),
                row["state"],
                float(row["score"]) if row["score"] else None,
                float(row["ended_s"]) if row["ended_s"] else None,
                int(row["images_seen"]),
                row["values"],
            )
            for row in csv.DictReader(lines)
        ]


def write(rows: Iterable[Row], path: Path) -> None:
    with files.atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def table(rows: Sequence[Row], minutes: Sequence[float]) -> str:
    """Markdown: the best score after so many minutes and the trials that ended by the last of them.

    A row per arm and seed, then the medians; below, how the arms compare on the same seeds.
    """
    last_s = 60 * max(minutes)
    head = ["arm", "seed", *(f"best at {minute:g} min" for minute in minutes), *STATES.values()]
    lines = [head, ["---"] * len(head)]
    arms = list(dict.fromkeys(row.arm for row in rows))
    bests: dict[str, dict[int, list[float]]] = {arm: {} for arm in arms}
    medians = []
    for arm in arms:
        counts = []
        for seed in sorted({row.seed for row in rows if row.arm == arm}):
            own = [row for row in rows if (row.arm, row.seed) == (arm, seed)]
            bests[arm][seed] = [best_at(own, 60 * minute) for minute in minutes]
            in_time = [row.state for row in own if row.ended_s is not None and row.ended_s <= last_s]
            counts.append([in_time.count(state) for state in STATES])
            lines.append([arm, str(seed), *map(_percent, bests[arm][seed]), *map(str, counts[-1])])
        columns = [_percent(statistics.median(column)) for column in zip(*bests[arm].values(), strict=True)]
        of_counts = [f"{statistics.median(column):g}" for column in zip(*counts, strict=True)]
        medians.append([arm, f"median of {len(counts)}", *columns, *of_counts])
    text = "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *medians])
    return f"{text}\n{_compared(bests, minutes[-1])}"


def best_at(rows: Iterable[Row], seconds: float) -> float:
    """The best score of the trials that were complete by then; 0 where there was none."""
    in_time = (row for row in rows if row.ended_s is not None and row.ended_s <= seconds)
    return max((row.score for row in in_time if row.score is not None), default=0.0)


def _compared(bests: dict[str, dict[int, list[float]]], minute: float) -> str:
    if len(bests) != 2:
        return ""
    (one, ones), (other, others) = bests.items()
    gains = [100 * (ones[seed][-1] - others[seed][-1]) for seed in ones if seed in others]
    if not gains:
        return ""
    ahead = sum(gain > 0 for gain in gains)
    return (
        f"\nAt {minute:g} min {one} is ahead of {other} with {ahead} of {len(gains)} seeds; the median difference is "
        f"{statistics.median(gains):+.2f} points.\n"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


if __name__ == "__main__":
    main()
