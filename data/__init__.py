"""From annotation files to augmented batches of people; knows nothing of options or experiments."""

DATASETS = ("mpii", "lsp", "coco", "demo", "control")
"""Names of the data sets of `data.datasets`. The command line needs no more, and so imports nothing slow."""


class DataError(Exception):
    """An annotation file or a photograph is missing or invalid.

    The message is one line that names the file, the row and field (or the photograph and its person),
    the value found and what was expected. Stage scripts print it and exit with code 2.
    """
