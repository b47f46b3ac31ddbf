"""The evaluation of pose networks: metrics, scores of a split, grids, meters."""
