"""Every template opens from the template browser and equals its API twin; every twin runs over HTTP."""

import json
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
TWINS = sorted((ROOT / "workflows" / "api").glob("*.json"))
SHOWN_ONLY = ("Note", "MarkdownNote")
SIZED = ("EmptyLumiereLatentVideo", "LumiereWorldClip", "LumiereConditionBuilder")
STOCK_SIZED = ("WanVaceToVideo", "EmptyHunyuanLatentVideo", "EmptyImage")
STAND_INS = {"CheckpointLoaderSimple": "TinyCheckpoint", "CLIPLoader": "TinyTextEncoder"}  # of tiny_models
FILES = {
    "CheckpointLoaderSimple": "ckpt_name",
    "UNETLoader": "unet_name",
    "CLIPLoader": "clip_name",
    "VAELoader": "vae_name",
}
FILES |= {"ControlNetLoader": "control_net_name", "LumiereApplyTemporal": "temporal"}
CHANGING = ("LoraLoaderModelOnly", "LumiereStyleInterpolate")  # of image weights, by patches
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


def name(path):
    return path.stem


def convert(template, object_info):
    """Return the API format of a UI-format workflow.

    As much as our templates need: links, widgets, widgets that bring others along (DynamicCombo).

    Args:
        object_info: the answer of the server's /object_info.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in template["links"]}
    graph = {}
    for node in template["nodes"]:
        if node["type"] in SHOWN_ONLY:
            continue
        inputs = {i["name"]: links[i["link"]] for i in node["inputs"] if i.get("link") is not None}
        values = list(node.get("widgets_values", ()))
        described = object_info[node["type"]]["input"]
        for section in ("required", "optional"):
            for key, spec in described.get(section, {}).items():
                take(key, spec, values, inputs)
        assert not values, f"node {node['id']} ({node['type']}) has values left over: {values}"
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def take(key, spec, values, inputs):
    """Move the values of one input, and of what its choice brings along, from `values` to `inputs`."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if not (isinstance(kind, list) or kind in WIDGETS) or options.get("forceInput"):
        return
    value = values.pop(0)
    inputs.setdefault(key, value)  # a link into a widget wins
    if options.get("control_after_generate"):
        values.pop(0)  # "fixed", "randomize", …: the browser's business
    if kind != "COMFY_DYNAMICCOMBO_V3":
        return
    (chosen,) = (option for option in options["options"] if option["key"] == value)
    for section in ("required", "optional"):
        for inner, inner_spec in chosen["inputs"].get(section, {}).items():
            take(f"{key}.{inner}", inner_spec, values, inputs)


