"""What a person sees of a search in MLflow's pages."""

import re
import sys
from pathlib import Path

import pages
from servers import free_port, get, running

from captchalab import profiles
from captchalab.tracking.searches import SearchRuns
from captchalab.training.journal import HISTORY, Journal

ABOUT = {"name": "ctc", "kind": "ctc", "stage": "train", "experiment": "", "device": "", "params": {}, "tags": {}}


def journal(folder: Path, exact: list[float]) -> Journal:
    journal = Journal.begin(folder, ABOUT)
    for epoch, one in enumerate(exact, 1):
        counts = {"epoch": epoch, "step": 8 * epoch, "images_seen": 64 * epoch}
        journal.add({**dict.fromkeys(HISTORY, 0.5), **counts, "val/exact": one}, 2.0, 64)
    return journal


def test_the_trials_are_rows_at_first_sight_the_best_first_with_their_curves(project, tmp_path, has_browser):
    search = SearchRuns.open(project, "captcha-ctc", "ctc", {})
    ends = [("COMPLETE", 0.4), ("PRUNED", None), ("COMPLETE", 0.7), ("FAIL", None), ("COMPLETE", 0.6)]
    for number, (state, score) in enumerate(ends):
        values = {"models.ctc.rnn_size": 64 + number, "train.ctc.learning_rate": 0.001, "models.ctc.filters": [8, 16]}
        trial = search.trial(number, values)
        trial.epochs(journal(tmp_path / f"{number}" / "train", [0.1, score or 0.2]))
        trial.end(
            state, "" if score else "because", score, {"seconds": 60.5 + number, "parameters": 1000 * number + 500}
        )
    search.best(2, 0.7, values)
    search.end("FINISHED")
    port, log = free_port(), tmp_path / "ui.log"
    command = [sys.executable, "-m", "captchalab.cli", "ui", "--port", port]
    where = {"cwd": project.root, "env": profiles.copy_environment()}
    with running(command, log, lambda: get(f"http://127.0.0.1:{port}/health"), **where):
        [url] = re.findall(r"The trials of captcha-ctc: (\S+)", log.read_text())
        pages.check_trials(url, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"mlflow-trials.png", "mlflow-trials-charts.png"}
