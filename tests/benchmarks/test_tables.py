"""Each benchmark at a size at which its figures mean nothing."""

import sys

import pytest
from benches import FOLDER, load

from captchalab.errors import UserError
from captchalab.networks import backend
from captchalab.params import KINDS, Params
from captchalab.training.journal import HISTORY, Journal

everything = load("everything")


@pytest.fixture(scope="module")
def reference(smoke) -> Params:
    """Networks of the reference's form, tiny."""
    form = {"stem_filters": 0, "filters": (4, 8), "conv_depth": 2, "pools": ((2, 2), (2, 1)), "conv_bias": True}
    return smoke.model_copy(
        update={
            "models": smoke.models.model_copy(
                update={kind: smoke.network(kind).model_copy(update=form) for kind in KINDS}
            )
        }
    )


@pytest.mark.parametrize("name", everything.TABLES)
def test_each_table_has_a_command_of_its_own(name):
    assert (FOLDER / f"{name}.py").is_file()
    assert hasattr(load(name), "main" if name in everything.PRINTS_ONLY else "measure")


def test_input_pipeline(smoke):
    table = load("input").compare(smoke, steps=(1, 2, 3), rounds=1)
    assert list(table.rows) == ["plain generator", "stream", "pool"]
    assert all(table.values(row, "images/s")[0] > 0 for row in table.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_both_trainings_are_of_the_same_network(reference, kind):
    import numpy as np

    from captchalab.networks import models

    backend.start(1)
    training = load("training")
    labels = np.zeros((2, reference.captcha.length), np.uint8)
    theirs, _ = (training.plain_cnn if kind == "cnn" else training.plain_ctc)(reference, labels)
    own = models.build(kind, reference.captcha, reference.network(kind))
    assert theirs.count_params() == own.model.count_params()
    for contestant in (training.OURS, training.PLAIN):
        figures = training.work(contestant, kind, 2, 3, reference)
        assert all(figures[column] > 0 for column in ("images/s", "peak memory, GiB"))


def test_training_runs_in_a_process_of_its_own(reference):
    training = load("training")
    figures = training.in_process(training.OURS, "cnn", 2, 3, reference)
    assert figures["images/s"] > 0


def test_reading(smoke, project, tmp_path):
    reading = load("reading")
    assert "untrained" in reading.provide(project, smoke, "ctc", tmp_path / "ctc")
    reading.write_pngs(smoke, 3, tmp_path)
    figures = reading.in_process("onnx", "ctc", 1, tmp_path, 5)
    assert 0 < figures["one image p50, ms"] <= figures["p99, ms"]
    assert all(figures[f"{part}, ms"] > 0 for part in ("PNG", "network", "text", "characters"))
    assert figures["3 images, images/s"] > 0


def test_overhead(tmp_path):
    rows = load("overhead").compare({"python": [sys.executable, "-c", "pass"]}, tmp_path, 2)
    assert [round_["s"] > 0 for round_ in rows["python"]] == [True, True]


def journal(folder, exacts: list[float]) -> None:
    begun = Journal.begin(folder, {"device": "a computer"})
    for i, exact in enumerate(exacts, 1):
        begun.add({**dict.fromkeys(HISTORY, 0), "images_seen": 1000 * i, "val/exact": exact}, 60.0, 1000)


def test_a_milestone_is_the_first_epoch_of_both_stages_that_reaches_it(tmp_path):
    milestones = load("milestones")
    journal(tmp_path / "train", [0.5, 0.91, 0.89])
    journal(tmp_path / "finetune", [0.95, 0.96])
    points = milestones.curve([tmp_path / "train", tmp_path / "finetune"])
    assert [(p.images, p.train_s) for p in points][3:] == [(4000, 240.0), (5000, 300.0)]
    assert milestones.first(points, 0.90) == points[1]
    assert milestones.first(points, 0.95) == points[3]
    assert milestones.first(points, 0.98) is None
    table = milestones.table({"CTC": points})
    assert table.cell("95% CTC", "images seen") == "4,000"
    assert table.cell("98% CTC", "images seen") == ""


def test_a_stage_without_a_journal_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no journal: train it with `make repro`"):
        load("milestones").curve([tmp_path])
