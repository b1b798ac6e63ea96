"""torch.distributed for one training over several processes."""
