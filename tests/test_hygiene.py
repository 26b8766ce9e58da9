"""Rules that no linter knows: who may import whom, nothing that executes a file, no modality names in code."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mfm"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

# part of mfm -> the other parts (or single modules) that it may import; "*" is every part but the command line
IMPORTS = {
    "errors": set(),
    "corpora": {"errors"},
    "files": {"errors"},
    "data": {"errors", "corpora", "files"},
    "models": {"errors"},
    "losses": {"errors"},
    "metrics": {"errors", "corpora"},
    "datamodules": {"errors", "corpora", "data"},
    "modules": {"errors", "corpora", "data.batch", "models", "losses", "metrics"},
    "analysis": {"errors", "corpora", "files", "data", "models", "losses", "metrics"},
    "benchmark": {"errors", "corpora", "files", "data", "metrics", "analysis.figures"},
    "callbacks": {"*"},
    "tuning": {"errors", "files", "data", "models", "modules", "datamodules", "callbacks", "analysis.figures"},
    "cli": {"*", "cli"},
    "__main__": {"cli"},
    "__init__": set(),
}
# usable from a notebook, with nobody's training loop: these never know Lightning or a logger
WITHOUT_LIGHTNING = {"errors", "corpora", "files", "data", "models", "losses", "metrics", "analysis", "benchmark"}
TRAINING_LOOPS = {"lightning", "pytorch_lightning", "lightning_utilities", "wandb"}
STANDARD_LIBRARY_ONLY = {"errors", "corpora"}
LOGGERS = ("wandb", "lightning.pytorch.loggers", "pytorch_lightning.loggers")
# `mfm --help` and `mfm data ...` answer at once, since none of these loads torch
FAST = (
    "mfm",
    "mfm.cli",
    "mfm.cli.data",
    "mfm.cli.benchmark",
    "mfm.benchmark.executors",
    "mfm.benchmark.running",
    "mfm.data.readers",
    "mfm.data.inspect",
    "mfm.data.store",
    "mfm.data.synthetic",
)
MAX_LINES = 400
MODALITY = r"(text|words?|language|audio|acoustic|vision|visual|video|face)"
PART = r"(encoder|decoder|lstm|gru|rnn|proj|projection|embedding|linear|net|model|head|norm|dims?|size|hidden)"
MODALITY_COMPONENT = re.compile(rf"^_*{MODALITY}_{PART}s?(_|$)", re.IGNORECASE)
SUBCOMMAND_KEYS = {"fit", "validate", "test", "predict", "subcommand", "config", "ckpt_path", "verbose", "weights_only"}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def shown(path: Path, node: ast.AST | None = None) -> str:
    return f"{path.relative_to(ROOT)}{f':{node.lineno}' if hasattr(node, 'lineno') else ''}"


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """Every module that a file imports anywhere, as full names; `from a import b` may mean the module a.b."""
    package = ("mfm", *path.relative_to(PACKAGE).parts[:-1]) if PACKAGE in path.parents else ()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from ((node, f"{module}.{alias.name}") for alias in node.names)


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def allowed(part: str, module: str) -> bool:
    target = module.removeprefix("mfm.")
    rules = IMPORTS[part]
    if within(target, part, "__version__") or within(target, *rules - {"*"}):
        return True
    return "*" in rules and not within(target, "cli")


def test_imports_point_one_way():
    unknown = {part_of(path) for path in SOURCES} - IMPORTS.keys()
    assert not unknown, f"say in IMPORTS what these parts may import: {sorted(unknown)}"
    wrong = [
        f"{shown(path, node)}: {part_of(path)} imports {module}"
        for path in SOURCES
        for node, module in imported(path)
        if within(module, "mfm") and module != "mfm" and not allowed(part_of(path), module)
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_parts_know_neither_lightning_nor_loggers():
    wrong = []
    for path in SOURCES:
        part = part_of(path)
        for node, module in imported(path):
            top = module.partition(".")[0]
            if (
                (
                    part in WITHOUT_LIGHTNING
                    and top in {"lightning", "pytorch_lightning", "lightning_utilities", "wandb"}
                )
                or (part not in {"cli", "callbacks"} and within(module, *LOGGERS))
                or (part in STANDARD_LIBRARY_ONLY and top != "mfm" and top not in sys.stdlib_module_names)
            ):
                wrong.append(f"{shown(path, node)}: {part} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_data_package_imports_nothing_by_itself():
    assert not list(imported(PACKAGE / "data" / "__init__.py"))


def test_starts_without_torch():
    code = f"""\
import importlib, sys
for module in {FAST}:
    importlib.import_module(module)
    if loaded := {{'torch', 'lightning', 'matplotlib'}} & set(sys.modules):
        sys.exit(f'{{module}} loads {{sorted(loaded)}}')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------- nothing executes what a file says
