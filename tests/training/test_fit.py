"""Training for real on tiny networks: what a stage leaves, and what a kill does not change."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.params import Params, SplitParams
from captchalab.project import StagePaths
from captchalab.training.checkpoints import Checkpoints
from captchalab.training.fit import fit
from captchalab.training.journal import HISTORY, Journal, read_history
from captchalab.training.progress import Progress, Task
from captchalab.training.validation import validate


@pytest.fixture(scope="module")
def splits(smoke, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("splits")
    for split, images in (("train", 128), ("valid", 32)):
        dataset.generate(smoke.captcha, split, SplitParams(images=images), 1, folder / split, workers=1)
    return folder


def task(smoke: Params, kind: str, name: str = "train", **changes) -> Task:
    stage = smoke.stage(name, kind).model_copy(update=changes)
    return Task(name, kind, smoke.captcha, smoke.network(kind), stage, 1, "tests")


def paths(splits: Path, folder: Path, start_from: Path | None = None) -> StagePaths:
    return StagePaths(splits / "train", splits / "valid", start_from, folder / "out", folder / "checkpoints")


@pytest.fixture(scope="module", params=["cnn", "ctc"])
def trained(request, smoke, splits, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    fit(task(smoke, request.param), paths(splits, folder), {"git_sha": "abc"})
    return request.param, folder


def test_a_stage_leaves_model_history_and_journal(trained, smoke):
    kind, folder = trained
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "history.csv", "journal.json", "model.keras", "run.json", "timing.json",
    ]  # fmt: skip
    rows = read_history(folder / "out" / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == set(HISTORY)
    assert rows[-1]["images_seen"] == 3 * 8 * 16
    rates = [row["learning_rate"] for row in rows]
    assert rates[0] == pytest.approx(1e-3), "the highest of each epoch"
    assert rates[0] > rates[1] > rates[2] > 3e-4
    about = Journal(folder / "out").about
    assert about["tags"]["kind"] == kind and about["tags"]["git_sha"] == "abc"
    assert about["outcome"]["best_epoch"] in (1, 2, 3)
    assert about["params"]["learning_rate"] == 1e-3


def test_a_finished_stage_leaves_no_checkpoint(trained):
    _, folder = trained
    assert not list((folder / "checkpoints").glob("*/"))


def test_the_loss_goes_down(trained):
    _, folder = trained
    rows = read_history(folder / "out" / "history.csv")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_the_saved_weights_are_the_best_epochs(trained, smoke, splits):
    from captchalab.networks import models

    _, folder = trained
    network = models.load(folder / "out" / "model.keras")
    best = Journal(folder / "out").about["outcome"]["best"]
    found = validate(network, dataset.load(splits / "valid", smoke.captcha))
    assert found["val/loss"] == pytest.approx(best["val/loss"], rel=1e-5)


def test_fine_tuning_starts_from_the_trained_weights(trained, smoke, splits, tmp_path):
    kind, folder = trained
    fit(task(smoke, kind, "finetune"), paths(splits, tmp_path, folder / "out" / "model.keras"), {})
    before = read_history(folder / "out" / "history.csv")[0]
    first = read_history(tmp_path / "out" / "history.csv")[0]
    assert first["train/loss"] < 0.9 * before["train/loss"]
    assert first["learning_rate"] == pytest.approx(1e-4)


def after(epochs: int):
    """A stop that ends a stage once its journal has so many epochs."""
    return lambda journal: "the pruner's word" if len(journal.epochs()) >= epochs else None


@pytest.mark.parametrize("kind", ["cnn", "ctc"])
def test_on_an_accelerator_a_stage_in_bfloat16_ends_with_a_float32_model(smoke, splits, tmp_path, monkeypatch, kind):
    from captchalab.networks import backend, models

    start = backend.start
    monkeypatch.setattr(backend, "start", lambda seed: start(seed)._replace(accelerator=True, memory_bytes=2**30))
    fit(task(smoke, kind)._replace(precision="bfloat16"), paths(splits, tmp_path), {})
    out = tmp_path / "out"
    rows = read_history(out / "history.csv")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert Journal(out).about["params"]["precision"] == "bfloat16"
    saved = models.load(out / "model.keras").model
    assert {layer.compute_dtype for layer in saved.layers} == {"float32"}


def test_a_stop_ends_a_stage_with_its_reason_and_the_best_weights_so_far(smoke, splits, tmp_path):
    fit(task(smoke, "cnn"), paths(splits, tmp_path), {}, stop=after(2))
    outcome = Journal(tmp_path / "out").about["outcome"]
    assert outcome["stopped"] == "the pruner's word"
    assert outcome["best_epoch"] in (1, 2)
    assert [row["epoch"] for row in read_history(tmp_path / "out" / "history.csv")] == [1, 2]
    assert (tmp_path / "out" / "model.keras").exists()


def test_a_stage_that_resumes_asks_its_stop_before_it_trains_on(smoke, splits, tmp_path, killed):
    killed("cnn", tmp_path)  # after two epochs
    fit(task(smoke, "cnn"), paths(splits, tmp_path), {}, stop=after(1))
    assert [row["epoch"] for row in read_history(tmp_path / "out" / "history.csv")] == [1, 2]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_fit as t
from captchalab import params, yaml
from captchalab.training.fit import NoFollower

class Kill(NoFollower):
    epochs = 0
    def epoch(self):
        self.epochs += 1
        if self.epochs == 2:
            os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    smoke = params.check(yaml.parse(Path({params!r}).read_text()))
    changes = yaml.parse("{{" + ", ".join(item.replace("=", ": ") for item in sys.argv[3:]) + "}}")
    task = t.task(smoke, sys.argv[1], **changes)
    t.fit(task, t.paths(Path({splits!r}), Path(sys.argv[2])), {{}}, Kill())
"""


