"""Loading a network of features from a user's file, and giving it clips as it wants them.

t - frames, h, w - pixels. Files are safetensors or ONNX, or folders that transformers reads; never pickles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nets.checkpoint import sha256
from . import c3d, i3d

RESIZES = {
    "crop": "short side to size, bilinear without antialias, centre crop (StyleGAN-V, common_metrics)",
    "stretch": "both sides to size, bilinear without antialias (cd-fvd)",
    "crop-antialias": "short side to size, bilinear with antialias, centre crop (as SVD resizes)",
    "stretch-antialias": "both sides to size, bilinear with antialias",
}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PUBLISHERS = (
    "I3D: the i3d_pretrained_400 weights of VideoGPT or TATS, or rgb_imagenet of pytorch-i3d, saved as safetensors; "
    "C3D: a Sports-1M or UCF101 C3D saved as safetensors; VideoMAE and V-JEPA 2: the folders that MCG-NJU and facebook "
    "publish for transformers"
)


@dataclass(frozen=True)
class Network:
    """A network of features with what it wants.

    Attributes:
        frames: how many it takes; a clip must have as many.
        exact: whether it takes no other number.
        size: pixels of both sides.
        sha256: of its weights.
        classes: whether the features are logits of classes, as the Inception Score needs.
    """

    name: str
    sha256: str
    frames: int
    exact: bool
    size: int
    classes: bool
    prepare: Callable[[Tensor], Tensor]  # (b, 3, t, h, w) levels -> the range that it was trained on
    run: Callable[[Tensor], Tensor]  # (b, 3, t, h, w) -> (b, f)

    @torch.inference_mode()
    def features(self, clip: Tensor, resize: str = "crop", size: int | None = None) -> Tensor:
        """(t, h, w, 3) uint8 -> (f,).

        Args:
            resize: one of RESIZES.
            size: pixels, other than those of the network.

        Raises:
            ValueError: too few frames, or features that are no numbers.
        """
        self.check_frames(len(clip))
        video = clip.movedim(-1, 1).float()  # (t, 3, h, w)
        video = resized(video, size or self.size, resize).movedim(0, 1)[None]
        found = self.run(self.prepare(video))[0].float().cpu()
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"{self.name} gives features that are no numbers (NaN or infinity).")
        return found

    def check_frames(self, count: int) -> None:
        """Raise ValueError unless the network takes clips of so many frames."""
        if count < self.frames or (self.exact and count != self.frames):
            wanted = f"{self.frames}" if self.exact else f"at least {self.frames}"
            raise ValueError(f"the clip has {count} frames; {self.name} takes {wanted}.")


def resized(frames: Tensor, size: int, resize: str) -> Tensor:
    """(t, 3, h, w) -> (t, 3, size, size) by one of RESIZES."""
    if resize not in RESIZES:
        raise ValueError(f"got the resize mode {resize!r}; one of {', '.join(RESIZES)} is wanted.")
    kind, antialias = resize.split("-")[0], resize.endswith("antialias")
    height, width = frames.shape[-2:]
    if kind == "stretch":
        wanted = size, size
    else:
        scale = size / min(height, width)
        wanted = max(size, round(height * scale)), max(size, round(width * scale))
    if wanted != (height, width):
        frames = F.interpolate(frames, wanted, mode="bilinear", align_corners=False, antialias=antialias)
    top, left = (wanted[0] - size) // 2, (wanted[1] - size) // 2
    return frames[..., top : top + size, left : left + size]


def load_network(path: str | Path, device: str = "cpu") -> Network:
    """Load a network of features and tell by its weights what it is.

    Raises:
        FileNotFoundError: no such file; says who publishes some.
        ValueError: a file of another kind.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no network of features in {path}. Publishers: {PUBLISHERS}.")
    if path.is_dir():
        return _transformers(path, device)
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path.name} is neither .safetensors nor .onnx, nor a folder. Pickles and TorchScript can run code and are "
            "not read: load such a file where you trust it, and save its state_dict with safetensors.torch.save_file."
        )
    return _safetensors(path, device)


class Weights(dict):
    """Tensors by name; one that is missing is named with its file."""

    def __init__(self, file: str, state: dict[str, Tensor]) -> None:
        super().__init__(state)
        self.file = file

    def __missing__(self, name: str) -> Tensor:
        raise ValueError(f"{self.file} lacks {name}, which a network of its kind has: it is not the whole state_dict.")


