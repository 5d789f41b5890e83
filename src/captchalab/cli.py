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

from captchalab import __version__, files
from captchalab.errors import UserError

if TYPE_CHECKING:
    from captchalab.params import Kind, Params, Split, StageName

KIND = click.Choice(["cnn", "ctc"])


class Verbs(click.Group):
    """Verbs in the order they are defined; a `UserError` is its sentence and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            print(f"captchalab: {error}", file=sys.stderr)
            ctx.exit(1)
        except KeyboardInterrupt:
            print("captchalab: stopped; a stage goes on from its last finished epoch.", file=sys.stderr)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Captcha reading as a tracked, reproducible experiment.

    `dvc repro` runs generate, train, finetune, evaluate and compare in their order; each is a verb
    here too.
    """


@main.command()
@click.argument("split", type=click.Choice(["train", "valid", "test"]))
def generate(split: "Split") -> None:
    """Draw a split of captchas to data/SPLIT."""
    root, params = _project()
    from captchalab.data import dataset

    out = root / "data" / split
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
    os.environ["KERAS_BACKEND"] = (
        "tensorflow"  # Keras writes ONNX through it; whatever trained, the weights are the same
    )
    root, _ = _project()
    from captchalab.networks import export

    out = root / "models" / kind / "export"
    parity = export.export(root / "models" / kind / "finetune" / "model.keras", root / "data" / "test", out)
    print(
        f"export {kind}: {out / 'model.onnx'}, the same {parity['n']:,} texts, logits within "
        f"{parity['largest_logit_difference']:.1e}"
    )


@main.command()
@click.argument("kind", type=KIND)
def evaluate(kind: "Kind") -> None:
    """Test a fine-tuned network on the test split."""
    root, params = _project()
    from captchalab.evaluation import evaluate
    from captchalab.tracking import packaging, runs
    from captchalab.tracking.store import Store, attempt

    out = root / "reports" / kind
    paths = evaluate.Paths(root / "data" / "test", root / "models" / kind, out)
    figures = evaluate.evaluate(kind, params.captcha, params.evaluate, paths)
    print(
        f"evaluate {kind}: exact {figures['exact']:.2%} (95 % interval {figures['exact_low']:.2%} - "
        f"{figures['exact_high']:.2%}) on {figures['n']:,} captchas, cer {figures['cer']:.2%}; see {out}"
    )
    store = Store.of(root)
    attempt(store, lambda: runs.log_test(packaging.Files.of(root, kind), store))