@pytest.fixture
def killed(smoke_text, splits, tmp_path):
    """Trains in a process of its own, which is killed (-9) at the end of its second epoch."""
    (tmp_path / "params.yaml").write_text(smoke_text)
    script = tmp_path / "killed.py"
    where = {
        "tests": str(Path(__file__).parent),
        "params": str(tmp_path / "params.yaml"),
        "splits": str(splits),
    }
    script.write_text(textwrap.dedent(KILLED).format(**where))

    def run(kind: str, folder: Path, *changes: str) -> None:
        done = subprocess.run([sys.executable, script, kind, folder, *changes], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


def same_files(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("model.keras", "history.csv"))


def test_after_kill_9_a_stage_resumes_and_ends_bit_for_bit_the_same(trained, smoke, splits, tmp_path, killed, capsys):
    kind, folder = trained
    killed(kind, tmp_path)
    assert not (tmp_path / "out").exists()
    fit(task(smoke, kind), paths(splits, tmp_path), {})
    assert "resumes after epoch 2 of 3" in capsys.readouterr().out
    assert same_files(tmp_path / "out", folder / "out")


def test_a_killed_stage_of_muon_resumes_bit_for_bit(smoke, splits, tmp_path, killed):
    fit(task(smoke, "ctc", optimizer="muon", muon_rms=0.6), paths(splits, tmp_path / "whole"), {})
    killed("ctc", tmp_path / "again", "optimizer=muon", "muon_rms=0.6")
    fit(task(smoke, "ctc", optimizer="muon", muon_rms=0.6), paths(splits, tmp_path / "again"), {})
    assert same_files(tmp_path / "again" / "out", tmp_path / "whole" / "out")


def test_a_killed_stream_resumes_with_the_images_that_were_next(smoke, splits, tmp_path, killed):
    fit(task(smoke, "cnn", source="stream"), paths(splits, tmp_path / "whole"), {})
    killed("cnn", tmp_path / "again", "source=stream")
    fit(task(smoke, "cnn", source="stream"), paths(splits, tmp_path / "again"), {})
    assert same_files(tmp_path / "again" / "out", tmp_path / "whole" / "out")


def checkpoints_in(folder: Path) -> Checkpoints:
    """Of the one stage that was stopped there."""
    [stopped] = [path for path in (folder / "checkpoints").iterdir() if path.is_dir()]
    return Checkpoints(stopped)


def test_a_truncated_checkpoint_costs_one_epoch_and_no_bit(trained, smoke, splits, tmp_path, killed, capsys):
    kind, folder = trained
    killed(kind, tmp_path)
    newest = checkpoints_in(tmp_path).paths()[0]
    newest.write_bytes(newest.read_bytes()[:-1000])
    fit(task(smoke, kind), paths(splits, tmp_path), {})
    said = capsys.readouterr().out
    assert f"{newest} is damaged (its content does not match its digest): removed" in said
    assert "resumes after epoch 1 of 3" in said
    assert same_files(tmp_path / "out", folder / "out")


@pytest.mark.parametrize("journal", ["intact", "damaged"])
def test_without_an_intact_checkpoint_or_journal_a_stage_starts_from_scratch(
    smoke, splits, tmp_path, killed, capsys, journal
):
    killed("cnn", tmp_path)
    if journal == "intact":
        for path in checkpoints_in(tmp_path).paths():
            content = path.read_bytes()
            path.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    else:
        (checkpoints_in(tmp_path).folder / "journal.json").write_text("{")
    fit(task(smoke, "cnn"), paths(splits, tmp_path), {})
    said = capsys.readouterr().out
    assert "starts from scratch" in said
    assert "resumes after" not in said
    assert [row["epoch"] for row in read_history(tmp_path / "out" / "history.csv")] == [1, 2, 3]


def test_a_stage_killed_in_its_first_epoch_keeps_its_journal(smoke, splits, tmp_path, killed):
    killed("cnn", tmp_path)
    [folder] = [path for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()]
    for checkpoint in Checkpoints(folder).paths():
        checkpoint.unlink()
    before = Journal(folder).about["id"]
    fit(task(smoke, "cnn"), paths(splits, tmp_path), {})
    assert Journal(tmp_path / "out").about["id"] == before
    assert [row["epoch"] for row in read_history(tmp_path / "out" / "history.csv")] == [1, 2, 3]


def test_a_checkpoint_of_other_parameters_is_not_picked_up(smoke, splits, tmp_path, killed, capsys):
    killed("cnn", tmp_path)
    fit(task(smoke, "cnn", learning_rate=2e-3), paths(splits, tmp_path), {})
    assert "resumes after" not in capsys.readouterr().out


def test_a_loss_that_is_no_number_stops_with_a_sentence_and_leaves_nothing(smoke, splits, tmp_path):
    wild = task(smoke, "cnn", learning_rate=1e30, schedule="constant", warmup_steps=0, clip_norm=0.0)
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in epoch \d: lower train.cnn.learning_rate = 1e\+30"):
        fit(wild, paths(splits, tmp_path), {})
    assert not (tmp_path / "out").exists()


def test_the_same_stage_twice_at_once_is_refused(smoke, splits, tmp_path, killed):
    from filelock import FileLock

    killed("cnn", tmp_path)
    [lock] = (tmp_path / "checkpoints").glob("*.lock")
    with FileLock(lock), pytest.raises(UserError, match="train cnn is running already, in another process"):
        fit(task(smoke, "cnn"), paths(splits, tmp_path), {})


def test_fine_tuning_of_other_captchas_is_refused(trained, smoke, splits, tmp_path):
    kind, folder = trained
    captcha = smoke.captcha.model_copy(update={"length": 3})
    for split, images in (("train", 16), ("valid", 16)):
        dataset.generate(captcha, split, SplitParams(images=images), 1, tmp_path / split, workers=1)
    model = folder / "out" / "model.keras"
    other = task(smoke, kind, "finetune")._replace(captcha=captcha)
    with pytest.raises(UserError, match=rf"{model} reads other captchas than params.yaml describes: run `dvc repro`"):
        fit(other, paths(tmp_path, tmp_path, model), {})


def test_a_stage_on_the_plateau_says_until_when_that_is_normal(smoke, splits, tmp_path, capsys):
    fit(task(smoke, "ctc", plateau_steps=16), paths(splits, tmp_path), {})
    said = capsys.readouterr().out
    assert "nothing read yet after 8 steps; such a plateau is normal until step 16" in said
    assert "nothing read after 24 steps, and past step 16 that is not normal" in said


@pytest.mark.parametrize(
    ("best_by", "epochs", "best_epoch"),
    [
        ("exact", [(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),
        ("exact", [(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),  # ties by loss
        ("loss", [(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 3),
        ("exact", [(0.0, 9.0), (0.0, 8.0)], 2),  # on the plateau the loss decides
    ],
)
def test_the_best_epoch(best_by, epochs, best_epoch):
    progress = Progress()
    for exact, loss in epochs:
        progress.count({"val/exact": exact, "val/loss": loss}, best_by)
    assert progress.best_epoch == best_epoch


def test_patience_starts_when_the_first_text_is_right(smoke):
    stage = smoke.train.ctc.model_copy(update={"epochs": 100, "patience_epochs": 2})
    progress = Progress()
    for _ in range(10):
        progress.count({"val/exact": 0.0, "val/loss": 9.0}, "exact")
        assert progress.ended(stage) is None
    progress.count({"val/exact": 0.5, "val/loss": 1.0}, "exact")
    progress.count({"val/exact": 0.4, "val/loss": 1.0}, "exact")
    assert progress.ended(stage) is None
    progress.count({"val/exact": 0.4, "val/loss": 1.0}, "exact")
    assert progress.ended(stage) == "2 epochs without a better one"


def test_training_runs_where_mlflow_cannot_be_imported(smoke_text, splits, tmp_path):
    (tmp_path / "params.yaml").write_text(smoke_text)
    script = f"""
import sys
sys.modules["mlflow"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_fit as t
from captchalab import params, yaml
from captchalab.tracking import runs
from captchalab.project import Project
smoke = params.check(yaml.parse(Path({str(tmp_path / "params.yaml")!r}).read_text()))
store = runs.Store.of(Project(Path({str(tmp_path)!r})))
t.fit(t.task(smoke, "cnn"), t.paths(Path({str(splits)!r}), Path({str(tmp_path)!r})), {{}}, runs.Background(store))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("did not log this run") == 1
    assert "captchalab sync" in done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == {"run_id": None}
    assert np.isfinite(read_history(tmp_path / "out" / "history.csv")[-1]["val/loss"])


def test_a_checkpoint_is_named_by_stage_and_fingerprint(smoke, splits, tmp_path, killed):
    killed("cnn", tmp_path)
    [folder] = [path for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()]
    assert folder.name.startswith("cnn-train-")
    state, _ = Checkpoints(folder).load()
    assert state is not None and state.progress["epoch"] == 2
