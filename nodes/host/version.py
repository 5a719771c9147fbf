"""Which host is needed, said before anything of a host is imported that an older one lacks."""

from __future__ import annotations

import importlib
import re

OLDEST = (0, 27)  # ComfyUI 0.27.0 and 0.30.0 are tested


class HostTooOld(ImportError):
    """The host is older than what this pack is made for."""


def check_host() -> None:
    """Raise HostTooOld unless the host is new enough; one that does not say its version is tried."""
    try:
        version = str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers and numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise HostTooOld(
            f"Lumiere needs ComfyUI {wanted} or newer, this is {version}. Update ComfyUI (in its folder: `git pull`, then "
            "`pip install -r requirements.txt`; in the portable build: update/update_comfyui.bat), and start it again."
        )