def test_every_template_has_a_twin_and_a_picture():
    assert TEMPLATES and [p.stem for p in TEMPLATES] == [p.stem for p in TWINS]
    for number, template in enumerate(TEMPLATES, 1):
        assert template.stem.startswith(f"Lumiere {number:02d} - "), "the browser shows them by name: keep the order"
        picture = template.with_suffix(".jpg").read_bytes()
        moves = picture[:4] == b"RIFF" and picture[8:12] == b"WEBP"  # browsers go by the bytes, not by the name
        assert moves or picture.startswith(b"\xff\xd8")
        assert len(picture) < 400_000


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_template_says_in_a_few_words_what_it_is(path):
    nodes = json.loads(path.read_text())["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] in SHOWN_ONLY)
    assert len([line for line in note.splitlines() if line.strip()]) <= 8 and "`" not in note


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_template_lies_from_left_to_right_in_steps(path):
    """No two boxes as saved intersect; links go to the right; every node is in a step (tests/browser measures runs)."""
    template = json.loads(path.read_text())
    boxes = {n["id"]: (*n["pos"], *n["size"]) for n in template["nodes"]}
    for a, (x, y, w, h) in boxes.items():
        for b, (x2, y2, w2, h2) in boxes.items():
            assert a >= b or x + w <= x2 or x2 + w2 <= x or y + h + 30 <= y2 or y2 + h2 + 30 <= y, (a, b)
    for _, source, _, target, *_ in template["links"]:
        assert boxes[source][0] < boxes[target][0], (source, target)
    steps = [group["bounding"] for group in template["groups"]]
    assert [g["title"].split(" – ")[0] for g in template["groups"]] == [f"Step {i + 1}" for i in range(len(steps))]
    for node in template["nodes"]:
        x, y, w, h = boxes[node["id"]]
        inside = [s[0] <= x and s[1] <= y and x + w <= s[0] + s[2] and y + h <= s[1] + s[3] for s in steps]
        assert sum(inside) == (node["type"] not in SHOWN_ONLY), node["type"]


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_template_browser_lists_and_serves_it(server, path):
    import urllib.parse
    import urllib.request

    assert path.stem in server.call("/workflow_templates")["lumiere"]
    address = f"/api/workflow_templates/lumiere/{urllib.parse.quote(path.stem)}"
    assert server.call(f"{address}.json") == json.loads(path.read_text())
    with urllib.request.urlopen(f"{server.url}{address}.jpg", timeout=60) as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_template_equals_its_twin(server, path):
    twin = json.loads((ROOT / "workflows" / "api" / path.name).read_text())
    assert convert(json.loads(path.read_text()), server.call("/object_info")) == twin


def small(graph, prefix):
    """A copy of a twin that ends in seconds: very small weights, few frames and steps."""
    graph = json.loads(json.dumps(graph))
    for node in graph.values():
        inputs = node["inputs"]
        checkpoint = f"tiny{'-ssr' * str(inputs.get('checkpoint')).endswith('-ssr')}.safetensors"
        for key, value in (
            ("checkpoint", checkpoint),
            ("file", "tiny.mp4"),
            ("steps", 2),
            ("filename_prefix", prefix),
            ("lora_name", "tiny_style.safetensors"),
            ("temporal", "tiny_motion.safetensors"),
        ):
            if key in inputs:
                inputs[key] = value
        node["class_type"] = STAND_INS.get(node["class_type"], node["class_type"])
        if "length" in inputs:
            inputs["length"] = min(length_of(graph), inputs["length"])
        if node["class_type"] == "LumiereExtend":
            inputs |= {"pieces": 1, "overlap": 2}
        if node["class_type"] == "LumiereTemporalMultidiffusion":
            inputs |= {"context_length": 2, "context_overlap": 1}
        if node["class_type"] in (*SIZED, *STOCK_SIZED):
            inputs |= {"width": 16, "height": 16}
            inputs |= {
                key: min(2, inputs[key]) for key in inputs if key in ("task.left", "task.right", "grow", "feather")
            }
    return graph


def has(graph, *kinds):
    return any(node["class_type"] in kinds for node in graph.values())


def length_of(graph):
    """Return the frames of a small twin's sampler: a loop closes in whole strides, Wan's clips are 4 n + 1 frames long."""
    if has(graph, "UNETLoader"):
        return 9
    return 8 if has(graph, "LumiereLoop") else 6


def frames_of(graph, length):
    """Return the frames of the clip that a graph makes, whose sampler makes `length`."""
    pieces = [node["inputs"] for node in graph.values() if node["class_type"] == "LumiereExtend"]
    return length + sum(piece["pieces"] * (length - piece["overlap"]) for piece in pieces)


@pytest.fixture(scope="session")
def tiny_server(server, write_tiny, write_tiny_style, tiny_ssr, write_tiny_motion):
    models = server.base / "models" / "lumiere"
    write_tiny(models / "tiny.safetensors", conv_cond=True)
    write_tiny(models / "tiny-ssr.safetensors", **tiny_ssr())
    write_tiny_style(server.base / "models" / "loras" / "tiny_style.safetensors")
    write_clip(server.base / "input" / "tiny.mp4", frames=6, size=16)
    write_tiny_motion(server.base / "models")
    return server


def write_clip(path, frames, size):
    """Write a clip for the templates that begin with a video file."""
    from lumiere_core import world
    from lumiere_core.clips import media, video

    clip = world.render_clip(world.sample_scene(3), frames, 16.0, size, size)
    media.write_mp4(path, video.to_uint8(clip))


def made_by(graph):
    """Return what the label of a twin's clip must name: each loader's file by its hash, and a LoRA or merge."""
    files = {"LumiereLoader": "checkpoint", "UNETLoader": "unet_name"}
    named = {
        f"{node['inputs'][files[node['class_type']]]} sha256 " for node in graph.values() if node["class_type"] in files
    }
    if has(graph, *CHANGING):
        named.add("image weights changed by patches")
    return named


def size_of(graph):
    """Return the width and height in pixels of a small twin's clip."""
    if has(graph, "LumiereCompareClips"):
        return 3 * 256 + 2 * 4, 256 + 20  # two clips and their difference, with labels above
    if has(graph, "TinyCheckpoint", "UNETLoader"):
        return 16, 16
    return (64, 64) if has(graph, "LumiereSuperResolution") else (256, 256)


def read_clip(data):
    """Return (codec, frame rate, number of frames, width, height, metadata) of an mp4's bytes."""
    import av

    with av.open(BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        size = stream.codec_context.width, stream.codec_context.height
        return (stream.codec_context.name, stream.average_rate, frames, *size, dict(container.metadata))


@pytest.mark.parametrize("path", TWINS, ids=name)
def test_twin_runs_and_its_clip_is_labelled(tiny_server, path):
    graph = small(json.loads(path.read_text()), f"test/{path.stem}")
    outputs, events = tiny_server.run_with_events(graph)
    assert "IMPORT FAILED" not in tiny_server.log
    (save,) = (key for key, node in graph.items() if node["class_type"] == "SaveVideo")
    (file,) = outputs[save]["images"]
    assert file["subfolder"] == "test" and file["filename"].endswith(".mp4")
    codec, rate, frames, width, height, metadata = read_clip(tiny_server.view(file))
    made = graph[save]
    while made["class_type"] != "CreateVideo":
        made = graph[made["inputs"]["video"][0]]
    asked = made["inputs"]["fps"]
    while isinstance(asked, list):
        asked = graph[asked[0]]["inputs"]["fps"]
    wanted = ("h264", Fraction(asked), frames_of(graph, length_of(graph)), size_of(graph))
    assert (codec, rate, frames, (width, height)) == wanted
    label = json.loads(metadata["comment"])
    assert label.startswith("generated by Lumiere node pack (")
    assert [text for text in made_by(graph) if text not in label] == []
    assert "not recorded" not in label
    recorded = json.loads(metadata["prompt"])
    assert {key: node["inputs"] for key, node in recorded.items()} == {
        key: node["inputs"] for key, node in graph.items()
    }
    steps = [e["data"] for e in events if e["type"] == "progress"]
    assert any(step["value"] == step["max"] == 2 for step in steps)
    if not has(graph, "UNETLoader"):  # the host shows no latents of its own MODELs here, as it was started
        assert any(e["type"] == "preview" for e in events)


def test_windows_of_wan_are_cut(tiny_server):
    """Three latents in windows of two, each with the latent before it: the log says so, and the frames are other ones."""
    (path,) = (path for path in TWINS if "Wan Windows" in path.stem)
    graph = small(json.loads(path.read_text()), "test/windows")
    assert tiny_server.run(graph)
    assert "3 frames in 2 windows of 2" in tiny_server.log


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_files_that_the_pack_lacks_are_offered_for_download(path):
    """The host offers what `properties.models` of a loader names: its file, where it is, and the folder that it goes to."""
    for node in json.loads(path.read_text())["nodes"]:
        file = node["widgets_values"][0] if node["type"] in FILES else None
        if file is None:
            continue
        (model,) = node["properties"]["models"]
        assert model["name"] == file and model["url"].startswith("https://") and model["url"].endswith(f"/{file}")
        folders = ("checkpoints", "diffusion_models", "text_encoders", "vae", "controlnet", "animatediff_models")
        assert model["directory"] in folders


def test_zero_frames_are_refused_with_the_input_s_name(tiny_server):
    graph = small(json.loads((ROOT / "workflows/api/Lumiere 01 - Text to Video.json").read_text()), "test/zero")
    graph["3"]["inputs"]["length"] = 0
    with pytest.raises(Exception, match="400") as caught:
        tiny_server.run(graph)
    assert "length" in str(caught.value.details["node_errors"]["3"])


def test_second_run_after_an_error(tiny_server, write_tiny):
    """A broken checkpoint names itself, writes nothing, and the next run works."""
    path = tiny_server.base / "models" / "lumiere" / "broken.safetensors"
    path.write_bytes(write_tiny(path).read_bytes()[:5000])
    graph = small(json.loads((ROOT / "workflows/api/Lumiere 01 - Text to Video.json").read_text()), "broken/clip")
    graph["1"]["inputs"]["checkpoint"] = "broken.safetensors"
    with pytest.raises(Exception, match="broken.safetensors.*not a complete safetensors file"):
        tiny_server.run(graph)
    assert not list((tiny_server.base / "output").glob("broken/*"))
    graph["1"]["inputs"]["checkpoint"] = "tiny.safetensors"
    assert tiny_server.run(graph)


def test_interrupt_in_the_middle(tiny_server):
    """The run ends without a file, and the next one works."""
    import time

    graph = small(json.loads((ROOT / "workflows/api/Lumiere 01 - Text to Video.json").read_text()), "stopped/clip")
    graph["4"]["inputs"] |= {"steps": 5000, "seed": 11}
    prompt_id = tiny_server.queue(graph)
    end = time.monotonic() + 60
    while not (entry := tiny_server.call(f"/history/{prompt_id}").get(prompt_id)):
        assert time.monotonic() < end, "the run was not interrupted"
        time.sleep(1)
        tiny_server.call("/interrupt", {})
    assert "execution_interrupted" in str(entry["status"]["messages"])
    assert not list((tiny_server.base / "output").glob("stopped/*"))
    graph["4"]["inputs"]["steps"] = 2
    assert tiny_server.run(graph)


@pytest.mark.slow
@pytest.mark.parametrize("path", TWINS, ids=name)
def test_twin_runs_as_shipped(server, path):
    graph = json.loads(path.read_text())
    if has(graph, *STAND_INS):
        pytest.skip("needs checkpoints that are not part of the pack")
    for node in graph.values():
        if node["class_type"] == "LoadVideo":
            write_clip(server.base / "input" / node["inputs"]["file"], frames=80, size=64)
    (save,) = (key for key, node in graph.items() if node["class_type"] == "SaveVideo")
    (file,) = server.run(graph, timeout=3000)[save]["images"]
    codec, rate, frames, width, height, _ = read_clip(server.view(file))
    # What is asked of the sampler, where the graph does not end in clips of 5 seconds.
    asked = [n["inputs"]["length"] for n in graph.values() if n["class_type"] == "EmptyLumiereLatentVideo"]
    wanted = frames_of(graph, asked[0] if asked else 80)
    assert (codec, rate, frames) == ("h264", Fraction(16), wanted) and height in (256, 276)
