import copy

import pytest

from captchalab import params, yaml
from captchalab.errors import UserError


def changed(text: str, key: str, value: object) -> dict:
    """params.yaml's content with one dotted key set."""
    content = copy.deepcopy(yaml.parse(text))
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    section[last] = value
    return content


@pytest.fixture(scope="module")
def text(smoke_text) -> str:
    return smoke_text


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("models.ctc.rnn_sise", 64, "models.ctc.rnn_sise = 64 is no known key: did you mean rnn_size?"),
        ("models.cnn.rnn_size", 64, "models.cnn.rnn_size = 64 is no known key: the keys here are stem_filters"),
        ("captcha.alphabet", "ABCA", "captcha.alphabet = 'ABCA' repeats A: name each character once."),
        ("captcha.alphabet", 123, "captcha.alphabet = 123 cannot be: input should be a valid string."),
        ("captcha.alphabet", "AB C", "captcha.alphabet = 'AB C' has a character nobody can see"),
        ("captcha.channels", 2, "captcha.channels = 2 cannot be: input should be 1 or 3."),
        ("captcha.length", 17, "leaves T = 32 time steps, too few for captcha.length = 17, which needs 33"),
        ("splits.train.images", 0, "splits.train.images = 0 while train.cnn.source = 'pool': draw some, or set it"),
        ("splits.test.images", 0, "splits.test.images = 0 leaves nothing to measure on: take at least 1."),
        ("splits.train.images", 10.5, "splits.train.images = 10.5 cannot be: input should be a valid integer"),
        ("splits.train.weights", {"0": 2, "ä": 2}, "splits.train.weights names 'ä', which is not in captcha.alphabet"),
        ("splits.train.weights", {"0O": 2}, "splits.train.weights names '0O', which is not in captcha.alphabet"),
        ("splits.train.weights", {0: 4}, "weights names 0 without quotes: write the character in quotes, \"0\"."),
        ("splits.train.weights", {"0": -1.0}, "splits.train.weights.0 = -1.0 cannot be: input should be greater"),
        ("splits.train.weights", {"0": float("nan")}, "splits.train.weights.0 = nan cannot be"),
        ("splits.train.weights", dict.fromkeys("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0), "is 0 for every character"),
        ("splits.valid.weights", {"0": 4}, "splits.valid.weights = {'0': 4} is no known key: the keys here are images"),
        ("splits.test.weights", {"0": 4}, "splits.test.weights = {'0': 4} is no known key: the keys here are images"),
        ("seed", "7", "seed = '7' cannot be: input should be a valid integer."),
        ("splits.test.seed", -2, "splits.test.seed = -2 cannot be: input should be greater than or equal to -1."),
        ("seed", 2**32, "seed = 4294967296 cannot be: input should be less than 4294967296."),
        ("runtime.needs", "tpu", "runtime.needs = 'tpu' cannot be: input should be 'any' or 'gpu'."),
        ("train.ctc.learning_rate", "1e-3", "train.ctc.learning_rate = '1e-3' cannot be"),
        ("train.ctc.learning_rate", -1.0, "train.ctc.learning_rate = -1.0 cannot be: input should be greater than 0."),
        ("train.cnn.final_learning_rate", 0.1, "final_learning_rate = 0.1 is above train.cnn.learning_rate = 0.001"),
        ("train.cnn.warmup_steps", 10**6, "train.cnn.warmup_steps = 1000000 is no less than the stage's"),
        ("train.cnn.optimizer", "adam", "weight_decay = 0.01 does nothing with optimizer 'adam'"),
        ("train.cnn.schedule", "constant", "warmup_steps = 2 does nothing with schedule 'constant'"),
        ("train.cnn.source", "disk", "train.cnn.source = 'disk' cannot be: input should be 'pool' or 'stream'."),
        ("models.cnn.filters", [32, 64, 128], "has 2 pools for 3 blocks: give one (H, W) for each entry"),
        ("models.cnn.pools", [[8, 8], [8, 8]], "leaves 0 x 1 cells of a 64 x 128 px image"),
        ("models.cnn.pools", [[2, 2], [2]], "models.cnn.pools.1.1 is missing"),
        ("models.cnn.conv_bias", "no", "models.cnn.conv_bias = 'no' cannot be: input should be a valid boolean."),
        ("models.cnn.dropout", 1.0, "models.cnn.dropout = 1.0 cannot be: input should be less than 1."),
    ],
)  # fmt: skip
def test_an_impossible_value_is_one_sentence_with_key_value_and_remedy(text, key, value, sentence):
    with pytest.raises(UserError) as raised:
        params.check(changed(text, key, value))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_misspelt_key_is_named_and_not_just_missed(text):
    content = yaml.parse(text)
    content["models"]["ctc"]["rnn_sise"] = content["models"]["ctc"].pop("rnn_size")
    with pytest.raises(UserError, match=r"rnn_sise = 8 is no known key: did you mean rnn_size\? \(1 more problem\)$"):
        params.check(content)


