"""From annotation files to augmented batches of people; knows nothing of options or experiments."""

DATASETS = ("mpii", "lsp", "demo")
"""Names of the data sets that `data.datasets` describes: the command line needs no more, and imports nothing slow."""
