"""Test and compare untrained networks for real, on captchas other than the project's own."""

import csv

import pytest

from captchalab import files
from captchalab.data import dataset
from captchalab.evaluation import metrics
from captchalab.evaluation.evaluate import evaluate
from captchalab.evaluation.report import compare
from captchalab.networks import models
from captchalab.params import STAGES, SplitParams
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, CaptchaParams
from captchalab.training.journal import HISTORY, Journal

IMAGES = 40


@pytest.mark.parametrize(
    "captcha",
    [
        CaptchaParams(alphabet="abcdefghijklmnopqrstuvwxyz", length=5, width_px=170, height_px=80, channels=1),
        CaptchaParams(alphabet="0123456789", length=2, width_px=64, height_px=32, channels=3),
    ],
    ids=["five lower-case characters", "two digits in colour"],
)
def test_what_evaluate_and_compare_leave(smoke, tmp_path, captcha):
    project = Project(tmp_path)
    dataset.generate(captcha, "test", SplitParams(images=IMAGES), 1, project.split("test"), workers=1)
    for kind in KINDS:
        models.save(models.build(kind, captcha, smoke.network(kind)), project.model(kind))
        for stage in STAGES:
            journal = Journal.begin(project.stage(kind, stage), {"device": "a small machine"})
            journal.add({**dict.fromkeys(HISTORY, 0.5), "epoch": 1, "step": 8, "images_seen": 64}, 60.0, 64)
        measured = evaluate(kind, captcha, smoke.evaluate, project)

        assert files.read_json(project.report(kind) / "metrics.json") == measured
        assert set(measured) <= set(metrics.logged_names())
        assert (measured["n"], measured["images_seen"]) == (IMAGES, 128)
        assert ("exact_of_length" in measured) == (kind == "ctc")
        details = files.read_json(project.report(kind) / "details.json")
        assert [position["n"] for position in details["by_position"]] == [IMAGES] * captcha.length
        assert list(details["by_character"]) == list(captcha.alphabet)
        with (project.report(kind) / "predictions.csv").open() as lines:
            assert len(list(csv.DictReader(lines))) == IMAGES
        drawn = {path.stem for path in (project.report(kind) / "plots").iterdir()}
        plots = {"accuracies", "confusions", "curves", "doubtful", "network", "reliability", "worst"}
        assert drawn == (plots | {"ctc_output"} if kind == "ctc" else plots)

    comparison = compare(captcha, smoke.evaluate.grid_images, project)
    assert comparison["n"] == IMAGES
    page = (project.reports / "index.html").read_text(encoding="utf-8")
    assert f"captchas of {captcha.length} characters" in page
    assert "exact match with" not in page, "no two characters of these alphabets are drawn alike"
