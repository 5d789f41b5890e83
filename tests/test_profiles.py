"""Profiles over a user's own params.yaml, in a git repository of its own."""

import subprocess

import pytest

from captchalab import params, profiles, yaml
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.yaml import leaves

COLOUR = "captcha: {channels: 3}\ntrain: {cnn: {learning_rate: 2e-3}}\n"
LARGE = "models: {ctc: {rnn_size: 256, filters: [64, 128]}}\ntrain: {cnn: {learning_rate: 3e-3}}\n"


def git(project: Project, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=project.root, check=True)


def edit(project: Project, old: str, new: str) -> str:
    """Change params.yaml by hand; its text."""
    text = project.params.read_text().replace(old, new)
    assert new in text
    project.params.write_text(text)
    return text


@pytest.fixture
def project(smoke_text, tmp_path) -> Project:
    """params.yaml and two profiles, committed."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").write_text(smoke_text)
    (tmp_path / "profiles" / "colour.yaml").write_text(COLOUR)
    (tmp_path / "profiles" / "large.yaml").write_text(LARGE)
    project = Project(tmp_path)
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "x")
    return project


def test_a_profile_shows_its_diff_and_keeps_comments(project):
    before = project.params.read_text()
    diff = profiles.apply(project, "colour")
    assert "-  channels: 1\n+  channels: 3\n" in diff
    assert project.params.read_text().count("#") == before.count("#")


def test_a_profile_touches_its_own_keys_and_no_others(project):
    edit(project, "length: 4", "length: 5")
    edit(project, "width_px: 128", "width_px: 170")
    before = leaves(yaml.read(project.params))
    profiles.apply(project, "colour")
    after = leaves(yaml.read(project.params))
    changed = {key for key in before if after[key] != before[key]}
    assert changed == {"captcha.channels", "train.cnn.learning_rate"}


def test_profiles_add_up(project):
    profiles.apply(project, "colour")
    profiles.apply(project, "large")
    found = params.load(project.params)
    assert (found.captcha.channels, found.models.ctc.rnn_size, found.train.cnn.learning_rate) == (3, 256, 3e-3)


def test_the_same_profile_twice_changes_nothing(project):
    profiles.apply(project, "colour")
    assert profiles.apply(project, "colour") == ""


def test_back_is_the_committed_params(project):
    edit(project, "length: 4", "length: 5")
    git(project, "commit", "-qam", "my own captchas")
    committed = project.params.read_text()
    profiles.apply(project, "colour")
    profiles.apply(project, "large")
    assert "-  channels: 3\n+  channels: 1\n" in profiles.back(project)
    assert project.params.read_text() == committed
    assert profiles.back(project) == ""


def test_weights_are_one_value_replaced_as_a_whole(project):
    for name, weights in (("zero", '{"0": 4, "O": 4}'), ("one", '{"1": 2}'), ("none", "{}")):
        (project.profiles / f"{name}.yaml").write_text(f"splits: {{train: {{weights: {weights}}}}}\n")
    before = project.params.read_text()
    profiles.apply(project, "zero")
    assert params.load(project.params).splits.train.weights == {"0": 4, "O": 4}
    profiles.apply(project, "one")
    assert params.load(project.params).splits.train.weights == {"1": 2}
    profiles.apply(project, "none")
    assert project.params.read_text() == before


def test_a_value_that_is_not_committed_is_not_overwritten(project):
    mine = edit(project, "rnn_size: 8 ", "rnn_size: 99")
    with pytest.raises(UserError, match=r"overwrite models\.ctc\.rnn_size = 99, which is not committed: commit"):
        profiles.apply(project, "large")
    assert project.params.read_text() == mine


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("length: 4", "length: 5", r"captcha\.length = 5"),
        ("length: 4", "length: 4  # as the others have it", "comments"),
    ],
)
def test_back_loses_nothing_that_is_not_committed(project, old, new, lost):
    mine = edit(project, old, new)
    with pytest.raises(UserError, match=f"params.yaml has {lost}, which is not committed: commit it first"):
        profiles.back(project)
    assert project.params.read_text() == mine


def test_an_unknown_profile_names_the_known_ones(project):
    with pytest.raises(
        UserError, match="no profile 'large-ish': take one of colour, large; `captchalab profile --back`"
    ):
        profiles.apply(project, "large-ish")


def test_what_does_not_go_together_is_said_and_not_written(project):
    before = edit(project, "length: 4", "length: 5")
    (project.profiles / "narrow.yaml").write_text("models: {ctc: {pools: [[2, 4], [2, 4]]}}\n")
    with pytest.raises(UserError, match=r"profiles/narrow.yaml over it: models.ctc.pools = .* leaves T = 4 time steps"):
        profiles.apply(project, "narrow")
    assert project.params.read_text() == before


def test_without_git_a_profile_is_refused(project):
    subprocess.run(["rm", "-rf", ".git"], cwd=project.root, check=True)
    with pytest.raises(UserError, match="git does not know a committed params.yaml"):
        profiles.apply(project, "colour")


def test_without_git_nothing_is_copied_and_a_sentence_says_why(project, tmp_path):
    subprocess.run(["rm", "-rf", ".git"], cwd=project.root, check=True)
    with pytest.raises(UserError, match=r"cannot be copied \(fatal: not a git repository.*git lists the files"):
        profiles.copy_project(project.root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# The project's own profiles


@pytest.mark.parametrize(
    "captcha",
    [
        '{alphabet: "abcdefghijklmnopqrstuvwxyz", length: 5, width_px: 170, height_px: 80}',
        '{alphabet: "0123456789", length: 2, width_px: 32, height_px: 16, channels: 3}',
        '{alphabet: "AB", length: 20, width_px: 400, height_px: 50}',
    ],
)
@pytest.mark.parametrize("below", [None, "reference"])
def test_smoke_fits_other_captchas_and_recipes_and_keeps_them(root, smoke_text, captcha, below):
    project, content = Project(root), yaml.parse(smoke_text)
    yaml.merge(content, yaml.parse(f"captcha: {captcha}\nsplits: {{train: {{images: 5}}}}"))
    text = yaml.dump(content)
    if below and params.check(content).captcha.height_px >= 50:  # the reference's networks pool 32 rows into one
        text = profiles.merged(text, project, below)
    before, after = yaml.parse(text), yaml.parse(profiles.merged(text, project, "smoke"))
    kept = leaves(before).keys() - leaves(profiles.overlay(project, "smoke")).keys()
    assert {key: leaves(after)[key] for key in kept} == {key: leaves(before)[key] for key in kept}
    assert after["captcha"] == before["captcha"]


def test_smoke_names_the_captcha_that_its_networks_cannot_read(root, smoke_text):
    content = yaml.parse(smoke_text)
    yaml.merge(content, yaml.parse("captcha: {length: 8, width_px: 32}\nmodels: {ctc: {pools: [[2, 1], [2, 1]]}}"))
    sentence = (
        r"profiles/smoke.yaml over it: models.ctc.pools = .* leaves T = 8 time steps, too few for captcha.length = 8"
    )
    with pytest.raises(UserError, match=sentence):
        profiles.merged(yaml.dump(content), Project(root), "smoke")


def test_the_reference_profile_is_the_public_recipe(root, smoke_text):
    reference = params.check(yaml.parse(profiles.merged(smoke_text, Project(root), "reference")))
    for kind, patience in (("cnn", 3), ("ctc", 5)):
        train, finetune = reference.stage("train", kind), reference.stage("finetune", kind)
        assert (train.learning_rate, finetune.learning_rate) == (1e-3, 1e-4)
        for stage in (train, finetune):
            assert (stage.optimizer, stage.amsgrad, stage.schedule) == ("adam", True, "constant")
            assert (stage.batch_size, stage.steps_per_epoch, stage.epochs) == (128, 1000, 100)
            assert (stage.patience_epochs, stage.best_by, stage.source) == (patience, "loss", "stream")
    assert reference.captcha.channels == 3
    assert not reference.splits.train.weights, "texts drawn uniformly"
    assert reference.splits.valid.images == reference.splits.test.images == 12800


def test_what_will_run_is_said_in_a_line(smoke):
    captcha = smoke.captcha.model_copy(update={"alphabet": "abc", "length": 5, "width_px": 170, "height_px": 80})
    assert profiles.describe(captcha) == "captchas of 5 characters out of 'abc' (3), 170 x 80 px, grey"
