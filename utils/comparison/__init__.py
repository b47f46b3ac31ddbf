"""Comparing arms: `runs` reads logs and grids, `checks` refuses, `arms` has numbers, `tables` text."""
