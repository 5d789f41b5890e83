"""Networks in results/: kept from a finished chain, read with in a fresh clone, logged in another store."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import guesser
import pytest
from click.testing import CliRunner, Result

from captchalab import files
from captchalab.cli import main
from captchalab.project import Project
from captchalab.registry import champion
from captchalab.tracking import runs
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def keep(name: str, *options: str) -> None:
    done = run("keep", name, *options)
    assert done.exit_code == 0, done.stderr


def answer(*options: str) -> dict:
    """What `predict --json` answers; the captcha is drawn first."""
    run("draw", "A")
    done = run("predict", "A.png", "--json", *options)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr}


def test_a_folder_has_all_that_is_said_of_a_network(chain):
    keep("best")
    folder = chain.root / "results" / "best"
    about = files.read_json(folder / "about.json")
    assert about["format"] == 1
    network = about["networks"]["ctc"]
    assert (network["exact"], network["n"], network["val/exact"]) == (0.5, 200, 0.5)
    assert (network["device"], network["git_sha"]) == ("a CPU", "abc")
    for name in ("params.yaml", "dvc.lock", "data/test/meta.json", "reports/ctc/metrics.json"):
        assert (folder / name).read_bytes() == (chain.root / name).read_bytes(), name
    for stage in ("train", "finetune"):
        for name in ("journal.json", "history.csv", "timing.json"):
            assert (folder / "models" / "ctc" / stage / name).exists()
    assert not (folder / "models" / "ctc" / "train" / "model.keras").exists(), "stage 1 is not read with"
    card = (folder / "README.md").read_text()
    assert "| CTC | **50.00 %** (43.14 – 56.86) | 200 |" in card
    assert "captchas of 1 characters out of 'AB' (2), 32 x 32 px, grey" in card


def test_one_kind_is_kept_where_one_is_named(chain):
    keep("best", "--kind", "ctc")
    assert list(files.read_json(chain.results / "best" / "about.json")["networks"]) == ["ctc"]
    done = run("keep", "other", "--kind", "cnn")
    assert done.exit_code == 1
    assert "holds no tested network (cnn) to keep: run `dvc repro` first." in done.stderr
    assert not (chain.results / "other").exists()


def test_a_fresh_clone_reads_with_it_at_once_and_says_so(chain, clone):
    keep("best")
    clone()
    found = answer()
    assert found["model"] == "results/best/ctc"
    assert found["predictions"][0]["text"] == "A"
    assert found["stderr"] == (
        "captchalab: no champion yet: results/best/ctc (50.00% of 200 test captchas, trained on a CPU) predicts.\n"
    )
    again = answer("--model", found["model"])
    assert again["network_md5"] == found["network_md5"] and not again["stderr"]
    assert answer("--model", "results/best")["model"] == "results/best/ctc"


def test_it_gives_way_to_a_champion(chain, clone):
    keep("best")
    project = clone()
    champion.write(project, project.results / "best" / "models" / "ctc" / "export" / "model.onnx", {"version": 3})
    found = answer()
    assert found["model"].startswith("models:/captcha")
    assert "champion is models:/captcha" in found["stderr"]


def test_champion_by_its_name_is_never_a_kept_network(chain, clone):
    keep("best")
    clone()
    assert "holds no champion" in run("predict", "A.png", "--model", "champion").stderr


def test_of_several_the_best_on_its_valid_split_reads(chain):
    """Not the one with the better test figure: a test split chooses nothing."""
    guesser.put(chain, 0.6, right=190, val_exact=0.6)
    keep("small")
    guesser.put(chain, 0.9, right=120, val_exact=0.9)
    keep("large")
    assert answer()["model"] == "results/large/ctc"


def test_one_of_other_captchas_does_not_read(chain):
    keep("best")
    chain.params.write_text(chain.params.read_text().replace("width_px: 32", "width_px: 64"))
    assert "holds no champion" in run("predict", "A.png").stderr


def newer(folder: Path) -> None:
    about = files.read_json(folder / "about.json")
    files.write_json(folder / "about.json", {"format": 2, "networks": "elsewhere", "files": about["files"]})


def unreadable(folder: Path) -> None:
    (folder / "about.json").write_text("{")


def incomplete(folder: Path) -> None:
    files.write_json(folder / "about.json", {"format": 1, "networks": {"ctc": {}}})


def without_network(folder: Path) -> None:
    (folder / "models" / "ctc" / "export" / "model.onnx").unlink()


def with_another_journal(folder: Path) -> None:
    (folder / "models" / "ctc" / "finetune" / "journal.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (newer, "has format 2, and this captchalab reads formats up to 1: use the captchalab that wrote it"),
        (unreadable, "about.json is missing or not as it was written: bring it back with `git checkout "),
        (incomplete, "about.json is missing or not as it was written: bring it back with `git checkout "),
        (without_network, "model.onnx is missing or not as it was written: bring it back with `git checkout "),
        (with_another_journal, "journal.json is missing or not as it was written: bring it back with "),
    ],
)
def test_another_format_or_a_damaged_file_is_one_sentence(chain, damage, sentence):
    keep("best")
    damage(chain.results / "best")
    for words in (["predict", "A.png"], ["sync", "results/best"], ["predict", "A.png", "--model", "results/best"]):
        done = run(*words)
        assert done.exit_code == 1
        assert sentence in done.stderr and done.stderr.count("\n") == 1


def exported_from_another(chain: Project) -> None:
    chain.model("ctc").write_bytes(b"trained again")


def untested(chain: Project) -> None:
    shutil.rmtree(chain.reports)


def of_other_parameters(chain: Project) -> None:
    lock = {"stages": {"train@ctc": {"params": {"params.yaml": {"seed": 1, "train.ctc": {}}}}}}
    chain.lock.write_text(json.dumps(lock))


def of_another_run(chain: Project) -> None:
    lock = {"stages": {"evaluate@ctc": {"outs": [{"path": "reports/ctc/metrics.json", "md5": "0"}]}}}
    chain.lock.write_text(json.dumps(lock))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (exported_from_another, "is not exported from "),
        (untested, "holds no tested network (cnn or ctc) to keep: run `dvc repro` first."),
        (of_other_parameters, "seed in params.yaml is not what train@ctc ran with: run `dvc repro`, then keep."),
        (of_another_run, "reports/ctc/metrics.json is not what evaluate@ctc wrote, by dvc.lock"),
    ],
)
def test_files_of_two_runs_are_not_kept(chain, change, sentence):
    change(chain)
    done = run("keep", "best")
    assert done.exit_code == 1
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not chain.results.exists()


def test_a_kind_is_kept_while_the_other_has_not_run_with_these_parameters(chain):
    lock = {"stages": {"train@cnn": {"params": {"params.yaml": {"seed": 1, "train.cnn": {}}}}}}
    chain.lock.write_text(json.dumps(lock))
    keep("best", "--kind", "ctc")


def test_a_folder_that_exists_is_replaced_on_demand_only(chain):
    keep("best")
    before = (chain.results / "best" / "about.json").read_bytes()
    guesser.put(chain, 0.7)
    done = run("keep", "best")
    assert done.exit_code == 1 and "exists: take another name, or replace it with --force." in done.stderr
    assert (chain.results / "best" / "about.json").read_bytes() == before
    keep("best", "--force")
    assert (chain.results / "best" / "about.json").read_bytes() != before
    assert [path.name for path in chain.results.iterdir()] == ["best"]


def test_a_name_that_leads_elsewhere_is_refused(chain):
    assert "'../best' is no name for a folder of results/" in run("keep", "../best").stderr


def trained_here(chain: Project) -> str:
    """The run of the chain's fine-tuning, with what MLflow measured of the machine."""
    store = Store.of(chain)
    run_id = runs.sync(chain.stage("ctc", "finetune"), store)
    for step in range(3):
        store.client().log_metric(run_id, "system/gpu_0_utilization_percentage", 90 + step, 1_700_000_000_000, step)
    return run_id


