"""The command line: one verb a command. Heavy parts are imported by the verb that needs them."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from captchalab import __version__
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.errors import UnreadableError

if TYPE_CHECKING:
    from captchalab.params import Params, Split, StageName
    from captchalab.reading.captcha import Kind
    from captchalab.reading.predictor import Predictor

KIND = click.Choice(["cnn", "ctc"])


class Verbs(click.Group):
    """Verbs in the order they are defined; a `UserError` is its sentence and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, UnreadableError) as error:
            print(f"captchalab: {error}", file=sys.stderr)
            ctx.exit(1)
        except KeyboardInterrupt:
            print("captchalab: stopped; a stage resumes from its last finished epoch.", file=sys.stderr)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Captcha prediction as a tracked, reproducible experiment.

    `dvc repro` runs generate, train, finetune, export, evaluate and compare in their order; each is
    a verb here too.
    """


@main.command()
@click.argument("split", type=click.Choice(["train", "valid", "test"]))
def generate(split: "Split") -> None:
    """Draw a split of captchas to data/SPLIT."""
    project, params = _project()
    from captchalab.data import dataset

    out = project.split(split)
    dataset.generate(params.captcha, split, getattr(params.splits, split), params.seed, out, params.runtime.workers)
    print(f"generate {split}: {getattr(params.splits, split).images:,} captchas in {out}")


@main.command()
@click.argument("kind", type=KIND)
def train(kind: "Kind") -> None:
    """Train a network: stage 1, at 1e-3."""
    _fit("train", kind)


@main.command()
@click.argument("kind", type=KIND)
def finetune(kind: "Kind") -> None:
    """Fine-tune a trained network: stage 2, at 1e-4."""
    _fit("finetune", kind)


@main.command()
@click.argument("kind", type=KIND)
def export(kind: "Kind") -> None:
    """Write a fine-tuned network as ONNX, and hold both to the same texts."""
    project, _ = _project()
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
    project, params = _project()
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
    project, params = _project()
    from captchalab.evaluation import report

    result = report.compare(params.captcha, params.evaluate.pictures, project)
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


@main.command()
@click.argument("text")
@click.option("-n", "--count", default=1, show_default=True, type=click.IntRange(1), help="How many pictures.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File, or folder for more than one.")
def draw(text: str, count: int, out: Path | None) -> None:
    """Write a captcha of TEXT to TEXT.png, or COUNT of them to the folder TEXT/."""
    _, params = _project()
    from PIL import Image

    from captchalab.data.rendering import draw_text

    unknown = sorted(set(text) - set(params.captcha.alphabet))
    if not text:
        raise UserError("'' cannot be drawn: give a text of at least one character.")
    if unknown:
        raise UserError(
            f"{text!r} cannot be drawn: {' '.join(unknown)} is not in captcha.alphabet = {params.captcha.alphabet!r}."
        )
    if count == 1:
        written = [out or Path(f"{text}.png")]
    else:
        written = [(out or Path(text)) / f"{i:04d}.png" for i in range(count)]
    for i, path in enumerate(written):
        pixels = draw_text(params.captcha, text, params.seed, i)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0] if params.captcha.channels == 1 else pixels).save(path, "PNG")
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): name another place with --out.") from None
    print(written[0] if count == 1 else f"{count} captchas in {written[0].parent}")


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="champion; cnn or ctc, the workspace's; models:/captcha/VERSION; or a model.onnx.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the model's name, instead of a table.")
def predict(images: tuple[Path, ...], model: str, as_json: bool) -> None:
    """Predict the texts of image files, or of all PNG and JPEG files of a folder."""
    from captchalab.reading import predictor
    from captchalab.reading.decoding import Prediction

    with _network(model) as (network, name):
        found = predictor.predict_files(network, images)
    predictions = [(file, prediction) for file, prediction in found if isinstance(prediction, Prediction)]
    if as_json:
        rows = [
            {
                "file": str(file),
                "text": prediction.text,
                "confidence": round(prediction.confidence, 6),
                "characters": [round(confidence, 6) for confidence in prediction.characters],
            }
            for file, prediction in predictions
        ]
        answer = {"model": name, "network_md5": network.network_md5, "predictions": rows}
        print(json.dumps(answer, ensure_ascii=False))
    else:
        width = max((len(str(file)) for file, _ in predictions), default=0)
        for file, prediction in predictions:
            print(f"{file!s:<{width}}  {prediction.text:<8}  {prediction.confidence:.4f}")
    if name != model:  # `champion` does not say which version it is
        print(f"captchalab: {model} is {name}.", file=sys.stderr)
    errors = [prediction for _, prediction in found if isinstance(prediction, UnreadableError)]
    for error in errors:
        print(f"captchalab: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


@main.command()
@click.option("--run", "run_id", help="A fine-tune run's id, instead of the better network of the workspace.")
@click.option("--images", type=click.IntRange(1), help="Captchas to draw, instead of promote.images.")
@click.option("--force", is_flag=True, help="Whatever the rules say; needs --reason.")
@click.option("--reason", help="Why it is forced; kept with the version.")
def promote(run_id: str | None, images: int | None, force: bool, reason: str | None) -> None:
    """Make a network champion if it beats the present one; exit status 3 if it does not."""
    if force != bool(reason):
        raise UserError("--force and --reason TEXT go together: what overrides the rules says why.")
    project, params = _project()
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
        sys.exit(3)
    verb = "Promoted" if outcome.decision.better else f"Promoted by force ({reason})"
    print(f"{verb}: {outcome.decision.reason}\n{outcome.version.name} is champion.")


@main.command()
def rollback() -> None:
    """Go back to the champion that the present one replaced; twice goes back two."""
    project, _ = _project()
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
    project, _ = _project()
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
    project, _ = _project()
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
    project, _ = _project()
    from captchalab.registry import lineage
    from captchalab.tracking.store import Store, needed

    store = Store.of(project)
    with needed(store):
        found = lineage.trace(project, store, start)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else lineage.lines(found))


@main.command()
@click.option("--port", default=5001, show_default=True, help="Port on 127.0.0.1.")
def serve(port: int) -> None:
    """Serve the champion with MLflow's scoring server, on this machine only."""
    project, _ = _project()
    from captchalab.registry import registry
    from captchalab.tracking.store import Store, needed

    _free(port)
    store = Store.of(project)
    with needed(store):
        command = registry.Registry(project, store).serve_command(port)
    print(f"The champion will answer at http://127.0.0.1:{port}/invocations (Ctrl-C ends it)", flush=True)
    # MLflow starts uvicorn by its name; nobody needs to have activated the environment
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execvpe(command[0], command, {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "PATH": path})


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
    print(f"`dvc repro` now runs {profiles.describe(params.load(project.params).captcha)}.")


