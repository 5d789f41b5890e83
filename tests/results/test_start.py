"""A kept network in the place of stage 1. `tests/test_pipeline.py` fine-tunes one."""

import pytest
from click.testing import CliRunner, Result

from captchalab import yaml
from captchalab.cli import main
from captchalab.project import Project
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def set_params(project: Project, overlay: str) -> None:
    content = yaml.read(project.params)
    yaml.merge(content, yaml.parse(overlay))
    project.params.write_text(yaml.dump(content))


@pytest.fixture
def started(chain) -> Project:
    """A project whose stage 1 of CTC starts from results/best, with a workspace of its own network."""
    assert run("keep", "best").exit_code == 0
    set_params(chain, "start_from: {ctc: results/best}")
    return chain


def test_stage_1_is_the_kept_network_with_its_whole_curve(started):
    kept = started.results / "best" / "models" / "ctc"
    done = run("train", "ctc")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("train ctc: nothing to train, results/best/ctc (50.00% of 200 test captchas")
    assert started.model("ctc", "train").read_bytes() == (kept / "finetune" / "model.keras").read_bytes()
    journal, source = Journal(started.stage("ctc", "train")), Journal(kept / "finetune")
    epochs = journal.epochs()
    assert [(e.figures["epoch"], e.figures["step"], e.figures["images_seen"]) for e in epochs] == [
        (1, 8, 64),
        (2, 16, 128),
    ]
    assert epochs[1].ended_at == source.epochs()[0].ended_at
    assert journal.about["outcome"]["best_epoch"] == 2
    assert journal.about["id"] != source.about["id"]


def test_its_run_says_whose_training_it_continues(started):
    run("train", "ctc")
    journal = Journal(started.stage("ctc", "train"))
    found = Store.of(started).client().get_run(journal.run_id)
    assert found.data.tags["start_from"] == "results/best/ctc"
    assert found.data.tags["start_from_journal_id"] == Journal(started.stage("ctc", "finetune")).about["id"]
    assert (found.data.tags["stage"], found.info.status) == ("train", "FINISHED")


@pytest.mark.parametrize(
    ("overlay", "sentence"),
    [
        ("start_from: {ctc: results/none}", "results/none holds no results"),
        ("start_from: {ctc: ../best}", "start_from.ctc = '../best' cannot be: string should match pattern"),
        ("captcha: {width_px: 64}", "start_from.ctc = results/best reads other captchas than params.yaml describes"),
        (
            "models: {ctc: {conv_depth: 2}}",
            "start_from.ctc = results/best was built with models.ctc.conv_depth = 1, params.yaml has 2: set it so",
        ),
    ],
)
def test_a_network_that_params_do_not_describe_is_one_sentence(started, overlay, sentence):
    set_params(started, overlay)
    before = Journal(started.stage("ctc", "train")).about["id"]
    done = run("train", "ctc")
    assert done.exit_code == 1
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert Journal(started.stage("ctc", "train")).about["id"] == before
