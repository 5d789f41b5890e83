"""Looks at MLflow's pages in a headless Chromium, as a person who opens them does.

    python tests/pages.py URL [--out FOLDER]

URL is what `captchalab ui` prints. The table of runs has to show the fine-tuned networks with all their columns as it
opens, in a window of 1920 pixels, and two networks have to share a chart. FOLDER gets pictures of what was seen.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from captchalab.tracking.ui import COLUMNS

PATIENCE_S = 20.0
WIDTH_PX, HEIGHT_PX = 1920, 740
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CURVE = "val/exact"

# [run id, column, text] of each cell, from top to bottom and left to right; those whose whole width is in sight
CELLS = """
const sight = document.querySelector('.ag-center-cols-viewport')?.getBoundingClientRect();
return [...document.querySelectorAll('.ag-center-cols-container .ag-cell')]
  .map(cell => ({cell, box: cell.getBoundingClientRect()}))
  .filter(({box}) => box.left >= sight.left && box.right <= sight.right)
  .sort((one, other) => one.box.top - other.box.top || one.box.left - other.box.left)
  .map(({cell}) => [cell.parentElement.getAttribute('row-id'), cell.getAttribute('col-id'), cell.innerText.trim()]);
"""
# a list for each chart, and in it [run id, metric, number of points] for each line; MLflow draws each line twice
CHARTS = """
return [...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.checkVisibility())
  .map(plot => (plot.data ?? []).map(line => [line.uuid, line.metricKey, line.y?.length]));
"""

Found = TypeVar("Found")


class CannotLookError(Exception):
    """There is no browser, or no page to look at."""


def look_at(url: str, out: Path | None = None) -> None:
    """Assert that the page shows what it should.

    Args:
        url: the page of the runs, as `captchalab ui` prints it.
        out: where mlflow.png, mlflow-charts.png and mlflow-compare.png go.

    Raises:
        AssertionError: the page shows something else.
        CannotLookError: there is no browser, or nothing answers.
    """
    runs = fine_tuned(url)
    with browser() as driver:
        driver.get(url)
        patiently(lambda: table(driver, runs))
        patiently(lambda: description(driver))
        picture(driver, out, "mlflow.png")

        two = [next((run for run in runs if runs[run]["tags.`kind`"] == kind), "") for kind in ("cnn", "ctc")]
        assert all(two), "There is not one fine-tuned network of each kind."
        mode(driver, "CHART")
        patiently(lambda: one_chart(driver, two))
        picture(driver, out, "mlflow-charts.png")

        mode(driver, "TABLE")
        for run in two:
            click(driver, f".ag-pinned-left-cols-container .ag-row[row-id='{run}'] input[type=checkbox]")
        click(driver, "[data-testid=runs-compare-button]:not([disabled])")
        patiently(lambda: metric_link(driver, CURVE).click())
        patiently(lambda: one_chart(driver, two, alone=True))
        picture(driver, out, "mlflow-compare.png")


def fine_tuned(url: str) -> dict[str, dict[str, str]]:
    """What the store has: {run id: {column: value}} of the fine-tuned networks, the twenty best of them."""
    parts = re.match(r"(https?://[^/#]+)/#/experiments/([^/?]+)/", url)
    if parts is None:
        raise CannotLookError(f"{url} is not the page of an experiment's runs.")
    server, number = parts.groups()
    asked = {
        "experiment_ids": [number],
        "filter": "tags.stage = 'finetune'",
        "order_by": ["metrics.`test/exact` DESC"],
        "max_results": 20,
    }
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/runs/search", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            runs = json.load(answer).get("runs", [])
    except (urllib.error.URLError, TimeoutError) as error:
        raise CannotLookError(f"Nothing answers at {server} ({error}): start `captchalab ui`.") from error
    assert runs, f"The experiment {number} has no fine-tuned network."
    return {
        run["info"]["run_id"]: {
            f"{group}.`{item['key']}`": str(item["value"])
            for group in ("tags", "params", "metrics")
            for item in run["data"].get(group, [])
        }
        for run in runs
    }


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A Chromium that has never been used before."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        raise CannotLookError("There is no chromium or no chromedriver: apt-get install chromium chromium-driver.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        try:
            driver = webdriver.Chrome(options, Service(chromedriver))
        except WebDriverException as error:
            raise CannotLookError(f"Chromium does not start: {error.msg}") from error
        try:
            window = {"width": WIDTH_PX, "height": HEIGHT_PX, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
            yield driver
        finally:
            driver.quit()


def table(driver: webdriver.Chrome, runs: dict[str, dict[str, str]]) -> None:
    """Every run has a row, the best first, with its own value in every column, in our order and in sight."""
    close_assistant(driver)
    rows: dict[str, dict[str, str]] = {}
    for run, column, text in driver.execute_script(CELLS):
        rows.setdefault(run, {})[column] = text
    for run, values in runs.items():
        assert run in rows, f"The run {run} has no row in sight."
        for column in COLUMNS:
            shown, value = rows[run].get(column), values.get(column)
            if column == "params.`rnn_size`" and values.get("tags.`kind`") == "cnn":
                value = "-"
            assert value, f"The run {run} has no {column}."
            assert shown is not None, f"{column} of the run {run} is not in sight."
            same = float(shown) == float(value) if column.startswith("metrics") and shown != "-" else shown == value
            assert same, f"{column} of the run {run} is shown as {shown!r}, and is {value!r}."
        order = [column for column in rows[run] if column in COLUMNS]
        assert order == list(COLUMNS), f"The columns are in another order: {order}."
    exact = [float(rows[run]["metrics.`test/exact`"]) for run in rows if run in runs]
    assert exact == sorted(exact, reverse=True), f"The best network is not the first: {exact}."


def description(driver: webdriver.Chrome) -> None:
    """What the columns mean is said above the table."""
    button = driver.find_elements(By.CSS_SELECTOR, "[data-testid=experiment-metadata-editor-edit-button]")
    assert button, "The experiment has no description."
    said = button[0].find_element(By.XPATH, "..").text
    assert "test/exact" in said, f"The experiment's description does not speak of test/exact: {said!r}."


def one_chart(driver: webdriver.Chrome, runs: list[str], alone: bool = False) -> None:
    """One chart has the curves of these runs, and of no other where they are to be alone."""
    charts = driver.execute_script(CHARTS)
    curves = [{run for run, metric, points in chart if metric == CURVE and points} for chart in charts]
    fits = [found for found in curves if found == set(runs) or (not alone and found >= set(runs))]
    assert len(fits) == 1, f"{len(fits)} charts on the page have the curves of {CURVE} of {' and '.join(runs)}."


def metric_link(driver: webdriver.Chrome, name: str) -> WebElement:
    """The metric's name on the page that compares; the table there has only those rows that are in sight."""
    links = driver.find_elements(By.CSS_SELECTOR, "a[href*='#/metric?']")
    for link in links:
        if link.text == name:
            return link
    if links:
        driver.execute_script("arguments[0].scrollIntoView()", links[-1])
    raise AssertionError(f"The page that compares has no {name}.")


