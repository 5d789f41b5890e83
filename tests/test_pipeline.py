"""The whole chain, tiny, for real: through `dvc repro` in a temporary clone, with a kill on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captchalab import files, params, profiles
from captchalab.journal import read_history
from captchalab.tracking import Store

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]
KINDS, STAGES = params.KINDS, params.STAGES
GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
EPOCHS = 25  # of the CNN's stages: time enough to be killed in


def dvc(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run(
        ["dvc", *words],
        cwd=folder,
        env=profiles.copy_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def clone(root: Path, to: Path, text: str) -> Path:
    profiles.copy_project(root, to)
    (to / ".dvc" / "config.local").unlink()
    (to / "params.yaml").write_text(text)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "clone"]):
        subprocess.run([*GIT, *words], cwd=to, check=True)
    return to


def kill_in(folder: Path, stage: str) -> None:
    """Start `dvc repro` and kill it (-9) when the CNN's stage has two epochs behind it."""
    with (folder / f"{stage}.log").open("w") as log:
        repro = subprocess.Popen(["dvc", "repro"], cwd=folder, env=profiles.copy_environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and repro.poll() is None:
            found = list(folder.glob(f".checkpoints/cnn-{stage}-*/state.npz"))
            if found and len(read_history(found[0].parent / "history.csv")) >= 2:
                break
            time.sleep(0.05)
        assert repro.poll() is None, (folder / f"{stage}.log").read_text()
        repro.send_signal(signal.SIGKILL)
        repro.wait()


@pytest.fixture(scope="module")
def chain(root, smoke_text, tmp_path_factory) -> Path:
    """A finished chain whose `dvc` was killed (-9) in the middle of train@cnn and of finetune@cnn."""
    content = params.parse(smoke_text)
    for stage in STAGES:
        content[stage]["cnn"]["epochs"] = EPOCHS
        content[stage]["cnn"]["patience_epochs"] = EPOCHS
    folder = clone(root, tmp_path_factory.mktemp("chain"), params.dump(content))
    for stage in STAGES:
        kill_in(folder, stage)
    last = dvc(folder, "repro")
    (folder / "last.log").write_text(last.stdout + last.stderr)
    for words in (["add", "-A"], ["commit", "-qm", "run"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def client(chain):
    os.environ.pop("DVC_ROOT", None)
    return Store.of(chain).client()


def runs(client, **tags: str) -> list:
    experiment = client.get_experiment_by_name("captchalab-smoke")
    wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    return client.search_runs([experiment.experiment_id], wanted)


@pytest.mark.parametrize(("stage", "log"), [("train", "finetune.log"), ("finetune", "last.log")])
def test_after_kill_9_the_next_repro_goes_on_from_the_last_epoch(chain, stage, log):
    assert f"{stage} cnn: goes on after epoch" in (chain / log).read_text()
    rows = read_history(chain / "models" / "cnn" / stage / "history.csv")
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("stage", STAGES)
def test_the_killed_stage_goes_on_in_its_own_mlflow_run(client, stage):
    [run] = runs(client, stage=stage, kind="cnn")
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/loss")]
    assert steps == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_contract_file_is_there(chain, kind):
    for name in ("images.npy", "labels.npy", "meta.json", "samples.png"):
        assert (chain / "data" / "test" / name).exists()
    for stage in ("train", "finetune"):
        for name in ("model.keras", "history.csv", "run.json", "timing.json"):
            assert (chain / "models" / kind / stage / name).exists()
    metrics = files.read_json(chain / "reports" / kind / "metrics.json")
    assert {"exact", "exact_low", "exact_high", "cer", "n", "parameters", "model_bytes"} <= set(metrics)
    assert ("exact_of_length" in metrics) == (kind == "ctc")
    header, *lines = (chain / "reports" / kind / "predictions.csv").read_text().splitlines()
    assert header == "index,truth,prediction,confidence"
    assert len(lines) == metrics["n"] == 64
    pictures = {path.name for path in (chain / "reports" / kind / "plots").iterdir()}
    expected = {"curves", "confusions", "accuracies", "reliability", "worst", "doubtful", "network"}
    expected |= {"ctc_output"} if kind == "ctc" else set()
    assert pictures == {f"{name}.png" for name in expected}


def test_the_comparison_is_of_the_same_images(chain):
    comparison = files.read_json(chain / "reports" / "comparison.json")
    counts = [comparison[key] for key in ("both_right", "only_cnn", "only_ctc", "both_wrong")]
    assert sum(counts) == comparison["n"] == 64
    assert 0 <= comparison["mcnemar_p"] <= 1
    assert "http" not in (chain / "reports" / "index.html").read_text().replace("http://www.w3.org", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_tuned_network_is_one_row_with_its_test_figures(chain, client, kind):
    [run] = runs(client, stage="finetune", kind=kind)
    metrics = files.read_json(chain / "reports" / kind / "metrics.json")
    assert run.info.run_name == f"{kind} finetune"
    assert run.data.metrics["test/exact"] == metrics["exact"]
    assert "mlflow.parentRunId" not in run.data.tags
    [trained] = runs(client, stage="train", kind=kind)
    assert run.data.tags["train_run_id"] == trained.info.run_id
    assert files.read_json(chain / "models" / kind / "finetune" / "run.json")["run_id"] == run.info.run_id


@pytest.mark.parametrize("kind", KINDS)
def test_runs_say_where_they_come_from(chain, client, kind):
    lock = params.read(chain / "dvc.lock")["stages"]
    for stage in ("train", "finetune"):
        [run] = runs(client, stage=stage, kind=kind)
        tags = run.data.tags
        assert len(tags["git_sha"]) == 40 and tags["git_dirty"] in ("true", "false")
        assert tags["dvc_stage"] == f"{stage}@{kind}"
        assert tags["data_md5_train"] == lock["generate@train"]["outs"][0]["md5"]
        assert len(tags["fingerprint"]) == 64 and tags["device"]
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id, "model")}
        assert artifacts == {"model/model.keras"}


def test_nothing_to_do_is_done_in_a_moment(chain):
    started = time.monotonic()
    done = dvc(chain, "repro")
    assert "Data and pipelines are up to date." in done.stdout
    assert time.monotonic() - started < 15


def test_exact_is_listed_by_dvcs_own_commands(chain):
    shown = json.loads(dvc(chain, "metrics", "show", "--json").stdout)[""]["data"]
    for kind in KINDS:
        assert "exact" in shown[f"reports/{kind}/metrics.json"]["data"]
    assert "exact" in dvc(chain, "metrics", "show").stdout
    plots = json.loads(dvc(chain, "plots", "show", "--json", "--out", "plots_out").stdout)
    assert "exact match on the valid split" in plots["data"]
    shutil.rmtree(chain / "plots_out", ignore_errors=True)


# What goes stale by a change of a file, or of a key in params.yaml. Later stages follow where an
# earlier one's outs come out different.
GENERATE = {"generate@train", "generate@valid", "generate@test"}
TRAIN = {"train@cnn", "train@ctc"}
FINETUNE = {"finetune@cnn", "finetune@ctc"}
EVALUATE = {"evaluate@cnn", "evaluate@ctc"}
STALE_BY_FILE = {
    "README.md": set(),
    "src/captchalab/alphabet.py": GENERATE | TRAIN | FINETUNE | EVALUATE,
    "src/captchalab/backend.py": TRAIN | FINETUNE,
    "src/captchalab/batches.py": TRAIN | FINETUNE,
    "src/captchalab/checkpoints.py": set(),
    "src/captchalab/cli.py": set(),
    "src/captchalab/dataset.py": GENERATE,
    "src/captchalab/decoding.py": TRAIN | FINETUNE | EVALUATE,
    "src/captchalab/errors.py": set(),
    "src/captchalab/evaluation.py": EVALUATE,
    "src/captchalab/files.py": set(),
    "src/captchalab/__init__.py": set(),
    "src/captchalab/journal.py": set(),
    "src/captchalab/models.py": TRAIN | FINETUNE | EVALUATE,
    "src/captchalab/params.py": set(),
    "src/captchalab/plots.py": EVALUATE | {"compare"},
    "src/captchalab/predictor.py": set(),
    "src/captchalab/processes.py": set(),
    "src/captchalab/profiles.py": set(),
    "src/captchalab/rendering.py": GENERATE,
    "src/captchalab/report.html.j2": {"compare"},
    "src/captchalab/report.py": {"compare"},
    "src/captchalab/statistics.py": TRAIN | FINETUNE | EVALUATE | {"compare"},
    "src/captchalab/tracking.py": set(),
    "src/captchalab/training.py": TRAIN | FINETUNE,
}
STALE_BY_KEY = {
    ("seed", 1): GENERATE | TRAIN | FINETUNE,
    ("captcha.length", 3): GENERATE | TRAIN | FINETUNE | EVALUATE | {"compare"},
    ("splits.train.images", 300): {"generate@train"},
    ("splits.valid.images", 70): {"generate@valid"},
    ("splits.test.images", 70): {"generate@test"},
    ("models.cnn.conv_depth", 2): {"train@cnn"},
    ("models.ctc.rnn_size", 9): {"train@ctc"},
    ("train.cnn.epochs", 4): {"train@cnn"},
    ("train.ctc.learning_rate", 2e-3): {"train@ctc"},
    ("finetune.cnn.learning_rate", 2e-4): {"finetune@cnn"},
    ("finetune.ctc.epochs", 3): {"finetune@ctc"},
    ("evaluate.batch_size", 32): EVALUATE,
    ("evaluate.pictures", 6): EVALUATE | {"compare"},
    ("tracking.experiment", "other"): set(),
    ("runtime.workers", 1): set(),
}


def stale(folder: Path) -> set[str]:
    """Stages whose own dependencies or parameters changed; those that only follow are left out."""
    status = json.loads(dvc(folder, "status", "--json").stdout)
    return {
        stage
        for stage, changes in status.items()
        if any("changed deps" in change for change in changes)
        and any(
            path == "params.yaml" or path.startswith("src/") or path == "README.md"
            for change in changes
            for path in change.get("changed deps", {})
        )
    }


def test_the_table_names_every_file_of_the_package(root):
    package = {f"src/captchalab/{path.name}" for path in (root / "src" / "captchalab").iterdir() if path.is_file()}
    assert package | {"README.md"} == set(STALE_BY_FILE)


def test_a_changed_file_makes_stale_what_it_shapes_and_no_more(chain):
    for name, expected in STALE_BY_FILE.items():
        path = chain / name
        before = path.read_text()
        path.write_text(before + "\n# changed\n")
        try:
            assert (name, stale(chain)) == (name, expected)
        finally:
            path.write_text(before)


def test_a_changed_parameter_makes_stale_what_it_shapes_and_no_more(chain):
    path = chain / "params.yaml"
    before = path.read_text()
    for (key, value), expected in STALE_BY_KEY.items():
        content = params.parse(before)
        *parents, last = key.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
        path.write_text(params.dump(content))
        try:
            assert (key, stale(chain)) == (key, expected)
        finally:
            path.write_text(before)


def test_an_experiment_in_a_temporary_copy_logs_to_the_same_store(chain, client):
    before = len(runs(client, kind="ctc"))
    dvc(chain, "exp", "run", "--temp", "--name", "wider", "-S", "models.ctc.rnn_size=12")
    found = runs(client, kind="ctc")
    assert len(found) == before + 2, "train and finetune; the CNN did not run again"
    assert {run.data.tags.get("dvc_exp_name") for run in found[:2]} == {"wider"}
    assert "exact" in dvc(chain, "exp", "show", "--csv").stdout
    assert "wider" in dvc(chain, "exp", "show", "--csv").stdout
    dvc(chain, "exp", "apply", "wider")
    changed = json.loads(dvc(chain, "metrics", "diff", "--json").stdout)
    assert "parameters" in changed["reports/ctc/metrics.json"]
    assert "exact" in dvc(chain, "metrics", "diff", "--all").stdout
    subprocess.run(["git", "checkout", "-q", "."], cwd=chain, check=True)
    dvc(chain, "checkout")


def test_a_second_clone_pulls_and_predicts_without_training(chain, tmp_path):
    dvc(chain, "remote", "add", "-f", "-d", "--local", "store", str(tmp_path / "remote"))
    dvc(chain, "push")
    subprocess.run(["git", "clone", "-q", chain, tmp_path / "second"], check=True)
    second = tmp_path / "second"
    dvc(second, "remote", "add", "-d", "--local", "store", str(tmp_path / "remote"))
    dvc(second, "pull")
    for words in (["draw", "AB12"], ["predict", "AB12.png", "--model", "ctc", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "captchalab.cli", *words],
            cwd=second,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["file"] == "AB12.png"
    assert "up to date" in dvc(second, "repro", "--allow-missing", "--dry").stdout
