"""The registry in words: a version's model card, and the tables of `promote` and `models`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NamedTuple

from captchalab.evaluation import metrics
from captchalab.registry.decision import Standing


class Version(NamedTuple):
    """A registered version, and what it is called."""

    number: int
    model_id: str
    run_id: str
    tags: dict[str, str]
    aliases: list[str]
    created_at: datetime

    @property
    def replaces(self) -> int | None:
        return int(self.tags["replaces"]) if "replaces" in self.tags else None

    def exact(self) -> str:
        """As `97.05 % (96.70 - 97.36)`; `?` where somebody else has registered it."""
        try:
            value, low, high = (float(self.tags[key]) for key in ("exact", "exact_low", "exact_high"))
        except (KeyError, ValueError):
            return "?"
        return f"{value:.2%} ({100 * low:.2f} - {100 * high:.2f})"

    def as_json(self) -> dict[str, Any]:
        return {"version": self.number, "aliases": self.aliases, "run_id": self.run_id, **self.tags}


def card(run: Any, standing: Standing) -> str:
    """A short model card: data, figures, limits."""
    exact, captcha = standing.exact, standing.captcha
    params, logged = run.data.params, run.data.metrics
    others = "".join(
        f"; {metric.label} {metric.show(logged[f'test/{metric.name}'])}"
        for metric in metrics.METRICS
        if metric.column and metric.group == "test" and metric.name != "exact" and f"test/{metric.name}" in logged
    )
    confused = "; 0 and O are confused most" if {"0", "O"} <= set(captcha.alphabet) else ""
    return f"""\
**{standing.kind.upper()}** that reads captchas of {captcha.length} characters from `{captcha.alphabet}`,
{captcha.width_px} x {captcha.height_px} px, drawn by the package `captcha` {version("captcha")}.

**Figures.** Exact match {exact.value:.2%} (95 % interval {exact.low:.2%} - {exact.high:.2%}) on {exact.n:,} test
captchas it had not seen{others};
{standing.latency_ms:.1f} ms a picture.

**Data.** Trained on {int(logged.get("network/images_seen", 0)):,} drawn captchas, seed {params.get("seed", "?")};
test split `{standing.digest[:12]}`; code {run.data.tags.get("git_sha", "none")[:12]}.

**Limits.** Synthetic captchas of this one kind and size, nothing else{confused}. The confidence is
the network's own, and it is measured (reliability.png in the run) on captchas like these only."""


def candidate_table(candidate: Standing, champion: Standing | None, number: int | None) -> str:
    """Candidate and champion, version `number`, side by side."""
    columns = [("", "exact match (95 %)", "n", "ms a picture", "network")]
    for name, standing in ((f"champion (version {number})", champion), ("candidate", candidate)):
        if standing:
            value, low, high, n = standing.exact
            shown = f"{value:.2%} ({100 * low:.2f} - {100 * high:.2f})"
            columns.append((name, shown, f"{n:,}", f"{standing.latency_ms:.1f}", standing.kind))
    return _align(columns)


def version_table(versions: list[Version]) -> str:
    """A line a version: aliases, figures, age."""
    rows = [("version", "aliases", "network", "exact match (95 %)", "n", "replaces", "age", "run")]
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
