"""Lumiere in plain PyTorch: Space-Time U-Net, sampling, training and measuring, without any host.

Import what you need from the submodules; this package itself imports nothing, so that it costs nothing.
"""