def _safetensors(path: Path, device: str) -> Network:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = load_file(path, device=device)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged ({error}). Fetch it again.") from error
    # As it was saved out of torch.nn.DataParallel, or of a network that holds nothing else.
    state = Weights(path.name, {name.removeprefix("module."): value.float() for name, value in loaded.items()})
    if i3d.MARK in state:
        return Network(
            "I3D",
            sha256(path),
            frames=i3d.LEAST_FRAMES,
            exact=False,
            size=i3d.SIZE,
            classes=True,
            prepare=lambda x: (x / 127.5 - 1).to(device),
            run=lambda x: i3d.i3d_logits(x, state),
        )
    if any(mark in state for mark in c3d.MARKS):
        return Network(
            "C3D",
            sha256(path),
            frames=c3d.FRAMES,
            exact=True,
            size=c3d.SIZE,
            classes=True,
            # The first release's mean clip is nearly flat; its mean is taken from the levels, blue first.
            prepare=lambda x: (x.flip(1) - x.new_tensor([90.0, 98.0, 102.0]).view(1, 3, 1, 1, 1)).to(device),
            run=lambda x: c3d.c3d_logits(x, state),
        )
    raise ValueError(
        f"{path.name} holds neither I3D ({i3d.MARK}) nor C3D ({' or '.join(c3d.MARKS)}); its first weights are "
        f"{', '.join(sorted(state)[:3])}. Publishers: {PUBLISHERS}."
    )


def _onnx(path: Path) -> Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path.name} needs the package onnxruntime; or use a .safetensors file.") from error

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception of its own for every reason
        raise ValueError(f"{path.name} is no ONNX file that onnxruntime can run ({error}).") from error
    (feed, *_) = session.get_inputs()
    shape = [side if isinstance(side, int) else None for side in feed.shape]
    frames_first = len(shape) == 5 and shape[2] == 3 != shape[1]
    if len(shape) != 5 or not (frames_first or shape[1] in (3, None)):
        raise ValueError(
            f"{path.name} takes {feed.shape}; (batch, 3, frames, height, width) or (batch, frames, 3, height, width) is "
            "wanted."
        )
    length = shape[1] if frames_first else shape[2]
    frames, size = length or i3d.LEAST_FRAMES, shape[3] or i3d.SIZE

    def run(x: Tensor) -> Tensor:
        x = x.transpose(1, 2) if frames_first else x
        return torch.from_numpy(session.run(None, {feed.name: x.contiguous().numpy()})[0]).flatten(1)

    return Network(
        f"ONNX {path.stem}",
        sha256(path),
        frames=frames,
        exact=length is not None,
        size=size,
        classes=True,
        prepare=lambda x: x / 127.5 - 1,
        run=run,
    )


def _transformers(path: Path, device: str) -> Network:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ImportError(f"the folder {path} needs the package transformers.") from error

    weights = path / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"{path} has no model.safetensors. A folder that transformers saved is wanted: VideoMAE or V-JEPA 2. "
            f"Publishers: {PUBLISHERS}."
        )
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    kinds = {"videomae": ("num_frames", "image_size"), "vjepa2": ("frames_per_clip", "crop_size")}
    if config.model_type not in kinds:
        raise ValueError(f"{path} holds a {config.model_type}; one of {', '.join(kinds)} is wanted.")
    length, side = (getattr(config, name) for name in kinds[config.model_type])
    model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).to(device).eval()
    mean, std = (torch.tensor(part).view(1, 3, 1, 1, 1) for part in IMAGENET)
    feed = {"videomae": "pixel_values", "vjepa2": "pixel_values_videos"}[config.model_type]
    extra = {"skip_predictor": True} if config.model_type == "vjepa2" else {}

    def run(x: Tensor) -> Tensor:
        return model(**{feed: x.transpose(1, 2)}, **extra).last_hidden_state.mean(1)

    return Network(
        {"videomae": "VideoMAE", "vjepa2": "V-JEPA 2"}[config.model_type],
        sha256(weights),
        frames=length,
        exact=True,
        size=side,
        classes=False,
        prepare=lambda x: ((x / 255 - mean) / std).to(device),
        run=run,
    )
