"""Test metrics and logged models against a real MLflow store of sqlite and files."""

import pytest
import workspace

from captchalab import files, params
from captchalab.data import dataset
from captchalab.project import Project
from captchalab.registry import promotion
from captchalab.registry.registry import Registry
from captchalab.registry.versions import fetch
from captchalab.tracking import packaging
from captchalab.tracking.models import log_test, model_of
from captchalab.tracking.runs import sync
from captchalab.tracking.store import Store


@pytest.fixture
def network(project, untrained) -> Project:
    """A fine-tuned network of a workspace that no run knows yet."""
    workspace.put(project, "ctc", untrained["ctc"], 100)
    return project


def test_test_metrics_are_on_the_fine_tuned_networks_run(network, project):
    here = Store.of(project)
    trained = sync(project.stage("ctc", "train"), here)
    log_test(project, "ctc", here)
    client = here.client()
    run = client.get_run(sync(project.stage("ctc", "finetune"), here))
    found = run.data.metrics
    assert (found["test/exact"], found["test/exact_low"], found["test/n"]) == (0.5, 0.43136, 200)
    assert (found["network/parameters"], found["network/images_seen"], found["network/minutes"]) == (7, 128, 1.5)
    assert run.data.params["train/learning_rate"] == "0.001"
    assert run.data.tags["train_run_id"] == trained
    assert "test/metrics.json" in {item.path for item in client.list_artifacts(run.info.run_id, "test")}


def test_metrics_are_logged_once_and_again_only_where_asked(network, project):
    here = Store.of(project)
    model_id = log_test(project, "ctc", here)
    workspace.put_reports(project, "ctc", 150)
    assert log_test(project, "ctc", here, again=False) == model_id
    client = here.client()
    assert client.get_run(sync(project.stage("ctc", "finetune"), here)).data.metrics["test/exact"] == 0.5
    assert log_test(project, "ctc", here) == model_id, "the same network, the same model"
    assert client.get_run(sync(project.stage("ctc", "finetune"), here)).data.metrics["test/exact"] == 0.75


def test_the_network_is_a_logged_model_with_metrics_of_the_test_split(network, project):
    here = Store.of(project)
    model_id = log_test(project, "ctc", here)
    client = here.client()
    model = client.get_logged_model(model_id)
    assert (model.name, str(model.status), model.source_run_id) == (
        "captcha-ctc",
        "READY",
        sync(project.stage("ctc", "finetune"), here),
    )
    [found] = client.search_logged_models(
        [model.experiment_id],
        "metrics.`test/exact` > 0.4",
        datasets=[{"dataset_name": "test", "dataset_digest": "123.dir"}],
    )
    assert found.model_id == model_id


def test_a_network_exported_again_is_a_model_of_its_own(network, project, untrained):
    here = Store.of(project)
    before = log_test(project, "ctc", here)
    project.onnx("ctc").write_bytes((untrained["cnn"] / "export" / "model.onnx").read_bytes())
    assert log_test(project, "ctc", here) != before


def test_tested_on_another_split_the_model_has_that_ones_predictions(network, project, tmp_path):
    here = Store.of(project)
    model_id = log_test(project, "ctc", here)
    captcha = params.load(project.params).captcha
    dataset.generate(captcha, "test", params.SplitParams(images=50), 8, project.split("test"), workers=1)
    (project.lock).write_text("stages: {generate@test: {outs: [{path: data/test, md5: 456.dir}]}}\n")
    workspace.put_reports(project, "ctc", 40)
    assert log_test(project, "ctc", here) == model_id
    client = here.client()
    for path in (packaging.PREDICTIONS, packaging.SPLIT):
        fetch(here, client, model_id, path, tmp_path, "the model")
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 51
    assert files.read_json(tmp_path / "meta.json") == files.read_json(project.split("test") / "meta.json")
    digests = {
        metric.dataset_digest: metric.value
        for metric in client.get_logged_model(model_id).metrics
        if metric.key == "test/exact"
    }
    assert digests["456.dir"] == 0.8


@pytest.fixture
def exported_twice(network, project, untrained) -> tuple[Store, dict[str, bytes]]:
    """A run with two logged models: {model id: its ONNX file}, the older one first."""
    here = Store.of(project)
    exports = {}
    for kind in ("ctc", "cnn"):
        content = (untrained[kind] / "export" / "model.onnx").read_bytes()
        project.onnx("ctc").write_bytes(content)
        exports[log_test(project, "ctc", here)] = content
    assert len(exports) == 2
    return here, exports


@pytest.mark.parametrize("of_workspace", [0, 1], ids=["the older", "the newer"])
def test_of_two_logged_models_the_workspaces_is_meant(exported_twice, project, of_workspace):
    here, exports = exported_twice
    model_id = list(exports)[of_workspace]
    project.onnx("ctc").write_bytes(exports[model_id])
    client = here.client()
    run = client.get_run(sync(project.stage("ctc", "finetune"), here))
    assert model_of(client, run, project) == model_id
    assert log_test(project, "ctc", here, again=False) == model_id, "and none is logged a third time"


def test_of_two_logged_models_the_newest_is_meant_where_the_workspace_has_neither(exported_twice, project):
    here, exports = exported_twice
    project.onnx("ctc").unlink()
    client = here.client()
    run = client.get_run(sync(project.stage("ctc", "finetune"), here))
    assert model_of(client, run, project) == list(exports)[-1]


@pytest.mark.parametrize("of_workspace", [0, 1], ids=["the older", "the newer"])
def test_of_two_logged_models_the_workspaces_is_promoted(exported_twice, project, of_workspace):
    here, exports = exported_twice
    model_id = list(exports)[of_workspace]
    project.onnx("ctc").write_bytes(exports[model_id])
    run_id = sync(project.stage("ctc", "finetune"), here)
    rules = params.load(project.params).promote
    outcome = promotion.promote(Registry(project, here), rules, run_id, force="either will do here", workers=1)
    assert outcome.version is not None
    assert outcome.version.model_id == model_id


def test_a_run_without_a_model_has_none(network, project):
    here = Store.of(project)
    client = here.client()
    assert model_of(client, client.get_run(sync(project.stage("ctc", "finetune"), here)), project) is None


def test_a_model_whose_logging_was_killed_is_none(network, project):
    here = Store.of(project)
    client = here.client()
    run = client.get_run(sync(project.stage("ctc", "finetune"), here))
    tags = {"onnx_md5": files.md5(project.onnx("ctc"))}
    killed = client.create_logged_model(run.info.experiment_id, "captcha-ctc", run.info.run_id, tags)
    assert model_of(client, run, project) is None
    assert log_test(project, "ctc", here, again=False) != killed.model_id
