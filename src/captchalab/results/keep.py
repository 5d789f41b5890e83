"""A finished chain's networks, with all that is said of them, as a folder that git keeps.

    captchalab keep mine --kind ctc      results/mine/, 5 MB; 14 MB for both default networks

The weights of stage 1 stay behind: stage 2 is what is read with, promoted and fine-tuned from.
"""

import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captchalab import files, yaml
from captchalab.errors import UserError
from captchalab.params import STAGES
from captchalab.project import Project
from captchalab.reading import predictor
from captchalab.reading.captcha import KINDS, Kind
from captchalab.results import card, kept
from captchalab.tracking import hardware
from captchalab.tracking.curve import continues
from captchalab.tracking.store import Store, attempt
from captchalab.training.journal import FILES, Journal

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TESTED = ("metrics.json", "timing.json", "predictions.csv")
# shown where they are: what a report has beside these is made from the same networks by `dvc repro`
SHOWN = ("details.json", "confusions.csv", *(f"plots/{name}.png" for name in ("curves", "confusions", "worst")))


def keep(project: Project, name: str, store: Store, again: bool = False, wanted: Sequence[Kind] = KINDS) -> kept.Kept:
    """Write results/<name> from the workspace's finished networks.

    Args:
        wanted: the kinds to keep.
        store: where hardware metrics of the training may be; one that is unreachable costs a warning.
        again: replace a folder of that name.

    Raises:
        UserError: there is one already; no network is finished; the files are not of one run of the chain.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a folder of results/: take letters, digits, '-', '_' and '.'.")
    out = project.results / name
    if out.exists() and not again:
        raise UserError(f"{out} exists: take another name, or replace it with --force.")
    kinds = [kind for kind in wanted if (project.report(kind) / "metrics.json").exists()]
    if not kinds:
        raise UserError(
            f"{project.root} holds no tested network ({' or '.join(wanted)}) to keep: run `dvc repro` first."
        )
    named = [path for kind in kinds for path in _files(project, kind)]
    named += [Path("params.yaml"), Path("dvc.lock"), Path("data/test/meta.json")]
    _check_as_run(project, kinds, named)
    with files.atomic_write(out) as partial:
        for path in named:
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project.root / path, partial / path)
        for kind in kinds:
            for stage in STAGES:
                _keep_hardware(Journal(project.stage(kind, stage)), store, Project(partial).stage(kind, stage))
        networks = {kind: _about(project, kind) for kind in kinds}
        (partial / "README.md").write_text(card.card(Project(partial), name, networks), encoding="utf-8")
        digests = {
            str(path.relative_to(partial)): kept.sha256(path) for path in sorted(partial.rglob("*")) if path.is_file()
        }
        about = {
            "format": kept.FORMAT,
            "kept_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "networks": networks,
            "files": digests,
        }
        files.write_json(partial / kept.ABOUT, about)
    return kept.load(project, name)


def _files(project: Project, kind: Kind) -> list[Path]:
    """What is kept of a network, relative to the project.

    Raises:
        UserError: a file that it needs is missing.
    """
    needed = [project.model(kind), project.onnx(kind)]
    needed += [project.stage(kind, stage) / name for stage in STAGES for name in FILES]
    needed += [project.report(kind) / name for name in TESTED]
    for path in needed:
        if not path.exists():
            raise UserError(f"{path} is missing: make it with `dvc repro`, or fetch it with `dvc pull`.")
    shown = [project.export(kind) / "parity.json", *(project.report(kind) / name for name in SHOWN)]
    return [path.relative_to(project.root) for path in (*needed, *(path for path in shown if path.exists()))]


def _check_as_run(project: Project, kinds: Sequence[Kind], named: list[Path]) -> None:
    """Refuse files and parameters that are not those of the run in dvc.lock, and files of two runs.

    What dvc.lock says of a kind that is not kept does not matter: it may not have been trained yet.

    Raises:
        UserError: one is not.
    """
    stages = yaml.read(project.lock).get("stages", {})
    params = yaml.read(project.params)
    others = set(KINDS) - set(kinds)
    for name, stage in stages.items():
        if name.partition("@")[2] in others:
            continue
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            if _value(params, key) != value:
                raise UserError(f"{key} in params.yaml is not what {name} ran with: run `dvc repro`, then keep.")
        for out in stage.get("outs", []):
            path = Path(out["path"])
            if path in named and files.md5(project.root / path) != out.get("md5"):
                raise UserError(f"{path} is not what {name} wrote, by dvc.lock: run `dvc repro`, then keep.")
    for kind in kinds:
        if predictor.load(project.onnx(kind)).network_md5 != files.md5(project.model(kind)):
            raise UserError(f"{project.onnx(kind)} is not exported from {project.model(kind)}: run `dvc repro`.")
        train, finetune = (Journal(project.stage(kind, stage)) for stage in STAGES)
        if not continues(finetune, train):
            raise UserError(f"{finetune.folder} did not start from {train.folder}: run `dvc repro`, then keep.")


def _value(section: Any, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    for part in key.split("."):
        section = section.get(part) if isinstance(section, dict) else None
    return section


def _about(project: Project, kind: Kind) -> dict[str, Any]:
    """What about.json says of a network: which captchas it reads, how well, and what it comes from."""
    about = Journal(project.stage(kind, "finetune")).about
    best = about["outcome"]["best"]
    metrics = files.read_json(project.report(kind) / "metrics.json")
    return {
        "captcha": predictor.load(project.onnx(kind)).captcha.model_dump(),
        **{key: best[key] for key in ("val/exact", "val/loss")},
        **{key: metrics[key] for key in ("exact", "exact_low", "exact_high", "n")},
        "device": about["device"],
        "git_sha": about["tags"].get("git_sha", "none"),
        "git_dirty": about["tags"].get("git_dirty", "unknown"),
    }


def _keep_hardware(journal: Journal, store: Store, to: Path) -> None:
    def write() -> None:
        rows = hardware.read(store, journal)
        if rows:
            hardware.write(to / hardware.FILE, rows)

    what = f"the hardware metrics of {journal.folder} are not kept"
    if not attempt(store, write, quiet=True):
        print(f"captchalab: MLflow at {store} cannot be read: {what}.", file=sys.stderr)
