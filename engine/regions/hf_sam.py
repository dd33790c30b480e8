"""SAM models of transformers (``SamModel``), such as SlimSAM (Chen et al., arXiv 2312.05284), behind segment-anything's
own interface, so that clicks, boxes and the search for everything are one code for both libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import SamPredictor
from torch import Tensor

from engine.backbones import loading
from engine.errors import SegmenterUnavailable


class HfPredictor(SamPredictor):
    """A predictor over transformers' model and processor."""

    def __init__(self, sam: Any, processor: Any):
        self.sam, self.processor = sam, processor
        side = processor.image_processor.size["longest_edge"]
        # What the classes of segment-anything read of their own model.
        bare = SimpleNamespace(
            image_encoder=SimpleNamespace(img_size=side), device=sam.device, mask_threshold=0.0, image_format="RGB"
        )
        super().__init__(bare)  # type: ignore[arg-type]

    @torch.no_grad()
    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Encode an image ``(H, W, 3)`` uint8 RGB."""
        inputs = self.processor(images=Image.fromarray(image), return_tensors="pt")
        self.reset_image()
        self.original_size, self.input_size = (
            tuple(int(n) for n in inputs[key][0]) for key in ("original_sizes", "reshaped_input_sizes")
        )
        self.features = self.sam.get_image_embeddings(inputs["pixel_values"].to(self.device))
        self.is_image_set = True

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points ``(B, N, 2)`` with labels ``(B, N)``, boxes ``(B, 4)``, logits ``(1, 1, h, w)`` to masks
        ``(B, C, H, W)``, estimates ``(B, C)`` and low-resolution logits ``(B, C, h, w)``."""
        found = self.sam(
            image_embeddings=self.features,
            input_points=None if point_coords is None else point_coords[None].float(),  # (1, B, N, 2)
            input_labels=None if point_labels is None else point_labels[None],
            input_boxes=None if boxes is None else boxes.reshape(1, -1, 4).float(),
            input_masks=mask_input,
            multimask_output=multimask_output,
        )
        low = found.pred_masks[0]  # (B, C, h, w)
        masks = self.processor.post_process_masks([low], [self.original_size], [self.input_size], binarize=False)[0]
        return masks if return_logits else masks > self.model.mask_threshold, found.iou_scores[0], low


def load(source: str | Path, id: str, device: str) -> Callable[[], SamPredictor]:
    """Return what makes predictors over the SAM model in a folder or hub repository. Raises SegmenterUnavailable."""
    from transformers import SamModel, SamProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    loader: Any = SamModel  # its stubs do not know that the loading information comes along
    with loading.BUILDING:
        sam, info = loader.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, weights_only=True, ignore_mismatched_sizes=True
        )
    wrong = [*sorted(info.get("missing_keys") or ()), *sorted(map(str, info.get("mismatched_keys") or ()))]
    if wrong:
        raise SegmenterUnavailable("segmenter_other_weights", id=id, name=wrong[0])
    processor = SamProcessor.from_pretrained(source)
    sam = sam.to(device).eval()
    return lambda: HfPredictor(sam, processor)
