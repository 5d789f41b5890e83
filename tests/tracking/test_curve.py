"""One curve over both stages, from journals."""

import pytest

from captchalab import files
from captchalab.tracking.curve import continues, curve
from captchalab.training.journal import HISTORY, Epoch, Journal


def epochs(count: int, images: int) -> list[Epoch]:
    rows = [
        {**dict.fromkeys(HISTORY, 1.0 / e), "epoch": e, "step": 8 * e, "images_seen": images * e}
        for e in range(1, count + 1)
    ]
    return [Epoch(row, 2.0, 32.0, f"2026-01-02T03:{i:02d}:00+00:00") for i, row in enumerate(rows)]


def test_the_curve_counts_images_over_both_stages():
    points = curve([epochs(3, 500), epochs(2, 64)])
    assert [point.images_seen for point in points] == [500, 1000, 1500, 1564, 1628]
    assert [point.metrics["images_seen"] for point in points] == [500, 1000, 1500, 1564, 1628]
    assert [point.metrics["val/exact"] for point in points] == [1.0, 1 / 2, 1 / 3, 1.0, 1 / 2]


def test_a_curve_has_the_metrics_of_the_journal_and_no_counters():
    [point] = curve([epochs(1, 64)])
    assert set(point.metrics) == set(HISTORY) - {"epoch", "step"} | {"train/images_per_s", "epoch_s"}


@pytest.mark.parametrize(("stages", "seen"), [([], []), ([[], []], []), ([[], epochs(1, 64)], [64])])
def test_a_stage_without_epochs_adds_nothing(stages, seen):
    assert [point.images_seen for point in curve(stages)] == seen


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"train_journal_id": "j1"}, True),
        ({"train_journal_id": "j1", "train_run_id": "another"}, True),
        ({"train_journal_id": "j2", "train_run_id": "r1"}, False),
        ({"train_run_id": "r1"}, True),
        ({"train_run_id": "r2"}, False),
        ({}, False),
    ],
)
def test_a_stage_continues_the_training_it_names(tmp_path, tags, expected):
    stage_1 = Journal.begin(tmp_path / "train", {"device": "a CPU", "id": "j1"})
    files.write_json(stage_1.folder / "run.json", {"run_id": "r1"})
    journal = Journal.begin(tmp_path / "finetune", {"device": "a CPU", "tags": tags})
    assert continues(journal, stage_1) is expected
    assert not continues(journal, Journal(tmp_path / "none"))
