"""What accuracy costs, from journals and reports."""

import subprocess

import guesser
from click.testing import CliRunner, Result

from captchalab import files
from captchalab.cli import main


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def test_each_network_has_its_curve_its_test_figure_and_a_place_beside_the_reference(chain):
    subprocess.run(["git", "init", "-q"], check=True)
    assert run("keep", "small").exit_code == 0
    same = run("cost")
    assert same.exit_code == 0, same.output
    assert same.stdout.count("ctc small: 128 images") == 1 and "of the workspace" not in same.stdout

    guesser.put(chain, 0.7)
    assert "ctc of the workspace: 128 images, 0.1 min on a CPU, test exact 50.00%" in run("cost").stdout
    table = files.read_json(chain.results / "cost.json")
    assert [network["name"] for network in table["networks"]] == ["small", "of the workspace"]
    assert table["networks"][0]["epochs"] == [
        {"images_seen": 64, "seconds": 2.0, "val/exact": 0.5},
        {"images_seen": 128, "seconds": 4.0, "val/exact": 0.5},
    ]
    assert table["networks"][0]["test"]["n"] == 200
    assert table["sizes"] == []
    [cnn, ctc] = table["reference"]
    assert (round(cnn["exact"], 4), cnn["n"], round(ctc["exact"], 4), ctc["n"]) == (0.9827, 12_800, 0.9922, 2_560)
    assert ctc["exact_low"] < 0.99 < 0.994 < ctc["exact_high"]
    assert (chain.results / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_tested_network_there_is_nothing_to_draw(chain):
    subprocess.run(["git", "init", "-q"], check=True)
    (chain.report("ctc") / "metrics.json").unlink()
    done = run("cost")
    assert done.exit_code == 1 and "holds no tested network: run `dvc repro` first." in done.stderr
    assert not chain.results.exists()
