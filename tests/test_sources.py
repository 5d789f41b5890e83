"""dvc.yaml's dependencies and a checkpoint's fingerprint, held to what the code imports."""

from pathlib import Path

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

from captchalab import params, sources, yaml
from captchalab.params import KINDS

STAGES = {
    "generate": "captchalab.data.dataset",
    "train": "captchalab.training.fit",
    "finetune": "captchalab.training.fit",
    "export": "captchalab.networks.export",
    "evaluate": "captchalab.evaluation.evaluate",
    "compare": "captchalab.evaluation.report",
}
NAMES = {stage: {f"{stage}@{kind}" for kind in KINDS} for stage in ("train", "finetune", "export", "evaluate")} | {
    "generate": {f"generate@{split}" for split in params.SPLITS},
    "compare": {"compare"},
}
# Stages that run again where a value of params.yaml changes; those after them follow where an out comes out different.
SHAPED_BY_VALUE = {
    "seed": NAMES["generate"] | NAMES["train"] | NAMES["finetune"],
    "captcha.length": NAMES["generate"] | NAMES["train"] | NAMES["finetune"] | NAMES["evaluate"] | NAMES["compare"],
    "splits.train.images": {"generate@train"},
    "splits.train.weights": {"generate@train"},
    "splits.valid.images": {"generate@valid"},
    "splits.test.images": {"generate@test"},
    "models.cnn.conv_depth": {"train@cnn"},
    "models.ctc.rnn_size": {"train@ctc"},
    "train.cnn.epochs": {"train@cnn"},
    "train.ctc.learning_rate": {"train@ctc"},
    "finetune.cnn.learning_rate": {"finetune@cnn"},
    "finetune.ctc.epochs": {"finetune@ctc"},
    "start_from.ctc": {"train@ctc"},
    "evaluate.batch_size": NAMES["evaluate"],
    "evaluate.grid_images": NAMES["evaluate"] | NAMES["compare"],
    "promote.min_exact": set(),
    "tracking.experiment": set(),
    "runtime.workers": set(),
    "runtime.threads": set(),
    "runtime.precision": NAMES["train"] | NAMES["finetune"],
}


@pytest.fixture(scope="module")
def chain(root) -> dict:
    """dvc.yaml's stages."""
    return yaml.read(root / "dvc.yaml")["stages"]


def code(root: Path, stage: dict) -> tuple[set[str], set[str]]:
    """The modules of this package that a stage names, each or by their folder; and other files of src/."""
    modules, others = set(), set()
    for name in (name for name in stage["deps"] if name.startswith("src/")):
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.suffix == ".py":
                modules.add(".".join(file.relative_to(root / "src").with_suffix("").parts).removesuffix(".__init__"))
            else:
                others.add(str(file.relative_to(root / "src")))
    return modules, others


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_its_module_imports(root, chain, stage):
    named, _ = code(root, chain[stage])
    shaping = set(sources.shaping(STAGES[stage]))
    assert shaping - named == set(), "missing in dvc.yaml"
    packages = {module.rpartition(".")[0] for module in shaping}
    assert named - shaping - packages - sources.LEAVES_NO_MARK.keys() == set(), "not imported"
    deps = chain[stage]["deps"]
    for module in named & sources.LEAVES_NO_MARK.keys():  # in a folder that is named as a whole
        assert str(sources.path(module).relative_to(sources.PACKAGE.parents[1])) not in deps


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_files_its_modules_read_beside_them(root, chain, stage):
    read = {
        str(file.relative_to(root / "src"))
        for module in sources.shaping(STAGES[stage])
        for file in sources.path(module).parent.iterdir()
        if file.is_file() and file.suffix != ".py" and file.name in sources.path(module).read_text()
    }
    assert code(root, chain[stage])[1] == read


def test_the_stages_are_those_of_the_chain(chain):
    assert set(chain) == set(STAGES)


def test_imports_within_functions_count_and_those_for_types_do_not(tmp_path, monkeypatch):
    package = tmp_path / "lab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lab.c\ndef f():\n    from lab import b\n"
    )
    for name in "bc":
        (package / f"{name}.py").write_text(f"{name} = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "PACKAGE", package)
    assert sources.shaping("lab.a") == ["lab.a", "lab.b"]
    before = sources.version("lab.a")
    (package / "c.py").write_text("c = 2\n")
    assert sources.version("lab.a") == before
    (package / "b.py").write_text("b = 2\n")
    assert sources.version("lab.a") != before


def test_no_exemption_is_left_over():
    imported = set()
    for module in STAGES.values():
        import grimp

        imported |= grimp.build_graph("captchalab", cache_dir=None).find_upstream_modules(module)
    assert sources.LEAVES_NO_MARK.keys() <= imported


def test_a_value_reruns_the_stages_it_shapes_and_no_others(root):
    with Repo(root) as repo:
        tracked = {
            stage.addressing: {name for dep in stage.deps if isinstance(dep, ParamsDependency) for name in dep.params}
            for stage in repo.index.stages
        }
    for key, expected in SHAPED_BY_VALUE.items():
        above = {".".join(key.split(".")[: n + 1]) for n in range(key.count(".") + 1)}
        assert (key, {stage for stage, names in tracked.items() if names & above}) == (key, expected)
