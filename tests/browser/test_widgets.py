"""The region painter, the key-frame strip, the sweep's grid, the comparison and the training panel."""

import json

import pytest

pytestmark = pytest.mark.host


def drag(page, box, start, end):
    """Drag inside of a box, places as shares of it."""
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()
    page.wait_for_timeout(100)


def region(page):
    return json.loads(page.evaluate("widget(of('LumiereRegion'), 'region').value"))["shapes"]


def picture_of(page, selector):
    """The square part in the middle of a canvas that shows a square picture."""
    box = page.locator(selector).first.bounding_box()
    side = min(box["width"], box["height"])
    return {
        **{"x": box["x"] + (box["width"] - side) / 2, "y": box["y"] + (box["height"] - side) / 2},
        **{"width": side, "height": side},
    }


@pytest.fixture
def painter(page):
    page.evaluate(
        """async () => {
            const clip = add('LumiereWorldClip', 0, 0, {length: 12, width: 32, height: 32});
            const region = add('LumiereRegion', 400, 0), show = add('MaskPreview', 800, 0);
            join(clip, 0, region, 'images');
            join(region, 0, show, 'mask');
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [100, 100];
            app.canvas.setDirty(true, true);
            await pause(800);
        }"""
    )
    return picture_of(page, "canvas.lumiere-region")


def test_a_box_is_drawn_moved_at_another_frame_and_taken_back(page, painter):
    drag(page, painter, (0.2, 0.2), (0.5, 0.6))
    (shape,) = region(page)
    assert shape["kind"] == "box" and len(shape["keys"]) == 1
    key = shape["keys"][0]
    assert [key[n] for n in "xywh"] == pytest.approx([0.35, 0.4, 0.3, 0.4], abs=0.03)
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    drag(page, painter, (0.35, 0.4), (0.6, 0.6))
    assert [k["frame"] for k in region(page)[0]["keys"]] == [0, 10]
    moved = region(page)
    page.keyboard.press("Control+z")
    page.wait_for_timeout(300)
    assert region(page) == [shape]
    page.keyboard.press("Control+y")
    page.wait_for_timeout(300)
    assert region(page) == moved
    # Half way, the painter shows what Python covers: the mean of both places.
    shown = page.evaluate(
        "() => { const p = widget(of('LumiereRegion'), 'lumiere_region').ours; p.go(5); return p.box(p.shapes[0]); }"
    )
    first, last = moved[0]["keys"]
    assert shown["x"] == pytest.approx((first["x"] + last["x"]) / 2, abs=1e-4)
    page.evaluate("run_all()")
    frames = page.evaluate(
        "until(() => widget(of('LumiereRegion'), 'lumiere_region').ours.sheet?.frames, 'the frames of the clip')"
    )
    assert frames == 12
    page.keyboard.press("Delete")
    assert region(page) == []


def test_ellipse_and_lasso(page, painter):
    page.locator("button[title=ellipse]").first.click()
    drag(page, painter, (0.1, 0.1), (0.3, 0.3))
    page.locator("button[title=lasso]").first.click()
    x, y, side = painter["x"], painter["y"], painter["width"]
    page.mouse.move(x + 0.6 * side, y + 0.6 * side)
    page.mouse.down()
    for place in ((0.9, 0.6), (0.9, 0.9), (0.6, 0.9)):
        page.mouse.move(x + place[0] * side, y + place[1] * side, steps=3)
    page.mouse.up()
    ellipse, lasso = region(page)
    assert (ellipse["kind"], lasso["kind"]) == ("ellipse", "lasso")
    assert len(lasso["points"]) > 5 and all(0 <= value <= 1 for point in lasso["points"] for value in point)


