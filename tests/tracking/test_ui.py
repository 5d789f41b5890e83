"""The view that the table of runs opens with; what MLflow makes of it in a browser is checked by pages.py."""

import json
import shutil

import pytest
import workspace

from captchalab.project import Project
from captchalab.tracking import models, relocation, runs, ui
from captchalab.tracking.store import Store, experiment_id

LONGEST_TAG = 5000  # MLflow's limit for a tag of an experiment


@pytest.fixture(scope="module")
def store(database, tmp_path_factory) -> Store:
    """One store for the module."""
    store = Store.of(Project(tmp_path_factory.mktemp("store")))
    shutil.copytree(database.parent, store.folder)
    relocation.relocate(store.folder)
    return store


@pytest.fixture(scope="module")
def client(store):
    return store.client()


@pytest.fixture
def number(client, store, request) -> str:
    """A new experiment's id."""
    return experiment_id(client, store, request.node.name)


def views(client, number: str) -> dict[str, str]:
    tags = client.get_experiment(number).tags
    return {key: value for key, value in tags.items() if key.startswith("mlflow.sharedViewState.")}


@pytest.fixture
def row(project, untrained) -> dict[str, str]:
    """{column: value} of a fine-tuned network that was tested, as MLflow's table can show them."""
    workspace.put(project, "ctc", untrained["ctc"], 100)
    store = Store.of(project)
    models.log_test(project, "ctc", store)
    data = store.client().get_run(runs.sync(project.stage("ctc", "finetune"), store)).data
    groups = {"tags": data.tags, "params": data.params, "metrics": data.metrics}
    return {f"{group}.`{key}`": str(value) for group, found in groups.items() for key, value in found.items()}


def state() -> dict:
    """What MLflow's page makes its own of the view."""
    return json.loads(json.loads(ui.view().tag()[1])["state"])


# the workspace of the tests has a journal of few parameters and tags; a real one has these too
FROM_TRAINING = {"params.`rnn_size`", "tags.`device`", "tags.`data_digest`"}


def test_a_tested_networks_row_has_a_value_in_every_column_and_axis(row):
    assert set(state()["selectedColumns"]) - FROM_TRAINING <= set(row)
    assert state()["orderByKey"] in row
    for chart in state()["compareRunCharts"]:
        assert f"metrics.`{chart['metricKey']}`" in row
        assert f"metrics.`{chart['selectedXAxisMetricKey']}`" in row


def test_the_tag_is_a_saved_view_of_mlflow():
    key, value = ui.view().tag()
    assert key == f"mlflow.sharedViewState.{ui.VIEW}"
    view = json.loads(value)
    assert {name: type(view[name]) for name in view} == {"name": str, "createdAt": int, "updatedAt": int, "state": str}


def test_every_column_of_the_view_has_a_width_and_every_chart_a_section():
    assert set(state()["selectedColumns"]) <= set(state()["columnOrder"]) == set(state()["columnWidths"])
    sections = {section["uuid"] for section in state()["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state()["compareRunCharts"]} == sections


def test_the_tag_is_the_same_every_time_and_short_enough_for_mlflow():
    assert ui.view().tag() == ui.view().tag()
    assert len(ui.view().tag()[1]) <= LONGEST_TAG


def test_saving_the_view_twice_leaves_one_tag(client, number):
    ui.view().save(client, number)
    ui.view().save(client, number)
    assert views(client, number) == dict([ui.view().tag()])


def test_a_view_that_was_overridden_is_put_right_and_others_are_left_alone(client, number):
    client.set_experiment_tag(number, ui.view().tag()[0], "{}")
    client.set_experiment_tag(number, "mlflow.sharedViewState.mine", "{}")
    ui.view().save(client, number)
    assert views(client, number) == {**dict([ui.view().tag()]), "mlflow.sharedViewState.mine": "{}"}


def test_the_page_opens_the_view_on_the_port_of_the_server(client, store):
    page = ui.page(store, "runs", 5001)
    number = client.get_experiment_by_name("runs").experiment_id
    assert page == (
        f"http://127.0.0.1:5001/#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={ui.VIEW}"
    )
    assert views(client, number)


def test_the_page_of_a_store_that_is_a_server_is_on_that_server(client, store, monkeypatch):
    monkeypatch.setattr(Store, "client", lambda self: client)
    page = ui.page(store._replace(uri="https://mlflow.example.org/", artifacts=None), "runs", 5001)
    assert page.startswith("https://mlflow.example.org/#/experiments/")


def test_the_page_of_a_server_with_a_password_does_not_show_it(client, store, monkeypatch):
    monkeypatch.setattr(Store, "client", lambda self: client)
    page = ui.page(store._replace(uri="https://ann:s3cret@mlflow.example.org", artifacts=None), "runs", 5001)
    assert page.startswith("https://mlflow.example.org/#/experiments/")


def test_the_server_listens_on_this_machine_alone(store):
    words, environment = ui.command(store, 5001)
    assert words[1:4] == ["-m", "mlflow", "server"]
    assert dict(zip(words[4::2], words[5::2], strict=True))["--host"] == "127.0.0.1"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == store.uri
    assert not [word for word in words if store.uri in word]
