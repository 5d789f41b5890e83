"""How much of a figure is luck: the default networks trained with N seeds through DVC experiments.

    make seeds N=3        the chain's own networks and two more of each kind, two experiments side by side

A seed changes what training draws and starts from: texts and images of the train split, initial weights, order of the
data. Valid and test split stay those of the base seed (`splits.<split>.seed`), so that the runs are compared on the
same captchas and the luck of a test split, which its interval already shows, is not counted a second time.

Writes results/seeds.json and results/seeds.png. The comparison page and the README's table read the former.
"""

from typing import Any

from captchalab import files
from captchalab.evaluation import seeds as luck
from captchalab.params import SPLITS, Params
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind
from captchalab.results import experiments, plots
from captchalab.results.experiments import Experiment, Finished

KEYS = ("exact", "exact_low", "exact_high", "n", "cer", "images_seen")


def planned(params: Params, count: int) -> dict[int, Experiment]:
    """The experiment of each seed, the base seed first."""
    digest = experiments.digest(params, but="seed")
    held = {f"splits.{split}.seed": params.split_seed(split) for split in SPLITS[1:]}
    return {
        seed: Experiment(f"seed-{seed}-{digest}", {"seed": seed, **held})
        for seed in range(params.seed, params.seed + count)
    }


def train(project: Project, params: Params, count: int, jobs: int) -> dict[str, Any]:
    """Train what is missing of `count` seeds and write the table and the picture; returns the table.

    The base seed's networks are those of reports/, where these are of the present parameters and code.

    Raises:
        UserError: an experiment failed.
    """
    plan = planned(params, count)
    here = experiments.is_up_to_date(project)
    experiments.run(project, [one for seed, one in plan.items() if not (here and seed == params.seed)], jobs)
    runs = [
        _row(project, seed, kind, None if here and seed == params.seed else experiments.find(project, one.name))
        for seed, one in plan.items()
        for kind in KINDS
    ]
    exact = luck.by_kind(runs)
    table = {
        "format": 1,
        "base_seed": params.seed,
        "runs": runs,
        "cnn": luck.spread(exact["cnn"])._asdict(),
        "ctc": luck.spread(exact["ctc"])._asdict(),
        "difference": luck.difference(exact["cnn"], exact["ctc"])._asdict(),
        "verdict": luck.verdict(runs),
    }
    files.write_json(project.seeds, table)
    with files.atomic_write(project.seeds.with_suffix(".png")) as picture:
        plots.seeds(runs, picture)
    return table


def _row(project: Project, seed: int, kind: Kind, found: Finished | None) -> dict[str, Any]:
    """What the table says of a run: of an experiment, or of reports/."""

    def read(name: str) -> dict[str, Any]:
        path = f"reports/{kind}/{name}.json"
        return dict(found.read_json(path) if found else files.read_json(project.root / path))

    metrics, timing = read("metrics"), read("timing")
    return {
        "seed": seed,
        "kind": kind,
        **{key: metrics[key] for key in KEYS},
        "minutes": round(timing["train_min"] + timing["finetune_min"], 1),
        "device": timing["trained_on"],
    }


def lines(table: dict[str, Any]) -> list[str]:
    """The table in words: a line per run, a line per kind, the verdict."""
    rows = [
        f"seed {run['seed']}  {run['kind']}  {run['exact']:.2%} ({run['exact_low']:.2%} - {run['exact_high']:.2%})"
        for run in table["runs"]
    ]
    rows += [f"{kind}: {luck.show(luck.Spread(**table[kind]))} over {table[kind]['n']} seeds" for kind in KINDS]
    return [*rows, table["verdict"]]
