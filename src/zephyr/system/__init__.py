"""The machine: memory, cores and energy."""
