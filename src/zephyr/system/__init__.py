"""The machine: free and peak memory, and energy use."""
