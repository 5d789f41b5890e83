"""Promotion, rollback and the list, on a real MLflow store with networks that were exported for real."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import workspace
from click.testing import CliRunner, Result

from captchalab import files, params, yaml
from captchalab.cli import main
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.params import PromoteParams
from captchalab.registry import champion, registry
from captchalab.registry.registry import Registry
from captchalab.tracking import runs
from captchalab.tracking.store import Store

RULES = PromoteParams(min_exact=0.1, max_p=0.05, max_latency_ms=10_000.0)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture
def opened(project) -> Registry:
    path = project.params
    content = yaml.read(path)
    content["promote"] = {"min_exact": 0.1, "max_p": 0.05, "max_latency_ms": 10_000.0}
    path.write_text(yaml.dump(content))
    return Registry(project, Store.of(project))


@pytest.fixture
def promote(opened, untrained):
    """Put a network that reads so many of 200 test captchas into the workspace, and promote it."""

    def act(right: int, **options) -> registry.Outcome:
        workspace.put(opened.project, "cnn", untrained["cnn"], right)
        return opened.promote(RULES, **options)

    return act


def state(opened: Registry) -> tuple:
    return [(v.number, tuple(v.aliases)) for v in opened.versions()], champion.about(opened.project).get("version")


def test_the_first_network_that_passes_the_rules_is_champion(opened, promote):
    version = promote(100).version
    assert (version.number, version.aliases, version.replaces) == (1, ["champion"], None)
    assert {key: version.tags[key] for key in ("exact", "n", "git_sha", "kind")} == {
        "exact": "0.5",
        "n": "200",
        "git_sha": "abc",
        "kind": "cnn",
    }
    assert version.tags["data_digest"] == files.read_json(opened.project.split("test") / "meta.json")["digest"]
    assert version.tags["promoted_at"].startswith("20")
    assert "no champion yet" in version.tags["reason"]


def test_its_description_is_a_model_card(opened, promote):
    promote(100)
    card = opened.client.get_model_version("captcha", "1").description
    for words in ("**Figures.** Exact match 50.00%", "**Data.** Trained on 128 drawn captchas", "**Limits.**"):
        assert words in card


def test_it_is_copied_whole_beside_the_project(opened, promote):
    promote(100)
    onnx = opened.project.onnx("cnn")
    assert champion.network(opened.project).read_bytes() == onnx.read_bytes()
    assert files.read_json(opened.project.champion / "about.json")["version"] == 1


def test_whoever_reads_while_the_champion_changes_finds_one(opened, promote):
    """The folder itself is never away."""
    promote(100)
    before = opened.project.champion.stat().st_ino
    promote(120)
    assert opened.project.champion.stat().st_ino == before
    assert {path.name for path in opened.project.champion.iterdir()} == {"model.onnx", "about.json"}


def test_one_that_is_not_better_changes_nothing(opened, promote):
    promote(100)
    before = state(opened)
    outcome = promote(101)
    assert outcome.version is None
    assert "telling them apart would take about" in outcome.decision.reason
    assert state(opened) == before


def test_one_that_is_better_replaces_it(opened, promote):
    promote(100)
    version = promote(120).version
    assert (version.number, version.replaces, version.aliases) == (2, 1, ["champion"])
    assert version.tags["p"] == f"{0.5**20:.3g}"
    assert state(opened) == ([(2, ("champion",)), (1, ("previous",))], 2)


def test_the_same_network_is_not_promoted_twice_even_by_force(opened, promote):
    promote(100)
    outcome = opened.promote(RULES, force="again")
    assert outcome.version is None and "champion already" in outcome.decision.reason


def test_force_overrides_and_leaves_its_trace(opened, promote):
    promote(100)
    version = promote(20, force="the old one is slow").version
    assert version.aliases == ["champion"]
    assert version.tags["forced"] == "the old one is slow"
    assert "it is not ahead" in version.tags["reason"]


def test_rolling_back_twice_goes_back_two(opened, promote):
    for right in (50, 100, 150):
        promote(right)
    assert [v.number for v in opened.rollback()] == [3, 2]
    assert state(opened) == ([(3, ()), (2, ("champion",)), (1, ("previous",))], 2)
    assert [v.number for v in opened.rollback()] == [2, 1]
    assert state(opened) == ([(3, ()), (2, ()), (1, ("champion",))], 1)
    with pytest.raises(UserError, match="models:/captcha/1 is the first champion and replaced none"):
        opened.rollback()


def test_after_a_rollback_the_next_one_replaces_what_was_gone_back_to(opened, promote):
    for right in (50, 100):
        promote(right)
    opened.rollback()
    assert promote(150).version.replaces == 1


def test_the_workspaces_candidate_is_chosen_by_the_valid_split(opened, untrained):
    workspace.put(opened.project, "cnn", untrained["cnn"], right=150, val_exact=0.6)
    workspace.put(opened.project, "ctc", untrained["ctc"], right=100, val_exact=0.7)
    assert opened.promote(RULES).candidate.kind == "ctc", "though the other reads more of the test split"


def test_a_run_of_the_store_can_be_promoted(opened, promote, untrained):
    first = promote(150).run_id
    promote(20, force="a mistake")
    assert promote(30, run_id=first).version.run_id == first


def test_a_champion_tested_on_another_split_reads_the_present_one(opened, promote, untrained):
    promote(100)
    test = opened.project.split("test")
    captcha = params.load(opened.project.params).captcha
    dataset.generate(captcha, "test", params.SplitParams(images=100), 8, test, workers=1)
    outcome = promote(100)
    assert outcome.champion.digest == outcome.candidate.digest == files.read_json(test / "meta.json")["digest"]
    assert outcome.champion.exact.value < 0.05, "untrained as it is: what it really reads, not what was stored"
    assert outcome.version.number == 2


def test_a_champion_of_other_captchas_is_not_comparable(opened, promote, smoke, database, tmp_path):
    promote(100)
    captcha = smoke.captcha.model_copy(update={"length": 3})
    other = smoke.model_copy(update={"captcha": captcha})
    text = (opened.project.params).read_text().replace("length: 4", "length: 3")
    model = workspace.export_untrained(other, "cnn", workspace.make(tmp_path / "other", text, database))
    shutil.rmtree(opened.project.root / "data")
    shutil.copytree(tmp_path / "other" / "data", opened.project.root / "data")
    workspace.put(opened.project, "cnn", model, 200)
    outcome = opened.promote(RULES)
    assert outcome.version is None
    assert "not comparable with the champion, which reads other captchas: length 3 against 4" in outcome.decision.reason


def test_a_copy_that_a_kill_left_behind_is_mended(opened, promote):
    promote(100)
    shutil.rmtree(opened.project.champion)
    assert run("models").exit_code == 0
    assert champion.about(opened.project)["version"] == 1


def test_a_champion_that_another_host_made_meanwhile_stays(opened, promote, monkeypatch):
    promote(100)
    promote(120)
    create = opened._create_version

    def while_another_host_rolls_back(*words):
        number = create(*words)
        opened.client.set_registered_model_alias("captcha", "champion", "1")
        return number

    monkeypatch.setattr(opened, "_create_version", while_another_host_rolls_back)
    with pytest.raises(UserError, match="Version 1 has become champion meanwhile, nothing was changed"):
        promote(150)
    assert [(v.number, v.aliases) for v in opened.versions()] == [(2, []), (1, ["champion", "previous"])]


def test_two_promotions_at_the_same_moment_leave_one_champion(opened, promote, untrained):
    runs = [promote(right, force="to have a run").run_id for right in (100, 140, 180)][1:]
    for _ in range(2):
        opened.rollback()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "captchalab.cli", "promote", "--run", run_id],
            cwd=opened.project.root,
            stdout=-1,
            text=True,
        )
        for run_id in runs
    ]
    told = [process.communicate()[0] for process in started]
    [now] = [version for version in opened.versions() if "champion" in version.aliases]
    assert now.run_id == runs[1], told  # the better one, whichever came first
    assert sorted(process.returncode for process in started) in ([0, 0], [0, 3])
    assert champion.about(opened.project)["version"] == now.number
    assert now.replaces == 1 or opened.find(str(now.replaces)).replaces == 1


def test_promote_prints_a_table_and_the_decision(opened, untrained):
    workspace.put(opened.project, "cnn", untrained["cnn"], 100)
    done = run("promote")
    assert done.exit_code == 0, done.stderr
    assert "candidate  50.00% (43.14 - 56.86)  200" in done.stdout
    assert "models:/captcha/1 is champion." in done.stdout
    workspace.put(opened.project, "cnn", untrained["cnn"], 90)
    done = run("promote")
    assert done.exit_code == 3
    assert "champion (version 1)  50.00%" in done.stdout
    assert "Not promoted: on 200 captchas it alone reads 0, the champion alone 10" in done.stdout


def test_models_lists_versions_with_aliases_and_figures(opened, promote):
    assert run("models").stdout.startswith("Nothing is registered yet")
    promote(100)
    promote(150)
    lines = run("models").stdout.splitlines()
    assert lines[1].split()[:3] == ["2", "champion", "cnn"] and "75.00% (68.57 - 80.49)" in lines[1]
    assert lines[2].split()[:3] == ["1", "previous", "cnn"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["promote"], "holds no fine-tuned network to promote: run `dvc repro`, or name one with --run."),
        (["promote", "--run", "nonsense"], "nonsense is no run of sqlite:///"),
        (["promote", "--force"], "--force and --reason TEXT go together"),
        (["promote", "--reason", "x"], "--force and --reason TEXT go together"),
        (["rollback"], "The registered model 'captcha' has no champion yet: make one with `captchalab promote`."),
        (["serve", "--port", "6001"], "The registered model 'captcha' has no champion yet"),
        (["predict", "a.png"], "mlruns/champion holds no champion yet: promote one with `captchalab promote`"),
        (["predict", "a.png", "--model", "models:/captcha/3"], "nothing is registered yet"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(opened, words, sentence):
    done = run(*words)
    assert done.exit_code == 1
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert opened.versions() == []


@pytest.mark.parametrize("name", ["models:/captcha/3", "models:/captcha@best"])
def test_an_unknown_version_or_alias_says_which_there_are(opened, promote, name):
    promote(100)
    done = run("predict", "a.png", "--model", name)
    assert done.exit_code == 1
    assert f"{name} is no version or alias of the registered model 'captcha': there are 1, @champion." in done.stderr


def test_a_run_without_a_model_cannot_be_promoted(opened, promote):
    promote(100)
    trained = runs.sync(opened.project.stage("cnn", "train"), opened.store)
    with pytest.raises(UserError, match="has no model: name a fine-tune run that was tested"):
        opened.promote(RULES, run_id=trained)


def test_a_version_whose_file_is_gone_moves_nothing(opened, promote):
    promote(50)
    promote(100)
    location = opened.client.get_logged_model(opened.find("1").model_id).artifact_location
    shutil.rmtree(Path(location.removeprefix("file://")))
    before = state(opened)
    with pytest.raises(UserError, match="models:/captcha/1 has no artifacts/model.onnx any more"):
        opened.rollback()
    assert state(opened) == before


def test_another_mlflows_database_is_told_how_to_go_on(project):
    import sqlite3

    database = sqlite3.connect(project.mlruns / "mlflow.db")
    database.execute("UPDATE alembic_version SET version_num = '728d730b5ebd'")
    database.commit()
    done = run("models")
    assert done.exit_code == 1
    assert (
        "was made by another version of MLflow: if that was an older one, copy it and run `.venv/bin/mlflow db"
        in done.stderr
    )


def test_predict_reads_with_the_champion_and_with_any_version(opened, promote):
    promote(50)
    promote(100)
    run("draw", "AB12")
    for name in ("champion", "cnn", "models:/captcha/1", "models:/captcha@champion"):
        done = run("predict", "AB12.png", "--model", name, "--json")
        assert done.exit_code == 0, done.stderr
        assert '"characters"' in done.stdout
