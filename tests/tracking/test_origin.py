"""Where a run comes from."""

import shutil
import subprocess

from captchalab import files
from captchalab.project import Project
from captchalab.tracking import origin
from captchalab.training.journal import Journal


def test_data_md5_is_the_one_in_dvc_lock(tmp_path):
    assert origin.data_md5(Project(tmp_path)) == {}
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  generate@test:\n    outs:\n    - path: data/test\n      md5: 123.dir\n"
    )
    assert origin.data_md5(Project(tmp_path)) == {"test": "123.dir"}


def test_tags_say_where_a_run_comes_from(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("1")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.lock").write_text("schema: '1.0'\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    trained = Journal.begin(tmp_path / "models" / "ctc" / "train", {"device": "a CPU"})
    files.write_json(trained.folder / "run.json", {"run_id": "r1"})
    tags = origin.run_tags(Project(tmp_path), "ctc", "finetune")
    assert len(tags["git_sha"]) == 40
    assert (tags["git_dirty"], tags["train_run_id"]) == ("false", "r1")
    assert tags["train_journal_id"] == trained.about["id"]
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    assert origin.run_tags(Project(tmp_path), "ctc", "train")["git_dirty"] == "false", "the chain writes it as it goes"
    (tmp_path / "params.yaml").write_text("seed: 2\n")
    assert origin.run_tags(Project(tmp_path), "ctc", "train")["git_dirty"] == "false", "a run records its parameters"
    (tmp_path / "file").write_text("2")
    assert origin.run_tags(Project(tmp_path), "ctc", "train")["git_dirty"] == "true"
    shutil.rmtree(tmp_path / ".git")
    assert origin.run_tags(Project(tmp_path), "ctc", "train")["git_sha"] == "none"


def test_stage_1_that_mlflow_does_not_know_gives_no_run_id(tmp_path):
    trained = Journal.begin(tmp_path / "models" / "ctc" / "train", {"device": "a CPU"})
    tags = origin.run_tags(Project(tmp_path), "ctc", "finetune")
    assert "train_run_id" not in tags
    assert tags["train_journal_id"] == trained.about["id"]
    assert not {"train_run_id", "train_journal_id"} & set(origin.run_tags(Project(tmp_path), "ctc", "train"))
