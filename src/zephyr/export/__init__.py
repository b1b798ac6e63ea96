"""Model export: PEFT adapter, merged safetensors for transformers, GGUF, and Ollama."""
