"""Any model of open_clip: its own architectures and weights, ``hf-hub:`` names and local checkpoints."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from engine.backbones.base import Backbone, Shape, TextTower, VisionTower, part_sizes, without_marks
from engine.backbones.config_limits import check_scaling, check_sizes
from engine.backbones.hf_base import first_of
from engine.backbones.hub import explained, here
from engine.backbones.loading import (
    BUILDING,
    DISTINCT,
    SAMPLE,
    check_distinct,
    check_finite,
    check_tokens,
    hash_weights,
    read_json,
)
from engine.backbones.openclip_towers import (
    FastVitTower,
    OpenClipText,
    OpenClipVit,
    TimmVit,
    WholeText,
    WholeVision,
    fast_vit_names,
    out_features,
)
from engine.backbones.split_attention import split_block
from engine.data.images import central
from engine.errors import BackboneUnavailable, Note, any_of
from engine.paths import local_path, portable

PREFERRED_TAGS = ("dfndr2b", "datacompdr", "webli", "meta", "laion2b_s34b_b79k", "laion2b_s34b_b88k", "openai")
"""Weights that a name without a tag means, the first that there is."""


class OpenClip(Backbone):
    """A model of open_clip with its tokenizer and evaluation transform.

    Attention projections are split into layers of their own. Where a tower has convolutions that can
    be reparameterised (MobileCLIP), the frozen backbone runs the folded ones, equal and faster;
    :meth:`twin` gives the folded ones too as long as tensors are shared, and the original branches
    where they are to be trained.

    Args:
        transform: torchvision's ``Compose`` of open_clip: resize, crop, to RGB, to tensor, normalise.
    """

    family = "open_clip"
    architecture: dict[str, Any] | None = None
    """``model_cfg`` as open_clip writes it; None where the model was not built from one."""

    def __init__(self, model: Any, tokenizer: Any, transform: Any, id: str):
        split_model(model)
        model.eval().requires_grad_(False)
        self.model, self.tokenizer, self.transform, self.id = model, tokenizer, transform, id
        model.name_or_path = portable(id)  # what PEFT writes down
        self.weight_hash = hash_weights(model)
        self.folded = fold(model)
        self._see(self.folded)
        self._prepare_text()
        self.shape = self._shape()

    def _see(self, model: Any) -> None:
        """Towers as views on a model."""
        holder, _ = text_holder(model)
        self._scale, self._bias = model.logit_scale, getattr(model, "logit_bias", None)
        self.vision: VisionTower = vision_tower(model)
        self.text: TextTower = text_tower(model)
        self.pooling = getattr(model, "text_pool_type", None) or getattr(holder, "pool_type", "")
        self.end_id: Any = getattr(model, "text_eos_id", getattr(holder, "eos_id", None))

    def _prepare_text(self) -> None:
        inner = getattr(self.tokenizer, "tokenizer", self.tokenizer)
        ends = ("eot_token_id", "eos_token_id", "pad_token_id", "sep_token_id")
        self.end_ids = [getattr(inner, name, None) for name in ends]
        starts = {getattr(inner, name, None) for name in ("sot_token_id", "bos_token_id", "cls_token_id")} - {None}
        self.context = int(self.tokenizer.context_length)
        self.start_tokens = int(int(self.tokenizer(["x"])[0, 0]) in starts)

    def _shape(self) -> Shape:
        vision: Any = self.vision
        seen, text = vision.shape(), self.text
        mlp = out_features(text.blocks[0], "mlp.c_fc") if text.blocks else 0
        size = self.model.visual.image_size
        with torch.no_grad():
            embedding = self.encode_text(self.tokenize(["x"])).shape[-1]
        return Shape(
            embedding=embedding,
            vision_width=seen.width or embedding,
            vision_layers=seen.layers,
            vision_mlp=seen.mlp,
            text_mlp=mlp,
            text_width=text.width,
            text_layers=len(text.blocks),
            patch=seen.patch,
            image_size=max(size) if isinstance(size, tuple | list) else size,
            vision_tokens=seen.tokens,
            context=self.context,
            vocabulary=int(getattr(self.model, "vocab_size", 0)),
            parameters=sum(p.numel() for p in self.model.parameters()),
            vision_linears=seen.linears,
            vision_pooled=vision.projected,
            count_tokens=self.count_tokens,
            **part_sizes(self.folded),
        )

    def replace_model(self, model: Any) -> OpenClip:
        other = copy.copy(self)
        other.model = other.folded = model
        other._see(model)
        return other

    def twin(self, share: bool = True) -> Backbone:
        memo: dict[int, object] = {}
        source = self.folded if share else self.model
        if share:
            memo = {id(t): t for t in [*source.parameters(), *source.buffers()]}
        return self.replace_model(copy.deepcopy(source, memo))

    def linear_names(self, tower: str, kinds: Sequence[str], first_block: int = 0) -> list[str]:
        side: Any = {"vision": self.vision, "text": self.text}[tower]
        if isinstance(side, FastVitTower):
            stages = list(enumerate(fast_vit_names(side.blocks)))[first_block:]
            return [f"{side.path}.{k}.{name}" for k, own in stages for kind in kinds for name in own[kind]]
        blocks = range(first_block, len(side.blocks))
        names = [f"{side.path}.{k}.{side.names[kind]}" for k in blocks for kind in kinds if kind in side.names]
        there = self._linear_layers
        return [name for name in names if name in there]

    @cached_property
    def _linear_layers(self) -> frozenset[str]:
        kinds = (nn.Linear, nn.Conv2d)
        return frozenset(name for name, module in self.model.named_modules() if isinstance(module, kinds))

    @property
    def scale(self) -> Tensor:
        return self._scale.exp().reshape(())

    @property
    def bias(self) -> Tensor | None:
        return None if self._bias is None else self._bias.reshape(())

    def load_pixels(self, images: Sequence[Image.Image]) -> Tensor:
        from torchvision.transforms import CenterCrop
        from torchvision.transforms.functional import pil_to_tensor

        steps, rows = self.transform.transforms[:-2], []  # all but to-tensor and normalise: still a picture
        cropped = any(isinstance(step, CenterCrop) for step in steps)
        for image in images:
            image = central(image) if cropped else image
            for step in steps:
                image = step(image)
            rows.append(pil_to_tensor(image))
        return torch.stack(rows)

    def normalise(self, pixels: Tensor) -> Tensor:
        last = self.transform.transforms[-1]
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (last.mean, last.std))
        return (pixels.float() / 255 - mean) / std

    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Tensor:
        ids = self.tokenizer(list(texts), context_length=self.context - reserve).to(self.device)
        if not self.text.has_tokens or text_holder(self.model)[0].attn_mask is None or self.pooling == "last":
            return ids
        return ids[:, : int(self.end_of(ids).max()) + 1]  # causal: what follows the end changes nothing

    def count_tokens(self, text: str) -> int:
        inner = getattr(self.tokenizer, "tokenizer", None)
        if inner is None:
            return len(self.tokenizer.encode(text)) + 2
        return len(inner(self.tokenizer.clean_fn(text), verbose=False).input_ids)

    def decode(self, ids: Sequence[int]) -> str:
        inner = getattr(self.tokenizer, "tokenizer", self.tokenizer)
        return without_marks(inner.decode([id for id in ids if id not in inner.all_special_ids]))

    def end_of(self, ids: Tensor) -> Tensor:
        if self.pooling == "argmax":
            return ids.argmax(dim=-1)
        if self.pooling == "eos":
            return torch.eq(ids, self.end_id).int().argmax(dim=-1)
        return torch.full((len(ids),), 0 if self.pooling == "first" else ids.shape[1] - 1, device=ids.device)

    def words_end(self, ids: Tensor) -> Tensor:
        after = first_of(ids[:, self.start_tokens :], self.end_ids)
        return after + self.start_tokens


def text_holder(model: Any) -> tuple[Any, str]:
    """Return the module that holds the text transformer's parts, and the path of its blocks."""
    if hasattr(model, "text"):
        return model.text, "text.transformer.resblocks"
    return model, "transformer.resblocks"


