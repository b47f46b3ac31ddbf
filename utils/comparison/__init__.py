"""Comparing arms: `runs` reads logs and tables, `checks` refuses, `arms` has numbers, `tables` text."""
