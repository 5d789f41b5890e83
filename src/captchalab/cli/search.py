"""Search: `run`, `best`, `apply`."""

import sys
from typing import TYPE_CHECKING

import click

from captchalab.cli.group import KIND, main, open_project
from captchalab.errors import UserError

if TYPE_CHECKING:
    from captchalab.reading.captcha import Kind
    from captchalab.search.study import Sampler


@main.group()
def search() -> None:
    """Search better parameters with Optuna, and take the best into params.yaml."""


@search.command()
@click.option("--kind", type=KIND, help="One kind of network, instead of one after the other.")
@click.option("--trials", type=click.IntRange(1), help="Trials that the study should have, instead of search.trials.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Trials at a time.")
@click.option("--study", "name", help="A study of another name; needs --kind.")
@click.option("--timeout", type=click.FloatRange(1), help="Seconds after which no trial starts.")
@click.option("--sampler", default="tpe", show_default=True, type=click.Choice(["tpe", "random"]))
@click.option("--pruning/--no-pruning", default=True, show_default=True, help="End trials that are behind.")
@click.option(
    "--engine", default="local", show_default=True, type=click.Choice(["local", "ray"]), help="Who starts them."
)
@click.option("--address", metavar="HOST:PORT", help="Head of the Ray cluster, for --engine ray.")
@click.option("--cpus-per-worker", "cpus", type=click.IntRange(1), help="Cores of a worker on Ray; 1 if not given.")
@click.option("--gpus-per-worker", "gpus", type=click.FloatRange(0), help="GPUs of a worker on Ray; 0 if not given.")
def run(
    kind: "Kind | None",
    trials: int | None,
    workers: int,
    name: str | None,
    timeout: float | None,
    sampler: "Sampler",
    pruning: bool,
    engine: str,
    address: str | None,
    cpus: int | None,
    gpus: float | None,
) -> None:
    """Run trials, go on where a search was stopped; Ctrl-C ends it."""
    from captchalab.reading.captcha import KINDS

    if name and not kind:
        raise UserError(f"A study has one kind: give --kind cnn or --kind ctc beside --study {name}.")
    if engine == "ray" and not address:
        raise UserError("--engine ray needs the cluster: give --address HOST:PORT of its head.")
    if engine == "local" and (address or cpus or gpus):
        raise UserError("--address, --cpus-per-worker and --gpus-per-worker place workers on Ray: add --engine ray.")
    project, params = open_project()
    from captchalab.search import run, study

    cluster = None
    if address:
        from captchalab.search import ray_engine

        cluster = ray_engine.engine(project, ray_engine.Placement(address, cpus or 1, gpus or 0), workers)
    for one in (kind,) if kind else KINDS:
        options = study.Options(
            one, name or study.default_name(one), trials or params.search.trials, timeout, sampler, pruning
        )
        if not run.run(project, params, options, workers, cluster):
            sys.exit(130)


@search.command()
@click.option("--study", "name", help="A study of another name than captcha-KIND.")
def best(name: str | None) -> None:
    """Show the best trial of each study beside the present parameters."""
    project, params = open_project()
    from captchalab.search import apply, study

    for found in study.existing(study.open_storage(project, params.search.heartbeat_s), name=name):
        print(apply.table(params, found))


@search.command()
@click.option("--kind", type=KIND, help="Of this kind's study alone.")
@click.option("--study", "name", help="A study of another name than captcha-KIND.")
def apply(kind: "Kind | None", name: str | None) -> None:
    """Write the best trial's values into params.yaml, with its comments kept."""
    project, params = open_project()
    from captchalab.reading.captcha import KINDS
    from captchalab.search import apply, study
    from captchalab.tracking.searches import SearchRuns

    storage = study.open_storage(project, params.search.heartbeat_s)
    studies = study.existing(storage, (kind,) if kind else KINDS, name)
    for found in studies:
        apply.best(found)  # refuses before anything is written
    for found in studies:
        diff = apply.apply(project, found)
        runs = SearchRuns.open(project, found.study_name, study.kind_of(found), {"study_id": study.id_of(found)})
        runs.applied(apply.best(found).number)
        runs.end("FINISHED")
        print(diff or f"params.yaml has the best trial of {found.study_name} already.", end="" if diff else "\n")
    print("`dvc repro` now trains it in full; `git checkout params.yaml` goes back.")
