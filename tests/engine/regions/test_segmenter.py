"""Clicks, boxes and the search for everything; our masks are the libraries' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from skimage import data

from engine.errors import BadRegion
from engine.regions import hf_sam
from engine.regions.pocket_sam import PocketSamConfig, build_pocket_sam
from engine.regions.segmenter import KEPT, WORK_SIDE, Held, Segmenter
from engine.regions.types import Level, Prompt, Region, Thresholds, decode
from tests.engine.regions.colour_sam import THRESHOLDS, ColourPredictor, colour_segmenter, shapes

ANY = Thresholds(-9, (Level(-9, 0, 0.001),) * 3, points_per_side=4, points_per_batch=8)
"""Takes whatever a random model says."""


@pytest.fixture(scope="module")
def sam():
    """A random Pocket SAM whose masks are smooth enough to be kept."""
    torch.manual_seed(0)
    return build_pocket_sam(PocketSamConfig(depth=1))


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(data.astronaut()[100:340, 60:380])  # 320 x 240


@pytest.fixture(scope="module")
def hf():
    """A tiny random SamModel of transformers and its processor."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    torch.manual_seed(0)
    small = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SamConfig(
        vision_config={
            **small,
            "image_size": 64,
            "patch_size": 16,
            "mlp_dim": 32,
            "global_attn_indexes": [0],
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16, "image_embedding_size": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "iou_head_hidden_dim": 32, "num_attention_heads": 2},
    )
    side = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    return SamModel(config).eval(), SamProcessor(SamImageProcessor(**side))


def scene(image: Image.Image | None = None):
    return colour_segmenter().set_image(image or shapes())


def test_a_click_equals_the_library_bit_for_bit(sam, photo):
    ours = Segmenter("tiny", "Tiny", ANY, lambda: SamPredictor(sam)).set_image(photo)
    plain = SamPredictor(sam)
    plain.set_image(np.asarray(photo))
    points = np.array([[100.0, 60.0]])
    masks, ious, low = plain.predict(points, np.array([1]))
    found = ours.click(points.tolist())
    best = np.argsort(-ious)
    assert [region.predicted_iou for region in found] == [float(ious[k]) for k in best]
    for region, k in zip(found, best, strict=True):
        assert np.array_equal(region.mask, masks[k])
        assert np.array_equal(region.logits, low[k : k + 1])
        assert region.area == masks[k].sum()
    more, signs = np.array([[100.0, 60.0], [200.0, 90.0]]), np.array([1, 0])
    one, iou, _ = plain.predict(more, signs, mask_input=low[best[1]][None], multimask_output=False)
    (region,) = ours.click(more.tolist(), [1, 0], previous=found[1])
    assert np.array_equal(region.mask, one[0])
    assert region.predicted_iou == float(iou[0])
    boxed, iou, _ = plain.predict(box=np.array([40.0, 30.0, 250.0, 200.0]), multimask_output=False)
    (region,) = ours.box((250, 30, 40, 200))
    assert np.array_equal(region.mask, boxed[0])


def test_everything_equals_the_library(sam, photo):
    segmenter = Segmenter("tiny", "Tiny", ANY, lambda: SamPredictor(sam))
    ours = segmenter.set_image(photo)
    held = Held(segmenter.predictor(ours), ANY, None)
    seen = held.transform.apply_image(np.asarray(photo))
    settings = {"points_per_side": 4, "points_per_batch": 8, "pred_iou_thresh": -9, "stability_score_thresh": 0}
    wanted = SamAutomaticMaskGenerator(sam, **settings).generate(seen)
    generator = SamAutomaticMaskGenerator(sam, **settings)
    generator.predictor = held
    assert wanted
    for found, record in zip(generator.generate(np.zeros_like(seen)), wanted, strict=True):
        assert np.array_equal(found.pop("segmentation"), record.pop("segmentation"))
        assert found == record
    assert {region.prompt.points[0] for region in ours.everything("all")} <= {
        tuple(np.array(record["point_coords"][0]) * 320 / 256) for record in wanted
    }


