"""What is known of a clip, as plain IMAGE and MASK: for Lumiere and for any other inpainting or video model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..lumiere_core.clips import framing
from ..lumiere_core.clips.conditioning import Condition, cinemagraph, inpaint, key_frames
from ..lumiere_core.clips.masks import SHARE, is_known
from ..lumiere_core.clips.video import check_pixels
from .host import device, live, preview
from .widgets import fps_widget, size_widgets

BLANK = 0.5  # the grey that stands for nothing, here as in the host's own video nodes
LONGEST = 4096  # frames
WIDEST = 4096  # pixels
NUMBERS = 3 * 4  # of a pixel: colours and mask, at once as placed, as condition and as output
NONE = (0, 0, 0, 0)


def _images(tooltip: str) -> io.Image.Input:
    # One name in every task, so that the link stays when the task is changed; optional, as OLD names count too.
    return io.Image.Input("images", tooltip=tooltip, optional=True)


def _region(tooltip: str) -> io.Mask.Input:
    return io.Mask.Input("region", tooltip=tooltip, optional=True)


def _rates() -> list:
    return [
        io.Float.Input(
            "source_fps",
            default=0.0,
            min=0.0,
            max=1000.0,
            step=0.01,
            round=0.0001,
            tooltip="Frames a second of the given video, such as the fps output of Get Video Components. "
            "0: take its frames one by one.",
        ),
        fps_widget("Frames a second that the model makes; used if source_fps is not 0. lumiere-mini: 16."),
    ]


def _side(name: str) -> io.Int.Input:
    return io.Int.Input(
        name, default=0, min=0, max=WIDEST, tooltip=f"Pixels of the result to be made up at the {name}."
    )


TASKS = {
    "image to video": [
        _images("The first frame, or the beginning of the clip."),
        io.Image.Input("end_image", tooltip="The last frame, if it is given too.", optional=True),
        # The host's page cannot make a node whose first choice has no widget.
        io.Int.Input(
            "start_frames",
            default=1,
            min=1,
            max=LONGEST,
            tooltip="How many of the images are given: 1 is image to video, more continue a clip.",
        ),
    ],
    "key frames": [
        _images("The given frames, as a batch."),
        io.String.Input(
            "frames",
            default="0, -1",
            tooltip="The number of each image in the clip, from 0. Negative ones count from the end: -1 is the last.",
        ),
    ],
    "inpaint": [
        _images("The clip, frames as a batch."),
        _region("1 (painted) where the clip is to be made anew: one mask for all frames, or one for each."),
        *_rates(),
    ],
    "outpaint": [
        _images("The clip, frames as a batch. It is fitted into what the borders leave."),
        _side("left"),
        _side("top"),
        _side("right"),
        _side("bottom"),
        *_rates(),
    ],
    "cinemagraph": [
        _images("A still picture. Of several images the first counts."),
        _region("1 (painted) where the picture is to move."),
    ],
}
OLD = ("start_image", "video", "image")  # names of `images` in saved workflows


class LumiereConditionBuilder(io.ComfyNode):
    """Condition clip and mask of each task."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereConditionBuilder",
            display_name="Lumiere Condition Builder",
            category="lumiere/conditioning",
            description="Makes of pictures, clips and masks what is known of the clip that you want: an IMAGE with all "
            "its frames, and a MASK that is 1 where they are to be generated. For Lumiere Apply Condition, and for "
            "the inpainting and video nodes of other models.",
            has_intermediate_output=True,
            search_aliases=[
                "image to video",
                "first last frame",
                "key frames",
                "inpaint",
                "outpaint",
                "cinemagraph",
                "start image",
            ],
            inputs=[
                io.DynamicCombo.Input(
                    "task",
                    options=[io.DynamicCombo.Option(name, inputs) for name, inputs in TASKS.items()],
                    tooltip="What is given.",
                ),
                *size_widgets("Pixels of the clip."),
                io.Int.Input(
                    "length",
                    default=80,
                    min=0,
                    max=LONGEST,
                    tooltip="Frames of the clip. 0: as many as the given video. Frames after its end are made up; those "
                    "after length are left out.",
                ),
                io.Combo.Input(
                    "resize",
                    options=list(framing.POLICIES),
                    default="crop",
                    tooltip="Where the aspect ratio differs. crop: fill the frame and cut off the rest. pad: show all, "
                    "and make up the borders. stretch: change the aspect ratio.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=-256,
                    max=256,
                    tooltip="Pixels by which the region to be generated grows at each side; negative shrinks it.",
                ),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=256,
                    tooltip="Pixels over which the region fades out around it, for a soft paste-back.",
                ),
            ],
            outputs=[io.Image.Output(display_name="condition"), io.Mask.Output(display_name="mask")],
        )

    @classmethod
    def execute(
        cls, task: dict, width: int, height: int, length: int, resize: str, grow: int, feather: int, **old
    ) -> io.NodeOutput:
        given = given_by(task, old)
        for name in ("images", "end_image"):
            if given.get(name) is not None:
                check_pixels(given[name], name)
        device.check_room(max(length, len(given["images"])), height, width, NUMBERS)
        frame = Frame(height, width, resize, grow=grow, feather=feather)
        condition = BUILDERS[task["task"]](frame, length, **given)
        mask = 1 - condition.known[0, 0]  # the paper's masks are 1 where the clip is known, the host's where it is not
        clip = condition.clip[0].movedim(0, -1).contiguous()
        return io.NodeOutput(clip, mask, ui=shown(clip, mask, given) if live.watched() else None)