def text_tower(model: Any) -> TextTower:
    """open_clip's text transformer, or the whole encoder where it is another one."""
    holder, path = text_holder(model)
    blocks = getattr(getattr(holder, "transformer", None), "resblocks", None)
    special = getattr(holder, "cls_emb", None) is not None or getattr(holder, "use_pad_mask", False)
    if blocks is None or special or getattr(holder, "pool_type", "argmax") == "none":
        return WholeText(model)
    return OpenClipText(holder, path)


def vision_tower(model: Any) -> VisionTower:
    """Return the tower of the model's image encoder."""
    from open_clip.transformer import VisionTransformer

    visual = model.visual
    if isinstance(visual, VisionTransformer):
        return OpenClipVit(visual)
    trunk = getattr(visual, "trunk", None)
    kinds = {cls.__name__ for cls in type(trunk).__mro__}
    if kinds & {"VisionTransformer", "Eva"} and not getattr(trunk, "rope_mixed", False):
        return TimmVit(visual)
    if "FastVit" in kinds:
        return FastVitTower(visual)
    holder, _ = text_holder(model)
    projection = getattr(holder, "text_projection", None)
    size = getattr(visual, "output_dim", None) or (projection.shape[-1] if isinstance(projection, Tensor) else 0)
    return WholeVision(model, int(size))


