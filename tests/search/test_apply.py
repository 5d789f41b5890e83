"""The best trial into params.yaml."""

import re

import optuna
import pytest
from optuna.trial import TrialState

from captchalab import params, yaml
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.search import apply, study
from captchalab.search.space import Space


@pytest.fixture
def project(smoke_text, tmp_path, monkeypatch) -> Project:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    (tmp_path / "params.yaml").write_text(smoke_text)
    return Project(tmp_path)


@pytest.fixture
def searched(project):
    """A function: a study of a kind with trials that ended with these scores."""

    def make(kind: str, **scores: float) -> optuna.Study:
        space = Space.of(params.load(project.params), kind)
        opened = study.open_study(study.open_storage(project, 1), f"captcha-{kind}", space, {})
        for number, (rate, score) in enumerate(scores.items()):
            trial = opened.ask()
            space.suggest(trial)
            values = space.values(space.present())
            if number:
                values |= {f"train.{kind}.learning_rate": float(rate.replace("_", "-")[1:])}
            for key, value in {"values": values, "parameters": 1234, "seconds": 5.0, "images_seen": 512}.items():
                trial.set_user_attr(key, value)
            opened.tell(trial, score)
        return opened

    return make


def test_the_best_stands_beside_the_present(project, searched):
    shown = apply.table(params.load(project.params), searched("ctc", r0=0.5, r2e_3=0.75, r7e_4=0.6))
    assert "captcha-ctc: 3 trials" in shown
    rows = [re.split(r"  +", line.strip()) for line in shown.splitlines()]
    assert ["present", "trial 1"] in rows
    assert ["train.ctc.learning_rate", "0.001", "0.002"] in rows
    assert ["val exact of the trial", "50.00%", "75.00%"] in rows


def test_the_best_is_written_with_comments_kept_and_shown_as_a_diff(project, searched):
    before = project.params.read_text()
    diff = apply.apply(project, searched("ctc", r0=0.5, r2e_3=0.75))
    after = project.params.read_text()
    assert "-    learning_rate: 1e-3\n+    learning_rate: 0.002" in diff
    assert params.load(project.params).train.ctc.learning_rate == 0.002
    assert after.count("#") == before.count("#")
    old, new = (yaml.leaves(yaml.parse(text)) for text in (before, after))
    assert [key for key in old if old[key] != new[key]] == ["train.ctc.learning_rate"]


def test_study_and_trial_are_tagged(project, searched):
    opened = searched("ctc", r0=0.5, r2e_3=0.75)
    apply.apply(project, opened)
    [tag] = opened.user_attrs[apply.APPLIED]
    assert (tag["trial"], tag["score"]) == (1, 0.75)


def test_applied_twice_changes_nothing_more(project, searched):
    opened = searched("ctc", r0=0.5, r2e_3=0.75)
    apply.apply(project, opened)
    assert apply.apply(project, opened) == ""


def test_a_new_batch_size_keeps_the_images_of_an_epoch(project, searched):
    opened = searched("cnn", r0=0.5)
    trial = opened.ask()
    trial.set_user_attr("values", {"train.cnn.batch_size": 8})
    opened.tell(trial, 0.9)
    apply.apply(project, opened)
    stage = params.load(project.params).train.cnn
    assert (stage.batch_size, stage.steps_per_epoch) == (8, 16)


def test_without_a_trial_that_ran_to_its_end_nothing_is_written(project, searched):
    before = project.params.read_text()
    opened = searched("ctc")
    opened.tell(opened.ask(), state=TrialState.FAIL)
    for attempt in (lambda: apply.apply(project, opened), lambda: apply.table(params.load(project.params), opened)):
        with pytest.raises(UserError, match="'captcha-ctc' has no trial that ran to its end"):
            attempt()
    assert project.params.read_text() == before


def test_a_study_of_other_captchas_is_not_applied(project, searched):
    opened = searched("ctc", r0=0.5)
    before = project.params.read_text().replace("length: 4", "length: 3")
    project.params.write_text(before)
    with pytest.raises(UserError, match="searched for other captchas"):
        apply.apply(project, opened)
    assert project.params.read_text() == before
