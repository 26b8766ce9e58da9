"""Search for hyperparameters on validation, with Optuna: spaces, studies, trials and what is written of them.

Needs the extra `tune`. Trials train as `mfm fit` does, and no test split is opened.
"""
