"""How good a pose network is: metrics, scores of a split, grids, meters."""
