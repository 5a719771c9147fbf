"""A failure names the seam and the version of the host."""

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        from comfyui_version import __version__

        seam = item.originalname.removeprefix("test_")
        text = f"the seam {seam!r} of nodes/host/SEAMS.md is broken by ComfyUI {__version__}; it was tried with 0.30.0."
        report.sections.append(("host", text))
        report.longrepr = f"{text}\n\n{report.longrepr}"
