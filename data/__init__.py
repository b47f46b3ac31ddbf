"""From annotation files to augmented batches of people; knows nothing of options or experiments."""
