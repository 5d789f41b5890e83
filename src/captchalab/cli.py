"""The command line: one verb a command. Heavy parts are imported by the verb that needs them."""

import json
import os
import socket
import sys
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
            print("captchalab: stopped; the same command goes on from the last finished epoch.", file=sys.stderr)
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
    from captchalab import dataset

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
def evaluate(kind: "Kind") -> None:
    """Test a fine-tuned network on the test split."""
    root, params = _project()
    from captchalab import evaluation, tracking

    out = root / "reports" / kind
    paths = evaluation.Paths(root / "data" / "test", root / "models" / kind, out)
    figures = evaluation.evaluate(kind, params.captcha, params.evaluate, paths)
    print(
        f"evaluate {kind}: exact {figures['exact']:.2%} (95 % interval {figures['exact_low']:.2%} - "
        f"{figures['exact_high']:.2%}) on {figures['n']:,} captchas, cer {figures['cer']:.2%}; see {out}"
    )
    store = tracking.Store.of(root)
    tracking.attempt(store, lambda: tracking.log_test(root / "models" / kind / "finetune", store, out))


@main.command()
def compare() -> None:
    """Compare CNN and CTC on the same test captchas."""
    root, params = _project()
    from captchalab import report

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

    from captchalab.rendering import draw_text

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
@click.option("--model", default="ctc", show_default=True, help="cnn, ctc, or the path of a model.keras.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def predict(images: tuple[Path, ...], model: str, as_json: bool) -> None:
    """Read captchas from picture files, or from all PNG and JPEG files of a folder."""
    path = (
        files.project_root() / "models" / model / "finetune" / "model.keras" if model in ("cnn", "ctc") else Path(model)
    )
    if model not in ("cnn", "ctc") and not path.exists():
        raise UserError(f"--model {model} is neither cnn nor ctc nor a file: name a model.keras that is there.")
    from captchalab.predictor import read_files

    reads = read_files(path, images)
    if as_json:
        rows = [{"file": str(file), "text": r.text, "confidence": round(r.confidence, 6)} for file, r in reads]
        print(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(str(file)) for file, _ in reads)
    for file, found in reads:
        print(f"{file!s:<{width}}  {found.text:<8}  {found.confidence:.4f}")


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
    from captchalab import tracking

    store = tracking.Store.of(root)
    found = sorted(root.glob("models/*/*/journal.json"))
    if not found:
        raise UserError(f"{root / 'models'} holds no finished stage: run `dvc repro` first.")
    with tracking.needed(store):
        for stage in (journal.parent for journal in found):
            print(f"{stage.relative_to(root)}: run {tracking.sync(stage, store)}")
            reports = root / "reports" / stage.parent.name
            if stage.name == "finetune" and (reports / "metrics.json").exists():
                tracking.log_test(stage, store, reports, again=False)


@main.command()
@click.option("--port", default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(port: int) -> None:
    """Open the runs in MLflow's own pages, on this machine only."""
    from captchalab import tracking

    root, params = _project()
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"Port {port} on 127.0.0.1 is taken: end what runs there, or take another with --port.")
    store = tracking.Store.of(root)
    command = tracking.ui_command(store, port)
    with tracking.needed(store):
        page = tracking.ui_page(store, params.tracking.experiment, port)
    if store.is_server:
        print(f"The runs are on a server of their own: {page}")
        return
    print(f"The runs: {page} (Ctrl-C ends it)", flush=True)
    os.execvp(command[0], command)


def _project() -> tuple[Path, "Params"]:
    from captchalab import params, processes

    processes.end_with_dvc()
    root = files.project_root()
    return root, params.load(root / "params.yaml")


def _fit(name: "StageName", kind: "Kind") -> None:
    root, params = _project()
    from captchalab import tracking, training

    task = training.Task(
        name,
        kind,
        params.captcha,
        params.network(kind),
        params.stage(name, kind),
        params.seed,
        params.tracking.experiment,
        params.runtime.workers,
    )
    paths = training.Paths(
        train=root / "data" / "train",
        valid=root / "data" / "valid",
        start_from=root / "models" / kind / "train" / "model.keras" if name == "finetune" else None,
        out=root / "models" / kind / name,
        checkpoints=files.store_root(root) / ".checkpoints",
    )
    tags = tracking.run_tags(root, kind, name)
    training.fit(task, paths, tags, tracking.Background(tracking.Store.of(root)))


if __name__ == "__main__":
    main()
