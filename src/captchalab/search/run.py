"""A search on this machine: one worker in this process, or several that share the cores."""

from captchalab.params import Params
from captchalab.project import Project
from captchalab.search.study import Options


def run(project: Project, present: Params, options: Options, workers: int = 1) -> None:
    """Search until the study ends by a rule or by Ctrl-C, and print a summary.

    Raises:
        UserError: see `study.open_study`; or several trials in a row have failed.
    """
    raise NotImplementedError
