"""From annotation files to augmented batches of people; knows nothing of options or experiments."""

DATASETS = ("mpii", "lsp", "demo")
"""Names of the data sets of `data.datasets`. The command line needs no more, and so imports nothing slow."""
