"""Optuna's pages over a real study, as `captchalab dashboard` serves them."""

import json
import re
import sys
from pathlib import Path

import optuna
import pages
import pytest
from click.testing import CliRunner
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial
from selenium.webdriver.common.by import By
from servers import free_port, get, running

from captchalab.cli import main
from captchalab.project import Project
from captchalab.search import study

SPACE = {
    "models.ctc.rnn_size": CategoricalDistribution([64, 96]),
    "train.ctc.learning_rate": FloatDistribution(1e-4, 1e-2),
}


@pytest.fixture
def bare(smoke_text, tmp_path, monkeypatch) -> Project:
    """A project with parameters and nothing else."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    (tmp_path / "params.yaml").write_text(smoke_text)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def make_study(project: Project, name: str) -> None:
    made = optuna.create_study(
        storage=study.open_storage(project, heartbeat_s=20), study_name=name, direction="maximize"
    )
    for size, rate, score in ((64, 1e-3, 0.5), (96, 2e-3, 0.8), (96, 5e-3, 0.7)):
        values = {"models.ctc.rnn_size": size, "train.ctc.learning_rate": rate}
        made.add_trial(create_trial(value=score, params=values, distributions=SPACE, intermediate_values={6000: score}))


def served(project: Project, log: Path, port: int):
    command = [sys.executable, "-m", "captchalab.cli", "dashboard", "--port", port]
    return running(command, log, lambda: get(f"http://127.0.0.1:{port}/api/studies"), cwd=project.root)


def test_the_page_shows_the_study_its_best_value_and_its_plots(bare, tmp_path, has_browser):
    make_study(bare, "captcha-ctc")
    port, log = free_port(), tmp_path / "dashboard.log"
    with served(bare, log, port), pages.browser() as driver:
        [url] = re.findall(r"The studies: (\S+)", log.read_text())
        driver.get(url)

        def shown() -> None:
            said = driver.find_element(By.TAG_NAME, "body").text
            for words in ("captcha-ctc", "0.8", "models.ctc.rnn_size"):
                assert words in said, f"The page does not show {words}: {said[:300]!r}"
            assert driver.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .trace"), "The page draws nothing."

        pages.patiently(shown)


def test_several_studies_are_a_list(bare, tmp_path):
    for name in ("captcha-cnn", "captcha-ctc"):
        make_study(bare, name)
    port, log = free_port(), tmp_path / "dashboard.log"
    with served(bare, log, port):
        assert f"The studies: http://127.0.0.1:{port}/dashboard (" in log.read_text()
        studies = json.loads(get(f"http://127.0.0.1:{port}/api/studies"))["study_summaries"]
    assert {found["study_name"] for found in studies} == {"captcha-cnn", "captcha-ctc"}


def test_where_nothing_was_searched_a_sentence_says_what_to_do(bare):
    done = CliRunner().invoke(main, ["dashboard", "--port", str(free_port())])
    assert done.exit_code == 1
    assert "There is no study yet: `captchalab search run` makes one." in done.output
