"""Evaluation: tasks that give every model the same prompts, their metrics and protocols."""
