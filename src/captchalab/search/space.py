"""The search space of params.yaml as Optuna's distributions, and a trial's values as parameters. Pure.

`search.space.<kind>` has an entry per thing to search:

    models.ctc.rnn_size: {choices: [64, 96, 128]}                   one of these
    models.ctc.conv_depth: {low: 1, high: 2}                        whole numbers, both ends among them
    train.ctc.learning_rate: {low: 3e-4, high: 3e-3, log: true}     any number between, on a logarithmic scale
    models.ctc.rnn_layers: 1                                        fixed, whatever params.yaml says elsewhere
    width: {scale: {models.ctc.filters: [32, 64]}, choices: [0.5, 1.0]}   a factor of these values, rounded
"""

import copy
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna

from captchalab import params, yaml
from captchalab.errors import UserError
from captchalab.params import Params, SearchParams
from captchalab.reading.captcha import Kind
from captchalab.training.checkpoints import fingerprint

# What the budget decides for a trial, so that no entry may.
OF_BUDGET = ("source", "steps_per_epoch", "epochs", "patience_epochs", "plateau_steps")


@dataclass(frozen=True)
class Entry:
    """One thing to search: a distribution, and the keys of params.yaml that a value of it sets."""

    name: str
    distribution: Any  # an Optuna distribution; a list among choices is its JSON
    scale: Mapping[str, Any] | None = None  # what a factor multiplies; None: the name is the key

    def values(self, value: Any) -> dict[str, Any]:
        """The dotted keys that one suggested value sets."""
        if self.scale is None:
            if isinstance(value, str) and value.startswith("["):
                return {self.name: json.loads(value)}
            return {self.name: _rounded(value) if self.is_float else value}
        return {key: _scaled(reference, value) for key, reference in self.scale.items()}

    @property
    def is_float(self) -> bool:
        return isinstance(self.distribution, optuna.distributions.FloatDistribution)

    def present(self, leaves: Mapping[str, Any]) -> Any:
        """The value that gives what params.yaml has; None where there is none."""
        distribution = self.distribution
        if self.scale is None:
            value = leaves[self.name]
            value = json.dumps(value) if isinstance(value, list) else value
            if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                return value if value in distribution.choices else None
            return value if distribution.low <= value <= distribution.high else None
        factors = getattr(distribution, "choices", None) or (distribution.low, 1.0, distribution.high)
        fits = (f for f in factors if all(leaves[key] == new for key, new in self.values(f).items()))
        return next(fits, None)

    def suggest(self, trial: optuna.Trial) -> Any:
        d = self.distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            return trial.suggest_categorical(self.name, d.choices)
        if isinstance(d, optuna.distributions.IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        return trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)


