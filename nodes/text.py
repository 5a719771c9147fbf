"""Both prompts of a clip in one node."""

from __future__ import annotations

from comfy_api.v0_0_2 import io


class LumiereTextEncode(io.ComfyNode):
    """Both prompts in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LumiereTextEncode",
            display_name="Lumiere Text Encode",
            category="lumiere/conditioning",
            description="Encodes the prompt and the negative prompt of a clip, as two CLIP Text Encode nodes would.",
            search_aliases=["prompt", "negative prompt", "text to video"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP output of the loader that the MODEL came from."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the clip shows. (word:1.3) weighs a word. lumiere-mini reads the first 256 bytes.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What the clip should not show. Empty is what the models were trained with.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="positive"), io.Conditioning.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, clip, prompt: str, negative_prompt: str) -> io.NodeOutput:
        if clip is None:
            raise ValueError(
                "the clip input is empty: the checkpoint holds no text encoder. Load one with another node."
            )
        prompts = (prompt, negative_prompt)
        return io.NodeOutput(*(clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in prompts))
