"""The captchas that all trials of a study read: the first of the train split, and the valid split.

They are drawn from the seed, so they are those of data/ and the same on every machine. A copy of their own, because a
stage reads its whole pool before it begins: 3.3 GB, twice in each trial.
"""

from pathlib import Path

from captchalab import files, sources
from captchalab.params import Params, Split
from captchalab.processes import locked
from captchalab.project import Project
from captchalab.training.checkpoints import fingerprint

SPLITS: tuple[Split, ...] = ("train", "valid")


def prepare(project: Project, params: Params) -> dict[Split, Path]:
    """The folder of each split, drawn where it is not there yet.

    Raises:
        UserError: a split is damaged, or another process has been drawing for too long.
    """
    return {name: _drawn(project, params, name) for name in SPLITS}


def digests(folders: dict[Split, Path]) -> dict[str, str]:
    """Digest of each split, by its name."""
    return {name: files.read_json(folder / "meta.json")["digest"] for name, folder in folders.items()}


def _drawn(project: Project, params: Params, name: Split) -> Path:
    from captchalab.data import dataset

    split = getattr(params.splits, name)
    if name == "train":
        split = split.model_copy(update={"images": params.search.images})
    shaped_by = {
        "captcha": params.captcha.model_dump(),
        "split": [name, split.model_dump()],
        "seed": params.split_seed(name),
        "code": sources.version("captchalab.data.dataset"),
    }
    folder = project.search / "data" / f"{name}-{fingerprint(shaped_by)[:16]}"
    with locked(folder.with_suffix(".lock"), f"the {name} split of searches"):
        if not (folder / "meta.json").exists():
            print(f"search: draws {split.images:,} captchas for all trials, once: {folder}", flush=True)
            dataset.generate(params.captcha, name, split, params.split_seed(name), folder, params.runtime.workers)
    return folder
