"""A registered version, and the files that belong to it."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from captchalab.errors import UserError
from captchalab.tracking.store import Store

NAME = "captcha"  # of the registered model


class Version(NamedTuple):
    """A registered version and its aliases."""

    number: int
    model_id: str
    run_id: str
    tags: dict[str, str]
    aliases: list[str]
    created_at: datetime

    @property
    def name(self) -> str:
        return f"models:/{NAME}/{self.number}"

    @property
    def replaces(self) -> int | None:
        return int(self.tags["replaces"]) if "replaces" in self.tags else None

    def exact(self) -> str:
        """On the test split, as `97.05 % (96.70 - 97.36)`; `?` where somebody else has registered it."""
        try:
            value, low, high = (float(self.tags[key]) for key in ("exact", "exact_low", "exact_high"))
        except (KeyError, ValueError):
            return "?"
        return f"{value:.2%} ({100 * low:.2f} - {100 * high:.2f})"

    def as_json(self) -> dict[str, Any]:
        return {"version": self.number, "aliases": self.aliases, "run_id": self.run_id, **self.tags}


def fetch(store: Store, client: Any, model_id: str, path: str, to: Path, name: str) -> Path:
    """A file of a logged model, in the folder `to`.

    Raises:
        UserError: it is gone.
    """
    import mlflow.artifacts

    to.mkdir(parents=True, exist_ok=True)
    try:
        location = client.get_logged_model(model_id).artifact_location
        found = mlflow.artifacts.download_artifacts(f"{location}/{path}", dst_path=str(to), tracking_uri=store.uri)
    except Exception as error:  # each kind of store has its own
        raise UserError(
            f"{name} has no {path} any more in {store}: bring the artifacts back from a backup, or name another."
        ) from error
    return Path(found)
