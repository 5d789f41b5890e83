"""Promotion, rollback and the list, on a real MLflow store with networks that predict for real."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import guesser
import pytest
import workspace
from click.testing import CliRunner, Result
from filelock import FileLock

from captchalab import files, processes
from captchalab.cli import main
from captchalab.errors import UserError
from captchalab.params import PromoteParams
from captchalab.reading import predictor
from captchalab.registry import champion, gate, promotion, registry
from captchalab.registry.registry import Registry
from captchalab.tracking import runs

RULES = PromoteParams(min_exact=0.05, max_p=0.05, images=400, max_latency_ms=10_000.0)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture
def promote(opened, guesses):
    """Put a network that answers this share of all captchas into the workspace, and promote it.

    It is right on half of the captchas it answers; whoever answers more is right on all that one who answers less is.
    """

    def act(answers: float, rules: PromoteParams = RULES, **options) -> promotion.Outcome:
        workspace.put(opened.project, "ctc", guesses(answers), 100)
        return promotion.promote(opened, rules, workers=1, **options)

    return act


def state(opened: Registry) -> tuple:
    return [(v.number, tuple(v.aliases)) for v in opened.versions()], champion.about(opened.project).get("version")


def attempts(opened: Registry) -> tuple[int, list[int]]:
    """All attempts, and those against each version, newest first."""
    model = opened.client.get_registered_model("captcha")
    return int(model.tags["attempts"]), [int(v.tags.get("attempts", 0)) for v in opened.versions()]


def test_the_first_network_that_passes_the_rules_is_champion(opened, promote):
    version = promote(0.8).version
    assert (version.number, version.aliases, version.replaces) == (1, ["champion"], None)
    assert {key: version.tags[key] for key in ("exact", "n", "git_sha", "kind")} == {
        "exact": "0.5",  # on the test split, as it was evaluated
        "n": "200",
        "git_sha": "abc",
        "kind": "ctc",
    }
    assert version.tags["data_digest"] == files.read_json(opened.project.split("test") / "meta.json")["digest"]
    assert version.tags["promoted_at"].startswith("20")
    assert "no champion yet, and it predicts" in version.tags["reason"]


def test_the_first_network_must_reach_min_exact_on_fresh_captchas(opened, promote):
    """Whatever its test metrics are."""
    outcome = promote(0.8, RULES.model_copy(update={"min_exact": 0.6}))
    assert outcome.version is None
    assert "of 400 fresh captchas, below promote.min_exact = 60.00%" in outcome.decision.reason


def test_a_version_says_which_captchas_it_was_promoted_on(opened, promote, captcha, guesses):
    promote(0.2)
    outcome = promote(0.8)
    tags = outcome.version.tags
    assert (tags["gate_attempt"], tags["gate_n"]) == ("2", "400")
    network = opened.project.onnx("ctc")
    attempt = gate.Attempt(2, int(tags["gate_seed"]), 1, 400)
    again = gate.predict([predictor.load(network)], attempt, workers=1)
    assert again.digest == tags["gate_digest"]
    assert tags["gate_exact"] == f"{again.right[0].mean():.6g}"
    assert (tags["max_p"], float(tags["p"]) < 1e-6) == ("0.025", True)


def test_each_attempt_has_captchas_of_its_own(opened, promote):
    digests = [promote(answers).version.tags["gate_digest"] for answers in (0.2, 0.8)]
    forced = promote(0.1, force="to compare").version.tags["gate_digest"]
    assert len({*digests, forced}) == 3


def test_another_registry_has_other_captchas(opened, promote, tmp_path, monkeypatch, database):
    """An attempt in a store of one's own is no rehearsal for the same attempt in the team's."""
    mine = promote(0.2).version.tags
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(database, tmp_path / 'team.db')}")
    team = Registry(opened.project, registry.Store.of(opened.project))
    theirs = promotion.promote(team, RULES, workers=1).version.tags
    assert mine["gate_attempt"] == theirs["gate_attempt"] == "1"
    assert mine["gate_digest"] != theirs["gate_digest"]


def test_attempts_count_from_the_moment_they_begin(opened, promote, monkeypatch):
    """A kill, or an error, gives no free try."""
    promote(0.2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gate, "predict", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(0.8)
    assert attempts(opened) == (2, [1])
    assert promote(0.8).attempt == gate.Attempt(
        3, opened.client.get_registered_model("captcha").creation_timestamp, 2, 400
    )


def test_attempts_are_counted_against_the_champion_they_were_made_against(opened, promote):
    promote(0.4)
    promote(0.2)
    promote(0.8)
    promote(0.6)
    assert attempts(opened) == (4, [1, 2])
    opened.rollback()
    promote(0.2)
    assert attempts(opened) == (5, [1, 3]), "a rollback forgives nothing"


def test_a_lead_that_is_enough_at_first_is_not_after_a_million_attempts(opened, promote):
    promote(0.5)
    opened.client.set_model_version_tag("captcha", "1", "attempts", "999999")
    outcome = promote(0.6)
    assert outcome.version is None
    assert "attempt 1000000 against this champion needs 5e-14 or less" in outcome.decision.reason
    assert f"would take about {outcome.decision.images_to_tell:,} captchas." in outcome.decision.reason


def test_the_command_that_draws_more_names_the_same_run(opened, promote):
    promote(0.5)
    opened.client.set_model_version_tag("captcha", "1", "attempts", "999999")
    run_id = promote(0.6).run_id
    of_the_workspace, of_a_run = run("promote"), run("promote", "--run", run_id)
    assert (of_the_workspace.exit_code, of_a_run.exit_code) == (3, 3)
    assert re.search(r"^`captchalab promote --images \d+` draws as many\.$", of_the_workspace.stdout, re.M)
    assert re.search(rf"^`captchalab promote --run {run_id} --images \d+` draws as many\.$", of_a_run.stdout, re.M)


def test_what_is_refused_without_a_captcha_is_no_attempt(opened, promote):
    promote(0.4)
    again = promotion.promote(opened, RULES)
    slow = promote(0.8, RULES.model_copy(update={"max_latency_ms": 1e-6}))
    assert (again.attempt, slow.attempt) == (None, None)
    assert "ms per image, above promote.max_latency_ms" in slow.decision.reason
    assert attempts(opened) == (1, [0])


def test_its_description_is_a_model_card_with_its_test_metrics(opened, promote):
    promote(0.8)
    card = opened.client.get_model_version("captcha", "1").description
    for words in (
        "**Metrics.** Exact match 50.00% (95 % interval 43.14% - 56.86%) on 200 test",
        "**Data.** Trained on 128 drawn captchas",
        "**Limits.**",
    ):
        assert words in card


def test_it_is_copied_beside_the_project(opened, promote):
    promote(0.8)
    onnx = opened.project.onnx("ctc")
    assert champion.network(opened.project).read_bytes() == onnx.read_bytes()
    assert files.read_json(opened.project.champion / "about.json")["version"] == 1


def test_whoever_reads_while_the_champion_changes_finds_one(opened, promote):
    """The folder itself always exists."""
    promote(0.4)
    before = opened.project.champion.stat().st_ino
    promote(0.8)
    assert opened.project.champion.stat().st_ino == before
    assert {path.name for path in opened.project.champion.iterdir()} == {"model.onnx", "about.json"}


def test_one_that_is_not_better_changes_nothing(opened, promote):
    promote(0.6)
    before = state(opened)
    outcome = promote(0.4)
    assert outcome.version is None
    assert "the candidate is not ahead" in outcome.decision.reason
    assert state(opened) == before


def test_one_that_is_better_replaces_it(opened, promote):
    promote(0.2)
    version = promote(0.8).version
    assert (version.number, version.replaces, version.aliases) == (2, 1, ["champion"])
    assert state(opened) == ([(2, ("champion",)), (1, ("previous",))], 2)


def test_the_same_network_is_not_promoted_twice_even_by_force(opened, promote):
    promote(0.4)
    outcome = promotion.promote(opened, RULES, force="again")
    assert outcome.version is None and "champion already" in outcome.decision.reason


def test_force_overrides_and_leaves_its_trace(opened, promote):
    promote(0.8)
    version = promote(0.2, force="the old one is slow").version
    assert version.aliases == ["champion"]
    assert version.tags["forced"] == "the old one is slow"
    assert "the candidate is not ahead" in version.tags["reason"]


def test_rolling_back_twice_goes_back_two(opened, promote):
    for answers in (0.2, 0.5, 0.8):
        promote(answers)
    assert [v.number for v in opened.rollback()] == [3, 2]
    assert state(opened) == ([(3, ()), (2, ("champion",)), (1, ("previous",))], 2)
    assert [v.number for v in opened.rollback()] == [2, 1]
    assert state(opened) == ([(3, ()), (2, ()), (1, ("champion",))], 1)
    with pytest.raises(UserError, match="models:/captcha/1 is the first champion and replaced none"):
        opened.rollback()


def test_after_a_rollback_the_next_one_replaces_what_was_gone_back_to(opened, promote):
    for answers in (0.2, 0.5):
        promote(answers)
    opened.rollback()
    assert promote(0.8).version.replaces == 1


def test_the_workspaces_candidate_is_chosen_by_the_valid_split(opened, guesses):
    workspace.put(opened.project, "cnn", guesses(0.8), right=150, val_exact=0.6)
    workspace.put(opened.project, "ctc", guesses(0.5), right=100, val_exact=0.7)
    run_id = promotion.promote(opened, RULES, workers=1).run_id
    kind = opened.client.get_run(run_id).data.tags["kind"]
    assert kind == "ctc", "though the other is right on more of the test split and of the fresh captchas"


def test_a_run_of_the_store_can_be_promoted(opened, promote):
    first = promote(0.8).run_id
    promote(0.2, force="a mistake")
    assert promote(0.3, run_id=first).version.run_id == first


def test_a_champion_is_compared_whatever_test_split_it_was_evaluated_on(opened, promote):
    promote(0.2)
    meta = opened.project.split("test") / "meta.json"
    files.write_json(meta, {**files.read_json(meta), "digest": "of another test split"})
    outcome = promote(0.8)
    assert outcome.version.number == 2
    assert [v.tags["data_digest"] == "of another test split" for v in opened.versions()] == [True, False]


def test_a_champion_of_other_captchas_is_not_comparable(opened, promote, captcha, tmp_path):
    promote(0.2)
    other = guesser.make(tmp_path / "other", captcha.model_copy(update={"alphabet": "ABC"}), 0.8)
    workspace.put(opened.project, "ctc", other, 200)
    outcome = promotion.promote(opened, RULES, workers=1)
    assert outcome.version is None and outcome.attempt is None
    assert (
        "not comparable with the champion, which reads other captchas: alphabet 'ABC' against 'AB'"
        in outcome.decision.reason
    )
    forced = promotion.promote(opened, RULES, force="three letters now", workers=1)
    assert forced.version.tags["gate_n"] == "400" and len(forced.champion.right) == 0


@pytest.mark.parametrize("verb", ["models", "pull-champion"])
@pytest.mark.parametrize("damage", ["removed", "altered", "cut short"])
def test_a_copy_that_is_not_the_champion_is_replaced(opened, promote, verb, damage):
    promote(0.4)
    path = opened.project.champion / "model.onnx"
    good = path.read_bytes()
    if damage == "removed":
        shutil.rmtree(opened.project.champion)
    else:
        path.write_bytes(good + b"x" if damage == "altered" else good[:100])
    assert run(verb).exit_code == 0
    assert path.read_bytes() == good
    assert champion.about(opened.project)["version"] == 1


def test_a_damaged_copy_is_one_sentence(opened, promote):
    promote(0.4)
    (opened.project.champion / "model.onnx").write_bytes(b"half a netw")
    done = run("predict", "A.png")
    assert done.exit_code == 1
    assert "champion/model.onnx is damaged: replace it with `captchalab pull-champion`." in done.stderr


def test_the_copy_is_behind_until_it_is_pulled(opened, promote):
    """Another machine has moved the alias; `predict` asks nobody, and says which version it uses."""
    promote(0.2)
    promote(0.8)
    run("draw", "A")
    opened.client.set_registered_model_alias("captcha", "champion", "1")
    assert "captchalab: champion is models:/captcha/2.\n" in run("predict", "A.png").stderr
    done = run("pull-champion")
    assert done.exit_code == 0, done.stderr
    assert "champion is now models:/captcha/1, test exact match 50.00% (43.14 - 56.86)." in done.stdout
    assert "captchalab: champion is models:/captcha/1.\n" in run("predict", "A.png").stderr
    assert "champion is already models:/captcha/1" in run("pull-champion").stdout


def test_a_copy_cut_short_between_its_two_files_claims_no_version(opened, promote):
    promote(0.2)
    older = (opened.project.champion / "about.json").read_bytes()
    promote(0.8)
    (opened.project.champion / "about.json").write_bytes(older)
    run("draw", "A")
    assert "models:/captcha@champion (of an unknown version: " in run("predict", "A.png").stderr
    run("pull-champion")
    assert "captchalab: champion is models:/captcha/2." in run("predict", "A.png").stderr


def test_the_copy_is_written_under_the_lock_and_waiting_for_it_says_so(opened, promote, monkeypatch):
    promote(0.4)
    shutil.rmtree(opened.project.champion)
    monkeypatch.setattr(registry, "LOCK_LIMIT_S", 2 * processes.NOTICE_AFTER_S)
    with FileLock(opened.store.folder / ".registry.lock"):
        done = run("models")
    assert done.exit_code == 1
    waiting, gave_up = done.stderr.splitlines()
    assert waiting.startswith("captchalab: the registry is locked by another process (")
    assert gave_up.startswith("captchalab: the registry has been locked by another process for")
    assert not opened.project.champion.exists()


def test_models_needs_no_lock_where_the_copy_is_the_champion(opened, promote):
    promote(0.4)
    with FileLock(opened.store.folder / ".registry.lock"):
        assert run("models").exit_code == 0


def test_a_stores_password_reaches_no_file_and_no_message(opened, promote, monkeypatch):
    promote(0.4)
    secret = registry.Store("postgresql://lab:hunter2@db.example/runs", None, opened.store.folder)
    with pytest.raises(UserError) as raised:
        registry.fetch(secret, opened.client, "m-none", "artifacts/model.onnx", opened.project.root / "x", "it")
    assert "hunter2" not in str(raised.value) and "lab:***@db.example/runs" in str(raised.value)
    opened.store = secret
    monkeypatch.setattr(registry, "fetch", lambda *_: opened.project.onnx("ctc"))
    shutil.rmtree(opened.project.champion)
    opened.update_copy()
    about = opened.project.champion / "about.json"
    assert "hunter2" not in about.read_text()
    assert files.read_json(about)["store"] == "postgresql://lab:***@db.example/runs"


def test_a_champion_that_another_host_made_meanwhile_stays(opened, promote, monkeypatch):
    promote(0.2)
    promote(0.5)
    predict = gate.predict

    def while_another_host_rolls_back(*words):
        opened.client.set_registered_model_alias("captcha", "champion", "1")
        return predict(*words)

    monkeypatch.setattr(gate, "predict", while_another_host_rolls_back)
    with pytest.raises(UserError, match="Version 1 has become champion meanwhile, nothing was changed"):
        promote(0.8)
    assert [(v.number, v.aliases) for v in opened.versions()] == [(2, []), (1, ["champion", "previous"])]


def test_two_promotions_at_the_same_moment_leave_one_champion(opened, promote):
    runs = [promote(answers, force="to have a run").run_id for answers in (0.2, 0.5, 0.8)][1:]
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
    said = [process.communicate()[0] for process in started]
    [now] = [version for version in opened.versions() if "champion" in version.aliases]
    assert now.run_id == runs[1], said  # the better one, whichever came first
    assert sorted(process.returncode for process in started) in ([0, 0], [0, 3])
    assert champion.about(opened.project)["version"] == now.number
    assert now.replaces == 1 or opened.find(str(now.replaces)).replaces == 1
    numbers = [v.tags["gate_attempt"] for v in opened.versions()]
    assert len(set(numbers)) == len(numbers), "each has captchas of its own"


def test_promote_prints_a_table_and_the_decision(opened, guesses):
    workspace.put(opened.project, "ctc", guesses(0.6), 100)
    done = run("promote")
    assert done.exit_code == 0, done.stderr
    assert "exact match (95 %)" in done.stdout and "fresh captchas" in done.stdout
    assert "models:/captcha/1 is champion." in done.stdout
    assert done.stderr.endswith(
        "captchalab: attempt 1 of this registry: drawing 400 captchas that no network has seen.\n"
    )
    workspace.put(opened.project, "ctc", guesses(0.4), 150)
    done = run("promote")
    assert done.exit_code == 3
    assert "champion (version 1)" in done.stdout
    assert "Not promoted (exit status 3): on 400 fresh captchas the candidate alone is right on 0," in done.stdout


def test_promote_draws_as_many_captchas_as_it_is_told_to(opened, guesses):
    workspace.put(opened.project, "ctc", guesses(0.6), 100)
    assert run("promote", "--images", 700).exit_code == 0
    assert opened.find("1").tags["gate_n"] == "700"
    assert run("promote", "--images", 0).exit_code == 2


def test_asking_again_with_more_captchas_decides(opened, promote, guesses):
    promote(0.5)
    opened.client.set_model_version_tag("captcha", "1", "attempts", "99999")
    refused = promote(0.53)
    assert refused.version is None
    assert run("promote", "--images", 8000).exit_code == 0
    assert opened.champion().tags["gate_n"] == "8000"


def test_models_lists_versions_with_aliases_and_metrics(opened, promote):
    assert run("models").stdout.startswith("Nothing is registered yet")
    promote(0.2)
    promote(0.8)
    lines = run("models").stdout.splitlines()
    assert lines[1].split()[:3] == ["2", "champion", "ctc"] and "50.00% (43.14 - 56.86)" in lines[1]
    assert lines[2].split()[:3] == ["1", "previous", "ctc"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["promote"], "holds no fine-tuned network to promote: run `dvc repro`, or name one with --run."),
        (["promote", "--run", "nonsense"], "nonsense is no run of sqlite:///"),
        (["promote", "--force"], "--force and --reason TEXT go together"),
        (["promote", "--reason", "x"], "--force and --reason TEXT go together"),
        (["rollback"], "The registered model 'captcha' has no champion yet: make one with `captchalab promote`."),
        (["pull-champion"], "The registered model 'captcha' has no champion yet"),
        (["serve", "--port", "6001"], "The registered model 'captcha' has no champion yet"),
        (["predict", "a.png"], "mlruns/champion holds no champion: promote one with `captchalab promote`"),
        (["predict", "a.png", "--model", "models:/captcha/3"], "nothing is registered yet"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(opened, words, sentence):
    done = run(*words)
    assert done.exit_code == 1
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert opened.versions() == []


@pytest.mark.parametrize(
    ("kinds", "usable"),
    [
        ((), "or predict with --model FILE with a model.onnx (the workspace has none: `dvc repro`)."),
        (("ctc",), "or predict with --model ctc."),
        (("cnn", "ctc"), "or predict with --model cnn or --model ctc."),
    ],
)
def test_without_a_champion_predict_names_what_can_be_used(opened, guesses, kinds, usable):
    for kind in kinds:
        workspace.put(opened.project, kind, guesses(0.5), 100)
    assert usable in run("predict", "a.png").stderr


@pytest.mark.parametrize("name", ["models:/captcha/3", "models:/captcha@best"])
def test_an_unknown_version_or_alias_says_which_there_are(opened, promote, name):
    promote(0.4)
    done = run("predict", "a.png", "--model", name)
    assert done.exit_code == 1
    assert f"{name} is no version or alias of the registered model 'captcha': there are 1, @champion." in done.stderr


def test_a_run_without_a_model_cannot_be_promoted(opened, promote):
    promote(0.4)
    trained = runs.sync(opened.project.stage("ctc", "train"), opened.store)
    with pytest.raises(UserError, match="has no model: name a fine-tune run that was tested"):
        promotion.promote(opened, RULES, run_id=trained)


def test_a_version_whose_file_is_gone_moves_nothing(opened, promote):
    promote(0.2)
    promote(0.8)
    location = opened.client.get_logged_model(opened.find("1").model_id).artifact_location
    shutil.rmtree(Path(location.removeprefix("file://")))
    before = state(opened)
    with pytest.raises(UserError, match="models:/captcha/1 has no artifacts/model.onnx any more"):
        opened.rollback()
    assert state(opened) == before


def test_a_database_of_another_mlflow_says_how_to_upgrade_it(project):
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


def test_predict_uses_the_champion_or_any_version_and_says_which(opened, promote):
    promote(0.2)
    promote(0.8)
    run("draw", "A")
    for name, model in (
        ("champion", "models:/captcha/2"),
        ("ctc", "ctc"),
        ("models:/captcha/1", "models:/captcha/1"),
        ("models:/captcha@champion", "models:/captcha/2"),
    ):
        done = run("predict", "A.png", "--model", name, "--json")
        assert done.exit_code == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["model"] == model
        assert (f"captchalab: {name} is {model}.\n" in done.stderr) == (name != model)
        [prediction] = answer["predictions"]
        assert set(prediction) == {"file", "text", "confidence", "characters"}
    assert answer["network_md5"] == opened.find("2").tags["network_md5"]