def test_its_runs_are_logged_in_any_store_once_and_can_be_promoted(chain, clone):
    there = trained_here(chain)
    keep("best")
    here = clone()
    client = Store.of(here).client()

    done = run("sync", "results/best")
    assert done.exit_code == 0, done.stderr
    again = run("sync", "results/best")
    assert again.stdout == done.stdout, "the same runs"
    experiment = client.get_experiment_by_name("tests")
    found = {run.data.tags["stage"]: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == ["finetune", "train"] and len(client.search_runs([experiment.experiment_id])) == 2
    tuned = found["finetune"]
    assert tuned.info.run_id != there
    assert tuned.data.tags["train_run_id"] == found["train"].info.run_id
    assert (tuned.data.tags["git_sha"], tuned.data.metrics["test/exact"]) == ("abc", 0.5)
    assert [metric.step for metric in client.get_metric_history(tuned.info.run_id, "val/exact")] == [64, 128]
    journal = Journal(chain.stage("ctc", "finetune"))
    assert tuned.info.end_time == datetime.fromisoformat(journal.ended_at).timestamp() * 1000
    measured = client.get_metric_history(tuned.info.run_id, "system/gpu_0_utilization_percentage")
    assert [(m.step, m.value, m.timestamp) for m in measured] == [(i, 90 + i, 1_700_000_000_000) for i in range(3)]

    promoted = run("promote", "--run", tuned.info.run_id)
    assert promoted.exit_code == 0, promoted.stderr
    assert answer()["model"] == "models:/captcha/1"
    assert not (here.results / "best" / "mlruns").exists()


def test_results_that_do_not_exist_are_named(chain):
    assert "results/best holds no results (no about.json in " in run("sync", "results/best").stderr
    keep("small")
    assert "name one of results/small." in run("predict", "A.png", "--model", "results/best").stderr
