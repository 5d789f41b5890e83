"""The champion beside the project: mlruns/champion/, so that predicting with it needs no MLflow and no network.

    model.onnx   the registered version's network
    about.json   which version that is, and its metrics

The alias `champion` in the registry decides; this is a copy. It is written when a promotion or rollback on this
machine moves the alias, by `captchalab models` and by `captchalab pull-champion`; where somebody else has moved the
alias since, the copy is behind.
"""

import shutil
from pathlib import Path
from typing import Any

from captchalab import files
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.captcha import KINDS


def exists(project: Project) -> bool:
    """Whether there is a copy."""
    return (project.champion / "model.onnx").exists()


def network(project: Project) -> Path:
    """The champion's ONNX file.

    Raises:
        UserError: there is no copy; says what can be used instead.
    """
    path = project.champion / "model.onnx"
    if not exists(project):
        usable = [f"--model {kind}" for kind in KINDS if project.onnx(kind).exists()]
        instead = " or ".join(usable) or "--model FILE with a model.onnx (the workspace has none: `dvc repro`)"
        raise UserError(
            f"{project.champion} holds no champion: promote one with `captchalab promote`, fetch the registry's with "
            f"`captchalab pull-champion`, or predict with {instead}."
        )
    return path


def about(project: Project) -> dict[str, Any]:
    """The registered version that the copy is of, its run and metrics; nothing where there is no copy."""
    path = project.champion / "about.json"
    return dict(files.read_json(path)) if path.exists() else {}


def name(project: Project, network_md5: str) -> str:
    """What `predict` calls the copy: `models:/captcha/3`.

    Args:
        network_md5: of the ONNX file that was loaded; a copy that was cut short may have the version before in
            its about.json.
    """
    described = about(project)
    if described.get("network_md5") != network_md5:
        return "models:/captcha@champion (of an unknown version: see `captchalab pull-champion`)"
    return f"models:/captcha/{described['version']}"


def is_copy_of(project: Project, version: int, run_id: str) -> bool:
    """Whether the copy is of this version, and undamaged."""
    described, path = about(project), project.champion / "model.onnx"
    return (
        (described.get("version"), described.get("run_id")) == (version, run_id)
        and path.exists()
        and files.md5(path) == described.get("onnx_md5")
    )


def write(project: Project, onnx: Path, described: dict[str, Any]) -> None:
    """Replace the copy; whoever reads meanwhile has the whole old file or the whole new one."""
    with files.atomic_write(project.champion / "model.onnx") as partial:
        shutil.copyfile(onnx, partial)
    # last: a copy that was cut short before this line is not of the version it has to be of, and is written again
    files.write_json(project.champion / "about.json", {**described, "onnx_md5": files.md5(onnx)})