@main.command()
def compare() -> None:
    """Compare CNN and CTC on the same test captchas."""
    root, params = _project()
    from captchalab.evaluation import report

    paths = report.Paths(root / "data" / "test", root / "reports")
    result = report.compare(params.captcha, params.evaluate.pictures, paths)
    for kind in ("cnn", "ctc"):
        figures = result[kind]
        print(
            f"compare: {kind} exact {figures['exact']:.2%} "
            f"({figures['exact_low']:.2%} - {figures['exact_high']:.2%}), n = {result['n']:,}"
        )
    print(
        f"compare: only the CNN reads {result['only_cnn']}, only CTC {result['only_ctc']}; "
        f"McNemar p = {result['mcnemar_p']:.3g}; see {root / 'reports' / 'index.html'}"
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
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def predict(images: tuple[Path, ...], model: str, as_json: bool) -> None:
    """Read captchas from picture files, or from all PNG and JPEG files of a folder."""
    from captchalab.reading import predictor

    with _network(model) as onnx:
        found = predictor.read_files(predictor.load(onnx), images)
    readings = [(file, reading) for file, reading in found if isinstance(reading, predictor.Reading)]
    if as_json:
        rows = [
            {
                "file": str(file),
                "text": reading.text,
                "confidence": round(reading.confidence, 6),
                "characters": [round(confidence, 6) for confidence in reading.characters],
            }
            for file, reading in readings
        ]
        print(json.dumps(rows, ensure_ascii=False))
    else:
        width = max((len(str(file)) for file, _ in readings), default=0)
        for file, reading in readings:
            print(f"{file!s:<{width}}  {reading.text:<8}  {reading.confidence:.4f}")
    errors = [reading for _, reading in found if isinstance(reading, UserError)]
    for error in errors:
        print(f"captchalab: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


@main.command()
@click.option("--run", "run_id", help="A fine-tune run's id, instead of the better network of the workspace.")
@click.option("--force", is_flag=True, help="Whatever the rules say; wants --reason.")
@click.option("--reason", help="Why it is forced; kept with the version.")
def promote(run_id: str | None, force: bool, reason: str | None) -> None:
    """Make a network champion if it beats the present one; exit status 3 if it does not."""
    if force != bool(reason):
        raise UserError("--force and --reason TEXT go together: what overrides the rules says why.")
    root, params = _project()
    from captchalab.registry import cards, registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(root)
    with needed(store):
        outcome = registry.Registry(root, store).promote(params.promote, run_id, reason)
    print(cards.candidate_table(outcome.candidate, outcome.champion, outcome.before and outcome.before.number))
    if outcome.version is None:
        print(f"Not promoted: {outcome.decision.reason}")
        sys.exit(3)
    verb = "Promoted" if outcome.decision.better else f"Promoted by force ({reason})"
    print(f"{verb}: {outcome.decision.reason}\nmodels:/captcha/{outcome.version.number} is champion.")


@main.command()
def rollback() -> None:
    """Go back to the champion that the present one replaced; twice goes back two."""
    root, _ = _project()
    from captchalab.registry import registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(root)
    with needed(store):
        now, back = registry.Registry(root, store).rollback()
    print(
        f"Rolled back from version {now.number} ({now.exact()}) to {back.number} ({back.exact()}): "
        f"models:/captcha/{back.number} is champion."
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def models(as_json: bool) -> None:
    """List the registered versions: aliases, figures, age."""
    root, _ = _project()
    from captchalab.registry import cards, registry
    from captchalab.tracking.store import Store, needed

    store = Store.of(root)
    with needed(store):
        opened = registry.Registry(root, store)
        opened.write_champion()
        versions = opened.versions()
    if as_json:
        print(json.dumps([version.as_json() for version in versions], ensure_ascii=False))
    elif versions:
        print(cards.version_table(versions))
    else:
        print("Nothing is registered yet: `captchalab promote` does it.")


@main.command()
@click.argument("start", metavar="PATH|models:/captcha/VERSION|RUN")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def lineage(start: str, as_json: bool) -> None:
    """Say what a model's file, a version or a run comes from: run, parameters, git, data."""
    root, _ = _project()
    from captchalab.registry import lineage
    from captchalab.tracking.store import Store, needed

    store = Store.of(root)
    with needed(store):
        found = lineage.trace(root, store, start)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else lineage.lines(found))


@main.command()
@click.option("--port", default=5001, show_default=True, help="Port on 127.0.0.1.")
def serve(port: int) -> None:
    """Serve the champion with MLflow's scoring server, on this machine only."""
    root, _ = _project()
    from captchalab.registry import registry
    from captchalab.tracking.store import Store, needed

    _free(port)
    store = Store.of(root)
    with needed(store):
        command = registry.Registry(root, store).serve_command(port)
    print(f"The champion will answer at http://127.0.0.1:{port}/invocations (Ctrl-C ends it)", flush=True)
    # MLflow starts uvicorn by its name; nobody needs to have activated the environment
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execvpe(command[0], command, {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "PATH": path})


@main.command()
@click.argument("name")
def profile(name: str) -> None:
    """Merge profiles/NAME.yaml into params.yaml; `default` goes back."""
    from captchalab import profiles

    root = files.project_root()
    diff = profiles.apply(root, name)
    print(diff or f"params.yaml is as profile {name!r} has it already.", end="" if diff else "\n")


@main.command()
@click.option("--keep", is_flag=True, help="Keep the temporary copy, and say where it is.")
def smoke(keep: bool) -> None:
    """Run the whole chain, tiny, in a temporary copy; nothing here is touched."""
    from captchalab import profiles

    sys.exit(profiles.smoke(files.project_root(), keep))


@main.command()
def sync() -> None:
    """Tell MLflow of finished stages it does not know: it was away, or is another one now."""
    root, _ = _project()
    from captchalab.tracking import packaging, runs
    from captchalab.tracking.store import Store, needed

    store = Store.of(root)
    found = [*sorted(root.glob("models/*/train/journal.json")), *sorted(root.glob("models/*/finetune/journal.json"))]
    if not found:
        raise UserError(f"{root / 'models'} holds no finished stage: run `dvc repro` first.")
    with needed(store):
        for stage in (journal.parent for journal in found):
            print(f"{stage.relative_to(root)}: run {runs.sync(stage, store)}")
            network = packaging.Files.of(root, "cnn" if stage.parent.name == "cnn" else "ctc")
            if stage.name == "finetune" and (network.reports / "metrics.json").exists():
                runs.log_test(network, store, again=False)


@main.command()
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def relocate(dry_run: bool) -> None:
    """Mend MLflow's database after the project was moved or renamed."""
    from captchalab.tracking import relocation

    print(relocation.relocate(files.store_root(files.project_root()) / "mlruns", dry_run))


@main.command()
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(port: int) -> None:
    """Open the runs in MLflow's own pages, on this machine only."""
    root, params = _project()
    from captchalab.tracking import ui
    from captchalab.tracking.store import Store, needed

    _free(port)
    store = Store.of(root)
    with needed(store):
        page = ui.page(store, params.tracking.experiment, port)
    if store.is_server:
        print(f"The runs are on a server of their own: {page}")
        return
    print(f"The runs: {page} (Ctrl-C ends it)", flush=True)
    command = ui.command(store, port)
    os.execvp(command[0], command)


def _free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"Port {port} on 127.0.0.1 is taken: end what runs there, or take another with --port.")


@contextmanager
def _network(name: str) -> Iterator[Path]:
    """The ONNX file that --model names; nothing of a model but this file is ever read."""
    if name.startswith("models:/"):
        from captchalab.registry import registry
        from captchalab.tracking import packaging
        from captchalab.tracking.store import Store, needed

        root = files.project_root()
        store = Store.of(root)
        with tempfile.TemporaryDirectory() as temporary:
            with needed(store):
                opened = registry.Registry(root, store)
                onnx = opened.fetch(opened.find(name), packaging.ONNX, Path(temporary))
            yield onnx
    elif name == "champion":
        from captchalab.registry import champion

        yield champion.network(files.project_root())
    elif name in ("cnn", "ctc"):
        yield files.project_root() / "models" / name / "export" / "model.onnx"
    else:
        if not Path(name).is_file():
            raise UserError(
                f"--model {name} is neither champion, cnn, ctc, models:/captcha/VERSION nor a file: "
                "name a model.onnx that is there."
            )
        yield Path(name)


def _project() -> tuple[Path, "Params"]:
    from captchalab import params, processes

    processes.end_with_dvc()
    root = files.project_root()
    return root, params.load(root / "params.yaml")


def _fit(name: "StageName", kind: "Kind") -> None:
    root, params = _project()
    from captchalab.tracking import origin, runs
    from captchalab.tracking.store import Store
    from captchalab.training import fit

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
    paths = fit.Paths(
        train=root / "data" / "train",
        valid=root / "data" / "valid",
        start_from=root / "models" / kind / "train" / "model.keras" if name == "finetune" else None,
        out=root / "models" / kind / name,
        checkpoints=files.store_root(root) / ".checkpoints",
    )
    tags = origin.run_tags(root, kind, name)
    fit.fit(task, paths, tags, runs.Background(Store.of(root)))


if __name__ == "__main__":
    main()
