"""The comparison page, from the files of a tiny test split."""

import re
from pathlib import Path
from typing import Any

import pytest

from captchalab import files
from captchalab.data import dataset
from captchalab.errors import UserError
from captchalab.evaluation import evaluate, metrics, plots, report
from captchalab.evaluation.analysis import confuse, detail
from captchalab.evaluation.comparison import mcnemar
from captchalab.networks.models import LayerRow
from captchalab.params import SplitParams
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, CaptchaParams, Kind
from captchalab.reading.decoding import Prediction
from captchalab.statistics import Proportion, wilson
from captchalab.tracking import ui
from captchalab.training.journal import HISTORY

CAPTCHA = CaptchaParams(alphabet="0O1AB", length=3, width_px=64, height_px=32, channels=1)
TIMING = {
    "device": "a small machine",
    "test_images_per_s": 1234.5,
    "trained_on": "a small machine",
    "train_min": 4.5,
    "finetune_min": 3.0,
}


def test_a_prediction_marks_its_wrong_characters() -> None:
    assert report.marked("0AB", Prediction(text="0B1", confidence=0.5)) == {
        "letters": [("0", True), ("B", False), ("1", False)],
        "confidence": 0.5,
        "right": False,
    }


def test_the_results_table_states_what_the_files_state(project: Project, truths: list[str]) -> None:
    compare(project, truths, cnn=spoilt(truths, 8), ctc=truths)
    table = report.results_table(project).splitlines()
    assert table[2].startswith("| CNN | **80.00 %** (65.24 – 89.50) | 40 | 123,456 | 3,200 | 4.5 + 3.0 min |")
    assert table[3].startswith("| CTC | **100.00 %** (91.24 – 100.00) |")


def test_the_luck_of_seeds_is_on_the_page_and_in_the_results_table(project: Project, truths: list[str]) -> None:
    compare(project, truths, cnn=spoilt(truths, 8), ctc=truths)
    before = page(project)
    exact: dict[Kind, list[float]] = {"cnn": [0.8, 0.81, 0.82], "ctc": [1.0, 0.99, 0.98]}
    runs = [
        {"seed": seed, "kind": kind, "exact": value, "n": 40}
        for kind in KINDS
        for seed, value in enumerate(exact[kind], 7)
    ]
    files.write_json(project.seeds, {"base_seed": 7, "runs": runs})
    compare(project, truths, cnn=spoilt(truths, 8), ctc=truths)
    assert "Trained with 3 seeds" in page(project) and "Trained with" not in before
    header, _, cnn, ctc = report.results_table(project).splitlines()
    assert header.endswith("| trained on | over 3 seeds (mean ± standard deviation) |")
    assert cnn.endswith("| 81.00 ± 1.00 % |") and ctc.endswith("| 99.00 ± 1.00 % |")


