"""Distributed training with torch.distributed: process group, ranks and rendezvous."""