def shown(clip: Tensor, mask: Tensor, given: dict) -> dict:
    """Return what the node shows: the clip with the region tinted, and the pictures of key frames for their strip.

    The clip is [t, h, w, 3], the mask [t, h, w].
    """
    values = preview.shown_clip(preview.tinted(clip, mask), given.get("fps", 16.0)).as_dict()
    if "frames" in given:
        values["lumiere_sheet"] = ({**live.sheet_of(given["images"]), "length": len(clip)},)
    return values


def given_by(task: dict, old: dict) -> dict:
    """Return the inputs of the chosen task by their names, also those that a saved workflow has under an older one.

    Args:
        old: what the host passes of inputs that it does not know: {"task.video": IMAGE}.

    Raises:
        ValueError: something that the task needs is not connected.
    """
    found = {**{key.removeprefix("task."): value for key, value in old.items()}, **task}
    given = {"images" if key in OLD else key: value for key, value in found.items() if value is not None}
    name = given.pop("task")
    needed = {i.id for i in TASKS[name]} & {"images", "region"}
    missing = sorted(needed - given.keys())
    if missing:
        raise ValueError(f"{' and '.join(missing)} of the task {name} is not connected. Connect it to this node.")
    return given


@dataclass(frozen=True)
class Frame:
    """The size of the clip, and how what is given is brought to it."""

    height: int
    width: int
    policy: str
    grow: int
    feather: int

    def place(
        self, images: Tensor, region: Tensor | None = None, borders: tuple[int, int, int, int] = NONE
    ) -> tuple[Tensor, Tensor]:
        """Bring host images (n, h, w, c) and a region (n or 1, h, w) to the frame.

        Returns:
            (1, c, n, height, width), and what is known of it, (1, 1, n or 1, height, width).
        """
        placed, region = framing.place(
            colours(images).movedim(-1, 1),
            self.height,
            width=self.width,
            policy=self.policy,
            borders=borders,
            region=region,
            blank=BLANK,
        )
        stop = device.stop_if_interrupted
        region = framing.feathered(framing.grown(region, self.grow, stop), self.feather, stop)
        return placed.transpose(0, 1)[None], 1 - region[None, None]


def image_to_video(
    frame: Frame, length: int, images: Tensor, end_image: Tensor | None = None, start_frames: int = 1
) -> Condition:
    """The first frame is given, or more of the beginning, and perhaps the last. IMAGEs are [n, h, w, c]."""
    if start_frames > len(images):
        raise ValueError(
            f"start_frames is {start_frames}, but images has {len(images)} image(s). Lower start_frames, or "
            "give that many."
        )
    parts = [images[:start_frames]] + ([] if end_image is None else [end_image[:1]])
    frames = list(range(start_frames)) + [length - 1] * (len(parts) - 1)
    if length < len(frames):
        raise ValueError(
            f"length is {length}, and {len(frames)} frame(s) are given; the clip must have that many at least. Set "
            "length, for example to 80."
        )
    clips, known = zip(*(frame.place(part) for part in parts), strict=True)
    known = [k.expand(-1, -1, clip.shape[2], -1, -1) for k, clip in zip(known, clips, strict=True)]
    return key_frames(torch.cat(clips, 2), frames, length, known=torch.cat(known, 2), blank=BLANK)


def some_frames(frame: Frame, length: int, images: Tensor, frames: str) -> Condition:
    """Frames are given by number. IMAGEs are [n, h, w, c]."""
    try:
        numbers = [int(part) for part in frames.replace(",", " ").split()]
    except ValueError:
        raise ValueError(
            f"frames is {frames!r}; whole numbers with commas between them are wanted, such as 0, 40, -1."
        ) from None
    clip, known = frame.place(images)
    return key_frames(clip, numbers, length, known=known, blank=BLANK)


def inpainted(frame: Frame, length: int, images: Tensor, region: Tensor, source_fps: float, fps: float) -> Condition:
    """A region is to be made anew. IMAGEs are [t, h, w, c], the MASK [t or 1, h, w]."""
    region = region_of(images, region)
    check_clip(images, length)
    video, region = at_rate(images, region, source_fps, fps)
    clip, known = frame.place(video, region)
    check_share(known)
    return inpaint(clip, known, length, BLANK)


