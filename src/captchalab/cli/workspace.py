"""The workspace: profiles, the smoke run, what MLflow knows of it, and the pages that show it."""

import contextlib
import os
import sys

import click

from captchalab.cli.group import PORT, main, open_project, require_free
from captchalab.errors import UserError
from captchalab.project import Project


@main.command()
@click.argument("name", required=False)
@click.option("--back", is_flag=True, help="Go back to the committed params.yaml instead.")
def profile(name: str | None, back: bool) -> None:
    """Lay profiles/NAME.yaml over params.yaml: the keys it names, and no others."""
    from captchalab import params, profiles

    project = Project.find()
    if back == bool(name):
        raise UserError(f"Name one profile ({', '.join(profiles.names(project))}), or give --back.")
    diff = profiles.back(project) if name is None else profiles.apply(project, name)
    already = "is the committed one" if name is None else f"is as profile {name!r} has it"
    print(diff or f"params.yaml {already} already.", end="" if diff else "\n")
    loaded = params.load(project.params)
    print(f"`dvc repro` now runs {profiles.describe(loaded.captcha)}.")
    if loaded.runtime.needs == "gpu":
        print("It is made for a GPU: without one, it says how long training would take, and ends.")


@main.command()
@click.option("--keep", is_flag=True, help="Keep the temporary copy, and say where it is.")
def smoke(keep: bool) -> None:
    """Run the whole chain on your captchas, tiny, in a temporary copy; nothing here is touched."""
    from captchalab import profiles

    sys.exit(profiles.smoke(Project.find(), keep))


@main.command()
@click.argument("results", required=False, metavar="[results/NAME]")
def sync(results: str | None) -> None:
    """Log finished stages that MLflow lacks, the workspace's or those of a folder of results/."""
    project, _ = open_project()
    from captchalab.params import STAGES
    from captchalab.reading.captcha import KINDS
    from captchalab.tracking import models, runs
    from captchalab.tracking.store import Store, needed
    from captchalab.training.journal import Journal

    store = Store.of(project)
    if results:
        from captchalab.results import kept, synced

        found_results = kept.check(kept.load(project, results))
        with needed(store):
            for line in synced.sync(found_results, store):
                print(line)
        return
    found = [(name, kind) for name in STAGES for kind in KINDS if Journal(project.stage(kind, name)).begun]
    if not found:
        raise UserError(f"{project.models} holds no finished stage: run `dvc repro` first.")
    with needed(store):
        for name, kind in found:
            stage = project.stage(kind, name)
            print(f"{stage.relative_to(project.root)}: run {runs.sync(stage, store)}")
            if name == "finetune" and (project.report(kind) / "metrics.json").exists():
                models.log_test(project, kind, store, again=False)


@main.command()
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def relocate(dry_run: bool) -> None:
    """Repair MLflow's database after the project was moved or renamed."""
    from captchalab.tracking import relocation

    print(relocation.relocate(Project.find().mlruns, dry_run))


@main.command()
@click.option("--port", default=5000, show_default=True, type=PORT, help="Port on 127.0.0.1.")
def ui(port: int) -> None:
    """Open the runs in MLflow's own pages, on this machine only."""
    project, params = open_project()
    from captchalab.tracking import search_view, ui
    from captchalab.tracking.store import Store, needed

    require_free(port)
    store = Store.of(project)
    with needed(store):
        page = ui.page(store, params.tracking.experiment, port)
        searches = search_view.searches(store, port)
    for found in searches:
        print(f"The trials of {found.study}: {found.page}")
    if store.is_server:
        print(f"The runs are on a server of their own: {page}")
        return
    print(f"The runs: {page} (answers in a few seconds; Ctrl-C ends it)", flush=True)
    command, environment = ui.command(store, port)
    os.execvpe(command[0], command, environment)


@main.command()
@click.option("--port", default=8080, show_default=True, type=PORT, help="Port on 127.0.0.1.")
def dashboard(port: int) -> None:
    """Open the studies of searches in Optuna's own pages, on this machine only."""
    project, params = open_project()
    from captchalab.search import dashboard, study

    require_free(port)
    storage = study.open_storage(project, params.search.heartbeat_s)
    page = dashboard.page(storage, port)
    with dashboard.server(storage, port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"The studies: {page} (Ctrl-C ends it)", flush=True)
        server.serve_forever()
