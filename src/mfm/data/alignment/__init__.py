"""From computational sequences to samples: words as steps, frames reduced to words, every decision counted."""
