"""What is said of the committed files, for those who commit them: `make check`.

Everything is read from a clone of the last commit. Whatever a user has changed, run or promoted in the workspace
does not matter here, and none of this matters to `make test`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from captchalab import files, params, profiles, yaml
from captchalab.evaluation import report
from captchalab.project import Project

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def committed(tmp_path_factory) -> Project:
    """A clone of the last commit."""
    folder = tmp_path_factory.mktemp("committed") / "captchalab"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return Project(folder)


@pytest.fixture(scope="session")
def readme(committed) -> str:
    return (committed.root / "README.md").read_text()


def test_the_results_table_is_that_of_the_reports(committed, readme):
    assert report.results_table(committed) in readme


def test_the_reports_meet_what_is_promised(committed):
    for kind in params.KINDS:
        metrics = files.read_json(committed.report(kind) / "metrics.json")
        assert metrics["n"] == 10_000
        assert metrics["exact"] >= {"cnn": 0.965, "ctc": 0.98}[kind]


def test_the_table_of_two_ways_to_search_is_that_of_their_trials(committed):
    command = [sys.executable, "benchmarks/search_arms.py", "--table"]
    done = subprocess.run(command, cwd=committed.root, capture_output=True, text=True, check=True)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert "\n".join(table) in (committed.root / "docs" / "search.md").read_text()


def test_every_link_and_image_of_the_readme_exists(committed, readme):
    for target in re.findall(r"\]\(([^)]+)\)", readme):
        if not target.startswith("https://"):
            assert (committed.root / target).exists(), target


def test_a_fresh_clone_has_nothing_to_do(committed):
    """dvc.lock comes from a run with the committed params, code and chain."""
    done = subprocess.run(
        ["dvc", "repro", "--allow-missing", "--dry"],
        cwd=committed.root, env=profiles.copy_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    remedy = "dvc.lock is not that of the committed params and code: run `make repro` and commit what it wrote"
    assert "Data and pipelines are up to date." in done.stdout, f"{remedy}:\n{done.stdout}{done.stderr}"


def test_the_defaults_train_at_1e_3_and_fine_tune_at_1e_4(committed):
    loaded = params.load(committed.params)
    for kind in params.KINDS:
        assert loaded.stage("train", kind).learning_rate == 1e-3
        assert loaded.stage("finetune", kind).learning_rate == 1e-4


def test_the_default_captchas_are_the_public_benchmarks(committed):
    captcha = params.load(committed.params).captcha
    assert captcha.alphabet == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert (captcha.length, captcha.width_px, captcha.height_px) == (4, 128, 64)


def test_writing_the_defaults_back_changes_nothing(committed):
    text = committed.params.read_text()
    assert yaml.dump(yaml.parse(text)) == text


def test_every_profile_goes_with_the_defaults(committed):
    for name in profiles.names(committed):
        profiles.merged(committed.params.read_text(), committed, name)


def test_the_search_space_holds_the_defaults(committed):
    """They are the first trial of a study."""
    from captchalab.search.space import Space

    defaults = params.load(committed.params)
    for kind in params.KINDS:
        space = Space.of(defaults, kind)
        assert set(space.present()) == {entry.name for entry in space.entries}, kind


def test_the_lock_of_the_chain_goes_with_the_parameters_it_ran_with(committed):
    """What `keep` holds params.yaml to is what DVC writes: nested sections under dotted keys."""
    from captchalab.results.keep import _value

    lock, content = yaml.read(committed.lock)["stages"], yaml.read(committed.params)
    for key in lock["train@ctc"]["params"]["params.yaml"]:
        assert _value(content, key) is not None, key
