"""Lumiere for ComfyUI: whole clips in one pass by a Space-Time U-Net (Bar-Tal et al. 2024)."""

from .nodes.host.version import check_host

check_host()  # first: what follows does not even import on an old host

from comfy_api.v0_0_2 import ComfyExtension, io

from .nodes.apply import LumiereApplyTemporal
from .nodes.condition_builder import LumiereConditionBuilder
from .nodes.conditioning import LumiereApplyCondition, LumiereBlendKnown, LumiereMaskLatent
from .nodes.extend import LumiereExtend
from .nodes.host import live, models, motion
from .nodes.loaders import LumiereLoader, LumiereSaveTemporal
from .nodes.loop import LumiereLoop
from .nodes.measure import LumiereCompareClips, LumiereMeasureClip, LumiereXTSlice
from .nodes.measure_sets import LumiereMeasureSets
from .nodes.motion import LumiereLoadMotionLoRA, LumiereMotionStrength
from .nodes.region import LumiereRegion
from .nodes.sampling import EmptyLumiereLatentVideo, LumiereSampler
from .nodes.style import LumiereStyleInterpolate
from .nodes.style_sweep import LumiereStyleSweep
from .nodes.super_resolution import LumiereSuperResolution, LumiereTemporalMultidiffusion
from .nodes.text import LumierePromptTravel, LumiereTextEncode
from .nodes.train import LumiereTrainTemporal
from .nodes.video import LumiereLabelVideo, LumiereReadLabel
from .nodes.world import LumiereWorldClip

WEB_DIRECTORY = "./js"


class LumiereExtension(ComfyExtension):
    """The pack's nodes."""

    async def on_load(self) -> None:
        models.register_folder()
        motion.register_folders()
        live.register_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LumiereLoader,
            LumiereTextEncode,
            LumierePromptTravel,
            LumiereExtend,
            LumiereLoop,
            EmptyLumiereLatentVideo,
            LumiereSampler,
            LumiereSuperResolution,
            LumiereTemporalMultidiffusion,
            LumiereLabelVideo,
            LumiereSaveTemporal,
            LumiereStyleInterpolate,
            LumiereApplyTemporal,
            LumiereMotionStrength,
            LumiereLoadMotionLoRA,
            LumiereTrainTemporal,
            LumiereConditionBuilder,
            LumiereApplyCondition,
            LumiereMaskLatent,
            LumiereWorldClip,
            LumiereBlendKnown,
            LumiereMeasureClip,
            LumiereXTSlice,
            LumiereCompareClips,
            LumiereMeasureSets,
            LumiereRegion,
            LumiereStyleSweep,
            LumiereReadLabel,
        ]


async def comfy_entrypoint() -> LumiereExtension:
    """Called by the host once."""
    return LumiereExtension()
