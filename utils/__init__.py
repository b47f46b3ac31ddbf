"""Around a run: files, checkpoints, loops, metrics and reports."""