def test_transformers_equals_its_own_direct_use(hf, photo):
    model, processor = hf
    ours = Segmenter("hf", "HF", ANY, lambda: hf_sam.HfPredictor(model, processor)).set_image(photo)
    for points, box in (([[[[100, 60]]]], None), (None, [[[40.0, 30.0, 250.0, 200.0]]])):
        inputs = processor(images=photo, input_points=points and points[0], input_boxes=box, return_tensors="pt")
        with torch.no_grad():
            direct = model(
                **{
                    k: v.float() if v.is_floating_point() else v
                    for k, v in inputs.items()
                    if k not in ("original_sizes", "reshaped_input_sizes")
                },
                multimask_output=box is None,
            )
        wanted = processor.post_process_masks(
            direct.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0][0].numpy()
        found = ours.click([(100, 60)]) if points else ours.box(box[0][0])
        order = direct.iou_scores[0, 0].argsort(descending=True).tolist()
        assert len(found) == len(order)
        for region, k in zip(found, order, strict=True):
            assert (region.mask == wanted[k]).mean() > 0.999
            assert region.predicted_iou == pytest.approx(float(direct.iou_scores[0, 0, k]), abs=1e-5)
    assert ours.everything("all")


def test_the_same_picture_is_encoded_once_and_few_are_kept():
    segmenter, before = colour_segmenter(), ColourPredictor.encoded
    first = segmenter.set_image(shapes())
    segmenter.set_image(shapes())
    first.click([(40, 12)])
    assert ColourPredictor.encoded == before + 1
    for k in range(KEPT):
        segmenter.set_image(shapes(170 + 10 * k))
    assert len(segmenter._encoded) == KEPT
    assert first.click([(40, 12)])[0].area > 0  # its embedding had made room and is made again
    assert ColourPredictor.encoded == before + KEPT + 2


def test_one_click_offers_masks_best_first_without_empty_ones():
    found = scene().click([(12, 12)])
    assert [round(region.predicted_iou, 2) for region in found] == [0.95, 0.7]
    assert found[0].bbox == (10, 10, 60, 60)
    assert found[0].area == found[0].mask.sum() == 60 * 60 - 20 * 20
    assert found[1].area == 160 * 120
    assert found[0].prompt == Prompt(((12.0, 12.0),), (1,))


def test_several_clicks_start_from_the_mask_before():
    seen = scene()
    (region,) = seen.click([(12, 12), (100, 90)], [1, 0])
    *_, (points, labels, boxes, mask, several) = seen.segmenter.predictor(seen).asked
    assert (points.shape, labels.tolist(), boxes, several) == ((1, 2, 2), [[1, 0]], None, False)
    assert torch.equal(mask[0], torch.from_numpy(seen.click([(12, 12)])[0].logits))
    assert region.bbox == (10, 10, 60, 60)
    (boxed,) = seen.box((80, 70, 159, 119))
    seen.click([(100, 90)], previous=boxed)
    assert seen.segmenter.predictor(seen).asked[-1][2] is not None  # a box stays part of the prompt


def test_twenty_clicks_at_one_place_are_one():
    seen = scene()
    many = seen.click([(12, 12)] * 20)
    assert [region.area for region in many] == [region.area for region in seen.click([(12, 12)])]


@pytest.mark.parametrize(
    ("ask", "key"),
    [
        (lambda s: s.click([(160, 5)]), "region_outside"),
        (lambda s: s.click([(-1, 5)]), "region_outside"),
        (lambda s: s.click([(float("nan"), 5)]), "region_outside"),
        (lambda s: s.click([(5, 5)], [0]), "region_no_points"),
        (lambda s: s.click([]), "region_no_points"),
        (lambda s: s.click([(5, 5)], [1, 0]), "region_labels"),
        (lambda s: s.click([(5, 5)], [2]), "region_labels"),
        (lambda s: s.click([(x / 2, 5) for x in range(101)]), "region_many_points"),
        (lambda s: s.box((20, 20, 20, 80)), "region_flat_box"),
        (lambda s: s.box((200, 20, 300, 80)), "region_flat_box"),
        (lambda s: s.box((0, 0, 8, 8)), "region_nothing"),
        (lambda s: s.everything("tiny"), "region_granularity"),
    ],
)
def test_what_cannot_be_a_region_has_its_sentence(ask, key):
    with pytest.raises(BadRegion) as caught:
        ask(scene())
    assert caught.value.key == key


