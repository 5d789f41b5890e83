"""Search: `run`, `best`, `apply`."""

from typing import TYPE_CHECKING

import click

from captchalab.cli.group import KIND, main

if TYPE_CHECKING:
    from captchalab.reading.captcha import Kind


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
    sampler: str,
    pruning: bool,
) -> None:
    """Run trials, go on where a search was stopped; Ctrl-C ends it."""


@search.command()
@click.option("--study", "name", help="A study of another name than captcha-KIND.")
def best(name: str | None) -> None:
    """Show the best trial of each study beside the present parameters."""


@search.command()
@click.option("--kind", type=KIND, help="Of this kind's study alone.")
@click.option("--study", "name", help="A study of another name than captcha-KIND.")
def apply(kind: "Kind | None", name: str | None) -> None:
    """Write the best trial's values into params.yaml, with its comments kept."""
