"""The collection of each corpus: names, batching, processes, and everything torchmetrics promises."""

import copy
import json
import multiprocessing
import warnings
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from mfm.corpora import CORPORA, Corpus, get_corpus
from mfm.errors import ConfigurationError
from mfm.metrics import (
    CONVENTIONS,
    CorpusMetrics,
    Definition,
    NamedMetric,
    UndefinedMetricWarning,
    convention,
    definitions_for,
    describe,
    each_target,
    functional,
    metrics_for,
)

MOSI_NAMES = ["acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc3", "acc5", "acc7", "mae", "corr"]
NAMES = {
    "mosi": MOSI_NAMES,
    "mosei": [*MOSI_NAMES, "acc7_away"],
    "sims": ["acc2", "f1", "acc3", "acc5", "mae", "corr"],
    "mmmo": ["acc2", "f1", "mae", "corr"],
    "youtube": ["acc", "f1"],
    "moud": ["acc", "f1"],
    "ur_funny": ["acc", "f1"],
    "mustard": ["acc", "f1"],
}


def samples(corpus: Corpus, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    preds = torch.randn(count, corpus.output_dim, generator=draws) * 2
    if corpus.task == "multiclass":
        target = torch.randint(corpus.output_dim, (count,), generator=draws)
    elif corpus.task == "regression":
        low, high = corpus.label_range or (-1.0, 1.0)
        target = low + (high - low) * torch.rand(count, len(corpus.targets), generator=draws)
        preds = preds + target
    else:
        target = torch.randint(2, (count, len(corpus.targets)), generator=draws).float()
    return preds, target, torch.rand(target.shape, generator=draws) < 0.8


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return list(left) == list(right) and all(
        left[name].item() == pytest.approx(right[name].item(), abs=1e-12, nan_ok=True) for name in left
    )


@pytest.mark.parametrize("name", CORPORA)
class TestEveryCorpus:
    def test_names_and_monitor(self, name):
        corpus = get_corpus(name)
        definitions = definitions_for(corpus)
        if name in NAMES:
            assert list(definitions) == NAMES[name]
        monitored = definitions[corpus.monitor.removeprefix("val/")]
        assert corpus.monitor.startswith("val/")
        assert monitored.higher_is_better == (corpus.mode == "max")
        assert describe(corpus).keys() == definitions.keys()
        assert all(text and "\n" not in text for text in describe(corpus).values())

    def test_any_batching_gives_the_same(self, name):
        corpus = get_corpus(name)
        whole, parts = metrics_for(corpus), metrics_for(corpus)
        preds, target, mask = samples(corpus, 50)
        whole.update(preds, target, mask)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(9))
        for index in order.split([1, 0, 7, 20, 22]):
            parts.update(preds[index], target[index], mask[index])
        values = whole.compute()
        assert same(values, parts.compute())
        assert all(value.ndim == 0 and value.dtype == torch.float64 and value.isfinite() for value in values.values())

    def test_reset_clone_copy_and_forward(self, name):
        corpus = get_corpus(name)
        metrics = metrics_for(corpus)
        batch, other = samples(corpus, 30), samples(corpus, 30, seed=1)
        metrics.update(*batch)
        first = metrics.compute()
        twin, copied = metrics.clone(), copy.deepcopy(metrics)
        metrics.reset()
        metrics.update(*other)
        second = metrics.compute()
        assert not same(first, second)
        assert same(twin.compute(), first)
        assert same(copied.compute(), first)
        fresh = metrics_for(corpus)
        assert same(fresh(*batch), first)  # forward gives the batch's own value
        assert same(fresh(*other), second)
        twin.update(*other)
        assert same(fresh.compute(), twin.compute())

    def test_precision_of_the_predictions_is_kept(self, name):
        corpus = get_corpus(name)
        preds, target, mask = samples(corpus, 30)
        half, double = metrics_for(corpus), metrics_for(corpus)
        half.update(preds.bfloat16(), target, mask)
        double.update(preds.bfloat16().double(), target, mask)
        assert same(half.compute(), double.compute())

    def test_nothing_seen_gives_nan(self, name):
        metrics = metrics_for(get_corpus(name))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = metrics.compute()
        assert all(value.isnan() for value in values.values())
        assert any(issubclass(one.category, UndefinedMetricWarning) for one in caught)

    def test_wrong_shapes_are_refused(self, name):
        corpus = get_corpus(name)
        preds, target, mask = samples(corpus, 6)
        metrics = metrics_for(corpus)
        for bad in [(preds[:, :0], target, mask), (preds[:5], target, mask), (preds, target[..., None], mask)]:
            with pytest.raises(ValueError, match=f"metrics of corpus '{name}' need preds"):
                metrics.update(*bad)
        with pytest.raises(ValueError, match="target_mask"):
            metrics.update(preds, target, mask[:5])


