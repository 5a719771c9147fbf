"""`make pictures`: run every template on the real host and draw its picture anew, after the shipped weights have changed.

    python nodes/headless/pictures.py [NAME …]

Writes the picture that the template browser shows, which plays the clip; for text_to_video_hd also
workflows/pictures/demo.png, the README's; for train_on_one_clip the samples of its training run, in the help page of
Lumiere Train Temporal. NAME is a template's title, such as text_to_video.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import PACK_ROOT, HeadlessHost, HostError, core_file, prepare_base, print_anything, start_host  # noqa: E402
from demo import BASE, DemoError, read_workflow, saved_clip, short_names, template  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))

TRAINED = "train_on_one_clip"
RUN = "overfit_one_clip"  # the folder that its training run writes to
# Steps of TRAINED that the help page shows.
SAMPLES = (50, 100, 200)
OTHERS = ("CheckpointLoaderSimple", "UNETLoader")  # in templates for files that are not of the pack: nothing to draw
SIDE, FRAMES, QUALITY = 192, 40, 40  # of the moving pictures


def draw(host: HeadlessHost, name: str) -> None:
    """Run one template and write its picture."""
    media, workflows = host.module("lumiere_core.clips.media"), PACK_ROOT / "workflows"
    graph = read_workflow(template(name))
    with saved_clip(host, graph, BASE) as clip:
        if name == TRAINED:
            _draw_training(media, BASE / "output" / "lumiere" / RUN / "samples")
            return
        frames, _, _ = media.read_video(clip)
    if name == "text_to_video_hd":
        row = media.contact_sheet(_small(frames, media.evenly_spaced(len(frames), 8), 128), 8)
        media.save_image(row.quantize(256, dither=0), workflows / "pictures" / "demo.png")  # a third of the bytes
    shown = _small(frames, media.evenly_spaced(len(frames), FRAMES), SIDE)
    _save_moving(shown, workflows / f"{short_names()[name]}.jpg", len(frames) * 62 // len(shown))


def _save_moving(frames, path: Path, milliseconds: int) -> None:
    """Write a WebP that plays, under the only name that the host asks for: browsers go by the bytes, not by the name."""
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    with core_file("files").atomic(path) as partial:
        settings = {"duration": milliseconds, "loop": 0, "quality": QUALITY, "method": 6}
        first.save(partial, "WEBP", save_all=True, append_images=rest, **settings)


def kinds(path: Path) -> set[str]:
    """Return the kinds of nodes in a workflow."""
    return {node["class_type"] for node in read_workflow(path).values()}


def _draw_training(media, samples: Path) -> None:
    """Publish the sheets that the run wrote: the real clip above, what the model makes below."""
    from PIL import Image

    for step in SAMPLES:
        with Image.open(samples / f"step_{step:06d}.png") as sheet:
            sheet = sheet.convert("RGB")
        targets = [PACK_ROOT / "js" / "docs" / f"overfit_{step:04d}.jpg"]
        if step == SAMPLES[-1]:
            targets.append(PACK_ROOT / "workflows" / f"{short_names()[TRAINED]}.jpg")
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
    names = [short for short in short_names() if not set(OTHERS) & kinds(template(short))]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of templates; default: all")
    chosen = parser.parse_args().names or names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        print(f"no such template: {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 1
    try:
        prepare_base(BASE)
        host = start_host(BASE)
        for name in chosen:
            began = time.monotonic()
            draw(host, name)
            print(f"workflows/{short_names()[name]}.jpg  ({time.monotonic() - began:.0f} s)", flush=True)
    except (DemoError, HostError, OSError) as error:
        print(f"pictures failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
