"""The networks of one Lumiere stage, and loading them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..nets.checkpoint import Parts, bundled_files, bundled_names, load_into, load_parts
from ..nets.config import SSRConfig
from ..nets.low import LatentUpscaler
from ..nets.ssr import BUNDLED as BUNDLED_SSR
from ..nets.ssr import SSRNetwork, bundled_ssr_files, ssr_config
from ..nets.stunet import SpaceTimeUNet
from ..nets.temporal import TemporalLayers
from ..nets.text_encoder import Text, TextEncoder, pad_tokens, tokenize
from ..nets.unet import UNet
from .denoiser import Denoiser
from .schedule import Schedule

BUNDLED = "lumiere-mini"


class ImageNetwork(nn.Module):
    """An image U-Net called as a Space-Time U-Net is: clips of one frame."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """Return the (b, c, 1, h, w) model output.

        Args:
            x: (b, c, 1, h, w); timesteps: (b,); context: (b, l, d); y: (b, adm).
            known: not used: one frame is the image model alone.

        Raises:
            ValueError: there is more than one frame.
        """
        if x.shape[2] != 1:
            raise ValueError(
                f"{x.shape[2]} frames are wanted, but the checkpoint has no temporal layers: it can "
                "make single images only. Load temporal weights too, or ask for 1 frame."
            )
        return self.unet(x[:, :, 0], timesteps, context, y)[:, :, None]


@dataclass
class Models:
    """The networks of one stage: of a base model, or, with `ssr`, of super-resolution.

    Without temporal layers a base model makes single images, and super-resolution works frame by frame.
    """

    text: TextEncoder | None  # None: text states come from elsewhere
    unet: UNet
    temporal: TemporalLayers | None
    schedule: Schedule
    ssr: SSRConfig | None = None

    def encode(self, prompts: list[str]) -> Text:
        """Return the text states (n, k, d) and pooled vectors (n, d) of n prompts."""
        rows = [tokenize(prompt, self.text.config.max_bytes) for prompt in prompts]
        device = next(self.text.parameters()).device
        return Text(*self.text(pad_tokens(rows).to(device)))

    def network(self) -> nn.Module:
        """Return the module that predicts whole clips, (b, c, t, h, w)."""
        if self.ssr is not None:
            return SSRNetwork(self.unet, self.temporal, self.ssr)
        if self.unet.config.low_channels and self.temporal is not None:
            return LatentUpscaler(self.unet, self.temporal)
        return ImageNetwork(self.unet) if self.temporal is None else SpaceTimeUNet(self.unet, self.temporal)

    @property
    def shared_noise(self) -> float:
        """Share of the noise's variance that all frames of a clip have in common; all of it for super-resolution."""
        if self.ssr is not None or self.unet.config.low_channels:
            return 1.0
        return 0.0 if self.temporal is None else self.temporal.config.shared_noise

    def denoiser(self) -> Denoiser:
        """Return the network with its noise schedule."""
        return Denoiser(self.network(), self.schedule, self.shared_noise)


def load_models(weights: str | Path | list[Path] = BUNDLED, device: str = "cpu") -> tuple[Models, Parts]:
    """Load a Lumiere stage from one file, several, a folder of part files, or the bundled ones by their names.

    Raises:
        FileNotFoundError, ValueError: see `checkpoint.load_parts`.
    """
    parts = _read(weights)
    return _built(parts, device), parts


def _read(weights: str | Path | list[Path]) -> Parts:
    return load_parts(weights if isinstance(weights, list) else weight_files(weights))


def _built(parts: Parts, device: str) -> Models:
    parts.require("text", "image")
    text, unet, temporal = TextEncoder(parts.text_config), UNet(parts.unet_config), None
    name = ", ".join(parts.sha256)
    load_into(text, parts.text, f"text encoder weights of {name}")
    load_into(unet, parts.image, f"image U-Net weights of {name}")
    if parts.temporal is not None:
        temporal = TemporalLayers(parts.unet_config, parts.temporal_config)
        load_into(temporal, parts.temporal, f"temporal layers of {name}")
    for module in (text, unet, temporal):
        if module is not None:
            module.to(device).eval().requires_grad_(False)
    ssr = ssr_config(parts) if "ssr" in parts.config else None
    return Models(text, unet, temporal, schedule=Schedule(**parts.schedule), ssr=ssr)


def load_upscaler(weights: str | Path | list[Path] = BUNDLED_SSR, device: str = "cpu") -> tuple[Models, Parts]:
    """Load a super-resolution stage; see `load_models`.

    Raises:
        ValueError: the weights are of another kind.
    """
    parts = _read(weights)
    ssr_config(parts)
    return _built(parts, device), parts


def weight_files(weights: str | Path) -> list[Path]:
    """Return the files that a name (lumiere-mini, lumiere-mini-STYLE, lumiere-mini-ssr), a file or a folder stands for."""
    if str(weights) == BUNDLED_SSR:
        return bundled_ssr_files()
    name = str(weights).removeprefix("lumiere-")
    if name != str(weights) and name in bundled_names():
        return bundled_files(name)
    path = Path(weights)
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
