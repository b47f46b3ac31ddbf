"""What lies below every run: files, processes, ranks and devices."""
