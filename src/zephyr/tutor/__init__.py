"""Tutor server: OpenAI-compatible API with continuous batching, web page, and preference votes."""
