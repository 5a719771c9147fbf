"""The networks: image U-Net, temporal layers, text encoder, super-resolution, and their files."""
