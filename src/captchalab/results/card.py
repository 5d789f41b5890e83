"""The model card of a folder of results/: what its networks read, how well, and what they come from."""

from typing import Any

from captchalab import files
from captchalab.evaluation import report
from captchalab.params import STAGES
from captchalab.profiles import describe
from captchalab.project import Project
from captchalab.reading.captcha import CaptchaParams, Kind
from captchalab.training.journal import Journal


def card(project: Project, name: str, networks: dict[Kind, dict[str, Any]]) -> str:
    """The card, in Markdown.

    Args:
        project: the folder's files, in their places.
        networks: what about.json says of each.
    """
    captchas = {kind: CaptchaParams.model_validate(about["captcha"]) for kind, about in networks.items()}
    captcha = next(iter(captchas.values()))
    kinds = tuple(networks)
    digest = files.read_json(project.split("test") / "meta.json")["digest"]
    trained = "\n".join(_training(project, kind, networks[kind]) for kind in kinds)
    confused = " 0 and O are confused most." if {"0", "O"} <= set(captcha.alphabet) else ""
    return f"""\
# {name}: {" and ".join(kind.upper() for kind in kinds)} for captchas

They read {describe(captcha)}, drawn by the package `captcha`.

{report.results_table(project, kinds)}

Exact match and its 95 % Wilson interval on the test split (`{digest[:12]}`), which nothing was chosen by. All metrics,
predictions and plots are in `reports/`, every epoch in `models/<kind>/<stage>/history.csv`.

## Training

{trained}

Parameters: `params.yaml`. The data's digests: `dvc.lock`.

## Use

```
captchalab predict FILE --model results/{name}     # without --model where there is no champion
captchalab sync results/{name}                     # its runs, in MLflow; then it can be promoted
```

## Limits

Synthetic captchas of this one kind and size, nothing else.{confused} The confidence is the network's own.
"""


def _training(project: Project, kind: Kind, about: dict[str, Any]) -> str:
    stages = [Journal(project.stage(kind, stage)).about for stage in STAGES]
    rates = " and ".join(f"{stage['params'].get('learning_rate', '?')}" for stage in stages)
    dirty = ", with changes that were not committed" if about["git_dirty"] == "true" else ""
    return (
        f"- {kind.upper()}: learning rates {rates}, seed {stages[0]['params'].get('seed', '?')}, on "
        f"{about['device']}; {stages[0]['started_at']} to {stages[1].get('ended_at', '?')}; "
        f"code {about['git_sha'][:12]}{dirty}."
    )
