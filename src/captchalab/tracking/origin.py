"""Where a run comes from: git, DVC's stage and experiment, the data's md5, and the training of stage 1."""

import os
import subprocess
from pathlib import Path

from captchalab import yaml
from captchalab.params import SPLITS, StageName
from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.training.journal import Journal


def run_tags(project: Project, kind: Kind, stage: StageName) -> dict[str, str]:
    """The tags of a stage's run."""
    tags = {"git_sha": _git(project.root, "rev-parse", "HEAD") or "none"}
    # neither what the chain itself writes nor the parameters, which every run records, make the code another one
    ignored = (":!dvc.lock", ":!reports", ":!params.yaml")
    tags["git_dirty"] = str(
        bool(_git(project.root, "status", "--porcelain", "--untracked-files=no", ".", *ignored))
    ).lower()
    tags["dvc_stage"] = os.environ.get("DVC_STAGE", "none")
    if name := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp_name"] = name
    for split, md5 in data_md5(project).items():
        tags[f"data_md5_{split}"] = md5
    if stage == "finetune":
        trained = Journal(project.stage(kind, "train"))
        if trained.begun:
            tags["train_journal_id"] = str(trained.about["id"])
            if trained.run_id:  # none where MLflow was unreachable
                tags["train_run_id"] = trained.run_id
    return tags


def data_md5(project: Project) -> dict[str, str]:
    """DVC's md5 of each split, as dvc.lock has it."""
    if not project.lock.exists():
        return {}
    stages = yaml.read(project.lock).get("stages", {})
    found = {split: stages.get(f"generate@{split}", {}).get("outs", [{}])[0].get("md5") for split in SPLITS}
    return {split: md5 for split, md5 in found.items() if md5}


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
