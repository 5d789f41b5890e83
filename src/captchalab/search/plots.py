"""Pictures of a study: each function draws one PNG, in the style of `evaluation.plots`.

A trial that was pruned is drawn where it had come to. The same trials give the same bytes.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from captchalab.evaluation.plots.style import (
    COLOURS,
    FAINT,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    WIDTH_IN,
    WRONG,
    new_figure,
    note,
    save,
    shades,
    style,
    text,
)
from captchalab.reading.captcha import Kind
from captchalab.search import rules
from captchalab.search.scales import exact_axis, exact_ends, searched, shown_ticks, steps, value_axis
from captchalab.tracking.searches import short_names

BEST_SHARE = 0.25  # of the trials, for the importance of a parameter
FEWEST = 8  # complete trials: a quarter of them are two
COLUMNS = 4  # of small panels
LABEL_GAP_PT = 13  # between the numbers of two trials


def draw(study: optuna.Study, kind: Kind, folder: Path) -> list[str]:
    """Draw all pictures of a study that its trials allow.

    Returns:
        A sentence for each picture that is left out.
    """
    trials = study.get_trials(deepcopy=False)
    folder.mkdir(parents=True, exist_ok=True)
    ran = _ran(trials)
    if not ran:
        return [f"{study.study_name} has no pictures yet: no trial has come to its first validation."]
    history(trials, kind, folder / "history.png")
    parallel(ran, kind, folder / "parallel.png")
    slices(ran, kind, folder / "slice.png")
    intermediate(ran, kind, folder / "intermediate.png")
    pareto(ran, kind, folder / "pareto.png")
    complete = len(_complete(ran))
    if complete < FEWEST:
        return [f"importance.png is left out: it takes {FEWEST} complete trials, and there are {complete}."]
    importance(study, kind, folder / "importance.png")
    return []


def history(trials: Sequence[FrozenTrial], kind: Kind, path: Path) -> None:
    """Score of each trial, and the best so far; below, those without a score."""
    ran = _ran(trials)
    figure = new_figure(WIDTH_IN, 3.2, f"{kind}: {len(trials)} trials")
    axes = figure.subplots()
    style(axes, "score: exact match on valid, %", "trial")
    exact_axis(axes, [_score(trial) for trial in ran])
    _marks(axes, ran, lambda trial: trial.number, kind)
    good = [trial for trial in ran if rules.feasible(trial)]
    best = list(accumulate(map(_score, good), max))
    if good:
        x = [*(trial.number for trial in good), trials[-1].number + 0.5]
        axes.step(x, [*best, best[-1]], where="post", color=INK, linewidth=1, label=f"best so far: {best[-1]:.2f} %")
    for state, colour, name in ((TrialState.FAIL, WRONG, "failed"), (TrialState.PRUNED, MUTED, "not trained")):
        x = [trial.number for trial in trials if trial.state == state and trial not in ran]
        if x:
            at: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(x, [0.02] * len(x), "|", color=colour, label=f"{name}: {len(x)}", **at)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.7, trials[-1].number + 0.7)
    figure.legend(frameon=False, fontsize=SMALL, loc="outside upper right", ncols=6)
    save(figure, path)


def importance(study: optuna.Study, kind: Kind, path: Path) -> None:
    """How much each parameter sets the best quarter of the complete trials apart from all of them.

    PED-ANOVA (Watanabe et al., IJCAI 2023, arXiv:2304.10255), which needs no model of the score and few trials: it
    compares how a parameter's values are distributed in the best quarter and in all. What the sampler has hardly varied
    can not come out as important.
    """
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE, evaluate_on_local=True)
    found = get_param_importances(study, evaluator=evaluator)
    names = short_names(found)
    rows = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    n = len(_complete(study.get_trials(deepcopy=False)))
    figure = new_figure(WIDTH_IN / 2, 0.9 + 0.27 * len(rows))
    axes = figure.subplots()
    style(axes, f"what sets the best quarter of {n} trials apart")
    axes.grid(visible=False)
    drawn = axes.barh(range(len(rows)), [100 * share for _, share in rows], color=COLOURS[kind], height=0.62)
    axes.bar_label(drawn, fmt="%.0f %%", fontsize=SMALL, color=MUTED, padding=3)
    axes.set_yticks(range(len(rows)), [names[key] for key, _ in rows], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    save(figure, path)


def parallel(trials: Sequence[FrozenTrial], kind: Kind, path: Path) -> None:
    """Each complete trial as a line through its values to its score; the best in black."""
    complete, parameters = _complete(trials), searched(trials)
    figure = new_figure(WIDTH_IN, 3.4, f"{kind}: {len(complete)} complete trials; the best is black")
    axes = figure.subplots()
    axes.axis("off")
    low, high = exact_ends([_score(trial) for trial in trials])
    last, bottom, top = len(parameters), steps(low), steps(high)
    for x, parameter in enumerate(parameters):
        _upright(axes, x, parameter.label, [(parameter.share(at), words) for at, words in parameter.ticks()])
    ticks = [(float((steps(tick) - bottom) / (top - bottom)), f"{tick:g} %") for tick in shown_ticks(low, high)]
    _upright(axes, last, "score", ticks, on_the_right=True)
    best = rules.best(trials)
    colours = shades(COLOURS[kind])
    for trial in sorted(complete, key=lambda one: (one is best, _score(one))):  # the best is drawn last
        has = [(x, p) for x, p in enumerate(parameters) if p.key in trial.params]
        score = float((steps(_score(trial)) - bottom) / (top - bottom))
        y = [*(p.share(p.at(trial.params[p.key])) for _, p in has), score]
        colour, width = (INK, 1.6) if trial is best else (colours(0.2 + 0.8 * score), 0.9)
        axes.plot([*(x for x, _ in has), last], y, color=colour, linewidth=width)
    axes.set(xlim=(-0.15, last + 0.55), ylim=(-0.03, 1.2))
    save(figure, path)


def slices(trials: Sequence[FrozenTrial], kind: Kind, path: Path) -> None:
    """Score against each parameter, alone; later trials are darker, where TPE has gone."""
    parameters = searched(trials)
    rows = -(-len(parameters) // COLUMNS)
    figure = new_figure(WIDTH_IN, 0.6 + 1.75 * rows, f"{kind}: exact match on valid, %; later trials are darker")
    panels = figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).flat
    shade = shades(COLOURS[kind], INK)
    latest = max(1, max(trial.number for trial in trials))
    for axes, parameter in zip(panels, parameters, strict=False):
        style(axes, parameter.label.replace("\n", "."))
        for trial in [trial for trial in trials if parameter.key in trial.params]:
            pruned = trial.state == TrialState.PRUNED
            colour = shade(0.25 + 0.75 * trial.number / latest)
            look: dict[str, Any] = {"marker": "x", "linewidths": 0.7} if pruned else {"marker": "o", "linewidths": 0}
            axes.scatter(parameter.at(trial.params[parameter.key]), _score(trial), s=14, color=colour, **look)
        value_axis(axes, parameter)
    exact_axis(figure.axes[0], [_score(trial) for trial in trials])
    for axes in figure.axes[len(parameters) :]:
        axes.set_visible(False)
    save(figure, path)


def intermediate(trials: Sequence[FrozenTrial], kind: Kind, path: Path) -> None:
    """Each trial's score while it trained, and where pruned ones were ended."""
    reported = [trial for trial in trials if trial.intermediate_values]
    figure = new_figure(WIDTH_IN, 3.4, f"{kind}: the score after so many images, both stages")
    axes = figure.subplots()
    style(axes, "best exact match on valid so far, %", "images seen")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    curves = {trial.number: sorted(trial.intermediate_values.items()) for trial in reported}
    exact_axis(axes, [100 * y for curve in curves.values() for _, y in curve])
    best = rules.best(trials)
    labels: set[str] = set()
    for trial in sorted(reported, key=lambda one: (one is best, one.state == TrialState.COMPLETE, one.number)):
        x, y = zip(*curves[trial.number], strict=True)
        name = "complete"
        look: dict[str, Any] = {"color": COLOURS[kind], "linewidth": 0.9}
        if best and trial is best:
            name, look = f"best: trial {trial.number}", {"color": INK, "linewidth": 1.6}
        elif trial.state == TrialState.PRUNED:
            name, look = "pruned", {"color": MUTED, "linewidth": 0.7, "marker": "x", "markersize": 4, "markevery": [-1]}
        label = None if name in labels else name
        labels.add(name)
        axes.plot(x, [100 * one for one in y], label=label, **look)
    axes.set_xlim(left=0)
    figure.legend(frameon=False, fontsize=SMALL, loc="outside upper right", ncols=6)
    save(figure, path)


