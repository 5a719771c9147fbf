"""Which invisible watermark survives: detection and false alarms on clips of the world, by library and attack.

    python tests/benchmarks/watermarks.py --clips 500 --kinds dwtDctSvd

Needs invisible-watermark (and blind-watermark for its kinds); neither is needed by the pack. A clip is 2 frames of
256 x 256 pixels. The mark is 32 bits in every frame; the bits are averaged over the frames, and a clip counts as marked
where at least THRESHOLD of them are right. Clips without a mark give the false alarms.
"""

from __future__ import annotations

import argparse
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lumiere_core.clips.video import to_uint8  # noqa: E402
from lumiere_core.world import render_clip, sample_scene  # noqa: E402

BITS = np.array([int(bit) for bit in f"{0x4C756D69:032b}"])
THRESHOLD = 27  # of 32: by chance in 6e-5 of clips
FRAMES, SIDE = 2, 256
ATTACKS = ("none", "crf 18", "crf 23", "crf 28", "half size", "crop")


def embed(frame: np.ndarray, kind: str) -> np.ndarray:
    if kind.startswith("blind"):
        marker = _blind()
        marker.read_img(img=frame[..., ::-1].copy())
        marker.read_wm(BITS.astype(bool), mode="bit")
        marked = np.clip(np.rint(marker.embed()), 0, 255).astype(np.uint8)
        return marked[..., ::-1]
    from imwatermark import WatermarkEncoder

    encoder = WatermarkEncoder()
    encoder.set_watermark("bits", BITS.tolist())
    return encoder.encode(frame[..., ::-1].copy(), kind)[..., ::-1]


def bits_of(frame: np.ndarray, kind: str) -> np.ndarray:
    if kind.startswith("blind"):
        return np.asarray(_blind().extract(embed_img=frame[..., ::-1].copy(), wm_shape=len(BITS), mode="bit"), float)
    from imwatermark import WatermarkDecoder

    return np.asarray(WatermarkDecoder("bits", len(BITS)).decode(frame[..., ::-1].copy(), kind), float)


def _blind():
    from blind_watermark import WaterMark

    return WaterMark(password_img=1, password_wm=1)


def attacked(frames: np.ndarray, attack: str) -> np.ndarray:
    """What a viewer has: every attack but the first is a file of H.264 too, crf 23 unless it says so."""
    if attack == "none":
        return frames
    if attack == "half size":
        frames = _resized(frames, SIDE // 2)
    if attack == "crop":
        cut = SIDE // 8
        frames = frames[:, cut:-cut, cut:-cut]
    crf = int(attack.split()[1]) if attack.startswith("crf") else 23
    return _h264(np.ascontiguousarray(frames), crf)


def _h264(frames: np.ndarray, crf: int) -> np.ndarray:
    import av

    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt, stream.options = *frames.shape[1:3], "yuv420p", {"crf": str(crf)}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _resized(frames: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.stack(
        [np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)) for frame in frames]
    )


def right_bits(frames: np.ndarray, kind: str) -> int:
    """Most bits that agree, at the clip's own size and at that of the original."""
    found = []
    for seen in {frames.shape[1], SIDE}:
        tried = frames if seen == frames.shape[1] else _resized(frames, seen)
        if min(tried.shape[1:3]) ** 2 < SIDE * SIDE and kind.startswith("dwt"):
            continue  # the library refuses fewer pixels
        mean = np.mean([bits_of(frame, kind) for frame in tried], 0)
        found.append(int(((mean > 0.5) == BITS).sum()))
    return max(found, default=0)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=500)
    parser.add_argument("--kinds", nargs="+", default=["dwtDct", "dwtDctSvd"])
    options = parser.parse_args(arguments)
    hits = {(kind, attack): [0, 0] for kind in options.kinds for attack in ATTACKS}
    error = dict.fromkeys(options.kinds, 0.0)
    spent = dict.fromkeys(options.kinds, 0.0)
    for seed in range(options.clips):
        frames = to_uint8(render_clip(sample_scene(seed), FRAMES, 16.0, SIDE, SIDE)).numpy()
        for kind in options.kinds:
            began = time.monotonic()
            marked = np.stack([embed(frame, kind) for frame in frames])
            spent[kind] += (time.monotonic() - began) / FRAMES / options.clips
            error[kind] += float(np.square(marked.astype(float) - frames).mean()) / options.clips
            for attack in ATTACKS:
                for index, clip in enumerate((marked, frames)):
                    hits[kind, attack][index] += right_bits(attacked(clip, attack), kind) >= THRESHOLD
        if (seed + 1) % 50 == 0:
            print(f"{seed + 1} clips: {dict(hits)}", file=sys.stderr, flush=True)
    for kind in options.kinds:
        psnr = 10 * np.log10(255**2 / error[kind])
        print(f"{kind}: {options.clips} clips, PSNR of the mark {psnr:.1f} dB, {1000 * spent[kind]:.0f} ms a frame")
        for attack in ATTACKS:
            found, false = hits[kind, attack]
            rate = f"{100 * found / options.clips:5.1f} %"
            print(f"  {attack:<10} detected {rate}   false alarms {100 * false / options.clips:.1f} %")


if __name__ == "__main__":
    main()
