"""Entries of search.space as distributions, and a trial's values as parameters."""

import copy

import optuna
import pytest

from captchalab import params, yaml
from captchalab.errors import UserError
from captchalab.params import Params
from captchalab.search.space import Space, name_of


@pytest.fixture
def present(smoke_text):
    """A function: the tests' parameters with other entries for CTC, and other values."""

    def make(space: str | None = None, overlay: str = "{}") -> Params:
        content = yaml.parse(smoke_text)
        yaml.merge(content, yaml.parse(overlay))
        if space is not None:
            content["search"]["space"]["ctc"] = yaml.parse(space)
        return params.check(content)

    return make


@pytest.mark.parametrize(
    ("entry", "low", "high", "log"),
    [
        ("models.ctc.rnn_layers: {low: 1, high: 2}", 1, 2, False),
        ("train.ctc.learning_rate: {low: 3e-4, high: 3e-3, log: true}", 3e-4, 3e-3, True),
        ("train.ctc.weight_decay: {low: 0.0, high: 0.1}", 0.0, 0.1, False),
    ],
)
def test_a_range_holds_both_its_ends(present, entry, low, high, log):
    [found] = Space.of(present(entry), "ctc").entries
    d = found.distribution
    assert (d.low, d.high, d.log) == (low, high, log)
    assert found.is_float == isinstance(low, float)


def test_a_choice_may_be_a_list(present):
    space = Space.of(present("models.ctc.filters: {choices: [[8, 16], [16, 16]]}"), "ctc")
    assert space.present() == {"models.ctc.filters": "[8, 16]"}
    assert space.values({"models.ctc.filters": "[16, 16]"}) == {"models.ctc.filters": [16, 16]}


def test_a_factor_scales_several_keys(present):
    entry = "width: {scale: {models.ctc.filters: [8, 16], models.ctc.stem_filters: 8}, choices: [0.5, 1.0, 1.3]}"
    space = Space.of(present(entry), "ctc")
    assert space.present() == {"width": 1.0}
    assert space.values({"width": 1.3}) == {"models.ctc.filters": [10, 21], "models.ctc.stem_filters": 10}


def test_an_entry_may_be_one_value_for_all_trials(present):
    space = Space.of(present("models.ctc.rnn_size: 16\nmodels.ctc.rnn_layers: {low: 1, high: 2}"), "ctc")
    assert [entry.name for entry in space.entries] == ["models.ctc.rnn_layers"]
    assert space.short(space.values({"models.ctc.rnn_layers": 2})).models.ctc.rnn_size == 16


def test_a_learning_rate_is_trained_as_it_will_be_read(present):
    space = Space.of(present("train.ctc.learning_rate: {low: 3e-4, high: 3e-3, log: true}"), "ctc")
    assert space.values({"train.ctc.learning_rate": 0.00123456}) == {"train.ctc.learning_rate": 0.00123}


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            "models.ctc.rnn_size: {low: 9, high: 4}",
            "search.space.ctc.models.ctc.rnn_size runs from low = 9 to high = 4: ",
        ),
        (
            "models.ctc.rnn_sise: {low: 4, high: 9}",
            "names models.ctc.rnn_sise, which cannot be searched: did you mean mode",
        ),
        ("models.cnn.filters: {choices: [[8, 8]]}", "names models.cnn.filters, which cannot be searched"),
        ("width: {choices: [1, 2]}", "names width, which cannot be searched"),
        ("width: {scale: [models.ctc.filters], choices: [1, 2]}", "names width, which cannot be searched"),
        ("train.ctc.epochs: {low: 1, high: 9}", "a trial's length is that of search.images and search.reports"),
        ("train.ctc.learning_rate: {low: 0.0, high: 1e-3, log: true}", "low = 0.0 has no logarithm"),
        ("train.ctc.learning_rate: {low: a, high: 1e-3}", "train.ctc.learning_rate.low = 'a' is no number"),
        (
            "train.ctc.learning_rate: {from: 1, to: 2}",
            "is no range: give low and high (and log: true), a list of choices",
        ),
        ("models.ctc.rnn_size: {choices: []}", "is no range"),
        ("models.ctc.rnn_size: 16", "search.space.ctc leaves nothing to search"),
        (
            "models.ctc.filters: {choices: [[8, 8]]}\nwidth: {scale: {models.ctc.filters: [8, 8]}, choices: [1.0]}",
            "search.space.ctc sets models.ctc.filters twice",
        ),
    ],
)
def test_an_entry_that_cannot_be_is_one_sentence(present, space, sentence):
    with pytest.raises(UserError) as raised:
        Space.of(present(space), "ctc")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_trial_is_both_stages_on_the_budgets_images(present):
    space = Space.of(present(overlay="search: {images: 512, reports: 4}"), "ctc")
    trial = space.short(space.values(space.present()))
    train, finetune = trial.train.ctc, trial.finetune.ctc
    assert (train.epochs, finetune.epochs) == (2, 2), "3 epochs to 2 in the full recipe"
    assert train.steps_per_epoch * train.batch_size == 512 / 4
    assert train.patience_epochs == train.epochs, "to its end, unless it is pruned"
    assert train.learning_rate == 1e-3


