import pytest
from fake_cells import SUITE, suite

from mfm.benchmark.suite import Cell, Source
from mfm.benchmark.suite_file import expand_path, parse_suite
from mfm.cli.configs import find_config, shipped_configs
from mfm.cli.suites import read_suite
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


def opened(name):
    return Source(name, f"/configs/{name}", f"of: {name}")


def made(found, corpus, model="tfn", tuned=None):
    cell = Cell(corpus, model, 3)
    return found.arguments(cell, "w.pkl", found.recipe(cell, tuned, opened), shown=True)


def test_what_is_given_last_wins():
    found = with_model(options={"model.lr": 2, "model.network": {"name": "tfn"}}, tuned="tuned/{label}_{model}.yaml")
    assert made(found, "words") == (
        "--config", "mosi_tfn.yaml", "--data.batch_size=8", "--model.lr=2", '--model.network={"name": "tfn"}',
        "--config", "tuned/words_tfn.yaml", "--data.path=w.pkl", "--seed_everything=3",
    )  # fmt: skip
    cell = Cell("words", "tfn", 3)
    assert found.arguments(cell, "w.pkl", found.recipe(cell, None, opened))[1] == "/configs/mosi_tfn.yaml"


def test_configurations_are_named_by_corpus():
    start = ("--config", "mosi_tfn.yaml", "--config", "films.yaml")
    end = ("--data.path=w.pkl", "--seed_everything=3")
    assert made(with_model(), "films") == (*start, *end)
    own = with_model(corpora={"films": "mmmo.yaml"})
    expected = ("--config", "mmmo.yaml", "--config", "films.yaml", "--config", "all/mmmo.yaml", *end)
    assert made(own, "films", tuned="all/{corpus}.yaml") == expected


@pytest.mark.parametrize(
    ("config", "option", "tuned", "override", "used"),
    [
        (20, None, None, None, 20),
        (60, None, None, None, 40),
        (-1, None, None, None, 40),
        (None, None, None, None, 40),
        (60, 30, None, None, 30),
        (60, 30, 10, None, 10),
        (10, 10, 10, 35, 35),
    ],
)
def test_a_budget_limits_what_is_configured_last(config, option, tuned, override, used):
    def read(name):
        epochs = tuned if name == "best.yaml" else config
        return Source(name, name, "a: 1" if epochs is None else f"trainer: {{max_epochs: {epochs}}}")

    def options(epochs):
        return {} if epochs is None else {"trainer.max_epochs": epochs}

    model = {"config": "one.yaml", "options": options(option), **({"tuned": "best.yaml"} if tuned else {})}
    found = suite(models={"one": model}, budget={"max_epochs": 40}, overrides=options(override))
    recipe = found.recipe(Cell("mosi", "one", 1), None, read)
    assert found.limited(recipe)["trainer.max_epochs"] == used


def test_the_hash_knows_settings_and_neither_seed_nor_place():
    def hashed(found, seed=1, text="a: 1", folder="here"):
        cell = Cell("mosi", "one", seed)
        return found.config_hash(cell, found.recipe(cell, None, lambda name: Source(name, f"{folder}/{name}", text)))

    assert hashed(suite()) == hashed(suite(corpora={"mosi": "elsewhere"}), seed=2, folder="there")
    different = [
        hashed(suite(), text="a: 2"),
        hashed(suite(overrides={"model.lr": 1})),
        hashed(suite(budget={"max_seconds": 9})),
    ]
    assert len({hashed(suite()), *different}) == 4


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
        suite(models={"m": "{corpse}.yaml"}).recipe(Cell("mosi", "m", 1), None, opened)


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
    recipes = [found.recipe(cell, None, lambda name: Source(name, find_config(name), "")) for cell in found.cells()]
    assert all(recipe.configs for recipe in recipes)  # every configuration exists