class TestCompare:
    def test_metrics(self, project: Project, truths: list[str]) -> None:
        result = compare(project, truths, cnn=spoilt(truths, 8), ctc=spoilt(truths, 0))
        assert (result["both_right"], result["only_cnn"], result["only_ctc"], result["both_wrong"]) == (
            32,
            0,
            8,
            0,
        )
        assert result["n"] == 40
        assert result["cnn"]["exact"] == 0.8
        assert result["ctc"]["exact"] == result["ctc"]["exact_of_length"] == 1
        assert result["cnn"]["images_seen"] == 3200
        assert result["mcnemar_p"] == pytest.approx(mcnemar(0, 8), rel=1e-5)
        assert result["better"] == "ctc"
        assert files.read_json(project.reports / "comparison.json") == result

    def test_the_same_files_give_the_same_bytes(self, project: Project, truths: list[str]) -> None:
        written = [project.reports / "comparison.json", project.reports / "index.html"]
        compare(project, truths, cnn=spoilt(truths, 8), ctc=truths)
        before = [path.read_bytes() for path in written]
        report.compare(CAPTCHA, 6, project)
        assert [path.read_bytes() for path in written] == before

    def test_a_new_metric_is_one_entry_of_the_list(
        self, project: Project, truths: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def complete(evaluated: metrics.Evaluated) -> Proportion:
            return wilson(sum(len(text) == CAPTCHA.length for text in evaluated.texts), len(evaluated.truths))

        complete_texts = metrics.Metric(
            "complete", complete, "texts of {L} characters", interval=True, heading="complete"
        )
        monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, complete_texts))
        result = compare(project, truths, cnn=spoilt(truths, 8), ctc=truths)
        assert files.read_json(project.report("cnn") / "metrics.json")["complete"] == 0.8
        assert (result["cnn"]["complete"], result["ctc"]["complete"]) == (0.8, 1)
        assert result["cnn"]["complete_low"] < 0.8 < result["cnn"]["complete_high"]
        assert "<tr><th>texts of 3 characters</th><td>80.00\u00a0% <small>" in page(project)
        assert "| complete |" in report.results_table(project)
        assert metrics.logged_names()["complete"] == "test/complete"
        assert "metrics.`test/complete_high`" in ui.columns()

    def test_times_change_the_page_only(self, project: Project, truths: list[str]) -> None:
        compare(project, truths, cnn=spoilt(truths, 8), ctc=truths)
        before = (project.reports / "comparison.json").read_bytes()
        files.write_json(project.reports / "cnn" / "timing.json", {**TIMING, "device": "another"})
        report.compare(CAPTCHA, 6, project)
        assert (project.reports / "comparison.json").read_bytes() == before
        assert "another" in page(project)

    def test_the_page_holds_all_it_shows(self, project: Project, truths: list[str]) -> None:
        compare(project, truths, cnn=spoilt(truths, 8), ctc=spoilt(truths, 1))
        html = page(project)
        assert "80.00\u00a0%" in html
        assert "97.50\u00a0%" in html
        assert "The CTC network reads better" in html
        assert not re.search(r"https?://", html)
        assert not re.search(r"""(src|href)=(?!"data:image/png;base64,)""", html)
        assert len(html) < 3_000_000

    def test_shows_at_most_so_many_of_each_group(self, project: Project, truths: list[str]) -> None:
        compare(project, truths, cnn=spoilt(truths, 8), ctc=truths, images=6)
        html = page(project)
        assert "the first 6 of 8" in html
        assert html.count('<span class="who">true</span>') == 6

    def test_characters_of_html_are_shown_as_they_are(self, tmp_path: Path) -> None:
        captcha = CAPTCHA.model_copy(update={"alphabet": "<&>"})
        project, truths = draw(tmp_path, captcha)
        compare(project, truths, cnn=["<&<"] * 40, ctc=truths, captcha=captcha)
        assert "&lt;&amp;&gt;" in page(project)
        assert "with 0 or O" not in page(project)

    @pytest.mark.parametrize(
        ("alphabet", "label"),
        [("0123456789", None), ("abcdefghijklmnopqrstuvwxyz", None), ("01abcdefghijklmnopqrstuvwxyz", "with 0 or o")],
        ids=["digits", "lower case", "digits and lower case"],
    )
    def test_other_captchas(self, tmp_path: Path, alphabet: str, label: str | None) -> None:
        captcha = CaptchaParams(alphabet=alphabet, length=5, width_px=170, height_px=80, channels=1)
        project, truths = draw(tmp_path, captcha)
        result = compare(project, truths, cnn=spoilt(truths, 8), ctc=truths, captcha=captcha)
        assert result["only_ctc"] == 8
        html = page(project)
        assert "40 test captchas of 5 characters" in html
        assert 'width="170" height="80"' in html
        assert ("exact match with" in html) == (label is not None)
        assert label is None or f"<tr><th>exact match {label}</th>" in html

    def test_two_perfect_networks(self, project: Project, truths: list[str]) -> None:
        result = compare(project, truths, cnn=truths, ctc=truths)
        assert (result["mcnemar_p"], result["better"]) == (1.0, None)
        assert "they read the very same ones" in page(project)

    def test_two_networks_with_no_text_right(self, project: Project, truths: list[str]) -> None:
        result = compare(project, truths, cnn=["111"] * 40, ctc=[""] * 40)
        assert result["both_wrong"] == 40 - truths.count("111")

    def test_refuses_networks_tested_on_different_captchas(self, project: Project, truths: list[str]) -> None:
        compare(project, truths, cnn=truths, ctc=truths)
        write_reports("ctc", truths[::-1], truths, project, CAPTCHA)
        with pytest.raises(UserError, match=r"ctc/predictions\.csv holds other captchas than .*: run `dvc repro`"):
            report.compare(CAPTCHA, 6, project)

    @pytest.mark.parametrize("name", ["metrics.json", "predictions.csv", "plots/curves.png"])
    def test_names_the_file_that_is_missing(self, project: Project, truths: list[str], name: str) -> None:
        compare(project, truths, cnn=truths, ctc=truths)
        (project.reports / "cnn" / name).unlink()
        with pytest.raises(UserError, match=f"{re.escape(name)} is missing: make it with `dvc repro`"):
            report.compare(CAPTCHA, 6, project)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return draw(tmp_path, CAPTCHA)[0]


