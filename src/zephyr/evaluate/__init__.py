"""Evaluation: tasks that ask every model the same prompts, their metrics and protocol."""
