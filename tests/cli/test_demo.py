"""`mfm demo` goes through on fewer samples and epochs, and every figure that it names is there."""

import re
from pathlib import Path

from mfm.cli import demo, main
from mfm.data.readers import read_corpus

SMALLER = {
    "data": ("--samples", "40", "12", "14"),
    "fit": ("--trainer.max_epochs", "1", "--data.max_lengths", "5", "--trainer.enable_progress_bar", "false"),
    "robustness": ("--methods", "own"),
}


def test_demo_ends_with_the_figures_that_it_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = []

    def here(*arguments):
        """The same commands, in this process."""
        ran.append(arguments)
        smaller = SMALLER.get(arguments[0], ()) if arguments[:2] != ("data", "inspect") else ()
        assert main([*arguments, *smaller]) == 0

    monkeypatch.setattr(demo, "_mfm", here)
    assert main(["demo"]) == 0
    said = capsys.readouterr().out.split("\nFigures:")[1].split("The same with")[0]
    named = re.findall(r"^.*?(demo\S+)", said, flags=re.MULTILINE)
    assert [Path(name).name for name in named] == [
        *("training_curves.png", "test_predictions.png", "robustness.png", "generated_swap.png", "swapped_pair.png"),
        *("predictions.csv", "factors.h5"),
    ]
    assert all(Path(name).stat().st_size > 0 for name in named)
    assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in named[:5])

    # the exchange is between samples of the two ends of the scale
    last = ran[-1]
    split = read_corpus("demo/corpus.pkl").splits["test"]
    label = dict(zip(split.ids, split.labels["regression_labels"].ravel(), strict=True))
    assert label[last[last.index("--content") + 1]] == max(label.values())
    assert label[last[last.index("--style") + 1]] == min(label.values())
