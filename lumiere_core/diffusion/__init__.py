"""Noise, samplers, guidance, windows, and the two pipelines made of them."""
