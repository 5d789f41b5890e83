"""Checks MLflow's pages in a headless Chromium, as a person who opens them sees them.

    python tests/pages.py URL [--trials] [--out FOLDER]

URL is what `captchalab ui` prints. The table of runs has to show the fine-tuned networks with all their columns as it
opens, in a window of 1920 pixels, and the whole curves of two networks, both stages against the images seen, have to
share a chart. With --trials the URL is that of a search: its trials have to be rows at first sight, the best first, and
the curves of all of them have to share a chart. FOLDER gets screenshots.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from captchalab.tracking import search_view
from captchalab.tracking.ui import COLUMNS
from captchalab.tracking.views import X_AXIS

PATIENCE_S = 200.0  # some ten times what a quiet machine takes
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
# per chart the title of its x axis, and [run id, metric, x of the points] per line; MLflow draws each line twice
CHARTS = """
return [...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.checkVisibility())
  .map(plot => [plot.layout?.xaxis?.title?.text ?? plot.layout?.xaxis?.title ?? null,
                (plot.data ?? []).map(line => [line.uuid, line.metricKey, Array.from(line.x ?? [], Number)])]);
"""

Found = TypeVar("Found")


class CannotCheckError(Exception):
    """There is no browser, or no page to check."""


def check(url: str, out: Path | None = None) -> None:
    """Assert that the page shows what it should.

    Args:
        url: the page of the runs, as `captchalab ui` prints it.
        out: where mlflow.png, mlflow-charts.png and mlflow-compare.png go.

    Raises:
        AssertionError: the page shows something else.
        CannotCheckError: there is no browser, or nothing answers.
    """
    runs = fine_tuned(url)
    two = [next((run for run in runs if runs[run]["tags.`kind`"] == kind), "") for kind in ("cnn", "ctc")]
    assert all(two), "There is not one fine-tuned network of each kind."
    whole = {run: whole_curve(url, run, runs[run]) for run in two}
    with browser() as driver:
        driver.get(url)
        patiently(lambda: table(driver, runs))
        patiently(lambda: description(driver))
        screenshot(driver, out, "mlflow.png")

        mode(driver, "CHART")
        patiently(lambda: one_chart(driver, whole, X_AXIS))
        screenshot(driver, out, "mlflow-charts.png")

        mode(driver, "TABLE")
        for run in two:
            click(driver, f".ag-pinned-left-cols-container .ag-row[row-id='{run}'] input[type=checkbox]")
        click(driver, "[data-testid=runs-compare-button]:not([disabled])")
        patiently(lambda: metric_link(driver, CURVE).click())
        patiently(lambda: one_chart(driver, whole, alone=True))
        screenshot(driver, out, "mlflow-compare.png")


def check_trials(url: str, out: Path | None = None) -> None:
    """Assert that the page of a search shows its trials.

    Args:
        url: the page of the trials, as `captchalab ui` prints it.
        out: where mlflow-trials.png and mlflow-trials-charts.png go.

    Raises:
        AssertionError: the page shows something else.
        CannotCheckError: there is no browser, or nothing answers.
    """
    runs = stored(url, "tags.stage = 'trial'", "metrics.score DESC")
    curves = {run: steps(url, run) for run in runs}
    with browser() as driver:
        driver.get(url)
        patiently(lambda: trials(driver, runs))
        patiently(lambda: description(driver, "score"))
        screenshot(driver, out, "mlflow-trials.png")

        mode(driver, "CHART")
        patiently(lambda: one_chart(driver, {run: curve for run, curve in curves.items() if curve}, X_AXIS))
        patiently(lambda: axes(driver, {X_AXIS, "seconds", "parameters"}))
        screenshot(driver, out, "mlflow-trials-charts.png")


def fine_tuned(url: str) -> dict[str, dict[str, str]]:
    """What the store has: {run id: {column: value}} of the fine-tuned networks, the twenty best of them."""
    return stored(url, "tags.stage = 'finetune'", "metrics.`test/exact` DESC")


def stored(url: str, chosen: str, order: str) -> dict[str, dict[str, str]]:
    """{run id: {column: value}} of the first twenty runs that a filter chooses, in this order."""
    _, number = address(url)
    wanted = {"experiment_ids": [number], "filter": chosen, "order_by": [order], "max_results": 20}
    runs = ask(url, "runs/search", wanted).get("runs", [])
    assert runs, f"The experiment {number} has no run with {chosen}."
    return {
        run["info"]["run_id"]: {
            f"{group}.`{item['key']}`": str(item["value"])
            for group in ("tags", "params", "metrics")
            for item in run["data"].get(group, [])
        }
        for run in runs
    }


def whole_curve(url: str, run: str, values: dict[str, str]) -> list[int]:
    """Images seen at each point of a network's curve; the points of the run of stage 1 are among them."""
    stage_1, whole = (steps(url, one) for one in (values["tags.`train_run_id`"], run))
    assert stage_1 and whole[: len(stage_1)] == stage_1, f"The run {run} does not begin with the points of stage 1."
    assert len(whole) > len(stage_1), f"The run {run} has no points of stage 2."
    return whole


def steps(url: str, run: str) -> list[int]:
    query = urllib.parse.urlencode({"run_id": run, "metric_key": CURVE})
    return sorted(int(point["step"]) for point in ask(url, f"metrics/get-history?{query}").get("metrics", []))


def ask(url: str, path: str, content: dict[str, object] | None = None) -> dict[str, Any]:
    """What MLflow's REST interface answers."""
    server, _ = address(url)
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return dict(json.load(answer))
    except (urllib.error.URLError, TimeoutError) as error:
        raise CannotCheckError(f"Nothing answers at {server} ({error}): start `captchalab ui`.") from error


