"""The registry: promotion, rollback, versions, lineage."""

import json
import sys

import click

from captchalab.cli.group import main, open_project
from captchalab.errors import UserError


@main.command()
@click.option("--run", "run_id", help="A fine-tune run's id, instead of the better network of the workspace.")
@click.option("--images", type=click.IntRange(1), help="Captchas to draw, instead of promote.images.")
@click.option("--force", is_flag=True, help="Whatever the rules say; needs --reason.")
@click.option("--reason", help="Why it is forced; kept with the version.")
def promote(run_id: str | None, images: int | None, force: bool, reason: str | None) -> None:
    """Make a network champion if it beats the present one; exit status 3 if it does not."""
    if force != bool(reason):
        raise UserError("--force and --reason TEXT go together: what overrides the rules says why.")
    project, params = open_project()
    from captchalab.registry import cards, promotion, registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(project)
    rules = params.promote.model_copy(update={"images": images} if images else {})
    with needed(store):
        opened = registry.Registry(project, store)
        outcome = promotion.promote(opened, rules, run_id, reason, params.runtime.workers)
    print(cards.candidate_table(outcome.candidate, outcome.champion, outcome.before and outcome.before.number))
    if outcome.version is None:
        print(f"Not promoted (exit status 3): {outcome.decision.reason}")
        if n := outcome.decision.images_to_tell:
            print(f"`captchalab promote {f'--run {run_id} ' if run_id else ''}--images {n}` draws as many.")
        sys.exit(3)
    verb = "Promoted" if outcome.decision.better else f"Promoted by force ({reason})"
    print(f"{verb}: {outcome.decision.reason}\n{outcome.version.name} is champion.")


@main.command()
def rollback() -> None:
    """Go back to the champion that the present one replaced; twice goes back two."""
    project, _ = open_project()
    from captchalab.registry import registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(project)
    with needed(store):
        now, back = registry.Registry(project, store).rollback()
    print(
        f"Rolled back from version {now.number} ({now.exact()}) to {back.number} ({back.exact()}): "
        f"{back.name} is champion."
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def models(as_json: bool) -> None:
    """List the registered versions: aliases, metrics, age."""
    project, _ = open_project()
    from captchalab.registry import cards, registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(project)
    with needed(store):
        opened = registry.Registry(project, store)
        opened.pull_champion()
        versions = opened.versions()
    if as_json:
        print(json.dumps([version.as_json() for version in versions], ensure_ascii=False))
    elif versions:
        print(cards.version_table(versions))
    else:
        print("Nothing is registered yet: `captchalab promote` does it.")


@main.command()
def pull_champion() -> None:
    """Update the champion's local copy, which `predict` uses, to the registry's champion."""
    project, _ = open_project()
    from captchalab.registry import registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(project)
    with needed(store):
        opened = registry.Registry(project, store)
        version = opened.present_champion()
        pulled = opened.pull_champion()
    state = "is now" if pulled else "is already"
    print(f"{project.champion} {state} {version.name}, test exact match {version.exact()}.")


@main.command()
@click.argument("start", metavar="PATH|models:/captcha/VERSION|RUN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def lineage(start: str, as_json: bool) -> None:
    """Say what a model's file, a version or a run comes from: run, parameters, git, data."""
    project, _ = open_project()
    from captchalab.registry import lineage
    from captchalab.tracking.store import Store, needed

    store = Store.of(project)
    with needed(store):
        found = lineage.trace(project, store, start)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else lineage.lines(found))
