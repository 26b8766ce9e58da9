"""Lightning callbacks: run configuration, random states, predictions, figures."""
