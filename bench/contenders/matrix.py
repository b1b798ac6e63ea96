"""The machine itself: products of the shape of an MLP's, of 1,024 tokens."""

import json
import statistics
import sys
from pathlib import Path

import torch

from bench.contenders.job import now
from zephyr.model.precision import DTYPES

TOKENS, WIDTH, MLP = 1024, 1024, 2816
REPEATS, BATCHES = 20, 15


def rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second, a multiplication and an addition counted as two; the median of 15."""
    left = torch.randn(TOKENS, WIDTH, device=device).to(dtype)
    right = torch.randn(WIDTH, MLP, device=device).to(dtype)
    seconds = []
    for _ in range(BATCHES):
        start = now(device)
        for _ in range(REPEATS):
            left @ right
        seconds.append(now(device) - start)
    return 2 * TOKENS * WIDTH * MLP * REPEATS / statistics.median(seconds)


if __name__ == "__main__":
    source, goal = map(Path, sys.argv[1:])
    asked = json.loads(source.read_text())
    goal.write_text(json.dumps({"rate": rate(asked["device"], DTYPES[asked["dtype"]])}))
