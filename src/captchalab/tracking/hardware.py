"""What a machine did while it trained: MLflow's system metrics of a run, as a file, and back onto a run.

hardware.csv has a row per sample: the step, its time, and a column per metric (CPU, memory, disk, network, GPU).
"""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captchalab.tracking.runs import BATCH, find_run
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal

FILE = "hardware.csv"
PREFIX = "system/"


def read(store: Store, journal: Journal) -> list[dict[str, Any]]:
    """The samples of a journal's run, in order: `step`, `at` (ISO time) and the metrics; none where there is no run."""
    client = store.client()
    run_id = find_run(client, journal)
    if run_id is None:
        return []
    samples: dict[int, dict[str, Any]] = {}
    for key in sorted(client.get_run(run_id).data.metrics):
        if key.startswith(PREFIX):
            for metric in client.get_metric_history(run_id, key):
                at = datetime.fromtimestamp(metric.timestamp / 1000, UTC).isoformat(timespec="seconds")
                samples.setdefault(metric.step, {"step": metric.step, "at": at})[key] = round(metric.value, 3)
    return [samples[step] for step in sorted(samples)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Samples as a CSV file."""
    columns = sorted({key for row in rows for key in row} - {"step", "at"})
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["step", "at", *columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def log(store: Store, run_id: str, path: Path) -> None:
    """Log a file's samples on a run, at their times; those that it has already are left out."""
    from mlflow.entities import Metric

    client = store.client()
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    metrics = []
    for key in (key for key in rows[0] if key.startswith(PREFIX)) if rows else ():
        logged = {metric.step for metric in client.get_metric_history(run_id, key)}
        metrics += [
            Metric(key, float(row[key]), int(datetime.fromisoformat(row["at"]).timestamp() * 1000), int(row["step"]))
            for row in rows
            if row[key] and int(row["step"]) not in logged
        ]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
