"""What trains of a model, and the file that it becomes: all else stays frozen.

A part has a network, which is called and which processes share, and a module in it, whose parameters train.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..diffusion.models import Models
from ..nets.backbones import family_name
from ..nets.checkpoint import DETAILS, metadata_for, save_file, to_half
from ..nets.config import TextConfig, UNetConfig
from ..nets.lora import LowRank
from ..nets.temporal import TemporalLayers
from ..nets.text_encoder import TextEncoder
from ..nets.unet import UNet
from .options import AUTO, TrainOptions, listed
from .sources.captions import LABELS

Facts = dict[str, str]


class Part(ABC):
    """A network of which a part trains.

    Attributes:
        module: whose parameters train, if they are not frozen in it.
        network: that has the module in it.
        models: the stage that it belongs to; None for a text encoder alone.
        name: what recipes call it.
        file: name of the file that `export` writes.
    """

    name: ClassVar[str]
    file: ClassVar[str]

    def __init__(self, module: nn.Module, network: nn.Module, models: Models | None, device: str) -> None:
        self.module, self.network, self.models = module, network.to(device), models
        if models is not None:
            for frozen in (models.text, models.unet):
                if frozen is not None:
                    frozen.to(device).eval().requires_grad_(False)

    @abstractmethod
    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write the file for use. `state` is a state dict.

        Args:
            state: the module's parameters by name; their running means.
            facts: further metadata, named `lumiere.…`.
        """

    def finished(self) -> Models:
        """Return the stage as it would be with the file, for samples."""
        return self.models


class Reader(nn.Module):
    """A text encoder with a head for each attribute of the world's scenes."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.encoder = TextEncoder(config)
        self.heads = nn.ModuleDict({name: nn.Linear(config.width, len(values)) for name, values in LABELS.items()})

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """Return (b, values) logits of each attribute for (b, l) token ids."""
        _, pooled = self.encoder(ids)
        return {name: head(pooled) for name, head in self.heads.items()}


class TextPart(Part):
    """The text encoder; it is frozen afterwards, as Imagen freezes its text encoder."""

    name, file = "text encoder", "text.safetensors"

    def __init__(self, config: TextConfig, options: TrainOptions) -> None:
        self.config = config
        torch.manual_seed(options.seed)
        reader = Reader(config)
        super().__init__(reader, reader, None, options.device)

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write text.safetensors from the state dict."""
        weights = {f"text.{k.removeprefix('encoder.')}": v for k, v in state.items() if k.startswith("encoder.")}
        metadata = metadata_for("lumiere text encoder", {"text": self.config.to_dict()}, **facts)
        save_file(to_half(weights), folder / self.file, metadata)


class ImagePart(Part):
    """All weights of an image U-Net.

    Args:
        style: name, words and base of the style that it learns; {} = none.
    """

    name, file = "image U-Net", "image.safetensors"

    def __init__(self, models: Models, options: TrainOptions, style: dict[str, str] | None = None) -> None:
        super().__init__(models.unet, models.network(), models, options.device)
        self.module.requires_grad_(True)
        self.size, self.style = [options.height, options.width], style or {}

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write image.safetensors from the state dict."""
        config = {
            "unet": self.models.unet.config.to_dict(),
            "schedule": self.models.schedule.to_dict(),
            "size": self.size,
        }
        title = "lumiere text-to-image U-Net"
        if self.style:
            config["style"], title = self.style, f"{title}, {self.style['name']}"
        weights = to_half({f"image.{k}": v for k, v in {**self.module.state_dict(), **state}.items()})
        save_file(weights, folder / self.file, metadata_for(title, config, **facts))


class DetailsPart(Part):
    """What makes an image model one for twice the size; all that it was before stays as it is."""

    name, file = "details", "details.safetensors"

    def __init__(self, models: Models, options: TrainOptions) -> None:
        super().__init__(models.unet.details, models.network(), models, options.device)
        self.module.requires_grad_(True)
        self.size = [options.height, options.width]

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write details.safetensors from the state dict: it is read together with the weights before."""
        unet = self.models.unet
        config = {"unet": unet.config.to_dict(), "schedule": self.models.schedule.to_dict(), "size": self.size}
        weights = to_half({f"{DETAILS}.{k}": v for k, v in {**state, "patch_basis": unet.patch_basis}.items()})
        save_file(weights, folder / self.file, metadata_for("lumiere details", config, **facts))


class Styled(nn.Module):
    """A frozen image network with low-rank deltas added to its weights."""

    def __init__(self, network: nn.Module, deltas: LowRank) -> None:
        super().__init__()
        self.network, self.deltas = network, deltas

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Return the network's answer with the changed weights."""
        merged = {f"unet.{k}": v for k, v in self.deltas.merged(self.network.unet).items()}
        return functional_call(self.network, merged, inputs, named)


