"""The command line as a person uses it, each command a process of its own where that matters."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from captchalab import params
from captchalab.cli import main
from captchalab.training.journal import Journal


def process(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "captchalab.cli", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def run(*words: object) -> Result:
    """A verb in this process: Keras is imported once for all."""
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture
def project(smoke_text, tmp_path, monkeypatch) -> Path:
    """An empty project with the tests' parameters; one is in its folder."""
    (tmp_path / "params.yaml").write_text(smoke_text)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(untrained) -> Path:
    return untrained["ctc"] / "export" / "model.onnx"


def test_help_lists_every_verb_with_its_job_in_a_sentence():
    listed = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", run("--help").output.partition("Commands:")[2], re.M))
    assert list(listed) == list(main.commands)
    for verb, job in listed.items():
        assert re.fullmatch(r"[A-Z].*\w.*", job) and len(job) > 20, verb


def test_help_names_the_chain_as_dvc_runs_it(root):
    stages = re.findall(r"^  ([a-z]+):$", (root / "dvc.yaml").read_text().partition("\nstages:")[2], re.M)
    assert f"`dvc repro` runs {', '.join(stages[:-1])} and {stages[-1]}" in " ".join(run("--help").output.split())


@pytest.mark.parametrize("words", [["--help"], ["promote", "--help"], ["draw", "!", "--out", "none.png"]])
def test_a_light_verb_imports_no_heavy_library(project, words):
    """What keeps `--help` quick on any machine."""
    script = (
        "import sys\nfrom captchalab.cli import main\n"
        f"try:\n    main({words!r})\nfinally:\n    print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True)
    imported = set(done.stderr.split())
    assert "captchalab.cli" in imported
    assert imported.isdisjoint({"keras", "tensorflow", "jax", "mlflow", "dvc", "matplotlib", "optuna", "onnx"})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["generate", "holdout"], "'holdout' is not one of 'train', 'valid', 'test'"),
        (["train", "rnn"], "'rnn' is not one of 'cnn', 'ctc'"),
        (["evaluate", "cnn"], "data/test/meta.json is missing: make it with `dvc repro`."),
        (["train", "cnn"], "data/valid/meta.json is missing: make it with `dvc repro`."),
        (["compare"], "is missing"),
        (["draw", "ab!"], "'ab!' cannot be drawn: ! a b is not in captcha.alphabet"),
        (["draw", ""], "'' cannot be drawn: give a text of at least one character."),
        (
            ["predict", "none.png", "--model", "cnn"],
            "models/cnn/export/model.onnx is missing: make it with `dvc repro`",
        ),
        (
            ["predict", "none.png", "--model", "rnn"],
            "--model rnn is neither champion, cnn, ctc, models:/captcha/VERSION, results/NAME nor a file",
        ),
        (["draw", "AB12", "--out", "/proc/none/a.png"], "/proc/none/a.png cannot be written ("),
        (["sync"], "holds no finished stage: run `dvc repro` first."),
        (["export", "ctc"], "models/ctc/finetune/model.keras is missing: train it with"),
        (["predict", "none.png"], "mlruns/champion holds no champion: promote one with `captchalab promote`"),
        (["relocate", "--model"], "No such option"),
        (["profile", "smoke"], "There is no profile 'smoke': take one of "),
        (["profile", "--back"], "git does not know a committed params.yaml"),
        (["profile"], "Name one profile ("),
        (["profile", "smoke", "--back"], "Name one profile ("),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_a_status(project, words, sentence):
    done = run(*words)
    assert done.exit_code != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "models").exists() and not (project / "reports").exists()


