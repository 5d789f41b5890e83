"""The whole chain, small, for real: `dvc repro` in a clone, with kills on the way, and what a user does with it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest
from chain import EPOCHS, captchalab, dvc, finished, own_tests
from dvc.repo import Repo
from servers import free_port, get, running
from story import Story, ask

from captchalab import files, params, profiles, yaml
from captchalab.project import Project
from captchalab.registry import lineage
from captchalab.registry.registry import Registry
from captchalab.tracking.store import Store
from captchalab.training.journal import read_history

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(6000)]
KINDS, STAGES = params.KINDS, params.STAGES


@pytest.fixture(scope="module")
def chain(root, smoke_text, tmp_path_factory) -> Path:
    return finished(root, smoke_text, tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def client(chain):
    return Store.of(Project(chain)).client()


def runs(client, **tags: str) -> list:
    """The chain's own runs; the experiment's where it is asked for."""
    experiment = client.get_experiment_by_name("captchalab-smoke")
    wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment.experiment_id], wanted)
    return [run for run in found if run.data.tags.get("dvc_exp_name") == tags.get("dvc_exp_name")]


@pytest.mark.parametrize(("stage", "log"), [("train", "finetune.log"), ("finetune", "last.log")])
def test_after_kill_9_the_next_repro_resumes_from_the_last_epoch(chain, stage, log):
    assert f"{stage} cnn: resumes after epoch" in (chain / log).read_text()
    rows = read_history(chain / "models" / "cnn" / stage / "history.csv")
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize("stage", STAGES)
def test_the_killed_stage_resumes_in_its_own_mlflow_run(client, stage):
    [run] = runs(client, stage=stage, kind="cnn")
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/loss")]
    epochs = {"train": EPOCHS, "finetune": 2 * EPOCHS}[stage]  # a fine-tuned network's run has both stages
    assert len(set(steps)) == len(steps) == epochs


@pytest.mark.parametrize("kind", KINDS)
def test_every_contract_file_exists(chain, kind):
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
    assert len(lines) == metrics["n"] == 300
    plots = {path.name for path in (chain / "reports" / kind / "plots").iterdir()}
    expected = {"curves", "confusions", "accuracies", "reliability", "worst", "doubtful", "network"}
    expected |= {"ctc_output"} if kind == "ctc" else set()
    assert plots == {f"{name}.png" for name in expected}
    assert files.read_json(chain / "models" / kind / "export" / "parity.json")["texts_that_differ"] == 0


def test_the_comparison_is_of_the_same_images(chain):
    comparison = files.read_json(chain / "reports" / "comparison.json")
    counts = [comparison[key] for key in ("both_right", "only_cnn", "only_ctc", "both_wrong")]
    assert sum(counts) == comparison["n"] == 300
    assert 0 <= comparison["mcnemar_p"] <= 1
    assert "http" not in (chain / "reports" / "index.html").read_text().replace("http://www.w3.org", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_fine_tuned_network_is_one_row_with_its_test_metrics(chain, client, kind):
    [run] = runs(client, stage="finetune", kind=kind)
    metrics = files.read_json(chain / "reports" / kind / "metrics.json")
    assert run.info.run_name.startswith(f"{kind} finetune ")
    assert run.data.metrics["test/exact"] == round(metrics["exact"], 5)
    assert "mlflow.parentRunId" not in run.data.tags
    [trained] = runs(client, stage="train", kind=kind)
    assert run.data.tags["train_run_id"] == trained.info.run_id
    assert files.read_json(chain / "models" / kind / "finetune" / "run.json")["run_id"] == run.info.run_id


@pytest.mark.parametrize("kind", KINDS)
def test_runs_say_where_they_come_from(chain, client, kind):
    lock = yaml.read(chain / "dvc.lock")["stages"]
    for stage in ("train", "finetune"):
        [run] = runs(client, stage=stage, kind=kind)
        tags = run.data.tags
        assert len(tags["git_sha"]) == 40 and tags["git_dirty"] in ("true", "false")
        assert tags["dvc_stage"] == f"{stage}@{kind}"
        assert tags["data_md5_train"] == lock["generate@train"]["outs"][0]["md5"]
        assert len(tags["fingerprint"]) == 64 and tags["device"]
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id, "model")}
        assert artifacts == {"model/model.keras"}


def test_a_finished_chain_has_nothing_to_do(chain):
    assert "Data and pipelines are up to date." in dvc(chain, "repro").stdout


def test_exact_is_listed_by_dvcs_own_commands(chain):
    shown = json.loads(dvc(chain, "metrics", "show", "--json").stdout)[""]["data"]
    for kind in KINDS:
        assert "exact" in shown[f"reports/{kind}/metrics.json"]["data"]
    assert "exact" in dvc(chain, "metrics", "show").stdout
    plots = json.loads(dvc(chain, "plots", "show", "--json", "--out", "plots_out").stdout)
    assert "exact match on the valid split" in plots["data"]
    shutil.rmtree(chain / "plots_out", ignore_errors=True)


def stale(folder: Path) -> set[str]:
    """Stages whose own dependencies or parameters changed; those that only follow are left out."""
    with Repo(folder) as repo:
        status = repo.status()
    return {
        stage.rpartition(":")[2]
        for stage, changes in status.items()
        if any("changed deps" in change for change in changes)
        and any(
            path == "params.yaml" or path.startswith("src/") or path == "README.md"
            for change in changes
            for path in change.get("changed deps", {})
        )
    }


@pytest.mark.parametrize(
    ("files", "value", "expected"),
    [
        (["README.md", "src/captchalab/training/checkpoints.py"], ("promote", "min_exact", 0.5), set()),
        (["src/captchalab/data/batches.py"], None, {"train@cnn", "train@ctc", "finetune@cnn", "finetune@ctc"}),
        (["src/captchalab/reading/predictor.py"], None, {"export@cnn", "export@ctc"}),  # its folder is named
        ([], ("splits", "test", {"images": 70}), {"generate@test"}),
    ],
)
def test_a_change_makes_stale_what_it_shapes_and_no_more(chain, files, value, expected):
    """A change of each kind, as DVC sees it; `test_sources` holds every dependency to the code."""
    changed = [chain / name for name in [*files, *(["params.yaml"] if value else [])]]
    before = [path.read_text() for path in changed]
    try:
        for name in files:
            with (chain / name).open("a") as source:
                source.write("\n# changed\n")
        if value:
            content = yaml.read(chain / "params.yaml")
            section, key, content[section][key] = value
            (chain / "params.yaml").write_text(yaml.dump(content))
        assert stale(chain) == expected
    finally:
        for path, text in zip(changed, before, strict=True):
            path.write_text(text)


@pytest.mark.parametrize("kind", KINDS)
def test_files_lead_to_the_runs_that_made_them(chain, client, kind):
    [run] = runs(client, stage="finetune", kind=kind)
    project = Project(chain)
    for path in (project.model(kind), project.onnx(kind)):
        found = lineage.trace(project, Store.of(project), str(path))
        assert found["run"]["id"] == run.info.run_id
        lock = yaml.read(chain / "dvc.lock")["stages"]
        assert found["inputs"] == {split: lock[f"generate@{split}"]["outs"][0]["md5"] for split in params.SPLITS}


def test_test_metrics_belong_to_the_model_and_its_data_set(chain, client):
    experiment = client.get_experiment_by_name("captchalab-smoke").experiment_id
    [best, *_] = client.search_logged_models(
        [experiment], order_by=[{"field_name": "metrics.test/exact", "ascending": False}]
    )
    assert best.name == "captcha-cnn" and best.status == "READY"
    metrics = {metric.key: metric for metric in best.metrics}
    test = yaml.read(chain / "dvc.lock")["stages"]["generate@test"]["outs"][0]["md5"]
    assert (metrics["test/exact"].dataset_name, metrics["test/exact"].dataset_digest) == ("test", test)


def test_outs_from_the_run_cache_lead_to_the_run_that_made_them(chain, client):
    """Where only the run-cache knows a stage, DVC brings its files and run id back, and trains nothing."""
    [run] = runs(client, stage="finetune", kind="ctc")
    shutil.rmtree(chain / "models" / "ctc")
    (chain / "dvc.lock").rename(chain / "dvc.lock.away")
    try:
        done = dvc(chain, "repro", "finetune@ctc")
    finally:
        (chain / "dvc.lock.away").replace(chain / "dvc.lock")
        dvc(chain, "checkout")
    assert "Stage 'finetune@ctc' is cached - skipping run" in done.stdout
    found = json.loads(captchalab(chain, "lineage", "models/ctc/finetune/model.keras", "--json").stdout)
    assert found["run"]["id"] == run.info.run_id


def test_an_experiment_in_a_temporary_copy_logs_to_the_same_store(chain, client):
    assert {run.data.tags["dvc_stage"] for run in runs(client, dvc_exp_name="longer")} == {"train@cnn", "finetune@cnn"}
    shown = dvc(chain, "exp", "show", "--csv").stdout
    assert "exact" in shown and "longer" in shown
    dvc(chain, "exp", "apply", "longer")
    changed = json.loads(dvc(chain, "metrics", "diff", "--json").stdout)
    assert "exact" in changed["reports/cnn/metrics.json"]
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
    captchalab(second, "draw", "12")
    done = captchalab(second, "predict", "12.png", "--model", "ctc", "--json")
    assert json.loads(done.stdout)["predictions"][0]["file"] == "12.png"
    assert "up to date" in dvc(second, "repro", "--allow-missing", "--dry").stdout


def test_a_kept_network_is_fine_tuned_further(chain, tmp_path):
    """In the place of stage 1: its whole curve counts, and training starts where it was."""
    copy = tmp_path / "copy"
    shutil.copytree(chain, copy, ignore=shutil.ignore_patterns(".dvc", "mlruns", "ctc"))
    (copy / "reports" / "ctc").mkdir()
    captchalab(copy, "keep", "small")
    params_file = copy / "params.yaml"
    params_file.write_text(
        params_file.read_text().replace("start_from: {cnn: train", "start_from: {cnn: results/small")
    )
    captchalab(copy, "train", "cnn")
    captchalab(copy, "finetune", "cnn")
    kept, now = (
        [read_history(folder / "models" / "cnn" / stage / "history.csv") for stage in STAGES]
        for folder in (copy / "results" / "small", copy)
    )
    assert now[0][-1]["images_seen"] == sum(rows[-1]["images_seen"] for rows in kept)
    best = max(row["val/exact"] for row in kept[1])
    assert abs(now[1][0]["val/exact"] - best) < 0.15, "three small steps from it"


# What a user does with the networks then; each step is a process of its own (`story`).


@pytest.fixture(scope="module")
def story(chain) -> Story:
    return Story(chain)


@pytest.fixture(scope="module")
def image(story) -> bytes:
    return (story.folder / "42.png").read_bytes()


def test_the_first_network_is_promoted(story):
    assert story.first.returncode == 0, story.first.stderr
    assert "models:/captcha/1 is champion." in story.first.stdout


def test_a_worse_one_is_refused_and_nothing_changes(story):
    assert story.refused.returncode == 3
    assert "the candidate is not ahead, so more captchas would not show that it is better" in story.refused.stdout
    assert story.after_refusal == {1: ["champion"]}


def test_a_better_one_is_taken(story):
    assert story.taken.returncode == 0, story.taken.stdout + story.taken.stderr
    assert re.search(
        r"Promoted: on 2,000 fresh captchas the candidate alone is right on \d+, the champion alone on \d+",
        story.taken.stdout,
    )
    assert story.after_taken == {1: ["previous"], 2: ["champion"]}


def test_the_champion_predicts_and_neither_keras_nor_mlflow_is_imported(story):
    """What keeps a cold start short on any machine."""
    answer = json.loads(story.read.stdout)
    assert answer["model"] == "models:/captcha/2"
    assert "captchalab: champion is models:/captcha/2.\n" in story.read.stderr
    [prediction] = answer["predictions"]
    assert {"file", "text", "confidence", "characters"} <= set(prediction)
    imported = set(story.read.stderr.split())
    assert "onnxruntime" in imported and imported.isdisjoint({"keras", "tensorflow", "jax", "mlflow", "dvc"})


def test_a_rollback_brings_the_first_one_back(story):
    assert "Rolled back from version 2" in story.back.stdout
    assert story.after_rollback == {1: ["champion"], 2: []}
    one, two = (json.loads(done.stdout) for done in (story.read_with_first, story.read_with_second))
    assert two == json.loads(story.read.stdout)
    assert (one["model"], two["model"]) == ("models:/captcha/1", "models:/captcha/2")
    assert one["predictions"] != two["predictions"]


def test_the_champion_is_served(story, image):
    port = free_port()
    command = [sys.executable, "-m", "captchalab.cli", "serve", "--port", port]
    log = story.folder / "serve.log"
    not_activated = {**profiles.copy_environment(), "PATH": "/usr/bin:/bin"}
    where = {"cwd": story.folder, "env": not_activated}
    with running(command, log, lambda: get(f"http://127.0.0.1:{port}/ping"), **where):
        status, answer = ask(port, image)
        assert status == 200, log.read_text()
        [read] = json.loads(story.read_with_first.stdout)["predictions"]
        assert answer["predictions"][0]["text"] == read["text"]
        assert answer["predictions"][0]["confidence"] == pytest.approx(read["confidence"], abs=1e-5)
        status, answer = ask(port, b"no image")
        assert (status, answer["message"]) == (
            400,
            "Image 1 cannot be read as an image: give a PNG or JPEG file.",
        )


def test_it_is_served_where_neither_captchalab_nor_keras_is_installed(story, image, tmp_path):
    """In an environment made from the model's own requirements, with unpickling forbidden."""
    champion = Registry(Project(story.folder), Store.of(Project(story.folder))).find("champion")
    [model] = (story.folder / "mlruns" / "artifacts").glob(f"*/models/{champion.model_id}/artifacts")
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", model / "requirements.txt"], check=True)
    for package in ("captchalab", "keras", "tensorflow"):
        assert subprocess.run([python, "-c", f"import {package}"], capture_output=True, cwd=tmp_path).returncode
    port = free_port()
    command = [python, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--port", port]
    environment = {
        **profiles.copy_environment(),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": f"{python.parent}:/usr/bin:/bin",
    }
    where = {"cwd": tmp_path, "env": environment}
    with running(command, tmp_path / "serve.log", lambda: get(f"http://127.0.0.1:{port}/ping"), **where):
        status, answer = ask(port, image)
    assert status == 200
    assert answer["predictions"][0]["text"] == json.loads(story.read_with_first.stdout)["predictions"][0]["text"]


def test_mlflows_pages_show_one_row_per_network_and_their_whole_curves_on_one_chart(story, tmp_path, has_browser):
    port = free_port()
    command = [sys.executable, "-m", "captchalab.cli", "ui", "--port", port]
    log = story.folder / "ui.log"
    where = {"cwd": story.folder, "env": profiles.copy_environment()}
    with running(command, log, lambda: get(f"http://127.0.0.1:{port}/health"), **where):
        [url] = re.findall(r"The runs: (\S+)", log.read_text())
        pages.check(url, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"mlflow.png", "mlflow-compare.png"}


def test_the_chains_workspace_passes_the_tests(story):
    """The README's two commands in their order, small: other captchas, a finished chain, an experiment, a champion."""
    own_tests(story.folder)