def test_what_was_drawn_is_saved_with_the_workflow(page, painter):
    drag(page, painter, (0.2, 0.2), (0.5, 0.6))
    before = region(page)
    page.evaluate("async () => { await app.loadGraphData(app.graph.serialize()); await pause(800); }")
    assert region(page) == before
    assert page.evaluate("widget(of('LumiereRegion'), 'lumiere_region').ours.shapes.length") == 1


def test_a_key_frame_is_dragged_to_its_place(page):
    page.evaluate(
        """async () => {
            const clip = add('LumiereWorldClip', 0, 0, {length: 2, width: 32, height: 32});
            const builder = add('LumiereConditionBuilder', 400, 0, {length: 21, width: 32, height: 32});
            put(builder, {task: 'key frames'});
            await pause(300);
            join(clip, 0, builder, 'task.images');
            const show = add('PreviewImage', 800, 0);
            join(builder, 0, show, 'images');
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [100, 100];
            app.canvas.setDirty(true, true);
            await pause(800);
            await run_all();
            await pause(800);
        }"""
    )
    strip = page.locator(".lumiere-keyframes").first.bounding_box()
    assert strip["height"] > 40
    last = page.locator(".lumiere-keyframes > div").last.bounding_box()
    page.mouse.move(last["x"] + 10, last["y"] + 10)
    page.mouse.down()
    page.mouse.move(strip["x"] + strip["width"] / 2, last["y"] + 10, steps=4)
    page.mouse.up()
    assert page.evaluate("widget(of('LumiereConditionBuilder'), 'task.frames').value") == "0, 10"
    gone = page.evaluate(
        """async () => {
            put(of('LumiereConditionBuilder'), {task: 'outpaint'});
            await pause(500);
            return of('LumiereConditionBuilder').widgets.map(found => found.name);
        }"""
    )
    assert "lumiere_keyframes" not in gone and "task.left" in gone


def test_prompts_are_shown_over_the_frames(page):
    page.evaluate(
        """async () => {
            const load = add('LumiereLoader', 0, 0, {checkpoint: 'tiny.safetensors'});
            const travel = add('LumierePromptTravel', 400, 0, {length: 12});
            const show = add('PreviewAny', 900, 0);
            join(load, 0, travel, 'model');
            join(load, 1, travel, 'clip');
            join(travel, 0, show, 'source');
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [100, 100];
            await run_all();
            await until(() => document.querySelectorAll('.lumiere-prompts canvas').length, 'the plan');
            await pause(300);
        }"""
    )
    rows = page.locator(".lumiere-prompts > div")
    assert rows.all_text_contents() == ["0: a red ball on grass", "11: a blue ball on grass"]
    assert page.locator(".lumiere-prompts").first.bounding_box()["height"] >= 40
    # How high each prompt stands at the first, the middle and the last frame.
    hills = page.evaluate(
        """() => [...document.querySelectorAll('.lumiere-prompts canvas')].map(canvas => [0, 6, 11].map(x => {
            const column = canvas.getContext('2d').getImageData(x, 0, 1, canvas.height).data;
            return column.filter((value, place) => place % 4 === 3 && value > 127).length / canvas.height;
        }))"""
    )
    assert [hill[0] for hill in hills] == [1, 0] and [hill[2] for hill in hills] == [0, 1]
    assert hills[1][1] == pytest.approx(6 / 11, abs=0.06)


