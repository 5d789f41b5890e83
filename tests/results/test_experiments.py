"""Seeds and sizes of the train split, as real DVC experiments of a chain that makes its figures from the seed."""

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from captchalab import files, params, profiles
from captchalab.cli import main
from captchalab.project import Project
from captchalab.results import cost, experiments, seeds
from captchalab.results.experiments import Experiment

# a stage that "trains": exact match is 0.9 for the CNN and 0.95 for CTC, and the seed's last digit in thousandths
STAGE = """\
import json, pathlib, sys
import yaml
kind, folder = sys.argv[1], pathlib.Path("reports", sys.argv[1])
params = yaml.safe_load(open("params.yaml"))
exact = {"cnn": 0.9, "ctc": 0.95}[kind] + params["seed"] % 10 / 1000 * (1 if kind == "cnn" else 2)
folder.mkdir(parents=True, exist_ok=True)
metrics = {"exact": exact, "exact_low": exact - 0.01, "exact_high": exact + 0.01}
metrics |= {"n": 1000, "cer": 0.01, "images_seen": 64}
(folder / "metrics.json").write_text(json.dumps(metrics))
(folder / "timing.json").write_text(json.dumps({"train_min": 1.0, "finetune_min": 0.5, "trained_on": "a CPU"}))
with open(sys.argv[2], "a") as log:
    log.write(f"{kind} {params['seed']}\\n")
"""


@pytest.fixture
def project(smoke_text, tmp_path, monkeypatch) -> Project:
    """A committed project with DVC whose stages write their figures; one is in its folder."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    root = tmp_path / "project"
    root.mkdir()
    ran = tmp_path / "ran.txt"
    ran.touch()
    (root / "params.yaml").write_text(smoke_text)
    (root / "stage.py").write_text(STAGE)
    outs = "".join(
        f"      - reports/${{item.kind}}/{name}.json:\n          cache: false\n" for name in ("metrics", "timing")
    )
    (root / "dvc.yaml").write_text(
        "stages:\n  evaluate:\n    matrix:\n      kind: [cnn, ctc]\n"
        f"    cmd: python stage.py ${{item.kind}} {ran}\n    params: [seed, splits]\n    deps: [stage.py]\n"
        f"    outs:\n{outs}"
    )
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=root, env=profiles.copy_environment(), check=True)
    commit(root)
    monkeypatch.chdir(root)
    return Project(root)


def commit(root: Path) -> None:
    for words in (["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=root, check=True)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def ran(project: Project) -> list[str]:
    return sorted((project.root.parent / "ran.txt").read_text().splitlines())


def test_each_seed_is_trained_once_and_the_workspaces_own_not_again(project):
    subprocess.run(["dvc", "repro", "-q"], env=profiles.copy_environment(), check=True)
    commit(project.root)
    done = run("seeds", "--count", 2)
    assert done.exit_code == 0, done.output
    assert ran(project) == ["cnn 2019", "cnn 2020", "ctc 2019", "ctc 2020"]
    table = files.read_json(project.seeds)
    assert [(r["seed"], r["kind"]) for r in table["runs"]] == [(s, k) for s in (2019, 2020) for k in params.KINDS]
    assert table["cnn"]["mean"] == pytest.approx((0.909 + 0.900) / 2)
    assert project.seeds.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "seed 2020  ctc  95.00% (94.00% - 96.00%)" in done.output
    assert files.read_json(project.report("cnn") / "metrics.json")["exact"] == pytest.approx(0.909), "untouched"

    assert run("seeds", "--count", 2).exit_code == 0
    assert len(ran(project)) == 4, "a finished seed is not run again"


def test_seeds_run_side_by_side_and_a_failed_one_alone_runs_again(project):
    fails = "if params['seed'] == 2020 and not pathlib.Path(sys.argv[2] + '.ok').exists(): sys.exit(1)"
    (project.root / "stage.py").write_text(f"{STAGE}{fails}\n")
    commit(project.root)
    done = run("seeds", "--count", 2, "--jobs", 2)
    assert done.exit_code == 1
    assert re.search(
        r"captchalab: seed-2020-\w+ failed: its output says why; the same command runs again what is missing\.",
        done.stderr,
    )
    assert not project.seeds.exists()
    Path(f"{project.root.parent / 'ran.txt'}.ok").touch()
    assert run("seeds", "--count", 2).exit_code == 0
    assert ran(project).count("cnn 2019") == 1


def test_every_seed_is_tested_on_the_base_seeds_captchas(smoke):
    plan = seeds.planned(smoke, 3)
    assert list(plan) == [2019, 2020, 2021]
    for seed, experiment in plan.items():
        assert experiment.values == {"seed": seed, "splits.valid.seed": 2019, "splits.test.seed": 2019}
    assert smoke.split_seed("test") == smoke.split_seed("train") == 2019


def test_other_parameters_are_other_experiments_and_another_seed_alone_is_not(smoke):
    digest = experiments.digest
    assert digest(smoke, "seed") == digest(smoke.model_copy(update={"seed": 7}), "seed")
    splits = smoke.splits.model_copy(update={"train": smoke.splits.train.model_copy(update={"images": 999})})
    assert digest(smoke, "seed") != digest(smoke.model_copy(update={"splits": splits}), "seed")
    assert digest(smoke, "splits.train.images") == digest(
        smoke.model_copy(update={"splits": splits}), "splits.train.images"
    )


def test_sizes_of_the_train_split_are_those_that_were_trained_with(project, smoke):
    digest = experiments.digest(smoke, but=cost.SIZE)
    experiments.run(project, [Experiment(f"size-64-{digest}", {cost.SIZE: 64})], jobs=1)
    rows = cost.sizes_trained(project, smoke, digest)
    assert [(row["train_images"], row["kind"], row["exact"]) for row in rows] == [
        (64, "cnn", pytest.approx(0.909)),
        (64, "ctc", pytest.approx(0.968)),
    ]
