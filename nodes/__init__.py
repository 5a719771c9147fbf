"""Thin adapters between ComfyUI and lumiere_core, grouped by what a user does."""
