"""Where batches come from. Every source draws them by number, and what it draws follows from (seed, sample number)."""