def test_one_colour_has_no_regions():
    noisy = np.full((90, 90, 3), 128) + np.random.default_rng(0).integers(-3, 4, (90, 90, 3))
    for image in (Image.new("RGB", (64, 64), "white"), Image.fromarray(noisy.astype(np.uint8))):
        for ask in (lambda s: s.click([(5, 5)]), lambda s: s.box((1, 1, 50, 50)), lambda s: s.everything()):
            with pytest.raises(BadRegion, match="one colour"):
                ask(scene(image))


@pytest.mark.parametrize("size", [(100_000, 8), (8, 100_000)])
def test_a_strip_is_refused_with_its_size(size):
    with pytest.raises(BadRegion, match=f"{size[0]} x {size[1]} pixels"):
        colour_segmenter().set_image(Image.effect_noise(size, 50).convert("RGB"))


def test_nothing_good_enough_is_said():
    never = Thresholds(1.1, (Level(1.1, 1, 0.1),) * 3, 4)
    seen = colour_segmenter(never).set_image(shapes())
    with pytest.raises(BadRegion, match="Colours finds no region there"):
        seen.click([(12, 12)])
    with pytest.raises(BadRegion, match="no regions in this image"):
        seen.everything()


def test_everything_finds_each_shape_and_numbers_stay():
    seen = scene()
    finest = seen.everything("all")
    assert seen.searched
    boxes = {region.bbox for region in finest}
    assert [region.number for region in finest] == list(range(1, len(finest) + 1))
    assert len(finest) == 5  # grey, red, blue, green, yellow
    by_number = {region.number: region for region in finest}
    last = 0
    for granularity in ("objects", "parts", "all"):
        shown = seen.everything(granularity)
        assert len(shown) >= last
        assert all(by_number[region.number] is region for region in shown)
        last = len(shown)
    assert len(seen.everything("objects")) < len(finest)
    assert any(abs(x - 10) <= 3 and abs(w - 60) <= 6 for x, _, w, _ in boxes)


def test_the_search_is_done_once_reports_and_can_be_stopped():
    seen, heard = scene(), []

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seen.everything("all", stop)
    assert not seen.searched
    seen.everything("all", lambda done, total: heard.append((done, total)))
    assert heard == [(k, 8) for k in range(8)]
    seen.everything("parts", stop)


def test_a_large_image_is_worked_on_small_and_masks_come_back_large():
    seen = scene(shapes(1600, 1200))
    assert max(seen.picture.size) == WORK_SIDE
    region = seen.click([(120, 120)])[0]
    assert region.mask.shape == (1200, 1600)
    assert region.mask.sum() == region.area == pytest.approx(100 * (60 * 60 - 20 * 20), rel=0.12)
    assert all(abs(have - want) <= 40 for have, want in zip(region.bbox, (100, 100, 600, 600), strict=True))
    rle = region.rle()
    assert rle["size"] == [1200, 1600]
    assert np.array_equal(decode(rle), region.mask)


def test_a_mask_at_another_size_is_the_same_shape():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 5:15] = True
    region = Region.of(mask, (400, 300), 1, 1, Prompt())
    assert region.bbox == (50, 100, 100, 100)
    assert region.area == pytest.approx(100 * 100, rel=0.02)  # corners are rounded
    assert np.array_equal(region.mask_at((40, 30)), mask)
    speck = np.zeros((300, 400), bool)
    speck[150, 200] = True
    assert Region.of(speck, (400, 300), 1, 1, Prompt()).mask_at((40, 30)).any()


def test_thresholds_are_those_of_the_segmenter():
    assert {region.granularity for region in scene().everything("all")} == {"objects", "parts", "all"}
    strict = Thresholds(0.5, (Level(2, 0, 0), Level(2, 0, 0), THRESHOLDS.levels[2]), 16)
    seen = colour_segmenter(strict).set_image(shapes())
    assert {region.granularity for region in seen.everything("objects")} == {"all"}  # the next finer one that has some
