"""Matrix rate worker: products of the shape of an MLP's, of 1,024 tokens, on this machine."""

import statistics
from typing import Any

import torch

from bench.shared.models import HIDDEN, MLP
from bench.shared.worker import Job, main, synchronized_time

TOKENS = 1024
REPEATS, BATCHES = 20, 15


def measure_rate(job: Job) -> dict[str, Any]:
    """Operations a second, a multiplication and an addition counted as two; the median of 15."""
    device, dtype = job.device, getattr(torch, job.dtype)
    left = torch.randn(TOKENS, HIDDEN, device=device).to(dtype)
    right = torch.randn(HIDDEN, MLP, device=device).to(dtype)
    seconds = []
    for _ in range(BATCHES):
        start = synchronized_time(device)
        for _ in range(REPEATS):
            left @ right
        seconds.append(synchronized_time(device) - start)
    return {"rate": 2 * TOKENS * HIDDEN * MLP * REPEATS / statistics.median(seconds)}


if __name__ == "__main__":
    main(measure_rate)
