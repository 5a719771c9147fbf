"""Saying in a file what made it (label, Content Credentials, watermark), and reading that again from any file."""

from .label import generated_by

__all__ = ["generated_by"]
