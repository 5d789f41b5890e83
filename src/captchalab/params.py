"""params.yaml as frozen, strict types.

`load()` refuses an unknown key, a wrong type, an impossible value or values that do not go together before any work
is done, in one sentence that names key, value and remedy. A validator writes `{key}` for its section's own key.
"""

import difflib
import itertools
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from captchalab import yaml
from captchalab.errors import UserError
from captchalab.reading.captcha import KINDS, CaptchaParams, Kind, Strict

Split = Literal["train", "valid", "test"]
StageName = Literal["train", "finetune"]
Precision = Literal["float32", "bfloat16"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
STAGES: tuple[StageName, ...] = ("train", "finetune")

NonNegativeFloat = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Pool = Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]
Weights = dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]  # character -> weight; 1 where none is named


class SplitParams(Strict):
    images: NonNegativeInt


class TrainSplitParams(SplitParams):
    """What is learnt from; what is measured on is always uniform, and so has no weights."""

    weights: Weights

    @field_validator("weights", mode="before")
    @classmethod
    def _characters_in_quotes(cls, weights: object) -> object:
        for key in weights if isinstance(weights, dict) else ():
            if not isinstance(key, str):
                raise ValueError(f'{{key}} names {key!r} without quotes: write the character in quotes, "{key}".')
        return weights


class MeasuredSplitParams(SplitParams):
    """A split that is measured on: with a seed of its own it stays the same whatever `seed` is."""

    seed: Annotated[int, Field(ge=-1)]


class SplitsParams(Strict):
    train: TrainSplitParams
    valid: MeasuredSplitParams
    test: MeasuredSplitParams

    @model_validator(mode="after")
    def _something_to_measure_on(self) -> Self:
        for split in SPLITS[1:]:
            if not getattr(self, split).images:
                raise ValueError(f"{{key}}.{split}.images = 0 leaves nothing to measure on: take at least 1.")
        return self


class NetworkParams(Strict):
    """The trunk both networks share."""

    stem_filters: NonNegativeInt
    stem_kernel_px: PositiveInt
    stem_stride: PositiveInt
    filters: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]
    conv_depth: PositiveInt
    pools: Annotated[tuple[Pool, ...], Field(strict=False)]
    conv_bias: bool
    initializer: Literal["he_normal", "he_uniform"]
    batch_norm_momentum: Share
    dropout: Share

    def trunk_size(self, captcha: CaptchaParams) -> tuple[int, int]:
        """Height and width of the trunk's output, in cells: `same` convolutions, `valid` pools."""
        height, width = captcha.height_px, captcha.width_px
        if self.stem_filters:
            height, width = -(-height // self.stem_stride), -(-width // self.stem_stride)
        for down, across in self.pools:
            height, width = height // down, width // across
        return height, width

    @model_validator(mode="after")
    def _one_pool_per_block(self) -> Self:
        if len(self.pools) != len(self.filters):
            raise ValueError(
                f"{{key}}.pools = {_plain(self.pools)} has {len(self.pools)} pools for {len(self.filters)} blocks: "
                "give one (H, W) for each entry of {key}.filters."
            )
        return self


class CtcNetworkParams(NetworkParams):
    rnn_size: PositiveInt
    rnn_layers: PositiveInt


class ModelsParams(Strict):
    cnn: NetworkParams
    ctc: CtcNetworkParams


class StageParams(Strict):
    """How one stage trains; `train` and `finetune` have the same knobs."""

    source: Literal["pool", "stream"]
    optimizer: Literal["adam", "adamw", "muon"]
    amsgrad: bool
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "cosine"]
    warmup_steps: NonNegativeInt
    final_learning_rate: NonNegativeFloat
    weight_decay: NonNegativeFloat
    muon_rms: NonNegativeFloat
    clip_norm: NonNegativeFloat
    batch_size: PositiveInt
    steps_per_epoch: PositiveInt
    epochs: PositiveInt
    patience_epochs: PositiveInt
    best_by: Literal["exact", "loss"]
    plateau_steps: NonNegativeInt

    @model_validator(mode="after")
    def _a_schedule_that_can_be(self) -> Self:
        steps = self.epochs * self.steps_per_epoch
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"{{key}}.final_learning_rate = {self.final_learning_rate} is above {{key}}.learning_rate = "
                f"{self.learning_rate}: the cosine only goes down."
            )
        if self.schedule == "cosine" and self.warmup_steps >= steps:
            raise ValueError(
                f"{{key}}.warmup_steps = {self.warmup_steps} is no less than the stage's {steps} steps: shorten it."
            )
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        if self.schedule == "constant" and self.warmup_steps:
            raise ValueError(
                f"{{key}}.warmup_steps = {self.warmup_steps} does nothing with schedule 'constant': set it to 0."
            )
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                f"{{key}}.weight_decay = {self.weight_decay} does nothing with optimizer 'adam': "
                "set it to 0, or take 'adamw'."
            )
        if (self.optimizer == "muon") != (self.muon_rms > 0):
            raise ValueError(
                f"{{key}}.muon_rms = {self.muon_rms} does not go with optimizer '{self.optimizer}': "
                "set it above 0 for 'muon', such as 0.6, and to 0 for the others."
            )
        if self.optimizer == "muon" and self.amsgrad:
            raise ValueError("{key}.amsgrad = True does nothing with optimizer 'muon': set it to false.")
        return self


