"""Quantization: stage, GPTQ with calibration text, and KL divergence from the parent model."""