def test_they_work_inside_of_a_subgraph(page):
    page.evaluate(
        """async () => {
            const clip = add('LumiereWorldClip', 0, 0, {length: 8, width: 32, height: 32});
            const load = add('LumiereLoader', 0, 700, {checkpoint: 'tiny.safetensors'});
            const region = add('LumiereRegion', 400, 0), compare = add('LumiereCompareClips', 800, 0);
            const builder = add('LumiereConditionBuilder', 1200, 0, {length: 8, width: 32, height: 32});
            const travel = add('LumierePromptTravel', 1600, 0, {length: 8});
            put(builder, {task: 'key frames'});
            await pause(300);
            const shows = [['MaskPreview', region, 'mask'], ['PreviewImage', compare, 'images'],
                ['PreviewImage', builder, 'images'], ['PreviewAny', travel, 'source']];
            shows.forEach(([type, from, name], place) => join(from, 0, add(type, 2100, 350 * place), name));
            join(clip, 0, region, 'images');
            join(clip, 0, compare, 'images_a');
            join(clip, 0, compare, 'images_b');
            join(clip, 0, builder, 'task.images');
            put(builder, {'task.frames': '0, 1, 2, 3, 4, 5, 6, 7'});
            join(load, 0, travel, 'model');
            join(load, 1, travel, 'clip');
            app.canvas.selectItems([region, compare, builder, travel]);
            await app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph');
            await until(() => app.graph.nodes.some(node => node.subgraph), 'the subgraph');
            await run_all();
        }"""
    )
    shown = page.evaluate(
        """async () => {
            const {subgraph} = app.rootGraph.nodes.find(node => node.subgraph);
            app.canvas.openSubgraph?.(subgraph);
            await pause(800);
            app.extensionManager.command.execute('Comfy.Canvas.FitView');
            const inner = type => subgraph.nodes.find(node => node.comfyClass === type);
            const sheet = (type, name) => until(() => widget(inner(type), name)?.ours.sheet?.frames, name);
            const seen = [await sheet('LumiereRegion', 'lumiere_region'), await sheet('LumiereCompareClips', 'lumiere_compare'),
                await sheet('LumiereConditionBuilder', 'lumiere_keyframes')];
            const prompts = await until(() => widget(inner('LumierePromptTravel'), 'lumiere_prompts'), 'the prompts');
            await pause(800);
            const visible = ['.lumiere-region', '.lumiere-player', '.lumiere-keyframes', '.lumiere-prompts']
                .map(name => document.querySelector(name)?.getBoundingClientRect().height > 10);
            return [...seen, prompts.ours.element.children.length, ...visible];
        }"""
    )
    assert shown == [8, 8, 8, 2, True, True, True, True]


def test_a_click_on_the_grid_takes_the_alpha(page):
    page.evaluate(
        """async () => {
            const load = add('LumiereLoader', 0, 0, {checkpoint: 'tiny.safetensors'});
            const style = add('LumiereLoader', 0, 250, {checkpoint: 'tiny-style.safetensors'});
            const text = add('LumiereTextEncode', 350, 0, {prompt: 'a red ball'});
            const empty = add('EmptyLumiereLatentVideo', 350, 350, {width: 16, height: 16, length: 8});
            const sweep = add('LumiereStyleSweep', 750, 0, {steps: 1, alphas: '0, 0.3, 0.6, 1'});
            const show = add('PreviewImage', 1150, 0);
            join(load, 1, text, 'clip');
            join(load, 0, sweep, 'model');
            join(style, 0, sweep, 'style_model');
            join(load, 2, sweep, 'vae');
            join(text, 0, sweep, 'positive');
            join(text, 1, sweep, 'negative');
            join(empty, 0, sweep, 'latent_image');
            join(sweep, 0, show, 'images');
            app.canvas.ds.scale = 0.9;
            app.canvas.ds.offset = [100, 60];
            app.canvas.setDirty(true, true);
            await run_all();
            await until(() => widget(sweep, 'lumiere_live')?.ours.sheet?.alphas, 'the grid');
            await pause(500);
        }"""
    )
    box = page.evaluate(
        """() => {
            const box = widget(of('LumiereStyleSweep'), 'lumiere_live').ours.canvas.getBoundingClientRect();
            return [box.x, box.y, box.width, box.height];
        }"""
    )
    x, y, width, height = box
    side = min(width, height)
    page.mouse.click(x + width / 2 - side / 4, y + height / 2 + side / 4)  # the second row's first cell
    page.wait_for_timeout(300)
    made = page.evaluate(
        """() => {
            const node = of('LumiereStyleInterpolate');
            return [widget(node, 'alpha').value, node.inputs.filter(input => input.link != null).map(input => input.name)];
        }"""
    )
    assert made == [0.6, ["model", "style_model"]]


