"""Verbs of the command line that need the host's VAE and text loaders; `python -m lumiere_core` starts this file.

    python nodes/headless/verbs.py prepare CLIPS --checkpoint model.safetensors --output CACHE
    python nodes/headless/verbs.py pictures FOLDER --checkpoint model.safetensors --output FILE

The host is $COMFYUI_PATH, else the ComfyUI that this pack lies in, else the one that `make setup` made. Its user's
folders stay as they are: models and outputs of this process are in a temporary folder. `--base FOLDER` takes another's
packs, where a checkpoint needs one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import PACK_ROOT, HostError, has_pack, prepare_base, print_anything, start_host  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))

VERBS = ("prepare", "pictures")


def main(arguments: list[str]) -> int:
    """Run one verb on a host in this process; returns the exit status."""
    print_anything()
    # Core is imported by itself here, only to read the arguments; the host has its own copy of the pack.
    sys.path.append(str(PACK_ROOT))
    from lumiere_core.commands import pictures, prepare

    sys.path.remove(str(PACK_ROOT))
    parser = argparse.ArgumentParser(prog="lumiere_core")
    commands = parser.add_subparsers(dest="verb", required=True)
    for name, module in zip(VERBS, (prepare, pictures), strict=True):
        module.add_arguments(commands.add_parser(name))
    options = parser.parse_args(arguments)
    for name in {"clips", "images", "output"} & vars(options).keys():
        setattr(options, name, getattr(options, name).resolve())
    options.checkpoint = str(Path(options.checkpoint).resolve())
    try:
        with tempfile.TemporaryDirectory(prefix="lumiere-host-") as base:
            folder = Path(getattr(options, "base", "") or base).resolve()
            if not has_pack(folder):
                prepare_base(folder)
            host = start_host(folder)
            encoders = host.module("nodes.host.encoders").HostEncoders.load(options.checkpoint)
            return host.module(f"lumiere_core.commands.{options.verb}").run(options, encoders)
    except (HostError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is done stays done", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
