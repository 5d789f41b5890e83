"""MLflow runs of a search: a parent run per study, a child run per trial. (Under way: logs nothing yet.)"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.training.journal import Journal


class TrialRun:
    """One trial's run."""

    run_id: str | None = None

    def epochs(self, train: Journal, finetune: Journal | None) -> None:
        """Log the epochs that are not logged yet."""

    def end(self, state: str, reason: str, score: float | None, attributes: dict[str, Any]) -> None:
        """Close the run; state is COMPLETE, PRUNED or FAIL."""


class SearchRuns:
    """MLflow runs of one search: a parent run per study, a child run per trial."""

    @classmethod
    def open(cls, project: Project, study: str, kind: Kind, tags: dict[str, str]) -> "SearchRuns":
        return cls()

    def trial(self, number: int, values: dict[str, Any], retry_of: int | None = None) -> TrialRun:
        return TrialRun()

    def close_stale(self, running: Collection[int], why: str) -> None:
        """Close runs that MLflow shows as RUNNING of trials that are not."""

    def best(self, number: int, score: float, values: dict[str, Any]) -> None: ...

    def pictures(self, folder: Path) -> None: ...

    def end(self, status: str) -> None: ...