def outpainted(
    frame: Frame,
    length: int,
    images: Tensor,
    left: int,
    top: int,
    right: int,
    bottom: int,
    source_fps: float,
    fps: float,
) -> Condition:
    """The world outside of the frame is to be made. IMAGEs are [t, h, w, c]; sides in pixels."""
    check_clip(images, length)
    video, _ = at_rate(images, None, source_fps, fps)
    clip, known = frame.place(video, None, (left, top, right, bottom))
    if bool((known == 1).all()) and length <= clip.shape[2]:
        raise ValueError(
            "there is nothing to generate: left, top, right and bottom are 0. Set at least one to the pixels that "
            "are to be made up at that side."
        )
    return inpaint(clip, known, length, BLANK)


def moving_picture(frame: Frame, length: int, images: Tensor, region: Tensor) -> Condition:
    """A region of a still picture moves. The IMAGE is [1, h, w, c], the MASK [1, h, w]."""
    if length < 1:
        raise ValueError("length is 0, but a still picture has none of its own. Set it, for example to 80.")
    if region.ndim == 3 and len(region) == len(images):  # of a moving picture, such as a GIF: the first of both
        region = region[:1]
    clip, still = frame.place(images[:1], region_of(images[:1], region))
    _, first = frame.place(images[:1])
    check_share(still)
    return cinemagraph(clip[:, :, 0], still[:, :, 0], length, first[:, :, 0])


BUILDERS = dict(zip(TASKS, (image_to_video, some_frames, inpainted, outpainted, moving_picture), strict=True))


def colours(images: Tensor) -> Tensor:
    """Return the RGB part of host images; transparency is what a MASK says. [t, h, w, c] -> [t, h, w, 3].

    Raises:
        ValueError: the images have no colours, or there are none.
    """
    check_pixels(images)
    if images.shape[-1] not in (3, 4):
        raise ValueError(
            f"the image has {images.shape[-1]} channel(s); red, green and blue are wanted. If this is a mask or an "
            "alpha channel, connect it to region, and the picture here."
        )
    return images[..., :3].float()  # a host may keep images in half precision


def region_of(images: Tensor, region: Tensor) -> Tensor:
    """Return the mask as (n or 1, h, w) in the size of the images.

    Raises:
        ValueError: it belongs to other images.
    """
    region = region.float().reshape(-1, *region.shape[-2:])
    (count, height, width), masks = images.shape[:3], len(region)
    if masks not in (1, count):
        raise ValueError(
            f"the mask has {masks} frames and the clip {count}; one mask for all frames is wanted, or one for each. "
            "Cut the longer one."
        )
    h, w = region.shape[-2:]
    if abs(h * width - w * height) > max(height, width, h, w):  # more than a pixel off
        raise ValueError(
            f"the mask is {w}x{h} pixels and the picture {width}x{height}: they do not belong together. A picture "
            "without transparency has an empty 64x64 mask in Load Image: paint one in its mask editor, or scale the "
            "mask to the picture."
        )
    if (h, w) == (height, width):
        return region
    return framing.fit(region[:, None].float(), height, width, "stretch", region=True)[0][:, 0]


def check_clip(video: Tensor, length: int) -> None:
    """Raise ValueError if one picture was given where a clip is wanted. The video is [t, h, w, c]."""
    if len(video) == 1 and length != 1:
        raise ValueError(
            "the video has one frame only. For a still picture use the task image to video or cinemagraph; to make "
            "a still picture, set length to 1."
        )


def at_rate(video: Tensor, region: Tensor | None, source_fps: float, fps: float) -> tuple[Tensor, Tensor | None]:
    """Take the frames that are shown at the model's frame rate; all of them if `source_fps` is 0.

    [t, h, w, c] and [t or 1, h, w].
    """
    if source_fps == 0:
        return video, region
    numbers = framing.frames_at(len(video), source_fps, fps).to(video.device)
    device.check_room(len(numbers), *video.shape[1:3], NUMBERS)
    if region is not None and len(region) > 1:
        region = region[numbers]
    return video[numbers], region


def check_share(known: Tensor) -> None:
    """Raise ValueError if all is known, or nothing; any shape, such as (1, 1, t, h, w)."""
    hard = is_known(known)
    if bool(hard.all()):
        raise ValueError(
            f"there is nothing to generate: the mask is 0 everywhere (nowhere more than {SHARE}). Paint the region white (1) that is to be made "
            "anew; the picture may lack transparency, or grow may have shrunk the region away."
        )
    if not bool(hard.any()):
        raise ValueError(
            f"nothing of the picture is known: the mask is 1 everywhere (more than {SHARE}). Leave something unpainted, or invert the "
            "mask (a picture that is transparent all over gives such a mask); for a clip from text alone use "
            "Empty Lumiere Latent Video."
        )
