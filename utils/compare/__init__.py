"""Comparison of arms: `run_logs` reads, `comparability` checks, `arms` computes, `tables` prints."""
