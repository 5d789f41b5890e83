"""What MLflow costs: its share of a default training, a model's logging, and the pages' start and memory.

    .venv/bin/python benchmarks/tracking.py     after `make repro`; three minutes. --quick: one stage, half a minute

Logging a run takes processor time from training, which has all cores otherwise: importing MLflow, the
metrics of each epoch, the system's every ten seconds. At the end training waits until everything is logged.
Both are measured on a copy of the finished journals of models/, logged again into a store of its own, and
compared to the seconds that the training of that journal took.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import harness
import psutil

from captchalab import files
from captchalab.errors import UserError
from captchalab.params import STAGES, StageName
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.tracking import models, runs
from captchalab.tracking.store import Store
from captchalab.training.journal import FILES

PORT = 5079
CORES = os.cpu_count() or 1
ABOUT = """Logging a run again from its finished journal: processor seconds that MLflow takes from training
while it runs, seconds that training waits for it at the end, and both as a share of that training's time."""

LOG = """
import sys, time
from pathlib import Path
from captchalab.project import Project
from captchalab.tracking import runs
from captchalab.training.journal import Journal
from captchalab.tracking.store import Store
journal, store = Journal(Path(sys.argv[1])), Store.of(Project(Path(sys.argv[2])))
watched_s = float(sys.argv[3])
follower = runs.Background(store)
follower.begin(journal)
for _ in journal.epochs():
    follower.epoch()
follower.thread.submit(lambda: None).result()
before = time.process_time()
time.sleep(watched_s)
watching = time.process_time() - before
logging = before
started = time.perf_counter()
follower.end("FINISHED")
waited = time.perf_counter() - started
print(logging, watching / watched_s, waited)
"""


def measure(quick: bool) -> harness.Table:
    project = Project.find()
    if quick:
        return compare(project, [("ctc", "finetune")], watched_s=3.0)
    table = compare(project, [(kind, stage) for kind in KINDS for stage in STAGES], watched_s=30.0)
    harness.progress("starts the pages")
    table.notes.append(_pages(project.root))
    return table


def compare(project: Project, stages: list[tuple[Kind, StageName]], watched_s: float) -> harness.Table:
    """Of the journals of these stages, with the system's metrics watched for so long."""
    table = harness.Table("MLflow's share", ABOUT)
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        harness.progress("sets up a store")
        subprocess.run([sys.executable, "-c", _MAKE, store], check=True)
        for kind, stage in stages:
            harness.progress(f"logs {stage} {kind} again")
            train_s, busy_s, waiting_s = _stage(project.stage(kind, stage), store, watched_s)
            share = 100 * (busy_s / CORES + waiting_s) / train_s
            figures = {"training, s": train_s, "processor, s": busy_s, "waiting, s": waiting_s, "share, %": share}
            table.rows[f"{stage} {kind}"] = [figures]
        if len(stages) > 1:
            table.notes.append(_model(project, Store.of(Project(store))))
    return table


_MAKE = (
    "import sys; from pathlib import Path; from captchalab.tracking.store import Store; "
    "from captchalab.project import Project; Store.of(Project(Path(sys.argv[1]))).client()"
)


def _stage(folder: Path, store: Path, watched_s: float) -> tuple[float, float, float]:
    """Seconds of training, of processor time for MLflow meanwhile, and of waiting for it at the end."""
    if not (folder / "journal.json").is_file():
        raise UserError(f"{folder} has no journal: train it with `make repro`, or fetch it with `dvc pull`.")
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for file in ("model.keras", *FILES):
            shutil.copyfile(folder / file, copy / file)
        files.write_json(copy / "run.json", {"run_id": None})
        train_s = files.read_json(copy / "timing.json")["train_s"]
        done = subprocess.run(
            [sys.executable, "-c", LOG, copy, store, str(watched_s)], capture_output=True, text=True, check=True
        )
    busy_s, watching, waiting_s = map(float, done.stdout.split())
    return train_s, busy_s + watching * train_s, waiting_s


def _model(project: Project, store: Store) -> str:
    runs.sync(project.stage("ctc", "finetune"), store)
    started = time.perf_counter()
    models.log_test(project, "ctc", store)
    return f"A tested network's metrics, plots and model are logged in {time.perf_counter() - started:.2f} s."


def _pages(root: Path) -> str:
    started = time.perf_counter()
    command = [sys.executable, "-m", "captchalab.cli", "ui", "--port", str(PORT)]
    process = psutil.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _answers(f"http://127.0.0.1:{PORT}/"):
            time.sleep(0.1)
        first_s = time.perf_counter() - started
        _answers(f"http://127.0.0.1:{PORT}/api/2.0/mlflow/experiments/get?experiment_id=1")
        used = [process, *process.children(recursive=True)]
        pss = sum(one.memory_full_info().pss for one in used) / 1e9
        return f"`make ui` answers after {first_s:.1f} s, in {len(used)} processes of {pss:.2f} GB together."
    finally:
        for one in [*process.children(recursive=True), process]:
            one.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    harness.main(measure)
