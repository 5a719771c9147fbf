"""The real host, booted once in this process, with the pack in its custom_nodes.

Import core through the pack here (`host.module("lumiere_core.video")`): a plain `import lumiere_core` is a second
copy with different classes.
"""

import os
import shlex

import pytest


@pytest.fixture(scope="session")
def host(headless, comfyui, tmp_path_factory):
    """The booted host: .pack, .module(name), .nodes_by_id, .run(prompt) -> outputs, .call(node_id, **inputs) -> tuple,
    .events, .base, .HostError.

    It runs on the CPU, so that numbers are the same everywhere; LUMIERE_HOST_ARGS replaces "--cpu".
    """
    base = tmp_path_factory.mktemp("base")
    headless.prepare_base(base)
    arguments = shlex.split(os.environ.get("LUMIERE_HOST_ARGS", "--cpu"))
    booted = headless.HeadlessHost(comfyui, base, arguments)
    booted.base = base
    booted.HostError = headless.HostError
    return booted
