"""The captchas that trials read are those of data/."""

import pytest

from captchalab.data import dataset
from captchalab.project import Project
from captchalab.search import data


@pytest.mark.parametrize("own", [-1, 7])
def test_trials_are_scored_on_the_captchas_of_the_valid_split_whatever_its_seed(smoke, tmp_path, own):
    valid = smoke.splits.valid.model_copy(update={"seed": own})
    params = smoke.model_copy(update={"splits": smoke.splits.model_copy(update={"valid": valid})})
    dataset.generate(params.captcha, "valid", valid, params.split_seed("valid"), tmp_path / "valid", workers=1)
    found = data.digests(data.prepare(Project(tmp_path), params))
    assert found["valid"] == data.digests({"valid": tmp_path / "valid"})["valid"]