def pareto(trials: Sequence[FrozenTrial], kind: Kind, path: Path) -> None:
    """What the score costs, in seconds and in parameters: no trial is better and cheaper than those of the line."""
    figure = new_figure(
        WIDTH_IN, 3.3, f"{kind}: what accuracy costs; numbers are those of trials, 0 the present params"
    )
    panels = figure.subplots(1, 2, sharey=True)
    exact_axis(panels[0], [_score(trial) for trial in _complete(trials)])
    for axes, key, label in zip(panels, ("seconds", "parameters"), ("seconds of training", "parameters"), strict=True):
        known = [trial for trial in _complete(trials) if isinstance(trial.user_attrs.get(key), int | float)]
        style(axes, "exact match on valid, %" if axes is panels[0] else "", label)
        _marks(axes, known, lambda trial, key=key: trial.user_attrs[key], kind)  # type: ignore[misc]
        good = [trial for trial in known if rules.feasible(trial)]
        line = front([(trial.user_attrs[key], _score(trial)) for trial in good])
        axes.step(*zip(*line, strict=True), where="post", color=INK, linewidth=1) if line else None
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.margins(x=0.1)
        named = [t for t in good if t.number == 0 or (t.user_attrs[key], _score(t)) in line]
        _numbers(axes, [(t.user_attrs[key], _score(t), t.number) for t in sorted(named, key=lambda t: -_score(t))])
        if not known:
            note(axes, "no complete trial yet", (0, 1), (4, -14), fontsize=NORMAL)
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=SMALL, loc="outside upper right", ncols=2)
    save(figure, path)


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points (cost, score) those that no other one dominates, the cheapest first."""
    found: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or score > found[-1][1]:
            found.append((cost, score))
    return found


def _ran(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that have ended with a score, or were pruned after their first."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in trials if t.state in states and (t.value is not None or t.intermediate_values)]


def _complete(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _score(trial: FrozenTrial) -> float:
    """In percent; of a pruned trial, what it had come to."""
    reached = trial.value
    if reached is None:
        reached = trial.intermediate_values[max(trial.intermediate_values)]
    return 100 * float(reached)


def _marks(axes: Axes, trials: Iterable[FrozenTrial], x: Callable[[FrozenTrial], float], kind: Kind) -> None:
    """A mark per trial at its score, by how it ended."""
    looks: dict[str, dict[str, Any]] = {
        "complete": {"marker": "o", "color": COLOURS[kind], "linewidths": 0},
        "beyond a limit": {"marker": "o", "facecolors": "none", "edgecolors": COLOURS[kind], "linewidths": 0.9},
        "pruned": {"marker": "x", "color": MUTED, "linewidths": 0.9},
    }
    groups: dict[str, list[FrozenTrial]] = {name: [] for name in looks}
    for trial in trials:
        pruned = trial.state == TrialState.PRUNED
        groups["pruned" if pruned else "complete" if rules.feasible(trial) else "beyond a limit"].append(trial)
    for name, group in groups.items():
        if group:
            label = f"{name}: {len(group)}"
            axes.scatter([x(one) for one in group], [_score(one) for one in group], s=16, label=label, **looks[name])


def _numbers(axes: Axes, points: Iterable[tuple[float, float, int]]) -> None:
    """The numbers of trials beside their marks (x, y, number), but none over another one; the first come first."""
    placed: list[tuple[float, float]] = []
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    for x, y, number in points:
        at = axes.transData.transform((x, y)) * 72 / axes.figure.dpi
        if all(math.dist(at, other) > LABEL_GAP_PT for other in placed):
            placed.append((float(at[0]), float(at[1])))
            axes.annotate(str(number), (x, y), (-4, 4), "data", "offset points", color=INK, fontsize=SMALL, ha="right")


def _upright(axes: Axes, x: float, name: str, ticks: Iterable[tuple[float, str]], on_the_right: bool = False) -> None:
    """An axis of parallel coordinates, from 0 to 1, with its name above and what is written along it."""
    axes.plot((x, x), (0, 1), color=FAINT, linewidth=1.2, zorder=0)
    text(axes, x, 1.12, name, ha="center", fontsize=SMALL, linespacing=1.1)
    for y, words in ticks:
        axes.plot((x - 0.02, x + 0.02), (y, y), color=MUTED, linewidth=0.7)
        box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6}
        beside, side = (x + 0.06, "left") if on_the_right else (x - 0.04, "right")
        text(axes, beside, y, words, color=MUTED, fontsize=SMALL - 1, bbox=box, zorder=3, ha=side)
