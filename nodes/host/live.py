"""What a run tells the user's page while it runs: the clip as it becomes, its windows, warnings.

A page says once which kind of preview it wants (`register_routes`); a client that never did, such as a script, gets
the contact sheet of `preview.py`. Messages carry the node's id, a path such as "12:5" inside of subgraphs.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import latent_preview
import torch
import torch.nn.functional as F
from comfy.cli_args import LatentPreviewMethod, args
from comfy_execution.utils import get_executing_context
from torch import Tensor

from .preview import colours

MODES = ("clip", "sheet", "off")
ROUTE = "/lumiere/live"
EVERY = 0.5  # seconds between two sheets at least
SHARE = 0.02  # of the run's time that the sheets may take: with what sending them costs, less than 3 %
SIDE = 1024  # pixels of a sheet's longer side at most
QUALITY = 80  # of the JPEG while a clip is sampled
EXACT = 2**20  # bytes that a sheet without losses may have

_modes: dict[str, str] = {}  # client id to what its page asked for


def register_routes() -> None:
    """Let pages choose: POST {"client": id, "mode": one of MODES}."""
    from aiohttp import web

    server = _server()
    if server is None:  # the pack was loaded without one, by a tool
        return

    @server.routes.post(ROUTE)
    async def choose(request: web.Request) -> web.Response:
        data = await request.json()
        client, mode = data.get("client"), data.get("mode")
        if not isinstance(client, str) or mode not in MODES:
            error = f"mode is {mode!r}; wanted is one of {', '.join(MODES)}, and the client's id."
            return web.json_response({"error": error}, status=400)
        for gone in [known for known in _modes if known not in server.sockets]:
            del _modes[gone]
        _modes[client] = mode
        return web.json_response({"mode": mode})


def _server() -> Any:
    """Return the host's server, or None where the pack runs without one."""
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def send(event: str, data: dict[str, Any]) -> None:
    """Send a message about the node that is executing to the page that queued it."""
    server, context = _server(), get_executing_context()
    if server is None or server.client_id is None or context is None:
        return
    message = {"node": context.node_id, "prompt": context.prompt_id, **data}
    server.send_sync(f"lumiere.{event}", message, server.client_id)


def warn(text: str) -> None:
    """Log a warning and show it in the page."""
    logging.warning(f"Lumiere: {text}")
    send("warning", {"text": text})


def chosen_mode() -> str:
    """Return what the page that queued the running prompt wants to see."""
    server = _server()
    return _modes.get(server and server.client_id, "sheet")


def watched() -> bool:
    """Tell whether the running prompt came from a page that shows what nodes are given."""
    server = _server()
    return server is not None and server.client_id in _modes


def drawn_by_another(model: Any, latent_format: object) -> bool:
    """Tell whether another pack animates the previews of this run, as VideoHelperSuite does on request."""
    patched = latent_preview.get_previewer.__module__ != latent_preview.__name__
    if not patched or args.preview_method == LatentPreviewMethod.NoPreviews:
        return False
    previewer = latent_preview.get_previewer(model.load_device, latent_format)
    return previewer is not None and type(previewer).__module__ != latent_preview.__name__


class LiveClip:
    """Shows the clip of one sampling run, seldom enough to cost no more than SHARE of its time.

    Args:
        latent_format: of the model.
        frames: of the clip; of a batch of several, the first is shown.
        total: steps of the run.
        fps: at which it plays.
    """

    def __init__(self, latent_format: object, frames: int, total: int, fps: float) -> None:
        self.latent_format, self.frames, self.total, self.fps = latent_format, frames, total, fps
        self.began = self.last = time.monotonic()
        self.last -= EVERY
        self.spent = self.cost = 0.0
        self.small: Tensor | None = None  # (t, 3, h, w) in [0, 1]
        self.step = 0

    def show(self, step: int, x0: Tensor) -> None:
        """Show a clean estimate (t, c, h, w) of the clip after a step."""
        self.step = step
        if self._due():
            with self._timed():
                self.small = self._shrunk(x0[: self.frames])
                self._send()

    def show_window(self, windows: Sequence[Sequence[int]], number: int, x0: Tensor) -> None:
        """Show one window's clean estimate in its place.

        Args:
            windows: the frame numbers of each.
            number: of the window that was denoised.
            x0: (frames of the window, c, h, w).
        """
        inside = [i for i, frame in enumerate(windows[number]) if frame < self.frames]
        if not inside or x0.ndim != 4 or not self._due():
            return
        with self._timed():
            part = self._shrunk(x0[inside])
            if self.small is None:
                self.small = torch.full((self.frames, *part.shape[1:]), 0.5)
            self.small[[windows[number][i] for i in inside]] = part
            spans = [[w[0], w[-1]] for w in windows if w[-1] < self.frames or w[0] < self.frames]
            self._send(windows=spans, window=number)

    def _due(self) -> bool:
        now = time.monotonic()
        first = self.spent == 0
        return first or (now - self.last >= EVERY and self.spent + self.cost <= SHARE * (now - self.began))

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Count what a sheet costs."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.last = time.monotonic()
            self.cost = self.last - start
            self.spent += self.cost

    def _shrunk(self, x0: Tensor) -> Tensor:
        """Return (t, 3, h', w') in [0, 1] on the CPU, small enough for the sheet."""
        return colours(shrunk(x0, self.frames), self.latent_format).clamp(0, 1).cpu()

    def _send(self, **more: Any) -> None:
        send("clip", {"step": self.step, "total": self.total, "fps": self.fps, **sheet(self.small), **more})


def sheet_of(images: Tensor) -> dict[str, Any]:
    """Return the sheet of host images (t, h, w, c) in [0, 1], made small enough for a page."""
    frames = images[..., :3].movedim(-1, 1).float()
    return sheet(shrunk(frames, len(frames)).cpu().clamp(0, 1), exact=True)


def shrunk(frames: Tensor, count: int) -> Tensor:
    """Return frames (n, c, h, w) so small that a sheet of `count` of them is no longer than SIDE."""
    height, width = frames.shape[-2:]
    scale = min(1.0, SIDE / (columns_of(count) * max(height, width)))
    if scale == 1:
        return frames
    return F.interpolate(frames.float(), size=[max(1, int(side * scale)) for side in (height, width)], mode="area")


def columns_of(frames: int) -> int:
    """Return the columns of the squarest grid that holds so many frames."""
    return max(1, math.ceil(math.sqrt(frames)))


def sheet(frames: Tensor, exact: bool = False) -> dict[str, Any]:
    """Return all frames (t, 3, h, w) in [0, 1] as one picture in base64, with what a page needs to cut it again.

    Args:
        exact: every level as it is, if the file stays small: the errors of a JPEG would show in a difference. Takes longer.
    """
    from PIL import Image

    count, _, height, width = frames.shape
    columns = columns_of(count)
    rows = -(-count // columns)
    levels = (frames * 255).round().nan_to_num().to(torch.uint8)
    grid = levels.new_zeros(rows * columns, 3, height, width)
    grid[:count] = levels
    picture = grid.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    image = Image.fromarray(picture.numpy())
    data, kind = b"", "webp"
    if exact:
        data = _saved(image, kind, lossless=True, method=0)
    if not exact or len(data) > EXACT:
        kind = "jpeg"
        data = _saved(image, kind, quality=QUALITY)
    return {
        "frames": count,
        "columns": columns,
        "width": width,
        "height": height,
        "type": f"image/{kind}",
        "sheet": base64.b64encode(data).decode("ascii"),
    }


def _saved(image: Any, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
