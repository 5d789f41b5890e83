"""A training that is made for a GPU, on a CPU."""

import re

import pytest
from click.testing import CliRunner

from captchalab.cli import main
from captchalab.training import need


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 min"), (600, "10 min"), (7100, "118 min"), (7300, "2 hours"), (200_000, "56 hours"), (900_000, "10 days")],
)
def test_a_long_time_in_words(seconds, said):
    assert need.hours(seconds) == said


def test_it_says_how_long_it_would_take_and_goes_on_only_when_told(project):
    text = project.params.read_text()
    project.params.write_text(text.replace("needs: any", "needs: gpu"))
    done = CliRunner().invoke(main, ["train", "ctc"])
    assert done.exit_code == 1
    assert re.fullmatch(
        r"captchalab: train ctc is made for a GPU \(runtime\.needs = gpu\), and tensorflow \S+ sees none: on .+, "
        r"\d+ cores its 24 steps would take up to \d+ min\. To train nevertheless, set runtime\.needs = any in "
        r"params\.yaml\.\n",
        done.stderr,
    )
    assert not project.models.exists()
    drawn = CliRunner().invoke(main, ["generate", "valid"])
    assert drawn.exit_code == 1 and drawn.stderr.startswith("captchalab: train ctc is made for a GPU")
    assert not project.split("valid").exists(), "minutes of drawing come to nothing where training ends at once"
    project.params.write_text(text)
    assert "data/valid/meta.json is missing" in CliRunner().invoke(main, ["train", "ctc"]).stderr