class StagesParams(Strict):
    cnn: StageParams
    ctc: StageParams


STAGE_1 = "train"  # start_from's word for it
StartFrom = Annotated[str, Field(pattern=rf"^({STAGE_1}|results/[A-Za-z0-9][A-Za-z0-9_.-]*/?)$")]


class StartFromParams(Strict):
    """What `finetune` starts from: stage 1, or a network of results/."""

    cnn: StartFrom
    ctc: StartFrom


class EvaluateParams(Strict):
    batch_size: PositiveInt
    beam_width: PositiveInt
    grid_images: PositiveInt


class PromoteParams(Strict):
    """What a network must be to become champion."""

    min_exact: Annotated[float, Field(ge=0, le=1)]
    max_p: Annotated[float, Field(gt=0, lt=0.5)]
    images: PositiveInt
    max_latency_ms: Annotated[float, Field(gt=0)]


class WarmupParams(Strict):
    cnn: NonNegativeInt
    ctc: NonNegativeInt


class PrunerParams(Strict):
    """When a trial is ended before its budget is spent."""

    percentile: Annotated[float, Field(gt=0, lt=100)]
    startup_trials: NonNegativeInt
    min_trials: PositiveInt
    warmup_images: WarmupParams


class SpaceParams(Strict):
    """An entry per thing to search; `search.space` reads them."""

    cnn: dict[str, Any]
    ctc: dict[str, Any]


class SearchParams(Strict):
    """What a trial may cost, when a search ends, and what it may change."""

    trials: PositiveInt
    images: PositiveInt
    reports: Annotated[int, Field(ge=2)]
    max_s: Annotated[float, Field(gt=0)]
    startup_trials: PositiveInt
    patience_trials: PositiveInt
    min_gain: NonNegativeFloat
    max_failures: PositiveInt
    max_parameters: NonNegativeInt
    max_latency_ms: NonNegativeFloat
    heartbeat_s: PositiveInt
    pruner: PrunerParams
    space: SpaceParams

    @model_validator(mode="after")
    def _images_for_every_report(self) -> Self:
        if self.images < self.reports:
            raise ValueError(f"{{key}}.images = {self.images} is less than {{key}}.reports = {self.reports}: raise it.")
        return self


class TrackingParams(Strict):
    experiment: Annotated[str, Field(min_length=1)]


class RuntimeParams(Strict):
    workers: NonNegativeInt
    threads: NonNegativeInt
    precision: Precision
    needs: Literal["any", "gpu"]


