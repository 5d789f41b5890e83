"""The model that is registered: MLflow's pyfunc around `predictor`, as code (nothing is pickled).

MLflow runs this file where the model is served. Its folder carries the ONNX file and the package `reading`
(see `packaging`), so neither captchalab nor Keras has to be installed there.
"""

from typing import Any

import mlflow
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from captchalab.reading import predictor
from captchalab.reading.decoding import Prediction
from captchalab.reading.errors import UnreadableError


class BadImage(mlflow.MlflowException):
    """Status 400 and one sentence; MLflow would put the whole image in front of it."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self.sentence

    @message.setter
    def message(self, text: str) -> None: ...


class CaptchaModel(mlflow.pyfunc.PythonModel):
    """PNG or JPEG images in (JSON: base64); text and confidences out."""

    def load_context(self, context: Any) -> None:
        from pathlib import Path

        self.predictor = predictor.load(Path(context.artifacts["onnx"]))

    def predict(self, context: Any, model_input: list[bytes], params: dict[str, Any] | None = None) -> list[Prediction]:
        found = predictor.predict_bytes(
            self.predictor, [(f"Image {i + 1}", image) for i, image in enumerate(model_input)]
        )
        predictions = []
        for prediction in found:
            if isinstance(prediction, UnreadableError):
                raise BadImage(str(prediction))
            predictions.append(prediction)
        return predictions


mlflow.models.set_model(CaptchaModel())
