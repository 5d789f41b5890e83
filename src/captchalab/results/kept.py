"""Networks that git keeps: results/<name>/, written by `captchalab keep`. This module reads them.

A folder has the layout of a project, so that whatever reads a workspace's networks reads these:

    about.json                     format, networks, and the SHA-256 of every other file
    README.md                      the model card
    params.yaml, dvc.lock          as the chain ran; for a kind that is not kept, dvc.lock may describe an older run
    data/test/meta.json            which split the test metrics are of
    models/<kind>/train/           journal of stage 1, hardware.csv where it was measured
    models/<kind>/finetune/        the same of stage 2, and model.keras to fine-tune from
    models/<kind>/export/          model.onnx, parity.json
    reports/<kind>/                metrics, predictions, plots
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading import formats
from captchalab.reading.captcha import KINDS, CaptchaParams, Kind

FORMAT = 1
ABOUT = "about.json"


class Kept(NamedTuple):
    """A folder of results/ and what its about.json says."""

    folder: Path
    about: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def project(self) -> Project:
        """Its files, by the places they have in a workspace."""
        return Project(self.folder)

    @property
    def networks(self) -> list["Network"]:
        return [Network(self, kind) for kind in KINDS if kind in self.about["networks"]]


class Network(NamedTuple):
    """One network of a folder."""

    kept: Kept
    kind: Kind

    @property
    def name(self) -> str:
        """What --model and start_from call it."""
        return f"results/{self.kept.name}/{self.kind}"

    @property
    def onnx(self) -> Path:
        return self.kept.project.onnx(self.kind)

    @property
    def about(self) -> dict[str, Any]:
        return dict(self.kept.about["networks"][self.kind])

    @property
    def captcha(self) -> CaptchaParams:
        return CaptchaParams.model_validate(self.about["captcha"])

    @property
    def rank(self) -> tuple[float, float]:
        """By the valid split, never the test split: exact match, ties by loss."""
        return self.about["val/exact"], -self.about["val/loss"]

    def __str__(self) -> str:
        about = self.about
        return f"{self.name} ({about['exact']:.2%} of {about['n']:,} test captchas, trained on {about['device']})"


def names(project: Project) -> list[str]:
    """The folders of results/."""
    return sorted(path.parent.name for path in project.results.glob(f"*/{ABOUT}"))


def load(project: Project, name: str) -> Kept:
    """A folder by its name, `results/<name>` or path; its files are checked by `check`.

    Raises:
        UserError: there is none, it is damaged, or of a newer format.
    """
    folder = Path(name) if (Path(name) / ABOUT).is_file() else project.results / Path(name).name
    if not (folder / ABOUT).is_file():
        known = ", ".join(f"results/{known}" for known in names(project))
        remedy = f"name one of {known}" if known else "make one with `captchalab keep NAME`"
        raise UserError(f"{name} holds no results (no {ABOUT} in {folder}): {remedy}.")
    try:
        about = files.read_json(folder / ABOUT)
        number = about.get("format")
        refusal = formats.refusal(folder, number, FORMAT)
        kept = Kept(folder.resolve(), about)
        if not refusal:  # what a newer format says of its networks is its own business
            _ = [(network.rank, network.captcha, str(network)) for network in kept.networks]
            _ = about["files"].items()
    except (UserError, ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(folder, folder / ABOUT) from None
    if refusal:
        raise UserError(refusal)
    return kept


def check(kept: Kept) -> Kept:
    """The same, if every file is as it was written.

    Raises:
        UserError: one is not.
    """
    for name, digest in kept.about["files"].items():
        path = kept.folder / name
        if not path.is_file() or sha256(path) != digest:
            raise _damaged(kept.folder, path)
    return kept


def best(project: Project, captcha: CaptchaParams) -> Network | None:
    """Of all networks in results/ that read these captchas the one that is best on its valid split.

    Raises:
        UserError: a folder is damaged, or of a newer format.
    """
    networks = [network for name in names(project) for network in load(project, name).networks]
    readers = [network for network in networks if network.captcha == captcha]
    return max(readers, key=lambda network: network.rank, default=None)


def network(project: Project, name: str) -> Network:
    """The network of `results/<name>/<kind>`, or the better one of `results/<name>`; its files are checked.

    Raises:
        UserError: there is none, it is damaged, or of a newer format.
    """
    parent, _, last = name.rstrip("/").rpartition("/")
    kind = next((kind for kind in KINDS if kind == last), None)
    kept = check(load(project, parent if kind else name))
    found = [network for network in kept.networks if kind in (None, network.kind)]
    if not found:
        raise UserError(f"{kept.folder} holds no {kind} network: name {kept.networks[0].name}.")
    return max(found, key=lambda network: network.rank)


def sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _damaged(folder: Path, path: Path) -> UserError:
    return UserError(
        f"{path} is missing or not as it was written: bring it back with `git checkout {folder}`, or keep the "
        "results again with `captchalab keep`."
    )
