"""The trainer: one loop, and a phase for each part of the model."""
