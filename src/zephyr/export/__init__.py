"""Export of a model: as a PEFT adapter, merged for transformers, as GGUF, and for Ollama."""
