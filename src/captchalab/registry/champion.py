"""The champion beside the project: mlruns/champion/, whole, so that reading with it needs no MLflow.

    model.onnx   the registered version's network
    about.json   which version that is, and its figures

The alias `champion` in the registry decides; this is its copy, written when the alias has moved.
"""

import shutil
from pathlib import Path
from typing import Any

from captchalab import files
from captchalab.errors import UserError
from captchalab.project import Project


def network(project: Project) -> Path:
    """The champion's ONNX file.

    Raises:
        UserError: nothing has been promoted yet.
    """
    path = project.champion / "model.onnx"
    if not path.exists():
        raise UserError(
            f"{project.champion} holds no champion yet: promote one with `captchalab promote`, or read with a network "
            "of the workspace, --model cnn or --model ctc."
        )
    return path


def about(project: Project) -> dict[str, Any]:
    """The registered version the copy is of, its run and figures; nothing where there is no copy."""
    path = project.champion / "about.json"
    return dict(files.read_json(path)) if path.exists() else {}


def write(project: Project, onnx: Path, described: dict[str, Any]) -> None:
    """Put another champion there; whoever reads meanwhile has the old file or the new one, whole."""
    with files.atomic_write(project.champion / "model.onnx") as partial:
        shutil.copyfile(onnx, partial)
    files.write_json(project.champion / "about.json", described)
