"""params.yaml as frozen, strict types; overlays; write-back that keeps the comments.

`load()` refuses an unknown key, a wrong type or an impossible value before any work is done, in one
sentence that names key, value and remedy. YAML is read by ruamel (YAML 1.2), for which `1e-4` is a
number, as it is for DVC.
"""

import difflib
import io
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from captchalab.errors import UserError
from captchalab.reading.captcha import KINDS, CaptchaParams, Kind, Strict

Split = Literal["train", "valid", "test"]
StageName = Literal["train", "finetune"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
STAGES: tuple[StageName, ...] = ("train", "finetune")

NonNegativeFloat = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Pool = Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]


class SplitParams(Strict):
    images: NonNegativeInt


class SplitsParams(Strict):
    train: SplitParams
    valid: SplitParams
    test: SplitParams


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


class CtcNetworkParams(NetworkParams):
    rnn_size: PositiveInt
    rnn_layers: PositiveInt


class ModelsParams(Strict):
    cnn: NetworkParams
    ctc: CtcNetworkParams


class StageParams(Strict):
    """How one stage trains; `train` and `finetune` have the same knobs."""

    source: Literal["pool", "stream"]
    optimizer: Literal["adam", "adamw"]
    amsgrad: bool
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "cosine"]
    warmup_steps: NonNegativeInt
    final_learning_rate: NonNegativeFloat
    weight_decay: NonNegativeFloat
    clip_norm: NonNegativeFloat
    batch_size: PositiveInt
    steps_per_epoch: PositiveInt
    epochs: PositiveInt
    patience_epochs: PositiveInt
    best_by: Literal["exact", "loss"]
    plateau_steps: NonNegativeInt


class StagesParams(Strict):
    cnn: StageParams
    ctc: StageParams


class EvaluateParams(Strict):
    batch_size: PositiveInt
    beam_width: PositiveInt
    pictures: PositiveInt


class PromoteParams(Strict):
    """What a network must be to become champion."""

    min_exact: Annotated[float, Field(ge=0, le=1)]
    max_p: Annotated[float, Field(gt=0, lt=0.5)]
    max_latency_ms: Annotated[float, Field(gt=0)]


class TrackingParams(Strict):
    experiment: Annotated[str, Field(min_length=1)]


class RuntimeParams(Strict):
    workers: NonNegativeInt


class Params(Strict):
    seed: NonNegativeInt
    captcha: CaptchaParams
    splits: SplitsParams
    models: ModelsParams
    train: StagesParams
    finetune: StagesParams
    evaluate: EvaluateParams
    promote: PromoteParams
    tracking: TrackingParams
    runtime: RuntimeParams

    def network(self, kind: Kind) -> NetworkParams:
        return self.models.cnn if kind == "cnn" else self.models.ctc

    def stage(self, name: StageName, kind: Kind) -> StageParams:
        stages = self.train if name == "train" else self.finetune
        return stages.cnn if kind == "cnn" else stages.ctc


def load(path: Path) -> Params:
    """The checked parameters of a params.yaml.

    Raises:
        UserError: the file is missing or not YAML, or a value in it cannot be.
    """
    return check(read(path), str(path.name))


def read(path: Path) -> CommentedMap:
    """A YAML file with its comments, not yet checked."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: go to the project's folder, or bring it back with git.") from None


def parse(text: str, source: str = "params.yaml") -> CommentedMap:
    """YAML text with its comments, not yet checked."""
    try:
        content = _yaml().load(text)
    except YAMLError as error:
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, CommentedMap):
        raise UserError(f"{source} holds {content!r}, not sections: bring it back with `git checkout`.")
    return content


def dump(content: CommentedMap) -> str:
    """YAML text of `read()`'s content, comments in their places."""
    text = io.StringIO()
    _yaml().dump(content, text)
    return text.getvalue()


