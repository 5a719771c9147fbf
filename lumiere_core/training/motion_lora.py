"""A motion LoRA: low-rank changes of temporal layers that stay as they are, for one motion or one camera move."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..diffusion.models import Models
from ..diffusion.schedule import Schedule
from ..nets.backbones import check_backbone, family_name
from ..nets.checkpoint import load_file, load_into, load_metadata, load_parts, metadata_for, save_file
from ..nets.config import UNetConfig
from ..nets.lora import LowRank
from ..nets.motion_files import Training, read_motion_module
from ..nets.motion_lora import lora_file
from ..nets.motion_module import KIND
from ..nets.temporal import TemporalLayers
from .options import TrainOptions
from .parts import Facts, Part


class Delta(nn.Module):
    """A weight with its low-rank change added, wherever it is used: recomputed activations see it too."""

    def __init__(self, up: nn.Parameter, down: nn.Parameter) -> None:
        super().__init__()
        self.up, self.down = up, down

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight, (out, in) or (out, in, k, k), with its low-rank change added."""
        return weight + (self.up.flatten(1) @ self.down.flatten(1)).view_as(weight)


class MotionLoRAPart(Part):
    """Low-rank changes of the attention of a motion module, or of all layers in Lumiere's inflation blocks.

    A motion module's file has the layout that other programs read (AnimateDiff's).
    """

    name, file = "motion LoRA", "motion_lora.safetensors"

    def __init__(self, models: Models, options: TrainOptions) -> None:
        layers = models.temporal
        layers.requires_grad_(False)
        attention = layers.config.kind == KIND
        deltas = LowRank(
            layers,
            options.rank,
            seed=options.seed,
            chosen=lambda name: ".layers." in name and ".to_" in name if attention else ".inflation." in name,
        )
        for key, name in deltas.names.items():
            delta = Delta(deltas.up[key], deltas.down[key])
            parametrize.register_parametrization(layers.get_submodule(name), "weight", delta)
        super().__init__(deltas, models.network(), models, options.device)
        deltas.to(options.device)

    def export(self, state: dict[str, Tensor], folder: Path, facts: Facts) -> None:
        """Write the motion LoRA of a state dict, in the layout that its kind has."""
        layers, names = self.models.temporal, self.module.names
        deltas = {name: {"up": state[f"up.{key}"], "down": state[f"down.{key}"]} for key, name in names.items()}
        unet = self.models.unet.config
        config = {"unet": unet.to_dict(), "temporal": layers.config.to_dict()}
        metadata = metadata_for(f"{family_name(unet)} motion LoRA", config, **facts)
        metadata["modelspec.architecture"] += "/motion-lora"
        # Not to be taken for temporal layers: that name is theirs.
        metadata["lumiere.motion_lora"] = metadata.pop("lumiere.config")
        save_file(lora_file(deltas, unet, layers.config), folder / self.file, metadata)


def layers_of(path: Path, unet_config: UNetConfig, schedule: Schedule) -> tuple[TemporalLayers, Schedule]:
    """Return temporal layers, or a public motion module, with the noise schedule that they were trained on.

    Args:
        path: a safetensors file of this pack, or of `read_motion_module`'s layouts.
        unet_config: of the image model.
        schedule: of the image model.

    Raises:
        ValueError: the file is another kind of file, or for another image model.
    """
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path.name} is no safetensors file, and only the host reads others. Load it with Apply Lumiere Temporal Layers, "
            "write it with Save Lumiere Temporal Layers, and give that file."
        )
    if "lumiere.config" in load_metadata(path):
        parts = load_parts(path)
        parts.require("temporal")
        check_backbone(parts.unet_config, unet_config, path.name)
        config, state = parts.temporal_config, parts.temporal
        training = Training.of_file(parts.config)
    else:
        found = read_motion_module(load_file(path)[0], unet_config, path.name)
        config, state, training = found.config, found.state, found.training
    layers = TemporalLayers(unet_config, config)
    load_into(layers, state, f"temporal layers of {path.name}")
    if training is not None and training.betas is not None:
        kind, *betas = training.betas
        schedule = Schedule(kind, schedule.prediction, steps=schedule.steps, betas=tuple(betas))
    return layers, schedule
