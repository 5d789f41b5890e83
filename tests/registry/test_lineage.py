"""From files and versions to runs, and from runs to all they come from."""

import json
import shutil

import pytest
import workspace
from click.testing import CliRunner

from captchalab import files
from captchalab.cli import main
from captchalab.errors import UserError
from captchalab.params import PromoteParams
from captchalab.registry import promotion
from captchalab.registry.lineage import trace
from captchalab.registry.registry import Registry
from captchalab.tracking import runs

RULES = PromoteParams(min_exact=0.0, max_p=0.05, images=50, max_latency_ms=10_000.0)


@pytest.fixture
def promoted(opened, guesses) -> Registry:
    workspace.put(opened.project, "ctc", guesses(0.5), 100)
    runs.sync(opened.project.stage("ctc", "train"), opened.store)
    promotion.promote(opened, RULES, workers=1)
    return opened


def test_a_version_leads_to_run_parameters_git_and_data(promoted):
    found = trace(promoted.project, promoted.store, "models:/captcha@champion")
    assert found["versions"] == ["models:/captcha/1 @champion"]
    assert found["run"]["name"] == "ctc finetune depth 1 lr 0.0001"
    assert found["params"]["train/learning_rate"] == "0.001"
    assert found["metrics"]["test/exact"] == 0.5
    assert found["origin"]["git_sha"] == "abc"
    assert found["inputs"] == {"test": "123.dir"}
    train = promoted.client.get_run(found["trained from"])
    assert train.data.tags["stage"] == "train"


def test_files_of_the_workspace_and_the_run_itself_lead_there_too(promoted):
    run_id = trace(promoted.project, promoted.store, "models:/captcha/1")["run"]["id"]
    models = promoted.project.root / "models" / "ctc"
    for start in (models / "finetune" / "model.keras", models / "export" / "model.onnx", run_id):
        assert trace(promoted.project, promoted.store, str(start))["run"]["id"] == run_id
    trained = trace(promoted.project, promoted.store, str(models / "train" / "model.keras"))
    assert trained["run"]["name"] == "ctc train depth 1 lr 0.001"


def test_a_copy_elsewhere_is_found_by_its_content(promoted, tmp_path):
    models = promoted.project.root / "models" / "ctc"
    run_id = (
        files.read_json(models / "finetune" / "run.json")["run_id"]
        or trace(promoted.project, promoted.store, "models:/captcha/1")["run"]["id"]
    )
    for name in ("finetune/model.keras", "export/model.onnx"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copyfile(models / name, copy)
        assert trace(promoted.project, promoted.store, str(copy))["run"]["id"] == run_id


def test_the_champions_own_file_leads_to_its_run(promoted):
    found = trace(promoted.project, promoted.store, str(promoted.project.root / "mlruns" / "champion" / "model.onnx"))
    assert found["versions"] == ["models:/captcha/1 @champion"]


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ("nonsense", "nonsense is no run of sqlite:///"),
        ("models:/captcha/9", "models:/captcha/9 is no version or alias"),
        ("none/model.keras", "none/model.keras is missing: name a model's file"),
        ("models", "models is a folder: name the file in it"),
    ],
)
def test_what_leads_nowhere_is_one_sentence(promoted, start, sentence):
    with pytest.raises(UserError, match=sentence):
        trace(promoted.project, promoted.store, start)


def test_a_file_no_run_has_made_says_so(promoted, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"other weights")
    with pytest.raises(UserError, match="No run in sqlite:///.* has made .*model.keras"):
        trace(promoted.project, promoted.store, str(tmp_path / "model.keras"))


def test_the_verb_prints_lines_or_json(promoted):
    done = CliRunner().invoke(main, ["lineage", "models:/captcha/1"])
    assert "versions      models:/captcha/1 @champion\n" in done.stdout
    done = CliRunner().invoke(main, ["lineage", "models:/captcha/1", "--json"])
    assert json.loads(done.stdout)["origin"]["git_sha"] == "abc"
