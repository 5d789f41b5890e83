"""The folder that is logged and served."""

import subprocess
import sys

import pytest
import workspace
import yaml

from captchalab.tracking import packaging


@pytest.fixture
def folder(project, untrained, tmp_path):
    workspace.put(project, "ctc", untrained["ctc"], 100)
    packaging.package(project, "ctc", tmp_path / "model", "m-1", "r-1")
    return tmp_path / "model"


def test_nothing_in_it_is_pickled(folder):
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".py", ".onnx", ".json", ".yaml", ".txt", ".csv", ""}
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in (folder / "MLmodel").read_text()


def test_it_has_signature_example_and_exact_requirements(folder):
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert about["signature"]["inputs"] == '[{"type": "binary", "required": true}]'
    assert '"confidence": {"type": "double"' in about["signature"]["outputs"]
    assert (about["model_id"], about["run_id"]) == ("m-1", "r-1")
    assert (folder / "input_example.json").exists()
    required = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in required] == list(packaging.PACKAGES)
    assert all("==" in line for line in required)


def test_it_reads_where_nothing_of_captchalab_is_on_the_path(folder, tmp_path):
    """With the modules the folder carries, and unpickling forbidden."""
    script = (
        "import sys, pathlib, json, base64\n"
        "sys.path[:] = [p for p in sys.path if not p.endswith('/src')]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in type(f).__name__.lower()"
        " and 'editable' not in getattr(f, '__name__', '').lower()]\n"
        "import mlflow\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "[image] = json.loads(pathlib.Path(sys.argv[1], 'input_example.json').read_text())\n"
        "[prediction] = model.predict([base64.b64decode(image)])\n"
        "assert len(prediction.characters) == len(prediction.text)\n"
        "print(sys.modules['captchalab'].__file__, {'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder],
        capture_output=True, text=True, cwd=tmp_path, env={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{folder}/code/captchalab/__init__.py set()"


def test_it_carries_the_predictions_on_the_test_split(folder):
    assert len((folder / packaging.PREDICTIONS).read_text().splitlines()) == 201
    assert '"digest"' in (folder / packaging.SPLIT).read_text()