def split_model(model: Any) -> None:
    """Split the joint attention projections of all blocks; pooling layers stay as they are."""
    holder, _ = text_holder(model)
    for blocks in (
        getattr(getattr(holder, "transformer", None), "resblocks", None),
        getattr(getattr(model.visual, "transformer", None), "resblocks", None),
        getattr(getattr(model.visual, "trunk", None), "blocks", None),
        getattr(getattr(model.visual, "trunk", None), "stages", None),
    ):
        for block in blocks or ():
            split_block(block)


def fold(model: Any) -> Any:
    """Return the model with reparameterised convolutions; all other tensors are shared with it. Without
    such convolutions the model itself."""
    from timm.utils import reparameterize_model

    if not any(hasattr(module, "reparameterize") for module in model.visual.modules()):
        return model
    memo: dict[int, object] = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    other = copy.deepcopy(model, memo)
    other.visual = reparameterize_model(other.visual, inplace=True)
    return other.eval().requires_grad_(False)


def load(name: str, tag: str | None = None, id: str | None = None, device: str = "cpu") -> OpenClip:
    """Load one of open_clip's architectures with weights of a tag (or of a file), ``hf-hub:NAME``
    or ``local-dir:FOLDER``. Raises BackboneUnavailable with the reason."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    id = id or name
    built_in = not name.startswith(("hf-hub:", "local-dir:"))
    quick = False
    if built_in:
        tag = tag or default_tag(name, id)
        check_tag(name, tag, id)
        check_no_script(tag, id)
        quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    with explained(id):
        fetch(name, tag)
        if config := own_config(name):
            check_sizes(read_json(config, id), config.name, id)
        with BUILDING:
            model = open_clip.create_model(
                name, tag, precision="fp32", device="cpu", force_quick_gelu=quick, require_pretrained=True
            )
    check_finite(model, id)
    check_sizes({"image_size": model.visual.preprocess_cfg["size"]}, "open_clip_config.json", id)
    check_scaling(model.visual.preprocess_cfg["mean"], model.visual.preprocess_cfg["std"], id)
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    tokenizer = load_tokenizer(name, id)
    known = getattr(getattr(text_holder(model)[0], "token_embedding", None), "num_embeddings", None)
    if known:
        check_tokens(tokenizer([SAMPLE]), known, id)
    check_distinct(tokenizer(list(DISTINCT)).tolist(), id)
    backbone = OpenClip(model.to(device), tokenizer, transform, id)
    config = own_config(name)
    found = read_json(config, id)["model_cfg"] if config else open_clip.get_model_config(name)
    backbone.architecture = found | ({"quick_gelu": True} if quick else {})
    return backbone


def own_config(name: str) -> Path | None:
    """Return the configuration file that a folder or hub repository brings; None for open_clip's own names."""
    file = "open_clip_config.json"
    if name.startswith("local-dir:"):
        return Path(name.removeprefix("local-dir:")) / file
    return here(name.removeprefix("hf-hub:"), file) if name.startswith("hf-hub:") else None


def load_tokenizer(name: str, id: str) -> Any:
    """open_clip's tokenizer for a name. Raises BackboneUnavailable."""
    import open_clip

    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # a missing vocabulary surfaces as any of a dozen exceptions
        raise BackboneUnavailable("backbone_no_tokenizer", id=id) from error


def default_tag(name: str, id: str) -> str:
    """Return the weights that a bare name means. Raises BackboneUnavailable where there are none."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if not tags:
        raise BackboneUnavailable("backbone_no_weights", id=id, reason=Note("none_published"))
    return next((tag for tag in PREFERRED_TAGS if tag in tags), tags[-1])


def check_tag(name: str, tag: str, id: str) -> None:
    """Raise BackboneUnavailable where a tag is neither known nor a file."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if not open_clip.get_pretrained_cfg(name, tag) and not local_path(tag):
        raise BackboneUnavailable("backbone_no_tag", id=id, tag=tag, known=any_of(tags))


def check_no_script(tag: str, id: str) -> None:
    """Raise BackboneUnavailable where a file of weights is a TorchScript archive."""
    path = local_path(tag)
    if path and path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise BackboneUnavailable("backbone_script", id=id)


def fetch(name: str, tag: str | None) -> None:
    """Download weights, if need be, before the building lock is taken."""
    import open_clip
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

    if name.startswith("hf-hub:"):
        download_pretrained_from_hf(name.removeprefix("hf-hub:"), filename="open_clip_config.json")
        download_pretrained_from_hf(name.removeprefix("hf-hub:"))
    elif tag and not name.startswith("local-dir:") and not Path(tag).is_file():
        download_pretrained(open_clip.get_pretrained_cfg(name, tag))
