"""The group that all verbs belong to: errors as sentences, and what every verb begins with."""

import socket
import sys
from typing import TYPE_CHECKING, Any

import click

from captchalab import __version__
from captchalab.errors import UserError
from captchalab.project import Project
from captchalab.reading.errors import UnreadableError

if TYPE_CHECKING:
    from captchalab.params import Params

KIND = click.Choice(["cnn", "ctc"])
PORT = click.IntRange(1, 65535)


class Verbs(click.Group):
    """Verbs in the order they are defined; a `UserError` is its sentence and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, UnreadableError) as error:
            print(f"captchalab: {error}", file=sys.stderr)
            ctx.exit(1)
        except KeyboardInterrupt:
            print("captchalab: stopped; a stage resumes from its last finished epoch.", file=sys.stderr)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Captcha recognition as a tracked, reproducible experiment.

    `dvc repro` runs generate, train, finetune, export, evaluate and compare in their order; each is
    a verb here too.
    """


def open_project() -> tuple[Project, "Params"]:
    """The project and its checked parameters; under `dvc repro`, this process ends with dvc."""
    from captchalab import params, processes

    processes.end_with_dvc()
    project = Project.find()
    return project, params.load(project.params)


def require_free(port: int) -> None:
    """Refuse a port on which something else answers."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"Port {port} on 127.0.0.1 is taken: end what runs there, or take another with --port.")
