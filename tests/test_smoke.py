"""`captchalab smoke` as a user of other captchas runs it, and what their changes do to the tests: nothing."""

import re
import shutil
from pathlib import Path

import pytest
from chain import captchalab, clone, own_tests

from captchalab import files, yaml

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(6000)]
MINE = {"alphabet": "abcdefghijklmnopqrstuvwxyz", "length": 5, "width_px": 170, "height_px": 80}


@pytest.fixture(scope="module")
def workspace(root, smoke_text, tmp_path_factory) -> Path:
    """A clone whose user has changed four lines of params.yaml, and not committed them."""
    folder = clone(root, tmp_path_factory.mktemp("workspace") / "clone", smoke_text)
    content = yaml.parse(smoke_text)
    content["captcha"].update(MINE)
    (folder / "params.yaml").write_text(yaml.dump(content))
    return folder


def test_smoke_runs_the_users_own_captchas(workspace):
    done = captchalab(workspace, "smoke", "--keep")
    line = "smoke: captchas of 5 characters out of 'abcdefghijklmnopqrstuvwxyz' (26), 170 x 80 px, grey\n"
    assert done.stdout.startswith(line)
    [kept] = (Path(name) for name in re.findall(r"the whole chain ran, in (\S+)", done.stdout))
    try:
        drawn = files.read_json(kept / "data" / "test" / "meta.json")
        assert {key: drawn[key] for key in MINE} == MINE
        assert (kept / "reports" / "index.html").exists()
    finally:
        shutil.rmtree(kept)


def test_smoke_leaves_the_workspace_as_it_was(workspace):
    assert not (workspace / "data").exists() and not (workspace / "models").exists()
    assert yaml.read(workspace / "params.yaml")["captcha"]["length"] == 5


def test_the_users_workspace_passes_the_tests(workspace):
    own_tests(workspace)