@pytest.mark.parametrize("batch_size", [4, 16, 24, 64])
def test_a_batch_size_changes_neither_images_nor_reports(present, batch_size):
    space = Space.of(present("train.ctc.batch_size: {low: 1, high: 64}", "search: {images: 9600}"), "ctc")
    stage = space.short({"train.ctc.batch_size": batch_size}).train.ctc
    assert stage.epochs == 2
    assert stage.epochs * stage.steps_per_epoch * batch_size == pytest.approx(2 * 9600 / 4, rel=0.02)


def test_a_warm_up_is_at_most_a_tenth_of_a_short_stage(present):
    space = Space.of(present(overlay="train: {ctc: {warmup_steps: 20}}\nsearch: {images: 1600}"), "ctc")
    stage = space.short(space.values(space.present())).train.ctc
    assert stage.warmup_steps == stage.epochs * stage.steps_per_epoch // 10 == 5


def test_an_impossible_combination_is_the_sentence_of_params_check(present):
    space = Space.of(present("models.ctc.pools: {choices: [[[2, 2], [2, 1]], [[2, 16], [2, 1]]]}"), "ctc")
    with pytest.raises(UserError, match=r"this combination: .*pools = .* leaves T = 4 time steps, too few"):
        space.short({"models.ctc.pools": [[2, 16], [2, 1]]})


def test_a_trials_folder_is_named_by_its_parameters_alone(present):
    space = Space.of(present(), "ctc")
    values = space.values(space.present())
    name = name_of(space.short(values), "ctc")
    assert name_of(space.short(dict(values)), "ctc") == name
    assert name_of(space.short({**values, "models.ctc.rnn_size": 16}), "ctc") != name
    other_cnn = Space.of(present(overlay="models: {cnn: {conv_depth: 2}}"), "ctc")
    assert name_of(other_cnn.short(values), "ctc") == name, "the other kind's parameters shape nothing"


def test_what_is_suggested_lies_in_the_space(present):
    space = Space.of(present(), "ctc")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        values = space.suggest(study.ask())
        assert values["models.ctc.rnn_size"] in (4, 8, 16)
        assert 3e-4 <= values["train.ctc.learning_rate"] <= 3e-3
        space.short(values)


@pytest.mark.parametrize(
    ("overlay", "part"),
    [
        ("models: {ctc: {dropout: 0.1}}", "fixed"),
        ("search: {images: 1024}", "budget"),
        ("captcha: {length: 3}", "captcha"),
        ("seed: 7", "seed"),
    ],
)
def test_what_makes_trials_comparable_is_described(present, overlay, part):
    before, after = Space.of(present(), "ctc").describe(), Space.of(present(overlay=overlay), "ctc").describe()
    assert [key for key in before if before[key] != after[key]] == [part]


def test_the_best_values_in_params_yaml_leave_the_study_what_it_is(present):
    """`search apply` and then `search run` goes on."""
    taken = "models: {ctc: {rnn_size: 16}}\ntrain: {ctc: {learning_rate: 2e-3}}"
    before, after = Space.of(present(), "ctc"), Space.of(present(overlay=taken), "ctc")
    assert copy.deepcopy(before.describe()) == after.describe()
    assert after.present()["models.ctc.rnn_size"] == 16
