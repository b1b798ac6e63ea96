"""Quantization: the stage, GPTQ, and the divergence from the model that it came from."""
