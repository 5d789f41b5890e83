import subprocess
from pathlib import Path

import pytest

from captchalab import params, profiles
from captchalab.errors import UserError
from captchalab.project import Project


@pytest.fixture
def project(root, tmp_path) -> Path:
    """params.yaml and profiles/ in a git repository of their own."""
    (tmp_path / "profiles").mkdir()
    for name in ("params.yaml", *(f"profiles/{name}.yaml" for name in profiles.names(Project(root)))):
        (tmp_path / name).write_text((root / name).read_text())
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def leaves(section: dict, path: str = "") -> set[str]:
    found = set()
    for key, value in section.items():
        found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}"}
    return found


def test_default_is_the_committed_params(root):
    text = (root / "params.yaml").read_text()
    assert profiles.merged(text, Project(root), "default") == text


def test_default_takes_back_every_key_another_profile_sets(root):
    default = leaves(params.read(root / "profiles" / "default.yaml"))
    for name in profiles.names(Project(root)):
        assert leaves(params.read(root / "profiles" / f"{name}.yaml")) <= default


def test_the_reference_profile_is_the_public_recipe(root):
    text = profiles.merged((root / "params.yaml").read_text(), Project(root), "reference")
    reference = params.check(params.parse(text))
    for kind, patience in (("cnn", 3), ("ctc", 5)):
        train, finetune = reference.stage("train", kind), reference.stage("finetune", kind)
        assert (train.learning_rate, finetune.learning_rate) == (1e-3, 1e-4)
        for stage in (train, finetune):
            assert (stage.optimizer, stage.amsgrad, stage.schedule) == ("adam", True, "constant")
            assert (stage.batch_size, stage.steps_per_epoch, stage.epochs) == (128, 1000, 100)
            assert (stage.patience_epochs, stage.best_by, stage.source) == (patience, "loss", "stream")
    assert reference.captcha.channels == 3
    assert reference.splits.valid.images == reference.splits.test.images == 12800


def test_a_profile_shows_its_diff_keeps_comments_and_goes_back(project):
    before = (project / "params.yaml").read_text()
    diff = profiles.apply(Project(project), "reference")
    after = (project / "params.yaml").read_text()
    assert "-  channels: 1" in diff and "+  channels: 3" in diff
    assert after.count("#") == before.count("#")
    profiles.apply(Project(project), "default")
    assert (project / "params.yaml").read_text() == before


def test_one_profile_after_another_leaves_nothing_of_the_first(project):
    profiles.apply(Project(project), "smoke")
    profiles.apply(Project(project), "reference")
    once = (project / "params.yaml").read_text()
    profiles.apply(Project(project), "default")
    profiles.apply(Project(project), "reference")
    assert (project / "params.yaml").read_text() == once


def test_the_same_profile_twice_changes_nothing(project):
    profiles.apply(Project(project), "smoke")
    assert profiles.apply(Project(project), "smoke") == ""


def test_changes_that_are_not_committed_are_not_overwritten(project):
    path = project / "params.yaml"
    mine = path.read_text().replace("rnn_size: 128", "rnn_size: 99")
    path.write_text(mine)
    with pytest.raises(UserError, match=r"changes that are not committed.*git checkout params.yaml"):
        profiles.apply(Project(project), "smoke")
    assert path.read_text() == mine


def test_an_unknown_profile_names_the_known_ones(project):
    with pytest.raises(UserError, match="There is no profile 'smok': take one of default, reference, smoke"):
        profiles.apply(Project(project), "smok")


def test_without_git_a_profile_is_refused(project):
    subprocess.run(["rm", "-rf", ".git"], cwd=project, check=True)
    with pytest.raises(UserError, match="git does not know a committed params.yaml"):
        profiles.apply(Project(project), "smoke")
