"""A model for other programs: as an adapter, as a whole folder, as GGUF, and for Ollama."""
