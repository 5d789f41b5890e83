"""What a search adds to the training of its trials: storage, MLflow, the start of a process.

    .venv/bin/python benchmarks/search_overhead.py [--kind ctc] [--trials 3]     some two minutes per trial

Runs a search of its own over the project's params.yaml, in a temporary folder, without pruning. A trial's training is
what `fit` takes for both stages, validation included; everything else between the start of the first trial and the end
of the last is overhead, the import of TensorFlow among it, which the first trial pays for all.
"""

import argparse
import itertools
import shutil
import tempfile
from pathlib import Path

from captchalab import params
from captchalab.project import Project
from captchalab.search import run, study
from captchalab.search.study import Options


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kind", default="ctc", choices=["cnn", "ctc"])
    words.add_argument("--trials", default=3, type=int)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(Path(temporary))
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copyfile(Project.find().root / name, project.root / name)
        present = params.load(project.params)
        run.run(project, present, Options(given.kind, "overhead", given.trials, sampler="random", pruning=False))
        [found] = study.existing(study.open_storage(project, present.search.heartbeat_s), name="overhead")
        trials = found.trials
    print(f"\n{'trial':<8}{'trained':>10}{'in all':>10}{'overhead':>10}")
    ends = [trials[0].datetime_start, *(trial.datetime_complete for trial in trials)]
    spans = [(after - before).total_seconds() for before, after in itertools.pairwise(ends)]
    rows = [(str(trial.number), trial.user_attrs["fit_s"], span) for trial, span in zip(trials, spans, strict=True)]
    rows.append(("all", sum(row[1] for row in rows), sum(spans)))
    for name, fit_s, span in rows:
        print(f"{name:<8}{fit_s:>8.1f} s{span:>8.1f} s{1 - fit_s / span:>10.1%}")


if __name__ == "__main__":
    main()