def test_a_missing_key_is_named(text):
    content = yaml.parse(text)
    del content["train"]["cnn"]["epochs"]
    with pytest.raises(UserError, match=r"train.cnn.epochs is missing"):
        params.check(content)


def test_no_pool_is_needed_where_every_source_is_a_stream(text):
    content = changed(text, "splits.train.images", 0)
    for stage in ("train", "finetune"):
        for kind in params.KINDS:
            content[stage][kind]["source"] = "stream"
    assert params.check(content).splits.train.images == 0


@pytest.mark.parametrize("broken", ["a: [1", "- 1\n", "x\n"])
def test_what_is_no_yaml_of_sections_is_one_sentence(tmp_path, broken):
    path = tmp_path / "params.yaml"
    path.write_text(broken)
    with pytest.raises(UserError) as raised:
        params.load(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"params.yaml is missing"):
        params.load(tmp_path / "params.yaml")


def test_parameters_are_frozen(smoke):
    with pytest.raises(Exception, match="frozen"):
        smoke.seed = 1


def test_writing_back_changes_nothing(text):
    assert yaml.dump(yaml.parse(text)) == text


def test_merging_replaces_values_and_keeps_comments(text):
    content = yaml.parse(text)
    yaml.merge(content, yaml.parse("models: {ctc: {rnn_size: 96, filters: [32, 64]}}"))
    merged = yaml.dump(content)
    assert "rnn_size: 96                # GRU units, each direction" in merged
    assert params.check(yaml.parse(merged)).models.ctc.filters == (32, 64)
    assert merged.count("#") == text.count("#")


def test_merging_an_unknown_key_is_refused(text):
    with pytest.raises(UserError, match=r"The overlay sets models.ctc.size"):
        yaml.merge(yaml.parse(text), yaml.parse("models: {ctc: {size: 96}}"))


def test_trunk_size_is_that_of_the_reference(text):
    content = yaml.parse(text)
    trunk = "stem_filters: 0, filters: [32, 64, 128, 256, 256], pools: [[2, 2], [2, 2], [2, 2], "
    yaml.merge(content, yaml.parse(f"models: {{cnn: {{{trunk}[2, 2], [2, 2]]}}, ctc: {{{trunk}[2, 1], [2, 1]]}}}}"))
    reference = params.check(content)
    assert reference.models.cnn.trunk_size(reference.captcha) == (2, 4)
    assert reference.models.ctc.trunk_size(reference.captcha) == (2, 16)


def test_a_split_that_is_measured_on_may_have_a_seed_of_its_own(text):
    content = yaml.parse(text)
    content["splits"]["test"]["seed"] = 7
    loaded = params.check(content)
    assert [loaded.split_seed(split) for split in params.SPLITS] == [2019, 2019, 7]
