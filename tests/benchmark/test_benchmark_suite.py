import pytest
from fake_cells import SUITE, suite

from mfm.benchmark.suite import Cell, expand_path, parse_suite
from mfm.cli.benchmark import read_suite
from mfm.cli.configs import shipped_configs
from mfm.corpora import CORPORA
from mfm.errors import ConfigurationError

SHIPPED = sorted(name.removeprefix("suites/") for name in shipped_configs() if name.startswith("suites/"))


def with_model(**settings):
    return suite(models={"tfn": {"config": "{base}_tfn.yaml", **settings}}, corpora={
        "words": {"corpus": "mosi", "path": "w.pkl", "options": {"data.batch_size": 8, "model.lr": 1}},
        "films": {"corpus": "mmmo", "base": "mosi", "path": "f", "config": ["films.yaml"]},
    })  # fmt: skip


def test_cells_are_the_product_with_seeds_slowest():
    cells = suite().cells()
    assert [cell.key for cell in cells] == ["mosi/one/seed_1", "mosi/two/seed_1", "mosi/one/seed_2", "mosi/two/seed_2"]


def test_configurations_are_named_by_corpus_and_overlaid_in_order():
    found = with_model(tuned="tuned/{label}_{model}.yaml")
    assert found.configs(Cell("words", "tfn", 1)) == ["mosi_tfn.yaml", "tuned/words_tfn.yaml"]
    assert found.configs(Cell("films", "tfn", 1)) == ["mosi_tfn.yaml", "films.yaml", "tuned/films_tfn.yaml"]
    own = with_model(corpora={"films": "mmmo.yaml"})
    assert own.configs(Cell("films", "tfn", 1), "all/{corpus}.yaml") == ["mmmo.yaml", "films.yaml", "all/mmmo.yaml"]


def test_options_of_the_model_win_over_those_of_the_corpus():
    found = with_model(options={"model.lr": 2, "model.network": {"name": "tfn"}})
    words = found.arguments(Cell("words", "tfn", 3), "w.pkl", ["a.yaml"], [""])
    assert words[:2] == ["--config", "a.yaml"]
    assert words[2:4] == ["--data.batch_size=8", "--model.lr=2"]
    assert words[4:] == ['--model.network={"name": "tfn"}', "--data.path=w.pkl", "--seed_everything=3"]


@pytest.mark.parametrize(
    ("configured", "given", "used"),
    [("20", None, 20), ("60", None, 40), ("-1", None, 40), ("60", 30, 30), (None, None, 40)],
)
def test_a_budget_limits_what_is_configured(configured, given, used):
    found = suite(budget={"max_epochs": 40}, overrides={} if given is None else {"trainer.max_epochs": given})
    text = "" if configured is None else f"trainer: {{max_epochs: {configured}}}"
    assert found.options(Cell("mosi", "one", 1), [text, "model: {}"])["trainer.max_epochs"] == used


def test_the_hash_knows_settings_and_neither_seed_nor_place():
    cell, text = Cell("mosi", "one", 1), ["a: 1"]
    assert suite().config_hash(cell, text) == suite(corpora={"mosi": "elsewhere"}).config_hash(
        cell._replace(seed=2), text
    )
    assert suite().config_hash(cell, text) != suite().config_hash(cell, ["a: 2"])
    assert suite().config_hash(cell, text) != suite(overrides={"model.lr": 1}).config_hash(cell, text)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modles": {}}, "unknown key 'modles': did you mean 'models'"),
        ({"corpora": {}}, "corpora is {}"),
        ({"corpora": {"a/b": "x"}}, "label 'a/b'"),
        ({"corpora": {"a": {"pth": "x"}}}, "corpora.a has an unknown key 'pth': did you mean 'path'"),
        ({"corpora": {"a": {"title": "x"}}}, "needs either path"),
        ({"corpora": {"a": {"generate": 3}}}, "corpora.a.generate is 3"),
        ({"models": {"m": {"options": {}}}}, "models.m has no config"),
        ({"models": {"m": {"config": "c", "corpora": {"mois": "d"}}}}, "m.corpora names 'mois': did you mean 'mosi'"),
        ({"models": {"m": {"config": "c", "options": {"data.path": "x"}}}}, "m.options.data.path cannot be given"),
        ({"models": {"m": {"config": [1]}}}, "models.m.config is [1]"),
        ({"seeds": [1, 1]}, "name each seed once"),
        ({"seeds": "five"}, "seeds is 'five'"),
        ({"budget": {"max_seconds": 0}}, "budget.max_seconds is 0"),
        ({"overrides": [1]}, "overrides is [1]"),
        ({"reference": "thre"}, "reference is 'thre'"),
        ({"name": "a b"}, "name is 'a b'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_key(changes, says):
    with pytest.raises(ConfigurationError) as caught:
        suite(**changes)
    assert says in str(caught.value)
    assert str(caught.value).startswith("s.yaml")


def test_a_placeholder_that_nobody_fills_is_told():
    with pytest.raises(ConfigurationError, match=r"\{corpse\}: did you mean 'corpus'"):
        suite(models={"m": "{corpse}.yaml"}).configs(Cell("mosi", "m", 1))


def test_a_suite_needs_its_parts():
    with pytest.raises(ConfigurationError, match="no 'models'"):
        parse_suite({key: SUITE[key] for key in ("name", "corpora")}, "s.yaml")


def test_paths_have_variables():
    assert expand_path("${A}/x", {"A": "data"}, "w") == "data/x"
    with pytest.raises(ConfigurationError, match=r"\$\{MFM_DATA\}.* is not set; give --data DIR"):
        expand_path("${MFM_DATA}/x", {}, "w")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_suites_can_be_read(name):
    found = read_suite(name.removesuffix(".yaml"))
    assert f"{found.name}.yaml" == name
    assert len(found.seeds) >= 5
    assert all(entry.corpus in CORPORA for entry in found.corpora.values())
    assert found.budget.max_epochs
    assert found.reference == "mfm"
