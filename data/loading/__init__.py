"""From photographs to batches of patches: files, decoding, caches, loading processes."""
