"""Zephyr turns a small open language model into a course tutor and measures every step."""

__version__ = "0.1.0"