def test_two_clips_are_compared_in_step(page):
    page.evaluate(
        """async () => {
            const red = add('LumiereWorldClip', 0, 0, {length: 6, width: 32, height: 32, prompt: 'a red ball on grass'});
            const blue = add('LumiereWorldClip', 0, 600, {length: 8, width: 32, height: 32, prompt: 'a blue ball on grass'});
            const video = add('CreateVideo', 350, 600), compare = add('LumiereCompareClips', 700, 0);
            const show = add('PreviewImage', 1100, 0);
            join(red, 0, compare, 'images_a');
            join(blue, 0, video, 'images');
            join(video, 0, compare, 'images_b');
            join(compare, 0, show, 'images');
            app.canvas.ds.scale = 0.8;
            app.canvas.ds.offset = [100, 60];
            app.canvas.setDirty(true, true);
            await run_all();
            await until(() => widget(compare, 'lumiere_compare')?.ours.sheet, 'the comparison');
            await pause(500);
        }"""
    )
    state = page.evaluate(
        """() => {
            const compare = widget(of('LumiereCompareClips'), 'lumiere_compare').ours, canvas = compare.canvas;
            const mean = () => {
                const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
                return data.reduce((sum, value, place) => sum + (place % 4 < 3 ? value : 0), 0) / data.length;
            };
            compare.pause();
            const seen = {frames: compare.sheet.frames};
            for (const mode of ['wipe', 'side', 'difference']) { compare.choose(mode); seen[mode] = [canvas.width / canvas.height, mean()]; }
            compare.other = {...compare.sheet};
            compare.go(0);
            seen.same = mean();
            return seen;
        }"""
    )
    assert state["frames"] == 6
    assert [state[mode][0] for mode in ("wipe", "side", "difference")] == [1, 2, 1]
    assert state["difference"][1] > 1 and state["same"] == 0
    box = page.evaluate(
        """() => {
            const box = widget(of('LumiereCompareClips'), 'lumiere_compare').ours.canvas.getBoundingClientRect();
            return [box.x, box.y, box.width, box.height];
        }"""
    )
    page.mouse.move(box[0] + box[2] / 2, box[1] + box[3] / 2)
    scale = page.evaluate("app.canvas.ds.scale")
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(300)
    zoom = page.evaluate("widget(of('LumiereCompareClips'), 'lumiere_compare').ours.zoom")
    assert zoom > 1 and page.evaluate("app.canvas.ds.scale") == scale


def test_the_training_panel_shows_losses_and_the_time_left(page):
    page.evaluate(
        """async () => {
            const load = add('LumiereLoader', 0, 0, {checkpoint: 'tiny.safetensors'});
            const clip = add('LumiereWorldClip', 0, 250, {length: 4, width: 16, height: 16});
            const video = add('CreateVideo', 350, 250, {fps: 16}), text = add('PrimitiveStringMultiline', 0, 800, {value: 'a red ball'});
            const train = add('LumiereTrainTemporal', 700, 0, {length: 4, size: 16, steps: 6, sample_every: 3});
            for (const [slot, name] of [[0, 'model'], [1, 'clip'], [2, 'vae']]) join(load, slot, train, name);
            join(clip, 0, video, 'images');
            join(video, 0, train, 'videos');
            join(text, 0, train, 'texts');
            await run_all();
            await pause(500);
        }"""
    )
    text = page.locator(".lumiere-training-text").first
    text.wait_for(timeout=10_000)
    assert "6 / 6" in text.text_content()
    drawn = page.evaluate(
        """() => {
            const canvas = document.querySelector('.lumiere-training-curve');
            return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0);
        }"""
    )
    assert drawn
