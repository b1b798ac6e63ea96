"""Training: stages, objectives (SFT, DPO ...), training loop, checkpoints, preflight checks."""
