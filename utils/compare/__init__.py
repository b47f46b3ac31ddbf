"""Arms side by side: `run_logs` reads, `checks` refuses, `arms` computes, `tables` prints."""
