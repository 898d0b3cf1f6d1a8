"""Quantize and dequantize nodes: what each op is like (`rules`), and where they go (`insert`)."""
