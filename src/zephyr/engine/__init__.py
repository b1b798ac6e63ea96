"""The engine: which runs to make, and the worker processes that make them."""