def test_a_sentence_on_stderr_and_nothing_else(project):
    """As a shell sees it."""
    done = process("evaluate", "cnn")
    assert done.returncode == 1
    assert done.stderr.startswith("captchalab: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_wrong_value_in_params_stops_any_stage_before_work(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("length: 4", "length: 0"))
    done = run("generate", "train")
    assert done.exit_code == 1
    assert done.stderr == ("captchalab: params.yaml: captcha.length = 0 cannot be: input should be greater than 0.\n")
    assert not (project / "data").exists()


def test_outside_a_project_the_source_trees_own_is_meant(root, tmp_path):
    captcha = params.load(root / "params.yaml").captcha
    done = process("draw", captcha.alphabet[:2], "-o", tmp_path / "a.png", cwd=tmp_path)
    assert done.returncode == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (captcha.width_px, captcha.height_px)


def test_a_profile_says_which_captchas_run_and_goes_back(project, smoke_text):
    (project / "profiles").mkdir()
    (project / "profiles" / "colour.yaml").write_text("captcha: {channels: 3}\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    done = run("profile", "colour")
    assert "+  channels: 3\n" in done.stdout
    line = (
        "`dvc repro` now runs captchas of 4 characters out of '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ' (36), 128 x 64 px"
    )
    assert done.stdout.endswith(f"\n{line}, RGB.\n")
    assert run("profile", "--back").stdout.endswith(f"\n{line}, grey.\n")
    assert (project / "params.yaml").read_text() == smoke_text


def test_sync_says_that_mlflow_is_away(project, monkeypatch):
    Journal.begin(project / "models" / "cnn" / "train", {"device": "a CPU", "experiment": "x"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = run("sync")
    assert done.exit_code == 1
    assert "captchalab: MLflow at http://127.0.0.1:9 cannot be used (" in done.stderr
    assert "start it, or point MLFLOW_TRACKING_URI elsewhere." in done.stderr


def test_a_taken_port_is_one_sentence(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("ui", "--port", port)
    assert done.exit_code == 1
    assert f"Port {port} on 127.0.0.1 is taken" in done.stderr


@pytest.mark.parametrize("command", ["ui", "serve", "dashboard"])
@pytest.mark.parametrize("port", [-1, 99999])
def test_a_port_that_cannot_be_is_refused(project, command, port):
    done = run(command, "--port", port)
    assert done.exit_code == 2
    assert f"{port} is not in the range 1<=x<=65535" in done.stderr


def test_draw_overwrites_nothing_but_captchas(project):
    (project / "notes.md").write_text("notes")
    done = run("draw", "0O0O", "--out", "notes.md")
    assert done.exit_code == 1
    assert done.stderr == "captchalab: notes.md exists and is no PNG file: name another with --out.\n"
    assert (project / "notes.md").read_text() == "notes"
    assert run("draw", "0O0O").exit_code == run("draw", "0O0O").exit_code == 0


def test_draw_writes_one_captcha_or_a_folder_of_them(project):
    assert run("draw", "0O0O").stdout.strip() == "0O0O.png"
    run("draw", "0O0O", "--count", 3, "--out", "many")
    written = sorted((project / "many").iterdir())
    assert [path.name for path in written] == ["0000.png", "0001.png", "0002.png"]
    assert written[0].read_bytes() == (project / "0O0O.png").read_bytes()
    assert written[1].read_bytes() != written[0].read_bytes()


def test_predict_reads_files_and_folders(project, model):
    run("draw", "AB12", "--count", 2, "--out", "many")
    (project / "many" / "notes.txt").write_text("no image")
    table = run("predict", "many", "many/0000.png", "--model", model)
    assert table.exit_code == 0, table.stderr
    assert [line.split()[0] for line in table.stdout.splitlines()] == [
        "many/0000.png",
        "many/0001.png",
        "many/0000.png",
    ]
    answer = json.loads(run("predict", "many", "--model", model, "--json").stdout)
    assert answer["model"] == str(model) and len(answer["network_md5"]) == 32
    assert [prediction["file"] for prediction in answer["predictions"]] == ["many/0000.png", "many/0001.png"]
    assert all(0 <= prediction["confidence"] <= 1 for prediction in answer["predictions"])


def test_predict_takes_jpeg_and_colour(project, model):
    run("draw", "AB12")
    Image.open(project / "AB12.png").convert("RGB").save(project / "AB12.jpg", quality=95)
    done = run("predict", "AB12.png", "AB12.jpg", "--model", model, "--json")
    assert len(json.loads(done.stdout)["predictions"]) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "image.png cannot be read (No such file or directory): name a PNG or JPEG file, or a folder of them."),
        (b"", "image.png cannot be read as an image"),
        (b"\x89PNG\r\n\x1a\n broken", "image.png cannot be read as an image"),
    ],
)
def test_predict_refuses_what_is_no_picture(project, model, content, sentence):
    if content is not None:
        (project / "image.png").write_bytes(content)
    done = run("predict", "image.png", "--model", model)
    assert done.exit_code == 1
    assert sentence in done.stderr


def test_a_broken_picture_spoils_no_other(project, model):
    run("draw", "AB12", "--count", 2, "--out", "many")
    (project / "many" / "0000.png").write_bytes(b"broken")
    done = run("predict", "many", "--model", model)
    assert done.exit_code == 1
    assert done.stdout.startswith("many/0001.png") and done.stdout.count("\n") == 1
    assert done.stderr == ("captchalab: many/0000.png cannot be read as an image: give a PNG or JPEG file.\n")


def test_relocate_says_that_nothing_has_moved(project):
    assert run("relocate", "--dry-run").stdout.startswith("Nothing has moved")


def test_predict_refuses_images_of_another_size(project, model):
    Image.new("L", (170, 80)).save(project / "wide.png")
    done = run("predict", "wide.png", "--model", model)
    assert done.exit_code == 1
    assert done.stderr == (
        "captchalab: wide.png is 170 x 80 px, the network reads 128 x 64 px: give it images of that size.\n"
    )


def test_predict_refuses_an_empty_folder(project, model):
    (project / "empty").mkdir()
    done = run("predict", "empty", "--model", model)
    assert "empty holds no PNG or JPEG file" in done.stderr
