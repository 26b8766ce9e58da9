"""The commands that examine factors, on a checkpoint of every ablation: each works, or says what is not there."""

import csv
import json

import pytest

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.cli.generate import MODES
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus
from mfm.models.factor_model import FactorModel
from mfm.models.variants import LAYOUTS
from mfm.modules import AblationModule, DiscriminativeReferenceModule, FactorModule, MFMModule

QUICK = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.max_lengths", "4")
VARIANTS = {
    name.partition("/")[2].removesuffix(".yaml"): name for name in shipped_configs() if name.startswith("ablations/")
}
HEADLESS = "two_stage_beta_vae"  # its first stage reads no label
DRAWS = ("--resamples", "20", "--permutations", "20", "--flow_samples", "4", "--segments", "1")
NO_DECODER = "has no decoders"


def layout_of(variant):
    return LAYOUTS.get(variant.upper(), LAYOUTS["MFM"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("factor_models")
    write_corpus("mosi", place / "mosi.pkl", samples=(24, 8, 10), seed=4)
    return place


# one without decoders, one with all factors and one without head; the others are as slow and differ less
FAST = ("m_a", "mfm", HEADLESS)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in VARIANTS]
)
def variant(request, folder):
    data = ["--data.path", str(folder / "mosi.pkl"), "--run_dir", str(folder / request.param)]
    assert main(["fit", "--config", VARIANTS[request.param], *data, *QUICK]) == 0
    return request.param


def ask(folder, variant, *arguments):
    """Exit status of a command on a variant's checkpoint."""
    command, *options = arguments
    return main([command, "--ckpt_path", str(folder / variant / "checkpoints/best.ckpt"), *options])


def refused(folder, variant, capsys, *arguments):
    """What a command says that it refuses, in one sentence."""
    assert ask(folder, variant, *arguments) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "Traceback" not in said
    assert variant.upper() in said or "AblationModule MFM" in said
    return said


def test_robustness(variant, folder, tmp_path, capsys):
    options = ["--protocols", "subsets", "steps", "--draws", "1", "--output", str(tmp_path)]
    if variant == HEADLESS:
        assert ask(folder, variant, "robustness", *options) == 2
        assert "there is no metric that could fall" in capsys.readouterr().err
        return
    assert ask(folder, variant, "robustness", *options) == 0
    with (tmp_path / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    observed = {row["observed"] for row in rows if row["protocol"] == "subsets" and row["method"] == "own"}
    assert {"text", "audio+vision", "audio+text+vision"} <= observed
    full = {row["mae"] for row in rows if row["observed"] == "audio+text+vision" and row["protocol"] == "subsets"}
    assert len(full) == 1  # every method is the same where nothing is missing


def test_interpret(variant, folder, tmp_path, capsys):
    layout = layout_of(variant)
    given = ["interpret", "--output", str(tmp_path / "found"), *DRAWS]
    if not layout.generates:
        assert NO_DECODER in refused(folder, variant, capsys, *given)
    elif not layout.joint:
        assert "has no joint factor F_y" in refused(folder, variant, capsys, *given)
    elif not (layout.own or layout.shared):
        assert "no generative factor besides F_y" in refused(folder, variant, capsys, *given)
    else:
        assert ask(folder, variant, *given) == 0
        found = json.loads((tmp_path / "found/interpretation.json").read_text())
        assert set(found["information"]) == {"text", "audio", "vision"}
        assert ("all of them share" in " ".join(found["notes"])) == layout.shared
        assert (found["contribution"] is None) == (variant == HEADLESS)
        return
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", MODES)
def test_generate(mode, variant, folder, tmp_path, capsys):
    layout = layout_of(variant)
    options = ["--steps", "3"] if mode in ("traverse", "interpolate") else []
    given = ["generate", "--mode", mode, "--count", "3", *options, "--output", str(tmp_path / "g.h5")]
    if not layout.generates:
        assert NO_DECODER in refused(folder, variant, capsys, *given)
    elif mode in ("swap", "traverse") and not layout.joint:
        assert "has no joint code Z_y" in refused(folder, variant, capsys, *given)
    elif mode == "swap" and not (layout.own or layout.shared):
        assert "no code besides Z_y" in refused(folder, variant, capsys, *given)
    elif mode == "traverse" and variant == HEADLESS:
        assert "AblationModule MFM reads no label" in refused(folder, variant, capsys, *given)
    else:
        assert ask(folder, variant, *given) == 0
        assert len(read_corpus(tmp_path / "g.h5").splits["test"]) == (9 if options else 3)
        found = json.loads((tmp_path / "g.json").read_text())
        readers = {"head on the code", "own head", "independent ridge"} if variant != HEADLESS else set()
        readers |= {"independent ridge"} if mode == "swap" else set()
        assert set(found["scores"]) - {"constant"} == readers
        return
    assert not list(tmp_path.iterdir())


def test_reconstruct_needs_a_surrogate_that_no_ablation_has(variant, folder, tmp_path, capsys):
    given = ["reconstruct", "--missing", "text", "--output", str(tmp_path / "r.h5")]
    said = refused(folder, variant, capsys, *given)
    assert ("has no surrogate" if layout_of(variant).generates else NO_DECODER) in said
    assert not list(tmp_path.iterdir())


def test_a_model_without_factors_is_named(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--config", "missing/discriminative.yaml", "--data.path", str(folder / "mosi.pkl"), *QUICK]
    assert main(["fit", *options, "--run_dir", str(folder / "lstms")]) == 0
    capsys.readouterr()
    for command in (["interpret"], ["generate", "--mode", "swap"], ["reconstruct", "--missing", "text"]):
        assert ask(folder, "lstms", *command) == 2
        assert "DiscriminativeReferenceModule is not made of factors" in capsys.readouterr().err


def test_what_meets_the_protocol():
    given = {"feature_dims": {"a": 2, "b": 3}, "corpus": "mosi"}
    small = {"z_y": 2, "z": 2, "f_y": 2, "f": 2, "fusion": "concat_lstm"}
    modules: list[FactorModule] = [MFMModule(**given, **small), AblationModule(**given, **small, variant="M_C")]
    assert all(isinstance(module, FactorModule) for module in modules)
    assert not isinstance(DiscriminativeReferenceModule(**given), FactorModule)
    networks: list[FactorModel] = [module.model for module in modules]
    assert [network.layout.joint for network in networks] == [True, False]
