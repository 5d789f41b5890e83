"""The folder that is logged, registered and served: an ONNX file, `reading/`, nothing pickled.

MLmodel, requirements.txt   how MLflow loads it; packages with their exact versions
served.py                   the model as code
code/captchalab/reading/    all it imports of captchalab
artifacts/model.onnx        the network, with its alphabet, length and image size inside
test/                       its predictions on the test split, and which split that was
"""

import io
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from captchalab.data.rendering import draw_text
from captchalab.project import Project
from captchalab.reading import predictor
from captchalab.reading.captcha import CaptchaParams, Kind

PACKAGES = ("mlflow", "numpy", "onnxruntime", "pillow", "pydantic")
ONNX = "artifacts/model.onnx"  # within the folder
PREDICTIONS, SPLIT = "test/predictions.csv", "test/meta.json"


def package(project: Project, kind: Kind, out: Path, model_id: str | None = None, run_id: str | None = None) -> None:
    """Write the folder of a network to `out`; its MLmodel names the logged model and the run it belongs to."""
    import mlflow.pyfunc
    from mlflow.models import Model

    onnx = project.onnx(kind)
    captcha = predictor.load(onnx).captcha
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as temporary:
        code = Path(temporary) / "captchalab"
        ignored = shutil.ignore_patterns("__pycache__")
        code.mkdir()
        (code / "__init__.py").touch()  # else an installed captchalab would be served instead
        shutil.copytree(here.parent / "reading", code / "reading", ignore=ignored)
        mlflow.pyfunc.save_model(
            out,
            python_model=str(here / "served.py"),
            artifacts={"onnx": str(onnx)},
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
            input_example=[_example(captcha)],
            mlflow_model=Model(artifact_path=str(out), run_id=run_id, model_id=model_id),
        )
    write_test(project, kind, out)


def write_test(project: Project, kind: Kind, out: Path) -> None:
    """Write a network's predictions on the test split to the folder `out`."""
    (out / "test").mkdir()
    shutil.copyfile(project.report(kind) / "predictions.csv", out / PREDICTIONS)
    shutil.copyfile(project.split("test") / "meta.json", out / SPLIT)


def _example(captcha: CaptchaParams) -> bytes:
    """A captcha as a PNG file's bytes."""
    pixels = draw_text(captcha, captcha.alphabet[0] * captcha.length, 0, 0)
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if captcha.channels == 1 else pixels).save(content, "PNG")
    return content.getvalue()