LOADERS = {
    **dict.fromkeys(
        ("pickle", "_pickle", "cPickle"),
        frozenset({"load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"}),
    ),
    **dict.fromkeys(
        ("dill", "cloudpickle", "joblib", "marshal", "shelve"),
        frozenset({"load", "loads", "open", "Unpickler"}),
    ),
    "yaml": {"load", "load_all", "full_load", "unsafe_load", "unsafe_load_all"},
    "pandas": {"read_pickle"},
}
EXECUTORS = {"eval", "exec", "compile"}


def real_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> full name of what was imported under it."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update({alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def unsafe(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    names = real_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            module, _, member = full_name(node, names).rpartition(".")
            if member in LOADERS.get(module, set()):
                yield node, f"{module}.{member}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in LOADERS.get(node.module or "", set()):
                    yield node, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Call):
            given = {word.arg: word.value for word in node.keywords}
            called = full_name(node.func, names)
            if called in EXECUTORS:
                yield node, called
            if called == "torch.load" and not is_constant(given.get("weights_only"), True):
                yield node, "torch.load without weights_only=True"
            if "weights_only" in given and is_constant(given["weights_only"], False):
                yield node, f"{called}(weights_only=False)"
            if "allow_pickle" in given and not is_constant(given["allow_pickle"], False):
                yield node, f"{called}(allow_pickle=...)"


def is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_executes_what_a_file_says():
    wrong = [f"{shown(path, node)}: {what}" for path in ALL_PYTHON for node, what in unsafe(parsed(path))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle as p\np.loads(b'')",
        "from pickle import load as innocent\ninnocent(f)",
        "import pickle\nclass Mine(pickle.Unpickler): pass",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "trainer.test(model, weights_only=False)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "eval('1')",
        "exec('pass')",
    ],
)
def test_the_rule_finds(code):
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.dumps(1)",
        "import numpy as np\nnp.load(path)",
        "import torch\ntorch.load(path, weights_only=True)",
        "model.eval()",
        "import re\nre.compile('a')",
        "import yaml\nyaml.safe_load(text)",
    ],
)
def test_the_rule_leaves_alone(code):
    assert not list(unsafe(ast.parse(code)))


# ----------------------------------------------------------------------------------------------- shape of the source
def test_files_are_short():
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def identifiers(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node, node.id
        elif isinstance(node, ast.Attribute):
            yield node, node.attr
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node, node.name


def test_modalities_are_data_and_never_names_in_code():
    wrong = [
        f"{shown(path, node)}: {name}"
        for path in SOURCES
        for node, name in identifiers(parsed(path))
        if MODALITY_COMPONENT.match(name)
    ]
    assert not wrong, "components are built per modality from a dict:\n" + "\n".join(wrong)
    assert MODALITY_COMPONENT.match("text_encoder")
    assert MODALITY_COMPONENT.match("_audio_lstm")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_serve_every_subcommand(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    assert not SUBCOMMAND_KEYS & config.keys()


# ------------------------------------------------------------------------------------------------- what we tell others
def test_contributing_adds_a_corpus_that_works(tmp_path):
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(\"\"\"My corpus.*?)```", guide, flags=re.DOTALL)
    (tmp_path / "my_corpus.py").write_text(example, encoding="utf-8")
    check = """\
import torch, my_corpus
from mfm.corpora import get_corpus
from mfm.datamodules import AffectDataModule
from mfm.metrics import metrics_for
assert issubclass(my_corpus.MyCorpusDataModule, AffectDataModule)
corpus = get_corpus(my_corpus.MyCorpusDataModule.corpus_default)
metrics = metrics_for(corpus)
metrics.update(torch.rand(5, 2), torch.rand(5, 2))
print(*(f"val/{name}" for name in metrics.compute()), corpus.monitor)
"""
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *names, monitor = done.stdout.split()
    assert monitor in names


A_FILE_ON_SOME_MACHINE = re.compile(r"(?<![\w.}\]/:)-])/(?:[\w.-]+/)+[\w.-]+\.(?:csd|csv|db|h5|json|npz|pkl|yaml)\b")


def test_results_name_no_paths_of_the_machine_that_made_them():
    written = [path for part in ("benchmarks/results", "configs", "docs") for path in (ROOT / part).rglob("*")]
    texts = [
        path for path in written if path.suffix in {".json", ".jsonl", ".md", ".yaml"} and "runs" not in path.parts
    ]
    found = [(shown(path), hit) for path in texts for hit in A_FILE_ON_SOME_MACHINE.findall(path.read_text("utf-8"))]
    assert not found
    assert A_FILE_ON_SOME_MACHINE.search('"data": "/somewhere/data/mosi.pkl"')


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[0].split())
    assert phony == set(re.findall(r"^([a-z]+):.*## ", makefile, flags=re.MULTILINE))


def test_pins_are_exact_and_exclude_the_malicious_releases():
    lines = (ROOT / "constraints" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert pins["lightning"] == pins["pytorch-lightning"] not in {"2.6.2", "2.6.3"}
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (lightning,) = (line for line in requirements if line.startswith("lightning"))
    assert "!=2.6.2" in lightning
    assert "!=2.6.3" in lightning