@pytest.fixture
def truths(project: Project) -> list[str]:
    return dataset.load(project.split("test"), CAPTCHA).texts()


def draw(folder: Path, captcha: CaptchaParams, images: int = 40) -> tuple[Project, list[str]]:
    """A test split, and its texts."""
    project = Project(folder)
    dataset.generate(captcha, "test", SplitParams(images=images), 1, project.split("test"), workers=1)
    return project, dataset.load(project.split("test"), captcha).texts()


def spoilt(truths: list[str], wrong: int) -> list[str]:
    """Predictions of which the first `wrong` miss their last character."""
    return [truth[:-1] if i < wrong else truth for i, truth in enumerate(truths)]


def page(project: Project) -> str:
    return (project.reports / "index.html").read_text(encoding="utf-8")


def compare(
    project: Project,
    truths: list[str],
    cnn: list[str],
    ctc: list[str],
    images: int = 6,
    captcha: CaptchaParams = CAPTCHA,
) -> dict[str, Any]:
    for kind, predictions in zip(KINDS, (cnn, ctc), strict=True):
        write_reports(kind, truths, predictions, project, captcha)
    return report.compare(captcha, images, project)


def write_reports(
    kind: Kind, truths: list[str], predictions: list[str], project: Project, captcha: CaptchaParams
) -> None:
    """What `train`, `finetune` and `evaluate` leave of a network."""
    out = project.reports / kind
    found = [Prediction(text=text, confidence=1 - i / len(predictions)) for i, text in enumerate(predictions)]
    of_length = found if kind == "ctc" else None
    evaluated = metrics.Evaluated(
        kind, truths, found, of_length, parameters=123_456, model_bytes=500_000, images_seen=3200
    )
    details = detail(truths, found, captcha)
    confusions = confuse(truths, predictions)
    files.write_json(out / "metrics.json", metrics.measure(evaluated))
    files.write_json(out / "details.json", details)
    files.write_json(out / "timing.json", TIMING)
    rows = ((i, t, p.text, f"{p.confidence:.6f}") for i, (t, p) in enumerate(zip(truths, found, strict=True)))
    evaluate.write_csv(out / "predictions.csv", ("index", "truth", "prediction", "confidence"), rows)
    pairs = ((t, p, count) for (t, p), count in confusions)
    evaluate.write_csv(out / "confusions.csv", ("truth", "prediction", "count"), pairs)

    folder = out / "plots"
    folder.mkdir(exist_ok=True)
    histories = {"train": history(3), "finetune": history(2)}
    plots.curves(histories, kind, folder / "curves.png")
    plots.confusions(dict(confusions), captcha.alphabet, folder / "confusions.png")
    plots.accuracies(details["by_position"], details["by_character"], folder / "accuracies.png")
    plots.reliability(details["reliability"], details["calibration_error"], folder / "reliability.png")
    plots.network([LayerRow("logits", "Dense", (3, 5), 99)], kind, folder / "network.png")
    for name in ("worst", "doubtful", "ctc_output"):
        plots.image_grid([], name, folder / f"{name}.png")


def history(epochs: int) -> list[dict[str, float]]:
    """Rows of a history.csv."""
    rows = ((e, 10 * e, 640 * e, 1e-3 / e, 1 / e, 1.1 / e, 0.8, 0.7, 0.9, 0.05) for e in range(1, epochs + 1))
    return [dict(zip(HISTORY, row, strict=True)) for row in rows]
