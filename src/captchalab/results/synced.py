"""Runs of a folder of results/, logged in any MLflow store.

captchalab sync results/best   both stages, the whole curve, hardware metrics, test metrics, the model
"""

from collections.abc import Iterator

from captchalab.params import STAGES
from captchalab.results.kept import Kept
from captchalab.tracking import hardware, models, runs
from captchalab.tracking.store import Store


def sync(kept: Kept, store: Store) -> Iterator[str]:
    """Log what the store lacks, with the times it had; a line for each run.

    A run is known by its journal's id: one that is in the store is completed, not logged twice. Afterwards it is a
    run like any other, which `captchalab promote --run ID` promotes.
    """
    for network in kept.networks:
        for stage in STAGES:
            folder = kept.project.stage(network.kind, stage)
            run_id = runs.sync(folder, store, weights=stage == "finetune")
            if (folder / hardware.FILE).exists():
                hardware.log(store, run_id, folder / hardware.FILE)
            if stage == "finetune":
                models.log_test(kept.project, network.kind, store, again=False)
            promoted = f"; `captchalab promote --run {run_id}` makes it a candidate" if stage == "finetune" else ""
            yield f"results/{kept.name}, {network.kind} {stage}: run {run_id}{promoted}"
