"""The provenance of results: commit, versions and machine."""

import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[2]


def made_with(gpu_id: int) -> str:
    """Commit, versions and machine in one line; the GPU with this index if it exists, else the CPU."""
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__}, NumPy {np.__version__}"
    return f"commit {commit()}; {versions}; {machine(gpu_id)}"


def commit() -> str:
    """The commit of the code, with `-dirty` appended if files have changed; "unknown" outside of git."""
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"


def machine(gpu_id: int) -> str:
    """The model of the GPU with this index, or of the CPU with its number of cores."""
    if 0 <= gpu_id < torch.cuda.device_count():
        return torch.cuda.get_device_name(gpu_id)
    info = Path("/proc/cpuinfo")  # of Linux; elsewhere `platform` knows as much
    model = re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8") if info.exists() else "")
    return f"{model[1] if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
