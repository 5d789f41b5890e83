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
def run(
    kind: "Kind | None",
    trials: int | None,
    workers: int,
    name: str | None,
    timeout: float | None,
    sampler: "Sampler",
    pruning: bool,
) -> None:
    """Run trials, go on where a search was stopped; Ctrl-C ends it."""
    from captchalab.reading.captcha import KINDS

    if name and not kind:
        raise UserError(f"A study has one kind: give --kind cnn or --kind ctc beside --study {name}.")
    project, params = open_project()
    from captchalab.search import run, study

    for one in (kind,) if kind else KINDS:
        options = study.Options(
            one, name or study.default_name(one), trials or params.search.trials, timeout, sampler, pruning
        )
        if not run.run(project, params, options, workers):
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
