"""`make pictures`: run every template on the real host and draw its picture anew, after the shipped weights have changed.

    python nodes/headless/pictures.py [NAME …]

Writes workflows/NAME.jpg, frames of the clip in reading order; for text_to_video also workflows/pictures/demo.png, the
README's; for overfit_one_clip the samples of its training run, there and in the help page of Lumiere Train Temporal.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import PACK_ROOT, HeadlessHost, HostError, find_host, needs_cpu_flag, prepare_base, print_anything  # noqa: E402
from demo import BASE, WORKFLOWS, DemoError, read_workflow, saved_clip  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))

TRAINED = "overfit_one_clip"
# Steps of TRAINED that the help page shows; the README has the first and the last.
SAMPLES = (50, 100, 200)
CLOSE = {"compare_models", "style_alpha_sweep", "super_resolution"}  # four frames of 256 pixels, not 16 of 128
SOURCE = "lumiere_clip.mp4"  # what super_resolution loads: the clip of text_to_video


def draw(host: HeadlessHost, name: str) -> None:
    """Run one template and write its picture."""
    media, workflows = host.module("lumiere_core.clips.media"), PACK_ROOT / "workflows"
    graph = read_workflow(WORKFLOWS / f"{name}.json")
    with saved_clip(host, graph, BASE) as clip:
        if name == TRAINED:
            _draw_training(media, BASE / "output" / "lumiere" / TRAINED / "samples")
            return
        frames, _, _ = media.read_video(clip)
    if name == "text_to_video":
        (BASE / "input").mkdir(parents=True, exist_ok=True)
        # As the pixels were before the workflow enlarged them.
        media.write_mp4(BASE / "input" / SOURCE, frames[:, 2::4, 2::4], crf=0)
        row = media.contact_sheet(_small(frames, media.evenly_spaced(len(frames), 16), 128), 8)
        media.save_image(row, workflows / "pictures" / "demo.png")
    count, columns, side = (4, 2, 256) if name in CLOSE else (16, 4, 128)
    shown = _small(frames, media.evenly_spaced(len(frames), count), side)
    media.save_image(media.contact_sheet(shown, columns), workflows / f"{name}.jpg")


def _draw_training(media, samples: Path) -> None:
    """Publish the sheets that the run wrote: the real clip above, what the model makes below."""
    from PIL import Image

    for step in SAMPLES:
        with Image.open(samples / f"step_{step:06d}.png") as sheet:
            sheet = sheet.convert("RGB")
        targets = [PACK_ROOT / "js" / "docs" / f"overfit_{step:04d}.jpg"]
        if step in (SAMPLES[0], SAMPLES[-1]):
            targets.append(PACK_ROOT / "workflows" / "pictures" / f"overfit_{step:04d}.png")
        if step == SAMPLES[-1]:
            targets.append(PACK_ROOT / "workflows" / f"{TRAINED}.jpg")
        for target in targets:
            media.save_image(sheet, target)


def _small(frames, indices: list[int], side: int):
    """The chosen frames, made `side` pixels wide by averaging."""
    import cv2
    import numpy as np

    height = round(frames.shape[1] * side / frames.shape[2])
    return np.stack([cv2.resize(frames[i], (side, height), interpolation=cv2.INTER_AREA) for i in indices])


def main() -> int:
    print_anything()
    names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    names.sort(key=lambda name: name != "text_to_video")  # first: super_resolution needs its clip
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of templates; default: all")
    chosen = parser.parse_args().names or names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        print(f"no such template: {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 1
    try:
        prepare_base(BASE)
        host = HeadlessHost(find_host(), BASE, ["--cpu"] if needs_cpu_flag() else [])
        for name in chosen:
            began = time.monotonic()
            draw(host, name)
            print(f"workflows/{name}.jpg  ({time.monotonic() - began:.0f} s)", flush=True)
    except (DemoError, HostError, OSError) as error:
        print(f"pictures failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