def mode(driver: webdriver.Chrome, name: str) -> None:
    """Press the button above the table for TABLE or CHART."""
    click(driver, f"label:has(input[value={name}])")


def click(driver: webdriver.Chrome, selector: str) -> None:
    patiently(lambda: driver.find_element(By.CSS_SELECTOR, selector).click())


def close_assistant(driver: webdriver.Chrome) -> None:
    """MLflow opens a panel on the right at a browser's first visit to 127.0.0.1, whatever the server says."""
    for button in driver.find_elements(By.CSS_SELECTOR, "[data-component-id='mlflow.assistant.chat_panel.close']"):
        button.click()


def picture(driver: webdriver.Chrome, out: Path | None, name: str) -> None:
    if out:
        out.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(out / name))


def patiently(action: Callable[[], Found]) -> Found:
    """Try until it works; what is wrong in the end is what is said."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return action()
        except (AssertionError, WebDriverException) as error:
            if time.monotonic() > end:
                said = error.msg if isinstance(error, WebDriverException) else str(error)
                raise AssertionError((said or "").partition("\n")[0]) from error
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Look at MLflow's pages in a headless Chromium.")
    parser.add_argument("url", help="the page that `captchalab ui` prints")
    parser.add_argument("--out", type=Path, help="a folder for pictures of what was seen")
    words = parser.parse_args()
    try:
        look_at(words.url, words.out)
    except (AssertionError, CannotLookError) as error:
        sys.exit(str(error))
    print("The table, the charts and the comparison show what they should.")


if __name__ == "__main__":
    main()
