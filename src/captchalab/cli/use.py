"""Captchas drawn and predicted, and the champion served."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from captchalab.cli.group import PORT, main, open_project, require_free
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.errors import UnreadableError

if TYPE_CHECKING:
    from captchalab.reading.predictor import Predictor


@main.command()
@click.argument("text")
@click.option("-n", "--count", default=1, show_default=True, type=click.IntRange(1), help="How many images.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File, or folder for more than one.")
def draw(text: str, count: int, out: Path | None) -> None:
    """Write a captcha of TEXT to TEXT.png, or COUNT of them to the folder TEXT/."""
    _, params = open_project()
    from PIL import Image

    from captchalab.data.rendering import draw_text, require_glyphs

    unknown = sorted(set(text) - set(params.captcha.alphabet))
    if not text:
        raise UserError("'' cannot be drawn: give a text of at least one character.")
    if unknown:
        raise UserError(
            f"{text!r} cannot be drawn: {' '.join(unknown)} is not in captcha.alphabet = {params.captcha.alphabet!r}."
        )
    require_glyphs(params.captcha)
    if count == 1:
        written = [out or Path(f"{text}.png")]
    else:
        written = [(out or Path(text)) / f"{i:04d}.png" for i in range(count)]
    if count == 1 and written[0].is_file() and written[0].suffix.lower() != ".png":
        raise UserError(f"{written[0]} exists and is no PNG file: name another with --out.")
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
    help="champion; cnn or ctc, the workspace's; models:/captcha/VERSION; results/NAME; or a model.onnx.  "
    "[default: the champion, else the best network of results/]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the model's name, instead of a table.")
def predict(images: tuple[Path, ...], model: str | None, as_json: bool) -> None:
    """Predict the texts of image files, or of all PNG and JPEG files of a folder."""
    from captchalab.reading import predictor
    from captchalab.reading.decoding import Prediction

    with _network(model) as (network, name, note):
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
    if note:
        print(f"captchalab: {note}.", file=sys.stderr)
    errors = [prediction for _, prediction in found if isinstance(prediction, UnreadableError)]
    for error in errors:
        print(f"captchalab: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


@main.command()
@click.option("--port", default=5001, show_default=True, type=PORT, help="Port on 127.0.0.1.")
def serve(port: int) -> None:
    """Serve the champion with MLflow's scoring server, on this machine only."""
    project, _ = open_project()
    from captchalab.registry import registry
    from captchalab.tracking.store import Store, needed

    require_free(port)
    store = Store.of(project)
    with needed(store):
        command = registry.Registry(project, store).serve_command(port)
    print(f"The champion will answer at http://127.0.0.1:{port}/invocations (Ctrl-C ends it)", flush=True)
    # MLflow starts uvicorn by its name; nobody needs to have activated the environment
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execvpe(command[0], command, {**os.environ, "MLFLOW_TRACKING_URI": store.uri, "PATH": path})


@contextmanager
def _network(name: str | None) -> Iterator[tuple["Predictor", str, str]]:
    """What --model names, loaded; its full name; what is said of it where --model does not say all.

    Nothing of a model but its ONNX file is ever read.
    """
    from captchalab.reading import predictor

    if name is None or name == "champion":
        yield _champion(or_kept=name is None)
    elif name.startswith("models:/"):
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
            yield predictor.load(onnx), version.name, "" if version.name == name else f"{name} is {version.name}"
    elif name in ("cnn", "ctc"):
        yield predictor.load(Project.find().onnx("cnn" if name == "cnn" else "ctc")), name, ""
    elif Path(name).is_file():
        yield predictor.load(Path(name)), name, ""
    elif name.startswith("results/"):
        from captchalab.results import kept

        found = kept.network(Project.find(), name)
        yield predictor.load(found.onnx), found.name, "" if found.name == name else f"{name} is {found}"
    else:
        raise UserError(
            f"--model {name} is neither champion, cnn, ctc, models:/captcha/VERSION, results/NAME nor a file: "
            "name an existing model.onnx."
        )


def _champion(or_kept: bool) -> tuple["Predictor", str, str]:
    """The champion's copy; where there is none and it may be, the best network of results/ for these captchas."""
    from captchalab.reading import predictor
    from captchalab.registry import champion

    project = Project.find()
    if or_kept and not champion.exists(project):
        from captchalab import params
        from captchalab.results import kept

        if best := kept.best(project, params.load(project.params).captcha):
            kept.check(best.kept)
            return predictor.load(best.onnx), best.name, f"no champion yet: {best} predicts"
    path = champion.network(project)
    try:
        network = predictor.load(path)
    except UnreadableError:
        raise UserError(f"{path} is damaged: replace it with `captchalab pull-champion`.") from None
    name = champion.name(project, network.network_md5)
    return network, name, f"champion is {name}"