class DeltasPart(Part):
    """Low-rank deltas (LoRA) of an image U-Net, in a file that stock loaders read.

    Args:
        style: name, words and base of the style.
        auto: what the layers "auto" are for this model.
    """

    name, file = "low-rank deltas", "lora.safetensors"

    def __init__(self, models: Models, options: TrainOptions, style: dict[str, str], auto: str = "all") -> None:
        self.layers = auto if options.layers == AUTO else options.layers
        self.style, self.rank = style, options.rank
        deltas = LowRank(models.unet, options.rank, self.layers, options.seed)
        super().__init__(deltas, Styled(models.network(), deltas), models, options.device)
        self.module.requires_grad_(True)

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write the LoRA, or the whole fine-tune, from the state dict."""
        config = {"style": self.style | {"rank": self.rank, "layers": self.layers}}
        metadata = metadata_for(f"{self.style['name']} style", config, **facts)
        metadata["modelspec.architecture"] += "/lora"
        save_file(self.module.file_state(state), folder / self.file, metadata)

    @torch.no_grad()
    def finished(self) -> Models:
        unet = copy.deepcopy(self.models.unet)
        unet.load_state_dict(self.module.merged(self.models.unet), strict=False)
        return dataclasses.replace(self.models, unet=unet)


class TemporalPart(Part):
    """The temporal layers around a frozen image model (Lumiere §3.1), of a base model or of super-resolution.

    Args:
        conditional: whether conv_cond trains too; where nothing is known it rests.
        size: [height, width] in pixels of what they were trained on; None = several.

    Raises:
        ValueError: the options choose no parameter.
    """

    name, file = "temporal layers", "temporal.safetensors"

    def __init__(
        self, models: Models, options: TrainOptions, conditional: bool = False, size: list[int] | None = None
    ) -> None:
        layers = models.temporal
        layers.requires_grad_(True)
        if layers.conv_cond is not None:
            layers.conv_cond.requires_grad_(conditional)
        if options.only:
            choose_parameters(layers, options.only)
        super().__init__(layers, models.network(), models, options.device)
        self.size = size

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write temporal.safetensors from the state dict."""
        unet = self.models.unet.config
        config = {"unet": unet.to_dict(), "temporal": self.module.config.to_dict()}
        if self.size:
            config["size"] = self.size
        metadata = metadata_for(f"{family_name(unet)} temporal layers", config, **facts)
        save_file(to_half({f"temporal.{k}": v for k, v in state.items()}), folder / self.file, metadata)


class UpscalerPart(Part):
    """Lumiere's own super-resolution stage: its spatial part, or its temporal layers once that is trained."""

    name, file = "super-resolution", "ssr.safetensors"

    def __init__(self, models: Models, options: TrainOptions) -> None:
        self.temporal = models.temporal is not None
        module = models.temporal if self.temporal else models.unet
        super().__init__(module, models.network(), models, options.device)
        module.requires_grad_(True)
        if self.temporal and options.only:
            choose_parameters(module, options.only)

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write one file: the spatial part, and the temporal layers once they are trained. `state` is a state dict."""
        models = self.models
        config = {
            "ssr": models.ssr.to_dict(),
            "unet": models.unet.config.to_dict(),
            "schedule": models.schedule.to_dict(),
        }
        if not self.temporal:
            weights = {f"image.{k}": v for k, v in {**self.module.state_dict(), **state}.items()}
        else:
            config["temporal"] = models.temporal.config.to_dict()
            weights = {f"image.{k}": v for k, v in models.unet.state_dict().items()}
            weights |= {f"temporal.{k}": v for k, v in state.items()}
        save_file(to_half(weights), folder / self.file, metadata_for("lumiere super-resolution", config, **facts))


def choose_parameters(layers: TemporalLayers, words: str) -> None:
    """Freeze the parameters without one of the words, set apart by commas, in their name.

    Raises:
        ValueError: none is left to train.
    """
    chosen = listed(words)
    for name, parameter in layers.named_parameters():
        if not any(word in name for word in chosen):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in layers.parameters()):
        raise ValueError(
            f"only is {words!r}, but no temporal parameter has such a name. Names are like "
            f"{next(iter(layers.state_dict()))}; parts of them are wanted, such as modulation,condition."
        )


def new_unet(config: UNetConfig, seed: int) -> UNet:
    """Return an image U-Net with fresh weights; its last convolution is zero, so it starts at v = 0."""
    torch.manual_seed(seed)
    unet = UNet(config)
    nn.init.zeros_(unet.out[2].weight)
    nn.init.zeros_(unet.out[2].bias)
    return unet
