"""The best trial of a study: shown beside the present parameters, and written into params.yaml."""

import optuna

from captchalab.params import Params
from captchalab.project import Project


def table(present: Params, study: optuna.Study) -> str:
    """The best trial beside the present parameters, with its figures.

    Raises:
        UserError: no trial has run to its end.
    """
    raise NotImplementedError


def apply(project: Project, study: optuna.Study) -> str:
    """Write the best trial's values into params.yaml, comments kept; tags study and trial; returns the diff.

    Raises:
        UserError: no trial has run to its end, or its values do not go with the present params.yaml.
    """
    raise NotImplementedError
