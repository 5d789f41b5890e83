"""The folder that is logged, registered and served: an ONNX file, the rooms that read with it, nothing pickled.

MLmodel, requirements.txt   how MLflow loads it; packages with their exact versions
registered.py               the model as code
code/captchalab/            the rooms it imports: no more than reading takes
artifacts/model.onnx        the network, with its alphabet, length and image size inside
test/                       what it read in the test split, and which split that was
"""

import io
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from captchalab.errors import UserError
from captchalab.params import CaptchaParams, Kind
from captchalab.reading import predictor

ROOMS = (
    "__init__",
    "errors",
    "params",
    "reading/__init__",
    "reading/alphabet",
    "reading/decoding",
    "reading/predictor",
)
PACKAGES = ("mlflow", "numpy", "onnxruntime", "pillow", "pydantic", "ruamel.yaml")
ONNX = "artifacts/model.onnx"  # within the folder
PREDICTIONS, SPLIT = "test/predictions.csv", "test/meta.json"


class Files(NamedTuple):
    """Where a fine-tuned network of the workspace lies, and all that is known of it."""

    root: Path  # of the project
    finetune: Path  # model.keras and its journal
    onnx: Path
    reports: Path
    test: Path  # split

    @classmethod
    def of(cls, root: Path, kind: Kind) -> "Files":
        models = root / "models" / kind
        onnx, reports = models / "export" / "model.onnx", root / "reports" / kind
        return cls(root, models / "finetune", onnx, reports, root / "data" / "test")

    def check(self) -> None:
        """Refuse a network that is not there as a whole.

        Raises:
            UserError: a file is missing.
        """
        for path in (self.onnx, self.reports / "predictions.csv", self.test / "images.npy"):
            if not path.exists():
                raise UserError(f"{path} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.")


def package(network: Files, out: Path, model_id: str | None = None, run_id: str | None = None) -> None:
    """Write the folder of a network to `out`; it names the logged model and the run it belongs to."""
    import mlflow.pyfunc
    from mlflow.models import Model

    reader = predictor.load(network.onnx)
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as temporary:
        code = Path(temporary) / "captchalab"
        (code / "reading").mkdir(parents=True)
        for room in ROOMS:
            shutil.copyfile(here.parent / f"{room}.py", code / f"{room}.py")
        mlflow.pyfunc.save_model(
            out,
            python_model=str(here / "served.py"),
            artifacts={"onnx": str(network.onnx)},
            code_paths=[str(code)],
            pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
            input_example=[_example(reader.captcha, network.test)],
            mlflow_model=Model(artifact_path=str(out), run_id=run_id, model_id=model_id),
        )
    write_test(network, out)


def write_test(network: Files, out: Path) -> None:
    """Write what a network read in the test split to the folder `out`."""
    (out / "test").mkdir()
    shutil.copyfile(network.reports / "predictions.csv", out / PREDICTIONS)
    shutil.copyfile(network.test / "meta.json", out / SPLIT)


def _example(captcha: CaptchaParams, test: Path) -> bytes:
    """The first picture of the test split, as a PNG file's bytes."""
    images = np.load(test / "images.npy", mmap_mode="r")
    content = io.BytesIO()
    Image.fromarray(images[0][..., 0] if captcha.channels == 1 else images[0]).save(content, "PNG")
    return content.getvalue()