def address(url: str) -> tuple[str, str]:
    """The server and the experiment's id of a page."""
    parts = re.match(r"(https?://[^/#]+)/#/experiments/([^/?]+)/", url)
    if parts is None:
        raise CannotCheckError(f"{url} is not the page of an experiment's runs.")
    return parts[1], parts[2]


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A Chromium that has never been used before."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        raise CannotCheckError("There is no chromium or no chromedriver: apt-get install chromium chromium-driver.")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        try:
            driver = webdriver.Chrome(options, Service(chromedriver))
        except WebDriverException as error:
            raise CannotCheckError(f"Chromium does not start: {error.msg}") from error
        try:
            window = {"width": WIDTH_PX, "height": HEIGHT_PX, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
            yield driver
        finally:
            driver.quit()


def table(driver: webdriver.Chrome, runs: dict[str, dict[str, str]]) -> None:
    """Every run has a row, the best first, with its own value in every column, in our order and in sight."""
    rows = rows_in_sight(driver)
    for run, values in runs.items():
        assert run in rows, f"The run {run} has no row in sight."
        for column in COLUMNS:
            shown, value = rows[run].get(column), values.get(column)
            if column == "params.`rnn_size`" and values.get("tags.`kind`") == "cnn":
                value = "-"
            assert value, f"The run {run} has no {column}."
            assert shown is not None, f"{column} of the run {run} is not in sight."
            assert is_same(column, shown, value), f"{column} of the run {run} is shown as {shown!r}, and is {value!r}."
        order = [column for column in rows[run] if column in COLUMNS]
        assert order == list(COLUMNS), f"The columns are in another order: {order}."
    exact = [float(rows[run]["metrics.`test/exact`"]) for run in rows if run in runs]
    assert exact == sorted(exact, reverse=True), f"The best network is not the first: {exact}."


def trials(driver: webdriver.Chrome, runs: dict[str, dict[str, str]]) -> None:
    """Every trial has a row of its own, in the order of `runs`, with its values in sight, and "-" for none."""
    rows = rows_in_sight(driver)
    assert list(rows) == list(runs), f"The rows are {list(rows)}, and the trials, the best first, {list(runs)}."
    for run, values in runs.items():
        for column in [*search_view.COLUMNS, *(name for name in values if name.startswith("params"))]:
            shown, value = rows[run].get(column), values.get(column, "-")
            assert shown is not None, f"{column} of the run {run} is not in sight."
            assert is_same(column, shown, value), f"{column} of the run {run} is shown as {shown!r}, and is {value!r}."


def axes(driver: webdriver.Chrome, names: set[str]) -> None:
    """There are charts with these x axes."""
    found = {title for title, _ in driver.execute_script(CHARTS)}
    assert names <= found, f"The charts have the x axes {found}, not {names}."


def rows_in_sight(driver: webdriver.Chrome) -> dict[str, dict[str, str]]:
    """{run id: {column: text}} of the table, in the order in which it is seen."""
    close_assistant(driver)
    rows: dict[str, dict[str, str]] = {}
    for run, column, text in driver.execute_script(CELLS):
        rows.setdefault(run, {})[column] = text
    return rows


def is_same(column: str, shown: str, value: str) -> bool:
    numbers = column.startswith("metrics") and "-" not in (shown, value)
    return float(shown) == float(value) if numbers else shown == value


def description(driver: webdriver.Chrome, word: str = "test/exact") -> None:
    """What the columns mean is said above the table."""
    button = driver.find_elements(By.CSS_SELECTOR, "[data-testid=experiment-metadata-editor-edit-button]")
    assert button, "The experiment has no description."
    said = button[0].find_element(By.XPATH, "..").text
    assert word in said, f"The experiment's description does not speak of {word}: {said!r}."


def one_chart(
    driver: webdriver.Chrome, whole: dict[str, list[int]], x_axis: str | None = None, alone: bool = False
) -> None:
    """One chart has the whole curves of these runs, {run id: images seen}.

    Args:
        x_axis: how its x axis is labelled.
        alone: it has the curves of no other run.
    """
    charts = []
    for title, lines in driver.execute_script(CHARTS):
        points = {run: sorted(x) for run, metric, x in lines if metric == CURVE and x}
        if points:
            charts.append((title, points))
    fits = [title for title, points in charts if points == whole or (not alone and points.items() >= whole.items())]
    assert len(fits) == 1, f"{len(fits)} charts have the whole curves {CURVE} of {whole}: {charts}."
    assert x_axis is None or fits[0] == x_axis, f"The x axis of {CURVE} is labelled {fits[0]!r}, not {x_axis!r}."


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


def screenshot(driver: webdriver.Chrome, out: Path | None, name: str) -> None:
    if out:
        out.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(out / name))


def patiently(action: Callable[[], Found]) -> Found:
    """Try until it works; the last error is the one raised."""
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
    parser = argparse.ArgumentParser(description="Check MLflow's pages in a headless Chromium.")
    parser.add_argument("url", help="the page that `captchalab ui` prints")
    parser.add_argument("--trials", action="store_true", help="it is the page of a search")
    parser.add_argument("--out", type=Path, help="a folder for screenshots")
    words = parser.parse_args()
    try:
        (check_trials if words.trials else check)(words.url, words.out)
    except (AssertionError, CannotCheckError) as error:
        sys.exit(str(error))
    print("The pages show what they should.")


if __name__ == "__main__":
    main()
