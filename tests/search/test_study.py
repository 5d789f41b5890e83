"""Studies on sqlite: what is written into a new one, what is refused, what is sampled and what is pruned."""

import optuna
import pytest

from captchalab import params, yaml
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.search import study
from captchalab.search.space import Space
from captchalab.search.study import Options

DATA = {"train": "abc", "valid": "def"}
CTC = Options("ctc", "captcha-ctc", 10)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    return Project(tmp_path)


@pytest.fixture
def storage(project):
    return study.open_storage(project, heartbeat_s=1)


def space(text: str, overlay: str = "{}", kind: str = "ctc") -> Space:
    content = yaml.parse(text)
    yaml.merge(content, yaml.parse(overlay))
    return Space.of(params.check(content), kind)


def test_the_present_parameters_are_the_first_trial_and_only_once(storage, smoke_text):
    found = space(smoke_text)
    for _ in range(2):
        opened = study.open_study(storage, "captcha-ctc", found, DATA)
    [waiting] = opened.trials
    assert waiting.state == optuna.trial.TrialState.WAITING
    values = found.suggest(opened.ask())
    assert values["models.ctc.rnn_size"] == 8 and values["train.ctc.learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("overlay", "data", "difference"),
    [
        (
            "search: {space: {ctc: {models.ctc.rnn_size: {choices: [8]}}}}",
            DATA,
            r"another space \(search.space.ctc.models.ct",
        ),
        ("search: {images: 1024}", DATA, "search.images = 512, and it is 1024 now"),
        ("captcha: {length: 3}", DATA, "captcha.length = 4, and it is 3 now"),
        ("models: {ctc: {dropout: 0.5}}", DATA, "models.ctc.dropout = 0.0, and it is 0.5 now"),
        ("seed: 7", DATA, r"another seed \(2019, and 7 now\)"),
        ("{}", {**DATA, "valid": "xyz"}, "other captchas .the digest of its valid split differs"),
    ],
)
def test_a_study_made_with_other_things_is_refused_with_the_way_out(storage, smoke_text, overlay, data, difference):
    study.open_study(storage, "captcha-ctc", space(smoke_text), DATA)
    other = space(smoke_text, overlay)
    with pytest.raises(UserError, match=rf"'captcha-ctc' was made with {difference}.*--study NAME"):
        study.open_study(storage, "captcha-ctc", other, data)
    study.open_study(storage, "another", other, data)


def test_more_trials_are_no_other_study(storage, smoke_text):
    study.open_study(storage, "captcha-ctc", space(smoke_text), DATA)
    study.open_study(storage, "captcha-ctc", space(smoke_text, "search: {trials: 99, patience_trials: 9}"), DATA)


def test_without_a_study_there_is_nothing_to_show(storage):
    with pytest.raises(UserError, match=r"captcha-ctc \(there is none yet\): `captchalab search run`"):
        study.existing(storage)


@pytest.mark.parametrize("address", ["postgresql://me:secret@127.0.0.1:9/studies", "nonsense", "sqlite:////none/x.db"])
def test_a_storage_that_cannot_be_reached_is_one_sentence_without_a_password(project, monkeypatch, address):
    monkeypatch.setenv("OPTUNA_STORAGE", address)
    with pytest.raises(UserError, match="cannot be reached") as raised:
        study.open_storage(project, 1)
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_mlflows_own_database_is_refused(project, monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{project.mlruns / 'mlflow.db'}")
    with pytest.raises(UserError, match="give studies a database of their own"):
        study.open_storage(project, 1)


def test_a_search_that_goes_on_proposes_other_points(smoke, smoke_text):
    """The sampler's seed counts the trials: with one seed every run of a search would begin with the same ones."""
    found = space(smoke_text)
    proposed = []
    for number in (0, 0, 1):
        opened = optuna.create_study(sampler=study.sampler(CTC, smoke.search, smoke.seed + number))
        proposed.append(found.suggest(opened.ask()))
    assert proposed[0] == proposed[1] != proposed[2]


# val exact of CTC after each eighth of a trial: nothing on the plateau, then a steep rise
EARLY = [0.0, 0.02, 0.30, 0.55, 0.70, 0.80, 0.85, 0.87]
USUAL = [0.0, 0.0, 0.05, 0.40, 0.60, 0.75, 0.82, 0.84]
LATE = [0.0, 0.0, 0.0, 0.0, 0.50, 0.80, 0.88, 0.90]  # the best of all
NEVER = [0.0] * 8
WEAK = [0.0, 0.01, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30]


def reports_until_pruned(curve: list[float], warmup_images: int, pruning: bool = True) -> int:
    """After how many reports a trial ends that follows five usual ones."""
    rules = params.PrunerParams(
        percentile=50,
        startup_trials=5,
        min_trials=4,
        warmup_images=params.WarmupParams(cnn=0, ctc=warmup_images),
    )
    budget = params.SearchParams.model_construct(pruner=rules)
    opened = optuna.create_study(direction="maximize", pruner=study.pruner(CTC._replace(pruning=pruning), budget))
    for before in (EARLY, USUAL, USUAL, EARLY, USUAL):
        trial = opened.ask()
        for i, score in enumerate(before, 1):
            trial.report(score, 6000 * i)
        opened.tell(trial, before[-1])
    trial, best = opened.ask(), 0.0
    for i, score in enumerate(curve, 1):
        best = max(best, score)
        trial.report(best, 6000 * i)
        if trial.should_prune():
            return i
    return len(curve)


def test_a_late_start_is_let_pass_by_the_warm_up():
    assert reports_until_pruned(LATE, warmup_images=0) == 3, "what the warm-up is for"
    assert reports_until_pruned(LATE, warmup_images=36000) == 8


@pytest.mark.parametrize("curve", [NEVER, WEAK])
def test_after_the_warm_up_what_is_behind_ends(curve):
    assert reports_until_pruned(curve, warmup_images=30000) == 5


def test_what_keeps_up_runs_to_its_end():
    assert reports_until_pruned(EARLY, warmup_images=0) == 8


def test_without_pruning_every_trial_runs_to_its_end():
    assert reports_until_pruned(NEVER, warmup_images=0, pruning=False) == 8


def test_reports_of_all_trials_lie_on_the_same_steps(smoke_text):
    """Batches of 24 do not divide 6,000 images; the pruner compares only equal steps."""
    found = space(smoke_text, "search: {images: 48000, reports: 8}")
    assert [study.step(found, images) for images in (6000, 5999, 12008, 47990)] == [6000, 6000, 12000, 48000]