@main.command()
@click.option("--keep", is_flag=True, help="Keep the temporary copy, and say where it is.")
def smoke(keep: bool) -> None:
    """Run the whole chain on your captchas, tiny, in a temporary copy; nothing here is touched."""
    from captchalab import profiles

    sys.exit(profiles.smoke(Project.find(), keep))


@main.command()
def sync() -> None:
    """Log finished stages that MLflow lacks: it was unreachable, or is another store now."""
    project, _ = _project()
    from captchalab.params import STAGES
    from captchalab.reading.captcha import KINDS
    from captchalab.tracking import models, runs
    from captchalab.tracking.store import Store, needed
    from captchalab.training.journal import Journal

    store = Store.of(project)
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
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(port: int) -> None:
    """Open the runs in MLflow's own pages, on this machine only."""
    project, params = _project()
    from captchalab.tracking import ui
    from captchalab.tracking.store import Store, needed

    _free(port)
    store = Store.of(project)
    with needed(store):
        page = ui.page(store, params.tracking.experiment, port)
    if store.is_server:
        print(f"The runs are on a server of their own: {page}")
        return
    print(f"The runs: {page} (Ctrl-C ends it)", flush=True)
    command, environment = ui.command(store, port)
    os.execvpe(command[0], command, environment)


def _free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"Port {port} on 127.0.0.1 is taken: end what runs there, or take another with --port.")


@contextmanager
def _network(name: str) -> Iterator[tuple["Predictor", str]]:
    """What --model names, loaded, and its full name; nothing of a model but its ONNX file is ever read."""
    from captchalab.reading import predictor

    if name.startswith("models:/"):
        from captchalab.registry import registry
        from captchalab.tracking import packaging
        from captchalab.tracking.store import Store, needed

        project = Project.find()
        store = Store.of(project)
        with tempfile.TemporaryDirectory() as temporary:
            with needed(store):
                opened = registry.Registry(project, store)
                version = opened.find(name)
                onnx = opened.fetch(version, packaging.ONNX, Path(temporary))
            yield predictor.load(onnx), version.name
    elif name == "champion":
        from captchalab.registry import champion

        project = Project.find()
        path = champion.network(project)
        try:
            network = predictor.load(path)
        except UnreadableError:
            raise UserError(f"{path} is damaged: replace it with `captchalab pull-champion`.") from None
        yield network, champion.name(project, network.network_md5)
    elif name in ("cnn", "ctc"):
        yield predictor.load(Project.find().onnx("cnn" if name == "cnn" else "ctc")), name
    else:
        if not Path(name).is_file():
            raise UserError(
                f"--model {name} is neither champion, cnn, ctc, models:/captcha/VERSION nor a file: "
                "name an existing model.onnx."
            )
        yield predictor.load(Path(name)), name


def _project() -> tuple[Project, "Params"]:
    from captchalab import params, processes

    processes.end_with_dvc()
    project = Project.find()
    return project, params.load(project.params)


def _fit(name: "StageName", kind: "Kind") -> None:
    project, params = _project()
    from captchalab.tracking import origin, runs
    from captchalab.tracking.store import Store
    from captchalab.training import fit
    from captchalab.training.journal import Journal

    task = fit.Task(
        name,
        kind,
        params.captcha,
        params.network(kind),
        params.stage(name, kind),
        params.seed,
        params.tracking.experiment,
        params.runtime.workers,
    )
    tags = origin.run_tags(project, kind, name)
    stage_1 = Journal(project.stage(kind, "train")) if name == "finetune" else None
    fit.fit(task, project.stage_paths(kind, name), tags, runs.Background(Store.of(project), stage_1))


if __name__ == "__main__":
    main()
