"""Overlays on params.yaml, the way back to the committed one, and the whole chain in a temporary copy.

A profile is laid over params.yaml as it is now and touches only the keys it names. A value that neither the last commit
nor a profile has would be lost by overwriting it: that is refused.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from captchalab import files, params, yaml
from captchalab.errors import UserError
from captchalab.params import CaptchaParams
from captchalab.project import Project


def names(project: Project) -> list[str]:
    return sorted(path.stem for path in project.profiles.glob("*.yaml"))


def overlay(project: Project, name: str) -> CommentedMap:
    """A profile's own keys.

    Raises:
        UserError: there is no such profile.
    """
    if name not in names(project):
        raise UserError(
            f"There is no profile {name!r}: take one of {', '.join(names(project))}; `captchalab profile --back` goes "
            "back to the committed params.yaml."
        )
    return yaml.read(project.profiles / f"{name}.yaml")


def merged(text: str, project: Project, name: str) -> str:
    """A params.yaml's text with a profile laid over it.

    Raises:
        UserError: there is no such profile, the text cannot be, or the two do not go together.
    """
    content = yaml.parse(text)
    params.check(content)
    yaml.merge(content, overlay(project, name))
    params.check(content, f"params.yaml with profiles/{name}.yaml over it")
    return yaml.dump(content)


def apply(project: Project, name: str) -> str:
    """Lay a profile over params.yaml; returns the diff.

    Raises:
        UserError: a value that is not committed would be lost; or see `merged`.
    """
    before = project.params.read_text(encoding="utf-8")
    after = merged(before, project, name)
    unique = _unique(project, yaml.parse(before))
    new = yaml.leaves(yaml.parse(after))
    lost = [f"{key} = {value!r}" for key, value in unique.items() if new[key] != value]
    if lost:
        raise UserError(
            f"profiles/{name}.yaml would overwrite {', '.join(lost)}, which is not committed: commit params.yaml "
            "first, or drop its changes with `git checkout params.yaml`."
        )
    return write(project, before, after)


def back(project: Project) -> str:
    """Make params.yaml the committed one again; returns the diff.

    Raises:
        UserError: a value or comment that is not committed would be lost.
    """
    before, after = project.params.read_text(encoding="utf-8"), _committed(project)
    lost = [f"{key} = {value!r}" for key, value in _unique(project, yaml.parse(before)).items()]
    if not lost and _comments(before) != _comments(after):
        lost = ["comments"]
    if lost:
        raise UserError(
            f"params.yaml has {', '.join(lost)}, which is not committed: commit it first, or drop all changes with "
            "`git checkout params.yaml`."
        )
    return write(project, before, after)


def describe(captcha: CaptchaParams) -> str:
    """The captchas that will be drawn, in a line."""
    alphabet, colours = captcha.alphabet, "grey" if captcha.channels == 1 else "RGB"
    return (
        f"captchas of {captcha.length} characters out of {alphabet!r} ({len(alphabet)}), "
        f"{captcha.width_px} x {captcha.height_px} px, {colours}"
    )


def copy_project(root: Path, to: Path) -> None:
    """The project's files, as they are now, without what runs have made.

    Raises:
        UserError: it is not in a git repository.
    """
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise UserError(f"{root} cannot be copied ({listed.stderr.strip()}): git lists the files of a project.")
    for name in filter(None, listed.stdout.split("\0")):
        source = root / name
        if source.is_file() and name != "dvc.lock" and not name.startswith("reports/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to / name)
    (to / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def copy_environment() -> dict[str, str]:
    """For commands in a copy: this interpreter's tools, and nothing of the project or the store it comes from."""
    own = ("DVC_", "MLFLOW_TRACKING_", "MLFLOW_REGISTRY_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    # not resolved: a virtual environment's python is a link out of it
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def smoke(project: Project, keep: bool = False) -> int:
    """`dvc repro` of the whole chain on the captchas of params.yaml, tiny, in a temporary copy; its exit status."""
    text = merged(project.params.read_text(encoding="utf-8"), project, "smoke")
    print(f"smoke: {describe(params.check(yaml.parse(text)).captcha)}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="captchalab-smoke-"))
    try:
        copy_project(project.root, folder)
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        status = subprocess.run(["dvc", "repro"], cwd=folder, env=copy_environment(), check=False).returncode
        end = "the whole chain ran" if status == 0 else "failed"
        print(f"smoke: {end}, in {folder}{'' if keep else ', which is now removed'}")
        return status
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def write(project: Project, before: str, after: str) -> str:
    """Write another text of params.yaml, where it is another; returns the diff."""
    if after != before:
        files.write_text(project.params, after)
    diff = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "before", "params.yaml", n=1)
    return "".join(diff)


def _unique(project: Project, content: CommentedMap) -> dict[str, Any]:
    """The values of params.yaml that neither the last commit nor a profile has."""
    known = [yaml.leaves(yaml.parse(_committed(project)))]
    known += [yaml.leaves(overlay(project, name)) for name in names(project)]
    return {
        key: value
        for key, value in yaml.leaves(content).items()
        if not any(key in values and values[key] == value for values in known)
    }


def _comments(text: str) -> list[str]:
    return [comment.strip() for comment in re.findall(r"#.*", text)]


def _committed(project: Project) -> str:
    """params.yaml of the last commit."""
    show = ["git", "show", "HEAD:./params.yaml"]
    shown = subprocess.run(show, cwd=project.root, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise UserError(
            f"git does not know a committed params.yaml in {project.root} ({shown.stderr.strip()}): commit it first, "
            "so that a profile can be taken back."
        )
    return shown.stdout