def merge(content: CommentedMap, overlay: CommentedMap, path: str = "") -> None:
    """Write an overlay's values into the content: maps are merged, lists and values replaced.

    Raises:
        UserError: the overlay has a key that the content has not.
    """
    for key, value in overlay.items():
        name = f"{path}{key}"
        if key not in content:
            raise UserError(f"The overlay sets {name}, which params.yaml does not have: take it out.")
        if isinstance(value, CommentedMap):
            merge(content[key], value, f"{name}.")
        elif content[key] != value:
            if isinstance(value, CommentedSeq):
                value.fa.set_flow_style()
            content[key] = value


def check(content: dict[str, Any], source: str = "params.yaml") -> Params:
    """Typed parameters, or the first thing that is wrong with them as a `UserError`."""
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        # a misspelt key is missing too: the misspelling is what helps
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UserError(f"{source}: {_sentence(first)}{more}") from None
    for problem in _impossible(params):
        raise UserError(f"{source}: {problem}")
    return params


def _impossible(params: Params) -> list[str]:
    """What each value alone cannot tell: sentences on values that do not go together."""
    found = []
    alphabet, length = params.captcha.alphabet, params.captcha.length
    repeated = sorted({c for c in alphabet if alphabet.count(c) > 1})
    if repeated:
        found.append(f"captcha.alphabet = {alphabet!r} repeats {', '.join(repeated)}: name each character once.")
    blanks = sorted({c for c in alphabet if c.isspace() or not c.isprintable()})
    if blanks:
        found.append(f"captcha.alphabet = {alphabet!r} has a character nobody can see, {blanks[0]!r}: take it out.")
    for split in SPLITS[1:]:
        if not getattr(params.splits, split).images:
            found.append(f"splits.{split}.images = 0 leaves nothing to measure on: take at least 1.")
    for kind in KINDS:
        network = params.network(kind)
        key = f"models.{kind}"
        if len(network.pools) != len(network.filters):
            found.append(
                f"{key}.pools = {_plain(network.pools)} has {len(network.pools)} pools for "
                f"{len(network.filters)} blocks: give one (H, W) for each entry of {key}.filters."
            )
            continue
        height, width = network.trunk_size(params.captcha)
        if height < 1 or width < 1:
            found.append(
                f"{key}.pools = {_plain(network.pools)} leaves {height} x {width} cells of a "
                f"{params.captcha.height_px} x {params.captcha.width_px} px image: use smaller pools."
            )
        elif kind == "ctc" and width < 2 * length - 1:
            # a text of one repeated character needs a blank between each two: 2 L - 1 steps
            found.append(
                f"{key}.pools = {_plain(network.pools)} leaves T = {width} time steps, too few for "
                f"captcha.length = {length}, which needs {2 * length - 1}: pool the width less."
            )
        for name in STAGES:
            stage = params.stage(name, kind)
            where = f"{name}.{kind}"
            if stage.source == "pool" and not params.splits.train.images:
                found.append(
                    f"splits.train.images = 0 while {where}.source = 'pool': draw some, or set it to 'stream'."
                )
            if stage.final_learning_rate > stage.learning_rate:
                found.append(
                    f"{where}.final_learning_rate = {stage.final_learning_rate} is above "
                    f"{where}.learning_rate = {stage.learning_rate}: the cosine only goes down."
                )
            if stage.schedule == "cosine" and stage.warmup_steps >= stage.epochs * stage.steps_per_epoch:
                found.append(
                    f"{where}.warmup_steps = {stage.warmup_steps} is no less than the stage's "
                    f"{stage.epochs * stage.steps_per_epoch} steps: shorten it."
                )
            if stage.schedule == "constant" and stage.warmup_steps:
                found.append(
                    f"{where}.warmup_steps = {stage.warmup_steps} does nothing with schedule 'constant': set it to 0."
                )
            if stage.optimizer == "adam" and stage.weight_decay:
                found.append(
                    f"{where}.weight_decay = {stage.weight_decay} does nothing with optimizer 'adam': "
                    "set it to 0, or take 'adamw'."
                )
    return found


def _plain(value: object) -> str:
    return str(value).replace("(", "[").replace(")", "]")


def _sentence(error: ErrorDetails) -> str:
    *parents, last = [str(part) for part in error["loc"]]
    key = ".".join([*parents, last])
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


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml
