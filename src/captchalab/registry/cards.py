"""The registry in words: a version's model card, and the tables of `promote` and `models`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from captchalab.evaluation import metrics
from captchalab.registry.candidates import Tested
from captchalab.registry.decision import Result
from captchalab.registry.versions import Version


def card(run: Any, candidate: Result, tested: Tested) -> str:
    """A short model card: data, metrics on the test split, limits."""
    exact, captcha = tested.exact, candidate.captcha
    params, logged = run.data.params, run.data.metrics
    others = "".join(
        f"; {metric.label} {metric.show(logged[f'test/{metric.name}'])}"
        for metric in metrics.METRICS
        if metric.column and metric.group == "test" and metric.name != "exact" and f"test/{metric.name}" in logged
    )
    confused = "; 0 and O are confused most" if {"0", "O"} <= set(captcha.alphabet) else ""
    return f"""\
**{candidate.kind.upper()}** that reads captchas of {captcha.length} characters from `{captcha.alphabet}`,
{captcha.width_px} x {captcha.height_px} px, drawn by the package `captcha` {version("captcha")}.

**Metrics.** Exact match {exact.value:.2%} (95 % interval {exact.low:.2%} - {exact.high:.2%}) on {exact.n:,} test
captchas it had not seen{others};
{candidate.latency_ms:.1f} ms per image.

**Data.** Trained on {int(logged.get("network/images_seen", 0)):,} drawn captchas, seed {params.get("seed", "?")};
test split `{tested.digest[:12]}`; code {run.data.tags.get("git_sha", "none")[:12]}.

**Limits.** Synthetic captchas of this one kind and size, nothing else{confused}. The confidence is
the network's own, and it is measured (reliability.png in the run) on captchas like these only."""


def candidate_table(candidate: Result, champion: Result | None, number: int | None) -> str:
    """Candidate and champion, version `number`, side by side, on the attempt's captchas."""
    columns = [("", "exact match (95 %)", "fresh captchas", "ms per image", "network")]
    for name, result in ((f"champion (version {number})", champion), ("candidate", candidate)):
        if result:
            value, low, high, n = result.exact
            shown = f"{value:.2%} ({100 * low:.2f} - {100 * high:.2f})" if n else "-"
            columns.append((name, shown, f"{n:,}", f"{result.latency_ms:.1f}", result.kind))
    return _align(columns)


def version_table(versions: list[Version]) -> str:
    """A line per version: aliases, test metrics, age."""
    rows = [("version", "aliases", "network", "test exact match (95 %)", "n", "replaces", "age", "run")]
    for v in versions:
        tags, age = v.tags, datetime.now(UTC) - v.created_at
        shown = f"{age.days} d" if age.days else f"{age.seconds // 3600} h {age.seconds % 3600 // 60} min"
        rows.append(
            (
                str(v.number),
                " ".join(v.aliases),
                tags.get("kind", "?"),
                v.exact(),
                tags.get("n", "?"),
                str(v.replaces or ""),
                shown,
                v.run_id,
            )
        )
    return _align(rows)


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
