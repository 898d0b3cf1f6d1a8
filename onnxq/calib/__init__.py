"""Calibration: data goes through the model, and what is learnt of its tensors is kept."""
