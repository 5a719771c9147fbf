"""The first graph of README, made node by node with what the nodes show when they are new."""

from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.host

README = Path(__file__).resolve().parents[2] / "README.md"
JOINED = (  # what a person drags: (node, output) to (node, input)
    ("Load Lumiere", "CLIP", "Lumiere Text Encode", "clip"),
    ("Load Lumiere", "MODEL", "Lumiere Sampler", "model"),
    ("Lumiere Text Encode", "positive", "Lumiere Sampler", "positive"),
    ("Lumiere Text Encode", "negative", "Lumiere Sampler", "negative"),
    ("Empty Lumiere Latent Video", "LATENT", "Lumiere Sampler", "latent_image"),
    ("Lumiere Sampler", "LATENT", "VAE Decode", "samples"),
    ("Load Lumiere", "VAE", "VAE Decode", "vae"),
    ("VAE Decode", "IMAGE", "Upscale Image", "image"),
    ("Upscale Image", "IMAGE", "Create Video", "images"),
    ("Empty Lumiere Latent Video", "fps", "Create Video", "fps"),
    ("Create Video", "VIDEO", "Label Video as Generated (Lumiere)", "video"),
    ("Load Lumiere", "MODEL", "Label Video as Generated (Lumiere)", "model"),
    ("Label Video as Generated (Lumiere)", "VIDEO", "Save Video", "video"),
)

MAKE = """async ([titles, joined, prompt]) => {
    const types = Object.entries(LiteGraph.registered_node_types);
    const nodes = {};
    for (const [number, title] of titles.entries()) {
        const [type] = types.find(([, found]) => found.title === title) ?? [];
        if (!type) throw new Error(`the node search has no ${title}`);
        nodes[title] = add(type, 420 * (number % 5), 520 * Math.floor(number / 5));
    }
    put(nodes['Lumiere Text Encode'], {prompt});
    put(nodes['Upscale Image'], {upscale_method: 'nearest-exact', width: 256, height: 256});
    for (const [from, output, to, input] of joined) {
        const slot = nodes[from].outputs.findIndex(found => [found.name, found.label, found.localized_name].includes(output));
        if (slot < 0) throw new Error(`${from} has no output ${output}`);
        if (!join(nodes[from], slot, nodes[to], input)) throw new Error(`${output} of ${from} does not fit ${input} of ${to}`);
    }
    await run_all();
}"""


def titles() -> list[str]:
    """Return the names of nodes in README's table."""
    chapter = README.read_text("utf-8").split("## The first graph")[1].split("##")[0]
    rows = [line.split("|")[1] for line in chapter.splitlines() if line.startswith("| ")][2:]
    return [name.strip() for row in rows for name in row.split(",")]


def test_the_first_graph_of_the_readme_makes_a_clip_at_once(page, server):
    names = titles()
    assert len(names) <= 9 and {name for link in JOINED for name in link[::2]} == set(names)
    before = set((server.base / "output").rglob("*.mp4"))
    # A prompt for each renderer: the host would not save again what it has made.
    prompt = "a red ball bouncing on grass" if page.vue else "a red ball moving right on grass"
    page.evaluate(MAKE, [names, JOINED, prompt])
    (made,) = set((server.base / "output").rglob("*.mp4")) - before
    video = cv2.VideoCapture(str(made))
    facts = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    assert [video.get(fact) for fact in facts] == [80, 16, 256, 256]
