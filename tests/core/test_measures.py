"""Every measure of a clip says what it should of clips whose answer is known: the direction is asserted."""

import math

import pytest
import torch

from lumiere_core.measures import EVERY, measure_clip, region
from lumiere_core.measures.embeddings import Consistency, similarity_by_distance
from lumiere_core.measures.motion import dis_flow, meets, warp
from lumiere_core.measures.reference import Similarity
from lumiere_core.measures.spectrum import HighFrequencies
from lumiere_core.measures.steadiness import changes, seam_ratios
from lumiere_core.measures.walk import levels, walk

FRAMES, SIDE = 24, 48


def texture(width, height=SIDE, seed=0):
    """A smooth random picture (height, width, 3) in [0, 1]."""
    noise = torch.rand(1, 3, height // 6 + 2, width // 6 + 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0].movedim(0, -1)


def moving(speed=1, frames=FRAMES, seed=0):
    """A window that slides over a picture by `speed` pixels a frame."""
    picture = texture(SIDE + speed * frames, seed=seed)
    return torch.stack([picture[:, i * speed : i * speed + SIDE] for i in range(frames)])


def noisy(clip, amount=0.1, seed=1):
    return (clip + amount * torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def figures(clip, **options):
    return measure_clip(clip, **options).values


@pytest.fixture(scope="module")
def plain():
    return figures(moving(), borders=[12])


@pytest.fixture(scope="module")
def spoilt():
    """The figures of the same clip, spoilt in every way."""
    clip = moving()
    order = torch.randperm(FRAMES, generator=torch.Generator().manual_seed(0))
    clips = {
        "noise": noisy(clip),
        "shuffled": clip[order],
        "frozen": clip[:1].expand(FRAMES, -1, -1, -1),
        "cut": torch.cat([clip[:12], moving(seed=5)[12:]]),
        "fast": moving(2),
        "brighter": clip * torch.linspace(0.5, 1, FRAMES)[:, None, None, None],
        "paused": clip[(torch.arange(FRAMES) // 2) * 2],
        "looped": torch.cat([clip[:12], clip[:12].flip(0)]),
    }
    return {name: figures(clip, borders=[12]) for name, clip in clips.items()}


def test_noise_flickers_in_high_frequencies_and_does_not_follow_the_flow(plain, spoilt):
    noise = spoilt["noise"]
    assert noise["flicker"] > plain["flicker"] * 1.3
    assert noise["acceleration"] > plain["acceleration"] * 3
    assert noise["high_frequencies"] > plain["high_frequencies"] * 2
    assert noise["warping_error"] > plain["warping_error"] * 2


def test_shuffled_frames_jump(plain, spoilt):
    for name in ("flicker", "acceleration", "high_frequencies"):
        assert spoilt["shuffled"][name] > plain[name] * 2, name


def test_a_frozen_clip_has_nothing_and_is_found(plain, spoilt):
    frozen = spoilt["frozen"]
    assert frozen["frozen"] == 1 and frozen["frozen_longest"] == FRAMES and plain["frozen"] == 0
    for name in ("flicker", "acceleration", "high_frequencies", "warping_error", "drift_mean", "repeated"):
        assert frozen[name] == pytest.approx(0, abs=1e-3), name
    assert frozen["motion"] < 0.05 and frozen["seam"] == 1


def test_one_cut_is_a_seam_and_hides_everything(plain, spoilt):
    assert plain["seam"] == pytest.approx(1, abs=0.1)
    assert spoilt["cut"]["seam"] > 2 and spoilt["cut"]["seam_worst"] == spoilt["cut"]["seam"]
    assert spoilt["cut"]["hidden"] > plain["hidden"]
    assert spoilt["cut"]["high_frequencies"] > plain["high_frequencies"]


def test_twice_the_speed_is_twice_the_motion(plain, spoilt):
    assert plain["motion"] == pytest.approx(1, abs=0.2)
    assert spoilt["fast"]["motion"] == pytest.approx(2 * plain["motion"], rel=0.15)
    assert spoilt["fast"]["motion_fast"] > plain["motion_fast"]
    assert spoilt["fast"]["flicker"] > 1.5 * plain["flicker"]


def test_drift_is_how_far_the_mean_gets(plain, spoilt):
    mean = float(moving().mean()) * 255
    assert spoilt["brighter"]["drift_mean"] == pytest.approx(mean / 2, rel=0.2)
    assert spoilt["brighter"]["drift_contrast"] > 5
    reddish = 0.8 * moving()[:1].repeat(FRAMES, 1, 1, 1)
    reddish[..., 0] += torch.linspace(0, 0.2, FRAMES)[:, None, None]
    assert figures(reddish)["drift_colour"] == pytest.approx(0.2 * 255 * 2 / 3)


def test_repeated_frames_and_loops(plain, spoilt):
    assert plain["repeated"] == 0
    paused = moving()[torch.tensor([0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8])]
    assert figures(paused)["repeated"] == pytest.approx(3 / 11) or figures(paused)["frozen"] == pytest.approx(3 / 11)
    assert spoilt["paused"]["frozen"] == pytest.approx(12 / 23)
    assert spoilt["looped"]["loop_seam"] < 1 < 2 < plain["loop_seam"]


def test_against_a_reference():
    clip = moving()
    same = figures(clip, reference=clip)
    assert same["ssim"] == pytest.approx(1) and same["psnr"] > 108 and same["change_psnr"] > 108
    brighter = figures(clip * 0.5 + 0.1, reference=clip * 0.5)
    assert brighter["psnr"] == pytest.approx(20, abs=0.1) and brighter["change_psnr"] > 100
    assert figures(noisy(clip), reference=clip)["ssim"] < 0.9
    assert "outside_exact" not in same and "psnr" not in figures(clip)


def test_what_was_given_is_there_bit_for_bit_or_not():
    clip = (moving() * 255).byte()
    known = torch.zeros(1, SIDE, SIDE)
    known[:, :, :20] = 1
    made = clip.clone()
    made[:, :, 20:] = 7
    kept = figures(made, reference=clip, known=known)
    assert kept["outside_exact"] == 1 and kept["outside_worst"] == 0
    made[3, 5, 5] ^= 8
    off = figures(made, reference=clip, known=known)
    assert off["outside_worst"] == 8 and off["outside_exact"] == pytest.approx(1 - 1 / (FRAMES * SIDE * 20))


def test_the_border_of_what_was_made_is_seen_or_not():
    clip = (moving() * 255).byte()
    known = torch.zeros(1, SIDE, SIDE)
    known[:, :, :20] = 1
    same = figures(clip, reference=clip, known=known)
    assert same["border_ratio"] <= 1 and same["border_step"] > 0
    made = clip.clone()
    made[:, :, 20:] = made[:, :, 20:] // 3
    off = figures(made, reference=clip, known=known)
    assert off["border_ratio"] > 3 and off["border_step"] > 3 * same["border_step"]
    # The measure of a whole clip at once is the same number.
    video, masks = (c.float() for c in (made.movedim(-1, 0), known.expand(FRAMES, -1, -1)))
    assert region.seam(video, masks > 0.5) == pytest.approx(off["border_step"], rel=1e-5)
    everything = figures(clip, reference=clip, known=torch.ones(1, SIDE, SIDE))
    assert "border_step" not in everything and everything["outside_exact"] == 1


def test_the_flow_points_to_the_next_frame():
    clip = moving(3) * 255
    first, second = clip[0].movedim(-1, 0), clip[1].movedim(-1, 0)
    there, back = dis_flow(first, second), dis_flow(second, first)
    assert float(there[0].median()) == pytest.approx(-3, abs=0.2) and abs(float(there[1].median())) < 0.2
    seen = meets(there, back)
    assert float(seen.float().mean()) > 0.7
    assert float((warp(second, there) - first).abs().mean(0)[seen].mean()) < 4


def test_a_flow_of_the_caller_s_is_used():
    still = lambda first, second: torch.zeros(2, *first.shape[1:])  # noqa: E731
    found = figures(moving(), flow=still)
    assert found["motion"] == 0 and found["warping_error"] == pytest.approx(found["flicker"])


def test_energy_of_known_waves():
    """cos at a quarter of the highest frequency is slow, at three quarters fast; white noise is half and half."""
    time = torch.arange(64)

    def share(signal):
        return measure_clip((signal[:, None, None, None].expand(-1, 12, 12, 3)) * 0.2 + 0.5).values["high_frequencies"]

    assert share(torch.cos(math.pi / 4 * time)) < 0.01
    assert share(torch.cos(3 * math.pi / 4 * time)) > 0.99
    noise = torch.rand(64, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert measure_clip(noise).values["high_frequencies"] == pytest.approx(0.5, abs=0.1)


def test_consistency_by_an_encoder_that_is_passed_in():
    """The mean colour of quarters stands for CLIP: what matters is what is made of the vectors."""

    def encode(frame):
        return torch.nn.functional.adaptive_avg_pool2d(frame, 4).flatten() - 127

    clip = moving()
    text = encode(clip[0].movedim(-1, 0) * 255)
    found = measure_clip(clip, more=[Consistency(encode, text)]).values
    assert found["clip_neighbours"] > found["clip_first"] and found["clip_loss"] > 0
    assert found["clip_text"] == pytest.approx((found["clip_first"] * (FRAMES - 1) + 1) / FRAMES, abs=1e-4)
    still = measure_clip(clip[:1].expand(FRAMES, -1, -1, -1), more=[Consistency(encode)]).values
    assert still["clip_neighbours"] == pytest.approx(1) and still["clip_loss"] == pytest.approx(0, abs=1e-5)
    assert "clip_text" not in still
    with pytest.raises(ValueError, match="two different models"):
        measure_clip(clip, more=[Consistency(encode, torch.ones(5))])
    assert sorted(similarity_by_distance(torch.eye(20))) == [1, 2, 4, 8]


def test_frames_are_taken_one_by_one():
    """A generator will do, and nothing of it is held but the neighbours and one block of the spectrum."""
    alive, most = [], []

    class Watched(torch.Tensor):
        pass

    def frames():
        import weakref

        for frame in moving(frames=40):
            watched = frame.clone().as_subclass(Watched)
            alive.append(weakref.ref(watched))
            yield watched
            most.append(sum(ref() is not None for ref in alive))

    report = measure_clip(frames())
    assert report.frames == 40 and max(most) <= 4
    assert len(HighFrequencies()._block) == 0


def test_the_table_names_unit_range_and_source_of_every_figure():
    clip = moving()
    half = (torch.arange(SIDE) < SIDE // 2).float().expand(1, SIDE, SIDE)
    report = measure_clip(clip, reference=clip, known=half, borders=[4])
    names = {figure.name for kind in EVERY for figure in kind.figures}
    assert set(report.values) == names and not report.missing
    table = report.table()
    for figure in report.figures:
        assert figure.name in table and figure.unit in table and figure.source in table
        low = -math.inf if figure.bounds[0] is None else figure.bounds[0]
        high = math.inf if figure.bounds[1] is None else figure.bounds[1]
        assert low <= report.values[figure.name] <= high, figure.name


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_say_what_is_missing(frames):
    report = measure_clip(moving(frames=frames))
    assert report.frames == frames
    assert "high_frequencies" in report.missing and "needs 8 frames" in report.table()


def test_small_frames_say_what_is_missing():
    report = measure_clip(torch.rand(8, 8, 8, 3), reference=torch.rand(8, 8, 8, 3))
    assert "too small" in report.missing["motion"] and "11 pixels" in report.missing["ssim"]
    assert {"flicker", "psnr"} <= set(report.values) and Similarity not in report.values


@pytest.mark.parametrize(
    ("change", "scale"),
    [
        (lambda c: c.half(), 1),
        (lambda c: c.bfloat16(), 1),
        (lambda c: c.double().numpy(), 1),
        (lambda c: (c * 255).round().byte(), 1),
        (lambda c: (c * 65535).numpy().astype("uint16"), 1),
        (lambda c: torch.cat([c, torch.rand(*c.shape[:3], 1)], -1), 1),
        (lambda c: c.clone().requires_grad_(), 1),
        (lambda c: torch.where(c > 0.9, c + 0.3, c).where(c > 0.05, c - 0.2), None),
    ],
)
def test_a_clip_measures_the_same_however_it_is_kept(change, scale):
    """fp16, uint8, 16 bit, RGBA, with a gradient; and a little beyond [0, 1] as it is seen."""
    clip = moving(frames=3)
    wanted = figures(clip if scale else change(clip).clamp(0, 1))
    found = figures(change(clip))
    for name in ("flicker", "acceleration", "motion", "drift_mean"):
        assert found[name] == pytest.approx(wanted[name], rel=0.02, abs=0.2), name
    assert found["frozen"] == 0


def test_grey_is_a_clip_too_and_short_ones_say_what_is_missing():
    grey = moving(frames=3).mean(-1, keepdim=True)
    assert figures(grey) == pytest.approx(figures(grey.expand(-1, -1, -1, 3)))
    for count, lacking in ((1, "motion"), (2, "flicker"), (3, "loop_seam")):
        report = measure_clip(moving(frames=3)[:count])
        assert lacking in report.missing and report.frames == count


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (moving(frames=2) * 2 - 1, r"frame 0 holds values from -\S+ to \S+; floats from 0 to 1"),
        (moving(frames=2) * 255, "x / 255 from levels"),
        ((moving(frames=2) * 255).short(), "frame 0 holds torch.int16; uint8"),
        (moving(frames=2)[..., :2], "frame 0 has shape"),
    ],
)
def test_frames_of_another_kind_are_refused_and_not_measured_wrongly(clip, message):
    with pytest.raises(ValueError, match=message):
        figures(clip)


def test_masks_are_one_for_all_or_one_a_frame():
    clip = moving(frames=4)
    half = (torch.arange(SIDE) < SIDE // 2).float().expand(SIDE, SIDE)
    wanted = figures(clip, reference=clip, known=half[None])
    assert (
        figures(clip, reference=clip, known=half)
        == figures(clip, reference=clip, known=half.expand(4, -1, -1))
        == wanted
    )
    for count, said in (
        (0, "0 masks and more frames"),
        (2, "2 masks and more frames"),
        (5, "4 frames and there are more masks"),
    ):
        with pytest.raises(ValueError, match=f"{said}; one mask for all or one for each"):
            figures(clip, reference=clip, known=half.expand(count, -1, -1))
    with pytest.raises(ValueError, match="more masks"):
        figures(clip[:1], reference=clip[:1], known=half.expand(2, -1, -1))


def test_bad_frames_are_refused_by_number():
    clip = moving()
    with pytest.raises(ValueError, match="frame 3 holds values that are no numbers"):
        bad = clip.clone()
        bad[3, 0, 0, 0] = float("nan")
        measure_clip(bad)
    with pytest.raises(ValueError, match="no frames"):
        measure_clip([])
    with pytest.raises(ValueError, match="frame 1 is 24x48 pixels and those before it are 48x48"):
        measure_clip([clip[0], clip[1][:, :24]])
    with pytest.raises(ValueError, match="the reference has 5 frames and the clip more"):
        measure_clip(clip, reference=clip[:5])
    with pytest.raises(ValueError, match="the clip has 5 frames and the reference more"):
        measure_clip(clip[:5], reference=clip)
    with pytest.raises(ValueError, match="mask is 10x10"):
        measure_clip(clip, reference=clip, known=torch.ones(1, 10, 10))
    with pytest.raises(ValueError, match="borders \\[0, 99\\] lie outside"):
        measure_clip(clip, borders=[0, 99, 4])
    with pytest.raises(ValueError, match="shape"):
        levels(torch.rand(4, 4))
    assert [step.number for step in walk(clip[:2])] == [0, 1]


def test_changes_of_a_region():
    clip = torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    clip[1, :, :2] = 10
    where = torch.zeros(4, 4, dtype=torch.bool)
    where[:, 2:] = True
    assert changes(clip) == [5, 5] and changes(clip, where) == [0, 0]
    assert seam_ratios([1.0, 1, 5, 1, 1], [3]) == [5]
