"""The registered model `captcha`: its versions, its aliases, the attempts to become champion.

    captchalab rollback           the champion before
    captchalab models             versions and their aliases
    captchalab pull-champion      the registry's champion as the copy that `predict` uses

A new version and its tags are written first; moving the alias `champion` is the one commit. A file lock keeps two
promotions on one host apart. On two hosts the alias is read again just before it moves, and a promotion that meets
another's champion there takes its version back; what is left is the moment between that look and the move.

Attempts are counted in two tags, before a captcha is drawn, so that a kill gives no free try: `attempts` of the
registered model numbers them all, `attempts` of the champion's version those against it. Two hosts that begin one in
the same moment may take the same number: both then use the same captchas and the same share of `promote.max_p`.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from captchalab import processes
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.registry import champion
from captchalab.registry.gate import Attempt
from captchalab.registry.versions import NAME, Version, fetch
from captchalab.tracking import packaging
from captchalab.tracking.store import Store

CHAMPION, PREVIOUS = "champion", "previous"
ATTEMPTS = "attempts"  # a tag: how many there have been
LOCK_LIMIT_S = 3600.0  # a promotion with a million captchas holds the lock for most of an hour


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

    def present_champion(self) -> Version:
        """The champion.

        Raises:
            UserError: there is none.
        """
        version = self.champion()
        if version is None:
            raise UserError(f"The registered model {NAME!r} has no champion yet: make one with `captchalab promote`.")
        return version

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
        return fetch(self.store, self.client, version.model_id, path, to, version.name)

    def alone(self) -> AbstractContextManager[None]:
        """One promotion, rollback or copy at a time on this host.

        Raises:
            UserError: another holds the lock for longer than it can need.
        """
        return processes.locked(self.store.folder / ".registry.lock", "the registry", LOCK_LIMIT_S)

    def begin_attempt(self, before: Version | None, images: int) -> Attempt:
        """Count an attempt; it is spent from here on."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(NAME, description=ABOUT)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model = self.client.get_registered_model(NAME)
        number = int(model.tags.get(ATTEMPTS, 0)) + 1
        self.client.set_registered_model_tag(NAME, ATTEMPTS, str(number))
        against = int(before.tags.get(ATTEMPTS, 0)) + 1 if before else 1
        if before:
            self.client.set_model_version_tag(NAME, str(before.number), ATTEMPTS, str(against))
        # the moment in which it was made tells this registry from others, whose attempts have the same numbers
        attempt = Attempt(number, int(model.creation_timestamp), against, images)
        opponent = f", for it and {before.name}" if before else ""
        what = f"drawing {images:,} captchas that no network has seen{opponent}"
        print(f"captchalab: attempt {number} of this registry: {what}.", file=sys.stderr, flush=True)
        return attempt

    def make_champion(
        self, before: Version | None, model_id: str, run_id: str, tags: dict[str, str], description: str
    ) -> Version:
        """Register a logged model and make it champion in place of `before`.

        Raises:
            UserError: another host has made another version champion meanwhile; what was registered is gone again.
        """
        with _as_address(self.store.uri):
            created = self.client.create_model_version(
                NAME, f"models:/{model_id}", run_id, tags, description=description, model_id=model_id
            )
        number = int(created.version)
        try:
            self._move(before, number)
        except UserError:
            self.client.delete_model_version(NAME, str(number))
            raise
        return self.find(str(number))

    def rollback(self) -> tuple[Version, Version]:
        """The champion goes back to the version it replaced: (from, to). Twice goes back two.

        Raises:
            UserError: there is no champion, or it replaced none, or what it replaced is gone.
        """
        with self.alone(), tempfile.TemporaryDirectory() as temporary:
            now = self.present_champion()
            if now.replaces is None:
                raise UserError(f"{now.name} is the first champion and replaced none: there is nothing to go back to.")
            back = self.find(str(now.replaces))
            self.fetch(back, packaging.ONNX, Path(temporary))  # it must exist before anything moves
            self.client.set_model_version_tag(NAME, str(now.number), "rolled_back_at", _now())
            self._move(now, back.number)
            self.update_copy()
            return now, self.find(str(back.number))

    def serve_command(self, port: int) -> list[str]:
        """MLflow's scoring server on 127.0.0.1 with the champion, in the present environment.

        Raises:
            UserError: there is no champion.
        """
        model = ["--model-uri", self.present_champion().name, "--env-manager", "local"]
        return [sys.executable, "-m", "mlflow", "models", "serve", *model, "--host", "127.0.0.1", "--port", str(port)]

    def pull_champion(self) -> bool:
        """Bring the champion's copy up to the alias, which another machine may have moved; whether it was behind."""
        version = self.champion()
        if version is None or champion.is_copy_of(self.project, version.number, version.run_id):
            return False
        with self.alone():
            self.update_copy()
        return True

    def update_copy(self) -> None:
        """What `pull_champion` does, for whoever holds the lock."""
        version = self.champion()
        if version is None or champion.is_copy_of(self.project, version.number, version.run_id):
            return
        with tempfile.TemporaryDirectory() as temporary:
            onnx = self.fetch(version, packaging.ONNX, Path(temporary))
            of = {"version": version.number, "run_id": version.run_id, "store": str(self.store)}
            champion.write(self.project, onnx, {**version.tags, **of, "copied_at": _now()})

    def _aliases(self) -> dict[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return dict(self.client.get_registered_model(NAME).aliases)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def _move(self, before: Version | None, to: int) -> None:
        """The one commit."""
        now = self.champion()
        if (now and now.number) != (before and before.number):
            raise UserError(
                f"Version {now and now.number} has become champion meanwhile, nothing was changed: "
                "look at `captchalab models`, and try again."
            )
        self.client.set_registered_model_alias(NAME, CHAMPION, str(to))
        replaces = self.find(str(to)).replaces
        if replaces is not None:
            self.client.set_registered_model_alias(NAME, PREVIOUS, str(replaces))
        elif PREVIOUS in self._aliases():
            self.client.delete_registered_model_alias(NAME, PREVIOUS)


ABOUT = (
    "Reads captchas: PNG or JPEG images in; text, confidence and each character's confidence out. "
    "The alias `champion` is the one in use; `previous` is what `captchalab rollback` goes back to."
)


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
