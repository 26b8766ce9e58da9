"""One module for each published format."""