class Params(Strict):
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # as NumPy and Keras take them
    captcha: CaptchaParams
    splits: SplitsParams
    models: ModelsParams
    train: StagesParams
    finetune: StagesParams
    start_from: StartFromParams
    evaluate: EvaluateParams
    promote: PromoteParams
    search: SearchParams
    tracking: TrackingParams
    runtime: RuntimeParams

    def network(self, kind: Kind) -> NetworkParams:
        return self.models.cnn if kind == "cnn" else self.models.ctc

    def split_seed(self, split: Split) -> int:
        """What a split is drawn from: its own seed, where it has one."""
        own = -1 if split == "train" else int(getattr(self.splits, split).seed)
        return self.seed if own == -1 else own

    def start(self, kind: Kind) -> str:
        """What `finetune` starts from: STAGE_1, or a folder of results/."""
        return self.start_from.cnn if kind == "cnn" else self.start_from.ctc

    def stage(self, name: StageName, kind: Kind) -> StageParams:
        stages = self.train if name == "train" else self.finetune
        return stages.cnn if kind == "cnn" else stages.ctc

    @model_validator(mode="after")
    def _weights_that_leave_something_to_draw(self) -> Self:
        alphabet, weights = self.captcha.alphabet, self.splits.train.weights
        for char in weights:
            if len(char) != 1 or char not in alphabet:
                raise ValueError(
                    f"splits.train.weights names {char!r}, which is not in captcha.alphabet = {alphabet!r}: "
                    "take it out."
                )
        if not any(weights.get(char, 1.0) for char in alphabet):
            raise ValueError(
                "splits.train.weights is 0 for every character of captcha.alphabet: give one of them a weight above 0."
            )
        return self

    @model_validator(mode="after")
    def _a_pool_of_images_where_one_is_used(self) -> Self:
        for name, kind in itertools.product(STAGES, KINDS):
            if self.stage(name, kind).source == "pool" and not self.splits.train.images:
                raise ValueError(
                    f"splits.train.images = 0 while {name}.{kind}.source = 'pool': draw some, or set it to 'stream'."
                )
        return self

    @model_validator(mode="after")
    def _trunks_that_fit_the_captcha(self) -> Self:
        captcha, steps = self.captcha, 2 * self.captcha.length - 1
        for kind in KINDS:
            network = self.network(kind)
            height, width = network.trunk_size(captcha)
            pools = f"models.{kind}.pools = {_plain(network.pools)}"
            if height < 1 or width < 1:
                raise ValueError(
                    f"{pools} leaves {height} x {width} cells of a {captcha.height_px} x {captcha.width_px} px image: "
                    "use smaller pools."
                )
            if kind == "ctc" and width < steps:
                # a text of one repeated character needs a blank between each two: 2 L - 1 steps
                raise ValueError(
                    f"{pools} leaves T = {width} time steps, too few for captcha.length = {captcha.length}, "
                    f"which needs {steps}: pool the width less."
                )
        return self


def load(path: Path) -> Params:
    """The checked parameters of a params.yaml.

    Raises:
        UserError: the file is missing or not YAML, or a value in it cannot be.
    """
    return check(yaml.read(path), path.name)


def check(content: dict[str, Any], source: str = "params.yaml") -> Params:
    """Typed parameters, or the first thing that is wrong with them as a `UserError`."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # a misspelt key is missing too: the misspelling is what helps
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        others = error.error_count() - 1
        more = f" ({others} more {'problem' if others == 1 else 'problems'})" if others else ""
        raise UserError(f"{source}: {_sentence(first)}{more}") from None


def _plain(value: object) -> str:
    return str(value).replace("(", "[").replace(")", "]")


def _sentence(error: ErrorDetails) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # by a validator of a section, which does not know its own key
        return str(error["ctx"]["error"]).replace("{key}", key)
    *parents, last = key.split(".")
    if error["type"] == "extra_forbidden":
        known = list(_section(parents).model_fields)
        close = difflib.get_close_matches(last, known, 1)
        remedy = f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}."
        return f"{key} = {error['input']!r} is no known key: {remedy}"
    if error["type"] == "missing":
        return f"{key} is missing: write it back (see the file's history in git)."
    reason = error["msg"][0].lower() + error["msg"][1:]
    return f"{key} = {error['input']!r} cannot be: {reason}."


def _section(keys: list[str]) -> type[Strict]:
    section: type[Strict] = Params
    for key in keys:
        field = section.model_fields[key].annotation
        assert isinstance(field, type) and issubclass(field, Strict)
        section = field
    return section
