"""The stages of the chain, each as `dvc repro` runs it."""

import os
from typing import TYPE_CHECKING

import click

from captchalab import files
from captchalab.cli.group import KIND, main, open_project

if TYPE_CHECKING:
    from captchalab.params import Params, Split, StageName
    from captchalab.reading.captcha import Kind
    from captchalab.training.progress import Task


@main.command()
@click.argument("split", type=click.Choice(["train", "valid", "test"]))
def generate(split: "Split") -> None:
    """Draw a split of captchas to data/SPLIT."""
    project, params = open_project()
    from captchalab.data import dataset

    _task(params, "train", "ctc")  # before minutes of drawing for a training that is refused
    out = project.split(split)
    dataset.generate(
        params.captcha, split, getattr(params.splits, split), params.split_seed(split), out, params.runtime.workers
    )
    print(f"generate {split}: {getattr(params.splits, split).images:,} captchas in {out}")


@main.command()
@click.argument("kind", type=KIND)
def train(kind: "Kind") -> None:
    """Train a network: stage 1, at 1e-3; or take it over from results/, where start_from says so."""
    project, params = open_project()
    from captchalab.params import STAGE_1

    if params.start(kind) == STAGE_1:
        _fit("train", kind)
        return
    from captchalab.results import start
    from captchalab.tracking import origin, runs
    from captchalab.tracking.store import Store, attempt

    network = start.take_over(project, params, kind, origin.run_tags(project, kind, "train"))
    stage, store = project.stage(kind, "train"), Store.of(project)
    attempt(store, lambda: files.write_json(stage / "run.json", {"run_id": runs.sync(stage, store)}))
    print(f"train {kind}: nothing to train, {network} is in {stage}")


@main.command()
@click.argument("kind", type=KIND)
def finetune(kind: "Kind") -> None:
    """Fine-tune a trained network: stage 2, at 1e-4."""
    _fit("finetune", kind)


@main.command()
@click.argument("kind", type=KIND)
def export(kind: "Kind") -> None:
    """Write a fine-tuned network as ONNX, and hold both to the same texts."""
    project, _ = open_project()
    from captchalab.networks import export

    out = project.export(kind)
    parity = export.export(project.model(kind), project.split("test"), out)
    print(
        f"export {kind}: {out / 'model.onnx'}, {parity['n'] - parity['ties']:,} of {parity['n']:,} texts the same"
        f"{', the others by a tie' if parity['ties'] else ''}, logits within {parity['largest_logit_difference']:.1e}"
    )


@main.command()
@click.argument("kind", type=KIND)
def evaluate(kind: "Kind") -> None:
    """Test a fine-tuned network on the test split."""
    project, params = open_project()
    from captchalab.evaluation import evaluate
    from captchalab.tracking import models
    from captchalab.tracking.store import Store, attempt

    figures = evaluate.evaluate(kind, params.captcha, params.evaluate, project)
    print(
        f"evaluate {kind}: exact {figures['exact']:.2%} (95 % interval {figures['exact_low']:.2%} - "
        f"{figures['exact_high']:.2%}) on {figures['n']:,} captchas, cer {figures['cer']:.2%}; "
        f"see {project.report(kind)}"
    )
    store = Store.of(project)
    attempt(store, lambda: models.log_test(project, kind, store))


@main.command()
def compare() -> None:
    """Compare CNN and CTC on the same test captchas."""
    project, params = open_project()
    from captchalab.evaluation import report

    result = report.compare(params.captcha, params.evaluate.grid_images, project)
    for kind in ("cnn", "ctc"):
        figures = result[kind]
        print(
            f"compare: {kind} exact {figures['exact']:.2%} "
            f"({figures['exact_low']:.2%} - {figures['exact_high']:.2%}), n = {result['n']:,}"
        )
    print(
        f"compare: only the CNN reads {result['only_cnn']}, only CTC {result['only_ctc']}; "
        f"McNemar p = {result['mcnemar_p']:.3g}; see {project.reports / 'index.html'}"
    )


def _task(params: "Params", name: "StageName", kind: "Kind") -> "Task":
    """A stage to train, refused where it needs a GPU that is not there."""
    # TensorFlow reads it when it is imported; whoever sets it by hand means it
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(params.runtime.threads or os.cpu_count()))
    from captchalab.training.progress import Task

    task = Task.of(params, name, kind)
    if params.runtime.needs == "gpu":
        from captchalab.training import need

        need.require_gpu(task)
    return task


def _fit(name: "StageName", kind: "Kind") -> None:
    project, params = open_project()
    task = _task(params, name, kind)
    from captchalab.tracking import origin, runs
    from captchalab.tracking.store import Store
    from captchalab.training import fit
    from captchalab.training.journal import Journal

    tags = origin.run_tags(project, kind, name)
    stage_1 = Journal(project.stage(kind, "train")) if name == "finetune" else None
    fit.fit(task, project.stage_paths(kind, name), tags, runs.Background(Store.of(project), stage_1))