@dataclass(frozen=True)
class Space:
    """What a search of one kind may change, over the parameters as they are."""

    kind: Kind
    entries: tuple[Entry, ...]
    fixed: Mapping[str, Any]
    content: Mapping[str, Any]  # of params.yaml, plain
    budget: SearchParams

    @classmethod
    def of(cls, present: Params, kind: Kind) -> "Space":
        """The space of `search.space.<kind>`.

        Raises:
            UserError: an entry names no parameter of this kind, its range is turned round, or it can be read in no way.
        """
        content = present.model_dump(mode="json", exclude={"search"})
        leaves = yaml.leaves({name: content[name] for name in ("models", "train", "finetune")})
        known = [key for key in leaves if key.split(".")[1] == kind and key.split(".")[2] not in OF_BUDGET]
        entries: list[Entry] = []
        fixed: dict[str, Any] = {}
        for name, entry in getattr(present.search.space, kind).items():
            where = f"search.space.{kind}.{name}"
            found = _entry(name, entry, known, where)
            if isinstance(found, Entry):
                entries.append(found)
            else:
                fixed |= found
        if not entries:
            raise UserError(f"search.space.{kind} leaves nothing to search: give an entry low and high, or choices.")
        set_by = [key for entry in entries for key in (entry.scale or {entry.name: None})] + list(fixed)
        if twice := sorted({key for key in set_by if set_by.count(key) > 1}):
            raise UserError(f"search.space.{kind} sets {twice[0]} twice: take one of the two entries out.")
        return cls(kind, tuple(entries), fixed, content, present.search)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """A trial's values, by dotted key of params.yaml."""
        return self.values({entry.name: entry.suggest(trial) for entry in self.entries})

    def values(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        """The dotted keys that a trial's Optuna params set, those that the space fixes among them."""
        found = dict(self.fixed)
        for entry in self.entries:
            found |= entry.values(suggested[entry.name])
        return found

    def present(self) -> dict[str, Any]:
        """The present parameters as Optuna params; an entry that cannot give them is left out."""
        leaves = yaml.leaves(dict(self.content))
        found = {entry.name: entry.present(leaves) for entry in self.entries}
        return {name: value for name, value in found.items() if value is not None}

    def full(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The content of params.yaml with a trial's values: the full recipe on as many images as before."""
        content = copy.deepcopy(dict(self.content))
        for key, value in values.items():
            *parents, last = key.split(".")
            section = content
            for parent in parents:
                section = section[parent]
            section[last] = value
        for name in params.STAGES:
            before, stage = self.content[name][self.kind], content[name][self.kind]
            images = before["steps_per_epoch"] * before["batch_size"]
            stage["steps_per_epoch"] = max(1, round(images / stage["batch_size"]))
        return content

    def short(self, values: Mapping[str, Any]) -> Params:
        """The parameters of a trial: the budget's images, in the full recipe's shares of the two stages.

        Raises:
            UserError: the values do not go together, in the sentence of `params.check`.
        """
        content = self.full(values)
        for name, reports in self.reports.items():
            stage = content[name][self.kind]
            steps = max(1, round(self.report_images / stage["batch_size"]))
            stage |= {"source": "pool", "steps_per_epoch": steps, "epochs": reports, "patience_epochs": reports}
            # a warm-up made for a training ten times as long would take most of this one
            stage["warmup_steps"] = min(stage["warmup_steps"], reports * steps // 10)
        content["search"] = self.budget.model_dump(mode="json")
        return params.check(content, "this combination")

    @property
    def report_images(self) -> float:
        """Images between two reports, the same in all trials: their curves have the same steps."""
        return self.budget.images / self.budget.reports

    @property
    def reports(self) -> dict[str, int]:
        """Epochs of each stage of a trial."""
        seen = {}
        for name in params.STAGES:
            stage = self.content[name][self.kind]
            seen[name] = stage["epochs"] * stage["steps_per_epoch"] * stage["batch_size"]
        total = self.budget.reports
        train = min(max(1, round(total * seen["train"] / sum(seen.values()))), total - 1)
        return {"train": train, "finetune": total - train}

    def describe(self) -> dict[str, Any]:
        """All that makes two trials of a study comparable, as JSON: another one is another study."""
        keys = {key for entry in self.entries for key in (entry.scale or {entry.name: None})}
        of_budget = {f"{name}.{self.kind}.{key}" for name in params.STAGES for key in OF_BUDGET}
        leaves = yaml.leaves(self.full(self.fixed))
        return {
            "kind": self.kind,
            "space": {
                e.name: {"distribution": optuna.distributions.distribution_to_json(e.distribution), "scale": e.scale}
                for e in self.entries
            },
            "fixed": {
                key: value
                for key, value in leaves.items()
                if key.split(".")[0] in ("models", "train", "finetune")
                and key.split(".")[1] == self.kind
                and key not in keys | of_budget
            },
            "budget": {"images": self.budget.images, "reports": self.reports, "max_s": self.budget.max_s},
            "captcha": self.content["captcha"],
            "seed": self.content["seed"],
        }


def name_of(trial: Params, kind: Kind) -> str:
    """The name of a trial's folder: the same parameters, the same name, whatever the trial's number."""
    parts = trial.model_dump(mode="json", include={"seed", "captcha"})
    parts["weights"] = trial.splits.train.weights
    parts |= {name: getattr(trial, name).model_dump(mode="json")[kind] for name in ("models", *params.STAGES)}
    return fingerprint(parts)[:16]


def _entry(name: str, entry: Any, known: list[str], where: str) -> Entry | dict[str, Any]:
    if not isinstance(entry, dict):
        return {_known(name, known, where): _plain(entry)}
    rest = {key: _plain(value) for key, value in entry.items()}
    scale = rest.pop("scale", None)
    for key in scale if isinstance(scale, dict) else [name]:
        _known(key, known, where)
    if scale is not None and (not isinstance(scale, dict) or not scale):
        raise UserError(f"{where}.scale = {scale!r} names no parameter: write a value beside each key to scale.")
    return Entry(name, _distribution(rest, where), scale)


def _distribution(entry: dict[str, Any], where: str) -> Any:
    if set(entry) == {"choices"} and isinstance(entry["choices"], list) and entry["choices"]:
        labels = [json.dumps(choice) if isinstance(choice, list) else choice for choice in entry["choices"]]
        return optuna.distributions.CategoricalDistribution(labels)
    if not {"low", "high"} <= set(entry) <= {"low", "high", "log"} or not isinstance(entry.get("log", False), bool):
        raise UserError(
            f"{where} = {entry!r} is no range: give low and high (and log: true), a list of choices, or one value."
        )
    low, high, log = entry["low"], entry["high"], entry.get("log", False)
    for key in ("low", "high"):
        if isinstance(entry[key], bool) or not isinstance(entry[key], int | float):
            raise UserError(f"{where}.{key} = {entry[key]!r} is no number: give one, or use choices.")
    if low >= high:
        raise UserError(f"{where} runs from low = {low} to high = {high}: give the lower end first.")
    if log and low <= 0:
        raise UserError(f"{where}.low = {low} has no logarithm: start above 0, or drop log: true.")
    kind: Literal["int", "float"] = "int" if isinstance(low, int) and isinstance(high, int) else "float"
    if kind == "int":
        return optuna.distributions.IntDistribution(low, high, log=log)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=log)


def _known(key: str, known: list[str], where: str) -> str:
    if key in known:
        return key
    close = difflib.get_close_matches(key, known, 1)
    remedy = f"did you mean {close[0]}?" if close else "take a key of models, train or finetune with its dots."
    if key.rpartition(".")[2] in OF_BUDGET:
        remedy = "a trial's length is that of search.images and search.reports."
    raise UserError(f"{where} names {key}, which cannot be searched: {remedy}")


def _rounded(value: float) -> float:
    """To three digits: what is trained is what a person reads in params.yaml."""
    return float(f"{value:.3g}")


def _scaled(reference: Any, factor: float) -> Any:
    if isinstance(reference, list):
        return [_scaled(value, factor) for value in reference]
    return max(1, round(reference * factor)) if isinstance(reference, int) else reference * factor


def _plain(value: Any) -> Any:
    """Without ruamel's own types, which Optuna cannot store."""
    return json.loads(json.dumps(value))
