"""Promotion: a candidate against the champion, on captchas drawn for this attempt.

captchalab promote                  the better network of the workspace, if it beats the champion
captchalab promote --images N       with N captchas in place of promote.images
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from captchalab.params import PromoteParams
from captchalab.reading import predictor
from captchalab.reading.predictor import Predictor
from captchalab.registry import candidates, gate
from captchalab.registry.candidates import Candidate, Tested
from captchalab.registry.cards import card
from captchalab.registry.decision import Decision, Result, decide, refuse
from captchalab.registry.gate import Attempt
from captchalab.registry.registry import Registry
from captchalab.registry.versions import Version, fetch
from captchalab.tracking import packaging


class Outcome(NamedTuple):
    decision: Decision
    candidate: Result
    champion: Result | None
    before: Version | None
    version: Version | None  # the new champion; None where nothing has changed
    run_id: str
    attempt: Attempt | None  # None where it was refused before a captcha was drawn


def promote(
    registry: Registry, rules: PromoteParams, run_id: str | None = None, force: str | None = None, workers: int = 0
) -> Outcome:
    """Make a network champion if it is better on captchas that no network has seen.

    Args:
        run_id: a fine-tune run; else the network of the workspace that is better on the valid split.
        force: why to do it whatever the rules say.
        workers: processes that draw; 0: one per core.

    Raises:
        UserError: there is no such network, or another host has promoted meanwhile.
    """
    with registry.alone(), tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        chosen = candidates.find(registry.project, registry.store, registry.client, run_id)
        before = registry.champion()
        network = _load(registry, chosen.model_id, folder / "candidate", chosen.name)
        theirs = _load(registry, before.model_id, folder / "champion", before.name) if before else None
        candidate, champion = gate.measure(network), gate.measure(theirs) if theirs else None

        refusal = refuse(rules, candidate, champion)
        is_champion = champion is not None and champion.network_md5 == candidate.network_md5
        if refusal and (is_champion or not force):
            registry.update_copy()
            return Outcome(refusal, candidate, champion, before, None, chosen.run_id, None)

        attempt = registry.begin_attempt(before, rules.images)
        comparable = [theirs] if theirs and theirs.captcha == network.captcha else []
        right, digest = gate.predict([network, *comparable], attempt, workers)
        candidate = candidate._replace(right=right[0])
        if champion and comparable:
            champion = champion._replace(right=right[1])
        decision = decide(rules, candidate, champion, attempt.against)

        version = None
        if decision.better or force:
            tested = _tested(registry, chosen, folder / "test")
            tags = _tags(chosen, candidate, tested, decision, attempt, digest)
            tags |= {"replaces": str(before.number)} if before else {}
            tags |= {"forced": force} if force else {}
            description = card(chosen.run, candidate, tested)
            version = registry.make_champion(before, chosen.model_id, chosen.run_id, tags, description)
        registry.update_copy()
        return Outcome(decision, candidate, champion, before, version, chosen.run_id, attempt)


def _load(registry: Registry, model_id: str, folder: Path, name: str) -> Predictor:
    return predictor.load(fetch(registry.store, registry.client, model_id, packaging.ONNX, folder, name))


def _tested(registry: Registry, chosen: Candidate, folder: Path) -> Tested:
    paths = (packaging.PREDICTIONS, packaging.SPLIT)
    found = [fetch(registry.store, registry.client, chosen.model_id, path, folder, chosen.name) for path in paths]
    return candidates.tested(*found)


def _tags(
    chosen: Candidate, candidate: Result, tested: Tested, decision: Decision, attempt: Attempt, digest: str
) -> dict[str, str]:
    """What a version says of itself: metrics on the test split, and how it passed the gate."""
    gate_metrics = {f"gate_{key}": value for key, value in candidate.exact.as_metrics("exact").items()}
    metrics = {**tested.exact.as_metrics("exact"), **gate_metrics}
    tags = {
        "kind": candidate.kind,
        **{key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in metrics.items()},
        "latency_ms": f"{candidate.latency_ms:.2f}",
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": decision.reason,
        "data_digest": tested.digest,
        "gate_attempt": str(attempt.number),
        "gate_seed": str(attempt.seed),
        "gate_digest": digest,
        "git_sha": chosen.run.data.tags.get("git_sha", "none"),
        "network_md5": candidate.network_md5,
    }
    if decision.p is not None and decision.max_p is not None:
        tags |= {"p": f"{decision.p:.3g}", "max_p": f"{decision.max_p:.3g}"}
    return tags
