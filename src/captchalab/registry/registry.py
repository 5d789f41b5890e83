"""A registry that only takes better models: promote, roll back, list.

    captchalab promote            the better network of the workspace, if it beats the champion
    captchalab rollback           the champion before
    captchalab models             versions and who is what

A new version and its tags are written first; moving the alias `champion` is the one commit. A file
lock keeps two promotions on one host apart. On two hosts the alias is read again just before it moves, and
a promotion that meets another's champion there takes its version back; what is left is the moment
between that look and the move.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from captchalab import files
from captchalab.errors import UserError
from captchalab.params import PromoteParams
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.registry import champion
from captchalab.registry.cards import Version, card
from captchalab.registry.decision import Decision, Standing, decide, stand
from captchalab.tracking import packaging, runs
from captchalab.tracking.store import Store
from captchalab.training.journal import Journal

NAME = "captcha"
CHAMPION, PREVIOUS = "champion", "previous"


class Outcome(NamedTuple):
    decision: Decision
    candidate: Standing
    champion: Standing | None
    before: Version | None
    version: Version | None  # the new champion; None where nothing has changed
    run_id: str


class Registry:
    """The registered model `captcha` of a store."""

    def __init__(self, project: Project, store: Store) -> None:
        self.project, self.store = project, store
        self.client = store.client()

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        aliases = self._aliases()
        found = self.client.search_model_versions(f"name = '{NAME}'")
        versions = [
            Version(
                int(v.version),
                v.source.removeprefix("models:/"),
                v.run_id,
                dict(v.tags),
                sorted(alias for alias, number in aliases.items() if int(number) == int(v.version)),
                datetime.fromtimestamp(v.creation_timestamp / 1000, UTC),
            )
            for v in found
        ]
        return sorted(versions, key=lambda version: -version.number)

    def champion(self) -> Version | None:
        return next((version for version in self.versions() if CHAMPION in version.aliases), None)

    def find(self, name: str) -> Version:
        """A version by `models:/captcha/3`, `models:/captcha@champion`, `3` or `champion`.

        Raises:
            UserError: there is none.
        """
        wanted = name.removeprefix("models:/").removeprefix(NAME).lstrip("/@")
        versions = self.versions()
        for version in versions:
            if wanted == str(version.number) or wanted in version.aliases:
                return version
        known = ", ".join([str(v.number) for v in versions] + [f"@{a}" for v in versions for a in v.aliases])
        raise UserError(
            f"{name} is no version or alias of the registered model {NAME!r}: "
            + (f"there are {known}." if known else "nothing is registered yet, `captchalab promote` does it.")
        )

    def fetch(self, version: Version, path: str, to: Path) -> Path:
        """A file of a version, in the folder `to`."""
        return fetch(self.store, self.client, version.model_id, path, to, f"models:/{NAME}/{version.number}")

    def promote(self, rules: PromoteParams, run_id: str | None = None, force: str | None = None) -> Outcome:
        """Make a network champion if it is better.

        Args:
            run_id: a fine-tune run; else the network of the workspace that is better on the valid split.
            force: why to do it whatever the rules say.

        Raises:
            UserError: there is no such network, or another host has promoted meanwhile.
        """
        with self._alone(), tempfile.TemporaryDirectory() as temporary:
            run, model_id = self._candidate(run_id)
            files_of_candidate = Path(temporary) / "candidate"
            before = self.champion()
            candidate = self._standing(model_id, files_of_candidate, f"run {run.info.run_id}")
            standing = (
                self._standing(before.model_id, Path(temporary) / "champion", f"models:/{NAME}/{before.number}")
                if before
                else None
            )
            if standing and standing.captcha == candidate.captcha and standing.digest != candidate.digest:
                raise UserError(
                    f"The champion was tested on other captchas (digest {standing.digest[:12]}) than run "
                    f"{run.info.run_id} ({candidate.digest[:12]}): bring the test split back with `dvc pull` or "
                    "`dvc repro`, so that both are read on it."
                )
            decision = decide(rules, candidate, standing)
            is_champion = standing is not None and standing.network_md5 == candidate.network_md5
            if is_champion or not (decision.better or force):
                self.write_champion()
                return Outcome(decision, candidate, standing, before, None, run.info.run_id)
            version = self._create_version(run, model_id, candidate, decision, before, force)
            try:
                self._move(before, version)
            except UserError:
                self.client.delete_model_version(NAME, str(version))
                raise
            after = self.find(str(version))
            self.write_champion()
            return Outcome(decision, candidate, standing, before, after, run.info.run_id)

    def rollback(self) -> tuple[Version, Version]:
        """The champion goes back to the version it replaced: (from, to). Twice goes back two.

        Raises:
            UserError: there is no champion, or it replaced none, or what it replaced is gone.
        """
        with self._alone(), tempfile.TemporaryDirectory() as temporary:
            now = self.champion()
            if now is None:
                raise UserError(
                    f"The registered model {NAME!r} has no champion yet: make one with `captchalab promote`."
                )
            if now.replaces is None:
                raise UserError(
                    f"models:/{NAME}/{now.number} is the first champion and replaced none: there is nothing to go "
                    "back to."
                )
            back = self.find(str(now.replaces))
            self.fetch(back, packaging.ONNX, Path(temporary))  # it must be there before anything moves
            self.client.set_model_version_tag(NAME, str(now.number), "rolled_back_at", _now())
            self._move(now, back.number)
            self.write_champion()
            return now, self.find(str(back.number))

    def serve_command(self, port: int) -> list[str]:
        """MLflow's scoring server on 127.0.0.1 with the champion, in the environment that is here.

        Raises:
            UserError: there is no champion.
        """
        version = self.champion()
        if version is None:
            raise UserError(f"The registered model {NAME!r} has no champion yet: make one with `captchalab promote`.")
        model = ["--model-uri", f"models:/{NAME}/{version.number}", "--env-manager", "local"]
        return [sys.executable, "-m", "mlflow", "models", "serve", *model, "--host", "127.0.0.1", "--port", str(port)]

    def write_champion(self) -> None:
        """Bring mlruns/champion/ up to the alias, which a kill may have left behind."""
        version = self.champion()
        if version is None:
            return
        copy = champion.about(self.project)
        if (copy.get("version"), copy.get("run_id")) == (version.number, version.run_id):
            return
        with tempfile.TemporaryDirectory() as temporary:
            onnx = self.fetch(version, packaging.ONNX, Path(temporary))
            about = {"version": version.number, "run_id": version.run_id, "store": self.store.uri, **version.tags}
            champion.write(self.project, onnx, about)

    def _aliases(self) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_registered_model(NAME).aliases)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def _candidate(self, run_id: str | None) -> tuple[Any, str]:
        """The run to promote and its model."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            kind = best_of_workspace(self.project)
            runs.log_test(self.project, kind, self.store, again=False)
            run_id = runs.sync(self.project.stage(kind, "finetune"), self.store)
        try:
            run = self.client.get_run(run_id)
        except MlflowException:
            raise UserError(
                f"{run_id} is no run of {self.store.uri}: take the id from its page in MLflow, or from "
                "`captchalab lineage`."
            ) from None
        model_id = runs.logged_model(run)
        if model_id is None:
            raise UserError(
                f"Run {run_id} ({run.info.run_name}) has no model: name a fine-tune run that was tested (`dvc repro`)."
            )
        return run, model_id

    def _standing(self, model_id: str, folder: Path, name: str) -> Standing:
        onnx = fetch(self.store, self.client, model_id, packaging.ONNX, folder, name)
        meta = files.read_json(fetch(self.store, self.client, model_id, packaging.SPLIT, folder, name))
        predictions = fetch(self.store, self.client, model_id, packaging.PREDICTIONS, folder, name)
        return stand(onnx, meta, predictions, self.project.split("test"))

    def _create_version(
        self,
        run: Any,
        model_id: str,
        candidate: Standing,
        decision: Decision,
        before: Version | None,
        force: str | None,
    ) -> int:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(NAME, description=ABOUT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        tags = {
            "kind": candidate.kind,
            **{key: f"{value:.6g}" for key, value in candidate.exact.as_metrics("exact").items()},
            "latency_ms": f"{candidate.latency_ms:.2f}",
            "promoted_at": _now(),
            "reason": decision.reason,
            "data_digest": candidate.digest,
            "git_sha": run.data.tags.get("git_sha", "none"),
            "network_md5": candidate.network_md5,
        }
        if decision.p is not None:
            tags["p"] = f"{decision.p:.3g}"
        if before:
            tags["replaces"] = str(before.number)
        if force:
            tags["forced"] = force
        with _as_address(self.store.uri):
            version = self.client.create_model_version(
                NAME, f"models:/{model_id}", run.info.run_id, tags, description=card(run, candidate), model_id=model_id
            )
        return int(version.version)

    def _move(self, before: Version | None, to: int) -> None:
        """The one commit."""
        now = self.champion()
        if (now and now.number) != (before and before.number):
            raise UserError(
                f"Version {now and now.number} has become champion meanwhile, nothing was changed: "
                "look at `captchalab models`, and do it again."
            )
        self.client.set_registered_model_alias(NAME, CHAMPION, str(to))
        replaces = self.find(str(to)).replaces
        if replaces is not None:
            self.client.set_registered_model_alias(NAME, PREVIOUS, str(replaces))
        elif PREVIOUS in self._aliases():
            self.client.delete_registered_model_alias(NAME, PREVIOUS)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self.store.folder / ".registry.lock"):
            yield


ABOUT = (
    "Reads captchas: PNG or JPEG pictures in; text, confidence and each character's confidence out. "
    "The alias `champion` is the one in use; `previous` is what `captchalab rollback` goes back to."
)


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
            f"{name} has no {path} any more in {store.uri}: bring the artifacts back from a backup, or name another."
        ) from error
    return Path(found)


def best_of_workspace(project: Project) -> Kind:
    """The fine-tuned network of the present reports that is better on the valid split (never the test split).

    Raises:
        UserError: there is none.
    """
    scores = {}
    for kind in KINDS:
        journal = Journal(project.stage(kind, "finetune"))
        if (project.report(kind) / "metrics.json").exists() and journal.begun:
            best = journal.about["outcome"]["best"]
            scores[kind] = (best["val/exact"], -best["val/loss"])
    if not scores:
        raise UserError(
            f"{project.root} holds no fine-tuned network to promote: run `dvc repro`, or name one with --run."
        )
    return max(scores, key=lambda kind: scores[kind])


@contextmanager
def _as_address(uri: str) -> Iterator[None]:
    """MLflow's own registry looks a logged model up at the process's address, whatever its client's is."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