# ------------------------------------------------------------------------------- against independent references
def test_emotions_equal_sklearn_per_target_with_masks():
    corpus = get_corpus("iemocap")
    logits, target, mask = samples(corpus, 80)
    metrics = metrics_for(corpus)
    metrics.update(logits, target, mask)
    values = metrics.compute()
    accuracies, scores = [], []
    for column, emotion in enumerate(corpus.targets):
        kept = mask[:, column].numpy()
        truth, guess = target[:, column].numpy()[kept], logits[:, column].numpy()[kept] > 0
        accuracies.append(accuracy_score(truth, guess))
        scores.append(f1_score(truth, guess, average="weighted"))
        assert values[f"{emotion}/acc"].item() == pytest.approx(accuracies[-1], abs=1e-12)
        assert values[f"{emotion}/f1"].item() == pytest.approx(scores[-1], abs=1e-12)
    assert values["acc_mean"].item() == pytest.approx(np.mean(accuracies), abs=1e-12)
    assert values["f1_mean"].item() == pytest.approx(np.mean(scores), abs=1e-12)
    assert len(values) == 2 * 4 + 2


def test_traits_equal_numpy_per_target():
    corpus = get_corpus("pom")
    preds, target, _ = samples(corpus, 40)
    metrics = metrics_for(corpus)
    metrics.update(preds, target)
    values = metrics.compute()
    guess, truth = preds.double().numpy(), target.double().numpy()
    errors = np.abs(guess - truth).mean(axis=0)
    correlations = np.array([np.corrcoef(guess[:, k], truth[:, k])[0, 1] for k in range(16)])
    hits = (np.round(guess.clip(1, 7)) == np.round(truth.clip(1, 7))).mean(axis=0)
    for name, per_trait in (("mae", errors), ("corr", correlations), ("acc7", hits)):
        found = [values[f"{trait}/{name}"].item() for trait in corpus.targets]
        np.testing.assert_allclose(found, per_trait, atol=1e-12)
        assert values[f"{name}_mean"].item() == pytest.approx(per_trait.mean(), abs=1e-12)
    assert len(values) == 3 * 16 + 3


def test_multiclass_equals_sklearn_with_masked_labels_out_of_range():
    corpus = get_corpus("youtube")
    logits, target, mask = samples(corpus, 60)
    metrics = metrics_for(corpus)
    metrics.update(logits, target.masked_fill(~mask, -100), mask)
    truth, guess = target[mask].numpy(), logits[mask].argmax(dim=1).numpy()
    values = metrics.compute()
    assert values["acc"].item() == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    assert values["f1"].item() == pytest.approx(f1_score(truth, guess, average="weighted"), abs=1e-12)


def several(targets: tuple[str, ...], **changes: object) -> Corpus:
    settings = {"task": "regression", "convention": "mosi", "monitor": "val/mae_mean", "mode": "min", **changes}
    return Corpus(name="several", title="Several", targets=targets, **settings)


def test_several_targets_under_a_sentiment_convention_are_named_and_averaged():
    corpus = several(("valence", "arousal"))
    metrics = metrics_for(corpus)
    preds, target, _ = samples(corpus, 20)
    metrics.update(preds, target)
    values = metrics.compute()
    assert list(values) == [f"{t}/{n}" for t in corpus.targets for n in MOSI_NAMES] + [f"{n}_mean" for n in MOSI_NAMES]
    assert values["arousal/mae"] == functional.mae(preds[:, 1], target[:, 1])
    assert values["mae_mean"] == (values["valence/mae"] + values["arousal/mae"]) / 2


def test_a_mean_over_targets_is_nan_when_one_is():
    corpus = get_corpus("pom")
    metrics = metrics_for(corpus)
    preds, target, _ = samples(corpus, 10)
    target[:, 3] = 4.0
    metrics.update(preds, target)
    with pytest.warns(UndefinedMetricWarning, match="labels are constant"):
        values = metrics.compute()
    assert values["dominant/corr"].isnan()
    assert values["corr_mean"].isnan()
    assert values["mae_mean"].isfinite()


