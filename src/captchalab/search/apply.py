"""The best trial of a study: shown beside the present parameters, and written into params.yaml."""

import json
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml.comments import CommentedMap

from captchalab import params, profiles, yaml
from captchalab.errors import UserError
from captchalab.params import Params
from captchalab.project import Project
from captchalab.reading.captcha import Kind
from captchalab.search import rules
from captchalab.search.study import MADE_OF, kind_of

APPLIED = "applied"  # the user attribute of a study that names the trials taken into params.yaml


def best(study: optuna.Study) -> FrozenTrial:
    """The best trial of a study.

    Raises:
        UserError: none has run to its end.
    """
    found = rules.best(study.get_trials(deepcopy=False))
    if found is None:
        raise UserError(
            f"Study {study.study_name!r} has no trial that ran to its end within the limits: `captchalab search run` "
            "goes on with it."
        )
    return found


def table(present: Params, study: optuna.Study) -> str:
    """The best trial beside the present parameters, with the figures of both.

    Raises:
        UserError: no trial has run to its end.
    """
    found = best(study)
    now = yaml.leaves(present.model_dump(mode="json", exclude={"search"}))
    values: dict[str, Any] = found.user_attrs["values"]
    rows = [("", "present", f"trial {found.number}")]
    rows += [(key, _shown(now.get(key, "-")), _shown(value)) for key, value in values.items()]
    at_present = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE
        and all(now.get(key) == value for key, value in trial.user_attrs.get("values", {"": 0}).items())
    ]
    before = _figures(at_present[0]) if at_present else ["no trial of these"] + [""] * 3
    names = ("val exact of the trial", "parameters", "images seen", "s of training")
    rows += list(zip(names, before, _figures(found), strict=True))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"{study.study_name}: {len(study.trials)} trials", *(f"  {line}" for line in lines)])


def apply(project: Project, study: optuna.Study) -> str:
    """Write the best trial's values into params.yaml, comments kept; tags study and trial; returns the diff.

    A new batch size changes `steps_per_epoch`, so that the full recipe sees as many images as before.

    Raises:
        UserError: no trial has run to its end, or its values do not go with the present params.yaml.
    """
    found, kind = best(study), kind_of(study)
    before = project.params.read_text(encoding="utf-8")
    content = yaml.parse(before)
    present = params.check(content)
    if study.user_attrs[MADE_OF]["captcha"] != present.captcha.model_dump(mode="json"):
        raise UserError(
            f"Study {study.study_name!r} searched for other captchas than params.yaml describes: start one for these "
            "with `captchalab search run --study NAME`."
        )
    yaml.merge(content, _overlay({**found.user_attrs["values"], **_steps(present, kind, found.user_attrs["values"])}))
    params.check(content, f"params.yaml with trial {found.number} of {study.study_name}")
    diff = profiles.write(project, before, yaml.dump(content))
    tag = {"trial": found.number, "score": found.value, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    study.set_user_attr(APPLIED, [*study.user_attrs.get(APPLIED, []), tag])
    return diff


def _steps(present: Params, kind: Kind, values: dict[str, Any]) -> dict[str, int]:
    """`steps_per_epoch` of each stage whose batch size changes: as many images per epoch as before."""
    steps = {}
    for name in params.STAGES:
        stage = present.stage(name, kind)
        if batch_size := values.get(f"{name}.{kind}.batch_size"):
            images = stage.steps_per_epoch * stage.batch_size
            steps[f"{name}.{kind}.steps_per_epoch"] = max(1, round(images / batch_size))
    return steps


def _overlay(values: dict[str, Any]) -> CommentedMap:
    """Dotted keys as nested YAML; JSON is YAML, and its lists stay on one line."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return yaml.parse(json.dumps(nested), "the trial")


def _figures(trial: FrozenTrial) -> list[str]:
    attrs = trial.user_attrs
    return [
        f"{trial.value:.2%}",
        f"{attrs.get('parameters', 0):,}",
        f"{attrs.get('images_seen', 0):,}",
        f"{attrs.get('seconds', 0):.0f}",
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
