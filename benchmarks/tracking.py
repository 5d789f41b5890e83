"""What MLflow costs: its share of a default training, a model's logging, and the pages' start and memory.

    .venv/bin/python benchmarks/tracking.py     after `make repro`; three minutes

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

import psutil

from captchalab import files
from captchalab.params import STAGES
from captchalab.project import Project
from captchalab.reading.captcha import KINDS
from captchalab.tracking import models, runs
from captchalab.tracking.store import Store
from captchalab.training.journal import FILES

PORT = 5079
CORES = os.cpu_count() or 1
WATCHED_S = 30.0

LOG = f"""
import sys, time
from pathlib import Path
from captchalab.project import Project
from captchalab.tracking import runs
from captchalab.training.journal import Journal
from captchalab.tracking.store import Store
journal, store = Journal(Path(sys.argv[1])), Store.of(Project(Path(sys.argv[2])))
follower = runs.Background(store)
follower.begin(journal)
for _ in journal.epochs():
    follower.epoch()
follower.thread.submit(lambda: None).result()
before = time.process_time()
time.sleep({WATCHED_S})
watching = time.process_time() - before
logging = before
started = time.perf_counter()
follower.end("FINISHED")
waited = time.perf_counter() - started
print(logging, watching / {WATCHED_S}, waited)
"""


def main() -> None:
    project = Project.find()
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        subprocess.run([sys.executable, "-c", _MAKE, store], check=True)
        print(f"{'':<14}{'training':>10}{'processor':>11}{'waiting':>9}{'share':>8}")
        for kind in KINDS:
            costs = [_stage(project.stage(kind, stage), store) for stage in STAGES]
            for name, cost in zip(
                (*STAGES, "both"), (*costs, [sum(parts) for parts in zip(*costs, strict=True)]), strict=True
            ):
                train_s, busy_s, waiting_s = cost
                share = (busy_s / CORES + waiting_s) / train_s
                print(f"{name} {kind}".ljust(14) + f"{train_s:>8.0f} s{busy_s:>9.1f} s{waiting_s:>7.1f} s{share:>8.2%}")
        _model(project, Store.of(Project(store)))
    _pages(project.root)


_MAKE = (
    "import sys; from pathlib import Path; from captchalab.tracking.store import Store; "
    "from captchalab.project import Project; Store.of(Project(Path(sys.argv[1]))).client()"
)


def _stage(folder: Path, store: Path) -> tuple[float, float, float]:
    """Seconds of training, of processor time for MLflow meanwhile, and of waiting for it at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for file in ("model.keras", *FILES):
            shutil.copyfile(folder / file, copy / file)
        files.write_json(copy / "run.json", {"run_id": None})
        train_s = files.read_json(copy / "timing.json")["train_s"]
        done = subprocess.run([sys.executable, "-c", LOG, copy, store], capture_output=True, text=True, check=True)
    busy_s, watching, waiting_s = map(float, done.stdout.split())
    return train_s, busy_s + watching * train_s, waiting_s


def _model(project: Project, store: Store) -> None:
    runs.sync(project.stage("ctc", "finetune"), store)
    started = time.perf_counter()
    models.log_test(project, "ctc", store)
    print(f"a tested network's metrics, plots and model are logged in {time.perf_counter() - started:.2f} s")


def _pages(root: Path) -> None:
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
        print(f"make ui answers after {first_s:.1f} s, in {len(used)} processes of {pss:.2f} GB together")
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
    main()
