"""What the README says, held against what is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from captchalab import files, params
from captchalab.evaluation import report
from captchalab.project import Project

MENTIONED_FOLDERS = ("docs/", "reports", "params.yaml")


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text()


def test_the_results_table_is_that_of_the_reports(root, readme):
    assert report.results_table(Project(root)) in readme


def test_the_reports_meet_what_is_promised(root):
    for kind in params.KINDS:
        metrics = files.read_json(root / "reports" / kind / "metrics.json")
        assert metrics["n"] == 10_000
        assert metrics["exact"] >= 0.94


def test_every_link_and_picture_is_there(root, readme):
    for target in re.findall(r"\]\(([^)]+)\)", readme):
        if not target.startswith("https://"):
            assert (root / target).exists(), target


def test_every_make_target_it_names_exists(root, readme):
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", readme)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_its_first_two_commands_are_repro_and_test(readme):
    commands = re.findall(r"^(make [a-z]+)", readme, re.M)
    assert commands[:2] == ["make repro", "make test"]


def test_every_verb_it_names_exists(readme):
    from captchalab.cli import main

    for verb in set(re.findall(r"captchalab ([a-z]+)", readme)) - {"trains"}:
        assert verb in main.commands, verb


def test_a_fresh_clone_has_nothing_to_do(root: Path, tmp_path: Path):
    """dvc.lock comes from a run with the committed params, code and chain."""
    from captchalab.profiles import copy_environment

    subprocess.run(["git", "clone", "-q", root, tmp_path / "clone"], check=True)
    done = subprocess.run(
        ["dvc", "repro", "--allow-missing", "--dry"],
        cwd=tmp_path / "clone", env=copy_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Data and pipelines are up to date." in done.stdout, done.stdout


@pytest.mark.parametrize(("made_in", "told"), [("here", "Nothing to be done"), ("/elsewhere", "-m venv --clear .venv")])
def test_an_environment_that_was_moved_is_made_anew(root, tmp_path, made_in, told):
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "requirements-gpu.txt"):
        shutil.copyfile(root / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").write_text(f"{tmp_path if made_in == 'here' else made_in}\n")
    done = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told in done.stdout
