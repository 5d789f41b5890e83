"""Where everything of a project is: the one module that knows its folders and file names.

data/<split>/              a split
models/<kind>/<stage>/     a trained network and its journal
models/<kind>/export/      the fine-tuned network as ONNX
reports/<kind>/            metrics, plots and predictions
results/<name>/            networks that git keeps
results/seeds.json, .png   the same networks trained with several seeds
mlruns/                    MLflow's database and artifacts, the champion's copy; Optuna's database, trials
.checkpoints/              of stages that have not ended
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from captchalab.errors import UserError

if TYPE_CHECKING:
    from captchalab.params import Split, StageName
    from captchalab.reading.captcha import Kind


class StagePaths(NamedTuple):
    """Where one training stage reads and writes."""

    train: Path  # split
    valid: Path  # split
    start_from: Path | None  # a model.keras, for fine-tuning
    out: Path
    checkpoints: Path


@dataclass(frozen=True)
class Project:
    """A folder with params.yaml and dvc.yaml, and the place of every file in it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """The project at or above `start` (the working directory), else the one this source lies in.

        Raises:
            UserError: there is none.
        """
        here = (start or Path.cwd()).resolve()
        for folder in (here, *here.parents, *Path(__file__).resolve().parents):
            if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
                return cls(folder)
        raise UserError(f"No captchalab project at or above {here}: go to the folder with params.yaml.")

    @property
    def main(self) -> Path:
        """The project that owns the runs: DVC's temporary copies share those of the one they come from."""
        return Path(os.environ.get("DVC_ROOT") or self.root).resolve()

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def lock(self) -> Path:
        """dvc.lock"""
        return self.root / "dvc.lock"

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    @property
    def mlruns(self) -> Path:
        return self.main / "mlruns"

    @property
    def champion(self) -> Path:
        """The folder of the champion's copy."""
        return self.mlruns / "champion"

    @property
    def studies(self) -> Path:
        """Optuna's database of studies; never MLflow's, which keeps a table of the same name."""
        return self.mlruns / "optuna.db"

    @property
    def search(self) -> Path:
        """What trials read and write."""
        return self.mlruns / "search"

    @property
    def checkpoints(self) -> Path:
        return self.main / ".checkpoints"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def results(self) -> Path:
        """The folders of kept networks (`results.kept`)."""
        return self.root / "results"

    @property
    def seeds(self) -> Path:
        """The table of the same networks trained with several seeds."""
        return self.results / "seeds.json"

    def split(self, name: "Split") -> Path:
        return self.root / "data" / name

    def stage(self, kind: "Kind", name: "StageName") -> Path:
        return self.models / kind / name

    def model(self, kind: "Kind", name: "StageName" = "finetune") -> Path:
        return self.stage(kind, name) / "model.keras"

    def export(self, kind: "Kind") -> Path:
        return self.models / kind / "export"

    def onnx(self, kind: "Kind") -> Path:
        return self.export(kind) / "model.onnx"

    def report(self, kind: "Kind") -> Path:
        return self.reports / kind

    def stage_paths(self, kind: "Kind", name: "StageName") -> StagePaths:
        """Where a stage of the chain reads and writes; `finetune` starts from what `train` wrote."""
        return StagePaths(
            train=self.split("train"),
            valid=self.split("valid"),
            start_from=self.model(kind, "train") if name == "finetune" else None,
            out=self.stage(kind, name),
            checkpoints=self.checkpoints,
        )

    def check_network(self, kind: "Kind") -> None:
        """Refuse a fine-tuned network of which a file is missing.

        Raises:
            UserError: a file is missing.
        """
        for path in (self.onnx(kind), self.report(kind) / "predictions.csv", self.split("test") / "meta.json"):
            if not path.exists():
                raise UserError(f"{path} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.")
