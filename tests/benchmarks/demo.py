"""Stub."""


def measure(*a):
    return iter(())