# ---------------------------------------------------------------------------------------- new conventions, mistakes
@pytest.fixture
def registry():
    before = dict(CONVENTIONS)
    yield CONVENTIONS
    CONVENTIONS.clear()
    CONVENTIONS.update(before)


def test_a_new_convention_is_one_decorated_function(registry):
    @convention("mine", tasks=("regression",))
    def mine(corpus: Corpus) -> dict[str, Definition]:
        return each_target(corpus, {"error": Definition(functional.mae, "mean absolute error", False)})

    metrics = metrics_for(several(("arousal",), convention="mine"))
    metrics.update(torch.tensor([[1.0]]), torch.tensor([[3.0]]))
    assert {name: value.item() for name, value in metrics.compute().items()} == {"error": 2.0}
    with pytest.raises(ConfigurationError, match="registered already"):
        convention("mine", tasks=("regression",))(mine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"convention": "mosie"}, "unknown metric convention 'mosie': did you mean 'mosi'"),
        (
            {"task": "multiclass", "classes": ("a", "b")},
            "is a multiclass task, and its metric convention 'mosi' is for",
        ),
        ({"convention": "threshold"}, "no threshold"),
    ],
)
def test_records_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        metrics_for(several(("a",), **changes))


# ------------------------------------------------------------------------------------------- one metric as an object
def test_named_metric_is_the_collections_value():
    corpus = get_corpus("mosei")
    batch = samples(corpus, 30)
    collection = metrics_for(corpus)
    collection.update(*batch)
    for name, value in collection.compute().items():
        metric = NamedMetric(corpus, name)
        assert torch.equal(metric(*batch), value)
        assert metric.higher_is_better == (name != "mae")
    with pytest.raises(ConfigurationError, match="did you mean 'acc2_has0'"):
        NamedMetric(corpus, "acc2_has")


def test_contract_attributes():
    for metric in (metrics_for(get_corpus("mosi")), NamedMetric(get_corpus("mosi"), "mae")):
        assert metric.is_differentiable is False
        assert metric.full_state_update is False
        assert metric.state_dict() == {}  # nothing of a stage goes into a checkpoint


def test_no_gradient_graph_is_kept():
    metrics = metrics_for(get_corpus("mosi"))
    preds = torch.zeros(3, 1, requires_grad=True) + 1
    metrics.update(preds, torch.ones(3, 1))
    assert not metrics.preds[0].requires_grad


# ---------------------------------------------------------------------------------------------- several processes
SHARES = {"uneven": (13, 37), "first empty": (0, 50), "second empty": (50, 0), "even": (25, 25)}


def _share(rank: int, folder: str, queue: SimpleQueue[dict[str, CorpusMetrics]]) -> None:
    """What one process does; a queue pickles its metrics, as Lightning's spawning strategies do."""
    prepared = queue.get()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results: dict[str, dict[str, float]] = {}
    for name, metrics in prepared.items():
        batch = samples(metrics.corpus, 50)
        for case, (first, _) in SHARES.items():
            mine = [part[:first] if rank == 0 else part[first:] for part in batch]
            for piece in zip(*(part.split(10) for part in mine), strict=True):
                if len(piece[0]):
                    metrics.update(*piece)
            results[f"{name} {case}"] = {key: value.item() for key, value in metrics.compute().items()}
            if case == "uneven":  # gathering leaves the process its own samples, and more can be added
                assert metrics.stored()[0].shape[0] == len(mine[0])
                metrics.update(*(part[:1] for part in batch))
                assert metrics.compute().keys() == metrics.definitions.keys()
            metrics.reset()
        results[f"{name} none"] = {key: value.item() for key, value in metrics.compute().items()}
        metrics.reset()
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    names = ("mosi", "sims", "iemocap", "pom", "youtube", "mustard")  # every task and shape of labels
    prepared = {name: metrics_for(get_corpus(name)) for name in names}
    context = multiprocessing.get_context("fork")  # a spawned one would import torch for seconds
    queue = context.SimpleQueue()
    workers = [context.Process(target=_share, args=(rank, str(tmp_path), queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
        queue.put(prepared)
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for name, metrics in prepared.items():
        metrics.update(*samples(metrics.corpus, 50))
        expected = {key: value.item() for key, value in metrics.compute().items()}
        for results in ranks:
            for case in SHARES:
                assert results[f"{name} {case}"] == pytest.approx(expected, abs=1e-12)
            assert all(np.isnan(value) for value in results[f"{name} none"].values())
