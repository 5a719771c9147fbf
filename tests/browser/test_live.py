"""The clip plays in its node while it is sampled: in both renderers, inside of subgraphs, by every sampler."""

import pytest

pytestmark = pytest.mark.host

GRAPH = """([sampler, length]) => {
    const load = add('LumiereLoader', 0, 0, {checkpoint: 'tiny.safetensors'});
    const text = add('LumiereTextEncode', 350, 0, {prompt: 'a red ball'});
    const empty = add('EmptyLumiereLatentVideo', 350, 400, {width: 16, height: 16, length});
    const sample = add(sampler, 750, 0, {steps: 3, seed: Math.floor(Math.random() * 1e9)});
    const decode = add('VAEDecode', 1150, 0), show = add('PreviewImage', 1150, 150);
    join(load, 1, text, 'clip');
    join(load, 0, sample, 'model');
    join(text, 0, sample, 'positive');
    join(text, 1, sample, 'negative');
    join(empty, 0, sample, 'latent_image');
    join(sample, 0, decode, 'samples');
    join(load, 2, decode, 'vae');
    join(decode, 0, show, 'images');
}"""

PLAYER = """async () => {
    const find = graph => graph.nodes.map(node => node.subgraph ? find(node.subgraph) :
        node.widgets?.find(found => found.name === 'lumiere_live')).find(Boolean);
    const player = (await until(() => find(app.graph)?.ours.sheet && find(app.graph), 'the player')).ours;
    const seen = new Set();
    for (let turn = 0; turn < 30; turn++) { seen.add(player.frame); await pause(40); }
    const canvas = player.canvas, pixels = () => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const drawn = pixels().some(value => value > 0 && value < 255);
    const sizes = {};
    for (const view of ['clip', 'slice', 'strip']) {
        player.view = view;
        player.go(0);
        sizes[view] = [canvas.width, canvas.height];
    }
    player.view = 'clip';
    return {moved: seen.size, drawn, sizes, shown: canvas.getBoundingClientRect().height > 50, frames: player.sheet.frames};
}"""


@pytest.mark.parametrize("sampler", ["LumiereSampler", "KSampler"])
def test_every_sampler_plays_the_clip(page, sampler):
    page.evaluate(GRAPH, [sampler, 8])
    page.evaluate("run_all()")
    player = page.evaluate(PLAYER)
    assert player["frames"] == 8 and player["moved"] > 3 and player["drawn"] and player["shown"]
    assert player["sizes"] == {"clip": [16, 16], "slice": [16, 8], "strip": [64, 32]}
    assert page.evaluate("warnings") == []


def test_inside_of_a_subgraph(page):
    page.evaluate(GRAPH, ["LumiereSampler", 8])
    page.evaluate(
        """async () => {
            const sample = of('LumiereSampler');
            app.canvas.selectItems([sample, of('LumiereTextEncode')]);
            await app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph');
            await until(() => app.graph.nodes.some(node => node.subgraph), 'the subgraph');
        }"""
    )
    page.evaluate("run_all()")
    assert ":" in page.evaluate("String(clips[0].node)")
    page.evaluate("app.canvas.openSubgraph?.(app.graph.nodes.find(node => node.subgraph).subgraph)")
    page.wait_for_timeout(500)
    state = page.evaluate(
        """async () => {
            const inner = app.rootGraph.nodes.find(node => node.subgraph).subgraph.nodes
                .find(node => node.comfyClass === 'LumiereSampler');
            const found = await until(() => widget(inner, 'lumiere_live'), 'the player');
            await until(() => found.ours.sheet, 'the sheet');
            return found.ours.sheet.frames;
        }"""
    )
    assert state == 8


def test_off_and_sheet_are_honoured(page):
    page.evaluate(GRAPH, ["LumiereSampler", 8])
    for mode, pictures in (("off", False), ("sheet", True)):
        shown = page.evaluate(
            """async mode => {
                await app.extensionManager.setting.set('Lumiere.Preview.WhileSampling', mode);
                await pause(500);
                let previews = 0;
                app.api.addEventListener('b_preview_with_metadata', () => previews++);
                put(of('LumiereSampler'), {seed: Math.floor(Math.random() * 1e9)});
                await run_all();
                return [clips.length, previews > 0];
            }""",
            mode,
        )
        assert shown == [0, pictures]
    page.evaluate("app.extensionManager.setting.set('Lumiere.Preview.WhileSampling', 'clip')")


def test_a_length_outside_of_training_is_said_in_the_page(page):
    page.evaluate(GRAPH, ["LumiereSampler", 5])
    page.evaluate("run_all()")
    assert "trained on 16" in page.evaluate("warnings.join()")
    page.get_by_text("trained on 16").first.wait_for(timeout=10_000)


def test_windows_are_shown_over_the_frames(page):
    page.evaluate(GRAPH, ["LumiereSampler", 12])
    page.evaluate(
        """() => {
            const cut = add('LumiereTemporalMultidiffusion', 750, 600, {context_length: 5, context_overlap: 1});
            join(of('LumiereLoader'), 0, cut, 'model');
            join(cut, 0, of('LumiereSampler'), 'model');
        }"""
    )
    page.evaluate("run_all()")
    windows = page.evaluate("clips.filter(clip => clip.windows).map(clip => clip.windows)[0]")
    assert windows == [[0, 4], [4, 8], [7, 11]]
    assert page.evaluate("widget(of('LumiereSampler'), 'lumiere_live').ours.bar.width") == 400


def test_a_node_that_is_removed_stops_its_player(page):
    page.evaluate(GRAPH, ["LumiereSampler", 8])
    page.evaluate("run_all()")
    page.evaluate(PLAYER)
    frames = page.evaluate(
        """async () => {
            const sample = of('LumiereSampler'), player = widget(sample, 'lumiere_live').ours;
            app.graph.remove(sample);
            await pause(300);
            const frame = player.frame;
            await pause(500);
            return [frame, player.frame];
        }"""
    )
    assert frames[0] == frames[1]
