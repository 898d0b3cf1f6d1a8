"""Changes to the float model that quantization gains from; it computes the same as before."""
