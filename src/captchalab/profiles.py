"""Overlays on params.yaml, and the whole chain in a temporary copy."""

import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from captchalab import files, params
from captchalab.errors import UserError
from captchalab.project import Project


def names(project: Project) -> list[str]:
    return sorted(path.stem for path in project.profiles.glob("*.yaml"))


def merged(text: str, project: Project, name: str) -> str:
    """params.yaml's text as a profile has it: first back to the default, then the profile's own keys.

    Raises:
        UserError: there is no such profile, or what it gives cannot be.
    """
    if name not in names(project):
        raise UserError(f"There is no profile {name!r}: take one of {', '.join(names(project))}.")
    content = params.parse(text)
    for overlay in dict.fromkeys(("default", name)):
        params.merge(content, params.read(project.profiles / f"{overlay}.yaml"))
    params.check(content, f"profiles/{name}.yaml")
    return params.dump(content)


def apply(project: Project, name: str) -> str:
    """Merge a profile into params.yaml; returns the diff.

    Raises:
        UserError: params.yaml has changes of its own that are not committed.
    """
    path = project.params
    before = path.read_text()
    committed = _committed(project.root)
    known = [committed, *(merged(committed, project, profile) for profile in names(project))]
    if before not in known:
        raise UserError(
            "params.yaml has changes that are not committed, and a profile would overwrite some: commit them, or "
            "drop them with `git checkout params.yaml`."
        )
    after = merged(committed, project, name)
    files.write_text(path, after)
    diff = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "params.yaml", f"profile {name}", n=1)
    return "".join(diff)


def copy_project(root: Path, to: Path) -> None:
    """The project's files, as they are now, without what runs have made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = root / name
        if source.is_file() and name != "dvc.lock" and not name.startswith("reports/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, to / name)
    (to / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")


def copy_environment() -> dict[str, str]:
    """For commands in a copy: this interpreter's tools, and nothing of the project it comes from."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    # not resolved: a virtual environment's python is a link out of it
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment


def smoke(project: Project, keep: bool = False) -> int:
    """`dvc repro` of the whole chain, tiny, in a temporary copy; its exit status."""
    folder = Path(tempfile.mkdtemp(prefix="captchalab-smoke-"))
    try:
        copy_project(project.root, folder)
        (folder / "params.yaml").write_text(merged(project.params.read_text(), project, "smoke"))
        status = subprocess.run(["dvc", "repro"], cwd=folder, env=copy_environment(), check=False).returncode
        print(f"smoke: {'the whole chain ran' if status == 0 else 'failed'}{f', in {folder}' if keep else ''}")
        return status
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _committed(root: Path) -> str:
    shown = subprocess.run(["git", "show", "HEAD:./params.yaml"], cwd=root, capture_output=True, text=True, check=False)
    if shown.returncode:
        raise UserError(
            f"git does not know a committed params.yaml in {root} ({shown.stderr.strip()}): commit it first, so that "
            "a profile can be taken back."
        )
    return shown.stdout
