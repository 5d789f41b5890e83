"""The view that the table of runs opens with; what MLflow makes of it in a browser is looked at by pages.py."""

import json
import os
import shutil

import pytest

from captchalab.project import Project
from captchalab.tracking import relocation, ui
from captchalab.tracking.store import Store, experiment_id

# what the row of a fine-tuned network has to say
WANTED = {
    "tags": ["kind", "device", "git_sha", "data_digest"],
    "params": ["train/learning_rate", "learning_rate", "rnn_size", "conv_depth"],
    "metrics": [
        *("test/exact", "test/exact_low", "test/exact_high", "test/cer"),
        *("network/images_seen", "network/minutes"),
    ],
}
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


def test_the_columns_are_those_a_fine_tuned_network_is_read_by():
    assert sorted(ui.COLUMNS) == sorted(f"{group}.`{name}`" for group, names in WANTED.items() for name in names)


def test_the_tag_is_a_saved_view_of_mlflow():
    key, value = ui.view_tag()
    assert key == f"mlflow.sharedViewState.{ui.VIEW}"
    view = json.loads(value)
    assert {name: type(view[name]) for name in view} == {"name": str, "createdAt": int, "updatedAt": int, "state": str}


def test_the_view_has_the_columns_in_order_and_the_best_network_first():
    state = json.loads(json.loads(ui.view_tag()[1])["state"])
    assert state["selectedColumns"] == list(ui.COLUMNS)
    assert state["columnOrder"] == [*ui.LEFT, *ui.COLUMNS] == list(state["columnWidths"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`test/exact`", False)
    assert state["searchFilter"] == "tags.stage = 'finetune'"


def test_every_chart_of_the_view_is_in_its_section():
    state = json.loads(json.loads(ui.view_tag()[1])["state"])
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert [chart["metricKey"] for chart in state["compareRunCharts"]] == list(ui.CURVES)
    assert all(chart["metricSectionId"] in sections for chart in state["compareRunCharts"])


def test_the_tag_is_the_same_every_time_and_short_enough_for_mlflow():
    assert ui.view_tag() == ui.view_tag()
    assert len(ui.view_tag()[1]) <= LONGEST_TAG


def test_saving_the_view_twice_leaves_one_tag(client, number):
    assert ui.save_view(client, number) == ui.save_view(client, number) == ui.VIEW
    assert views(client, number) == dict([ui.view_tag()])


def test_a_view_that_was_overridden_is_put_right_and_others_are_left_alone(client, number):
    client.set_experiment_tag(number, ui.view_tag()[0], "{}")
    client.set_experiment_tag(number, "mlflow.sharedViewState.mine", "{}")
    ui.save_view(client, number)
    assert views(client, number) == {**dict([ui.view_tag()]), "mlflow.sharedViewState.mine": "{}"}


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


def test_the_server_listens_on_this_machine_alone(store, monkeypatch):
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", raising=False)
    words = ui.command(store, 5001)
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options == {"--backend-store-uri": store.uri, "--host": "127.0.0.1", "--port": "5001", "--workers": "1"}
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
