"""How fast captchas are read: ONNX Runtime, as `captchalab predict` does it, and Keras' `predict`.

    .venv/bin/python benchmarks/reading.py        five minutes; --quick 40 s

With the networks of models/, or, where `make repro` has not run, with untrained ones of the same sizes. Each
contestant reads in a process of its own, on as many cores as it is given.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import psutil

from captchalab import params
from captchalab.project import Project
from captchalab.reading.captcha import KINDS, Kind

FILES = {"onnx": "model.onnx", "keras": "model.keras"}
NAMES = {"onnx": "ONNX Runtime", "keras": "Keras"}
ABOUT = """From the bytes of a PNG file to text, confidence and the confidence of each character. `Cold start` is
the time from the start of a process to its first prediction; one image is read again and again, warm, one at a time;
many are read in one call. The parts of one image are medians too: PNG to pixels, the network, the text and its
confidence, the characters' confidences. Both engines share all parts but the network."""


def measure(quick: bool) -> harness.Table:
    project = Project.find()
    all_params = params.load(project.params)
    if quick:
        return compare(project, all_params, cores=(1,), single=100, many=300, rounds=1)
    cores = sorted({1, os.cpu_count() or 1})
    return compare(project, all_params, cores=tuple(cores), single=1000, many=1000, rounds=3)


def compare(
    project: Project, all_params: params.Params, cores: tuple[int, ...], single: int, many: int, rounds: int
) -> harness.Table:
    """Contestants of both kinds on each number of cores: `single` images one at a time, `many` at once."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        notes = [provide(project, all_params, kind, folder / kind) for kind in KINDS]
        harness.progress(f"draws {many} captchas")
        write_pngs(all_params, many, folder)

        def row(engine: str, kind: Kind, on: int) -> str:
            return f"{kind.upper()}, {NAMES[engine]}, {on} core{'s' if on > 1 else ''}"

        each = [(kind, on) for kind in KINDS for on in cores]
        turns = {
            row(engine, kind, on): partial(in_process, engine, kind, on, folder, single)
            for kind, on in each
            for engine in FILES
        }
        rows = harness.take_turns(turns, rounds)
    baselines = {row("onnx", kind, on): row("keras", kind, on) for kind, on in each}
    return harness.Table("Reading", ABOUT, rows, baselines, sorted(set(notes)))


def in_process(engine: str, kind: Kind, cores: int, folder: Path, single: int) -> harness.Figures:
    """`work` in a process of its own, with a thread per core."""
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(cores), "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, __file__, "--worker", engine, kind, str(cores), folder, str(single)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: harness.Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def work(engine: str, kind: Kind, cores: int, folder: Path, single: int) -> harness.Figures:
    """Read in this process, on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    contents = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    captcha, logits = _engine(engine, folder / kind / FILES[engine])
    from captchalab.reading import confidences, decoding, predictor

    parts: dict[str, list[float]] = {}

    def read(some: list[bytes]) -> None:
        clock = [time.perf_counter()]
        images = np.stack([predictor.pixels("a captcha", content, captcha) for content in some])
        clock.append(time.perf_counter())
        outputs = logits(images)
        clock.append(time.perf_counter())
        found = decoding.greedy(kind, outputs, captcha.alphabet)
        clock.append(time.perf_counter())
        confidences.of_characters(kind, outputs, [one.text for one in found], captcha.alphabet)
        clock.append(time.perf_counter())
        for name, started, ended in zip(("PNG", "network", "text", "characters"), clock, clock[1:], strict=False):
            parts.setdefault(name, []).append(1000 * (ended - started))

    read(contents[:1])
    cold_s = time.time() - psutil.Process().create_time()
    for _ in range(10):
        read(contents[:1])
    parts.clear()
    for i in range(single):
        read([contents[i % len(contents)]])
    alone = [sum(one) for one in zip(*parts.values(), strict=True)]
    of_one = {f"{name}, ms": statistics.median(values) for name, values in parts.items()}
    read(contents)  # Keras compiles for this number of images
    started = time.perf_counter()
    read(contents)
    seconds = time.perf_counter() - started
    return {
        "one image p50, ms": statistics.median(alone),
        "p99, ms": harness.percentile(alone, 0.99),
        f"{len(contents)} images, images/s": len(contents) / seconds,
        "cold start, s": cold_s,
        **of_one,
    }


def write_pngs(all_params: params.Params, n: int, folder: Path) -> None:
    """Captchas as PNG files."""
    from PIL import Image

    from captchalab.data.rendering import draw_random

    for i in range(n):
        _, pixels = draw_random(all_params.captcha, all_params.seed, "benchmark", i)
        image = Image.fromarray(pixels[..., 0] if all_params.captcha.channels == 1 else pixels)
        image.save(folder / f"{i:06d}.png")


def _engine(engine: str, path: Path) -> tuple[params.CaptchaParams, Callable[[np.ndarray], Any]]:
    """What a network reads, and its logits of images."""
    if engine == "onnx":
        from captchalab.reading import predictor

        opened = predictor.load(path)
        return opened.captcha, opened.logits
    from captchalab.networks import backend, models

    backend.start(accelerators=False)
    network = models.load(path)
    return network.captcha, network.logits


def provide(project: Project, all_params: params.Params, kind: Kind, out: Path) -> str:
    """Put both files of a network into the folder `out`; says which network that is."""
    out.mkdir()
    trained = {"onnx": project.onnx(kind), "keras": project.model(kind)}
    if all(path.is_file() for path in trained.values()):
        for engine, path in trained.items():
            (out / FILES[engine]).symlink_to(path.resolve())
        return "The networks are those of `models/`."
    from captchalab.networks import conversion, export, models

    network = models.build(kind, all_params.captcha, all_params.network(kind))
    models.save(network, out / FILES["keras"])
    about = {"kind": kind, **all_params.captcha.model_dump(), "network_md5": "untrained"}
    export.write(conversion.convert(network.model), about, out / FILES["onnx"])
    return "The networks are untrained: CTC texts, and what they cost, are other than a trained network's."


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        chosen, of_kind, on_cores, given, repeated = sys.argv[2:]
        print(json.dumps(work(chosen, "cnn" if of_kind == "cnn" else "ctc", int(on_cores), Path(given), int(repeated))))
    else:
        harness.main(measure)
