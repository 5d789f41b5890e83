import pytest

from captchalab.training.journal import HISTORY, Journal


def metrics(epoch: int) -> dict[str, float]:
    return {name: float(epoch) for name in HISTORY} | {
        "epoch": epoch,
        "step": 8 * epoch,
        "images_seen": 64 * epoch,
    }


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal.begin(tmp_path / "run", {"name": "ctc train", "device": "a CPU", "params": {}, "tags": {}})


def test_an_epoch_is_on_disk_as_soon_as_it_is_added(journal):
    journal.add(metrics(1), 2.0, 64)
    [epoch] = Journal(journal.folder).epochs()
    assert epoch.figures == metrics(1)
    assert (epoch.seconds, epoch.images_per_s) == (2.0, 32.0)


def test_metrics_come_back_as_they_went_in(journal):
    exact = metrics(1) | {"val/loss": 0.1 + 0.2, "learning_rate": 1e-4}
    journal.add(exact, 1.0, 64)
    assert journal.epochs()[0].figures == exact


def test_history_holds_nothing_that_differs_between_runs(tmp_path):
    texts = []
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        journal = Journal.begin(tmp_path / name, {"device": name})
        journal.add(metrics(1), seconds, 64)
        texts.append((journal.folder / "history.csv").read_bytes())
    assert texts[0] == texts[1]


def test_going_back_forgets_later_epochs(journal):
    for epoch in (1, 2, 3):
        journal.add(metrics(epoch), 1.0, 64)
    journal.go_back_to(1)
    assert [epoch.figures["epoch"] for epoch in journal.epochs()] == [1]


def test_a_new_journal_names_no_run_and_has_an_id_of_its_own(journal, tmp_path):
    assert journal.run_id is None
    assert journal.about["id"] != Journal.begin(tmp_path / "other", {"device": ""}).about["id"]


def test_the_outcome_is_added_at_the_end(journal):
    journal.end({"stopped": "all 3 epochs"})
    assert journal.about["outcome"] == {"stopped": "all 3 epochs"}
    assert journal.about["name"] == "ctc train"


def test_a_journal_knows_when_its_run_ended(journal, monkeypatch):
    assert journal.ended_at == journal.about["started_at"]
    monkeypatch.setattr("captchalab.training.journal._now", lambda: "2026-01-01T10:00:00+00:00")
    journal.add(metrics(1), 1.0, 64)
    assert journal.ended_at == "2026-01-01T10:00:00+00:00", "a run that was stopped ended with its last epoch"
    monkeypatch.setattr("captchalab.training.journal._now", lambda: "2026-01-01T10:05:00+00:00")
    journal.end({"stopped": "all 1 epochs"})
    assert journal.ended_at == "2026-01-01T10:05:00+00:00"
