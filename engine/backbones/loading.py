"""What loading a backbone has in common: reasons why it fails, and checks of what was loaded."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import plain_json
from engine.backbones.config_limits import check_processor, check_sizes, check_trunk, check_weights, weight_bytes
from engine.backbones.hub import WEIGHTS, explained, here, hub_file
from engine.errors import BackboneUnavailable, Note, messages
from engine.paths import portable

messages(
    backbone_not_clip="{id} is a {kind} model, not an image-text model that is known here. Choose a CLIP, SigLIP or "
    "OpenCLIP checkpoint.",
    backbone_no_model="The folder {id} holds no model: it has neither config.json nor open_clip_config.json. Choose "
    "a folder that a model was saved to.",
    backbone_config="The file {file} of {id} cannot be read: it is no JSON or lacks {field}. Choose another backbone, "
    "or copy the file again.",
    backbone_no_weights="{id} has no weights: {reason}. Choose another backbone, or copy or download it again.",
    no_safetensors="there is no model.safetensors",
    neither_file="there is neither {first} nor {second}",
    siglip_without_pooling="SigLIP vision tower without pooling",
    none_published="none were published for this architecture",
    its_contents="its contents",
    backbone_not_finite="The weights of {id} hold numbers that are not finite (in {name}). Choose another checkpoint.",
    backbone_no_tokenizer="The tokenizer of {id} is missing or cannot be read. Choose another backbone, or add the "
    "tokenizer's files (tokenizer.json, tokenizer_config.json) to it.",
    backbone_other_tokenizer="The tokenizer of {id} belongs to another model: it gives token {token}, the text tower "
    "knows {known}. Choose a checkpoint whose files belong together.",
    backbone_no_processor="The file preprocessor_config.json of {id} is missing or cannot be read. Choose another "
    "backbone, or add the file.",
    backbone_naflex="{id} is a SigLIP 2 NaFlex checkpoint, whose image tower takes patches of any aspect ratio. Choose "
    "a SigLIP 2 checkpoint of one fixed size, for example google/siglip2-base-patch16-224.",
    backbone_unknown="There is no backbone {id}. Choose one of the list, a folder, a hub name such as "
    "organisation/model, or one of these similar names: {near}.",
    backbone_file="{id} is a file, which does not say what architecture it belongs to. Choose the folder that it was "
    "saved in, or write open_clip:NAME@{id} with an architecture of open_clip.",
    backbone_no_tag="{id} has no weights named {tag}. Choose one of: {known}.",
)


BUILDING = threading.Lock()
"""Held while a library builds a model: both transformers and open_clip change global state for that
moment. Downloads happen outside, so visitors wait for seconds at most."""


def find_weights(source: str | Path) -> str | None:
    """Name of the weights' file in a folder or hub repository, downloaded from there if need be, in all its parts; None
    where it has none. Raises what huggingface_hub raises."""
    if isinstance(source, Path):
        return next((name for name in WEIGHTS if (source / name).is_file()), None)
    local = next((name for name in WEIGHTS if here(source, name)), None)
    found = local or next((name for name in WEIGHTS if hub_file(source, name)), None)
    index = here(source, found) if found and found.endswith(".index.json") else None
    for part in sorted(set(json.loads(index.read_text())["weight_map"].values())) if index else ():
        hub_file(source, part)
    return found


def check_finite(model: nn.Module, id: str) -> None:
    """Raise BackboneUnavailable where a weight is NaN or infinite."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        kept = not name.rpartition(".")[2].startswith("attn_mask")  # a causal mask is made of -inf
        if kept and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BackboneUnavailable("backbone_not_finite", id=id, name=name)


def check_complete(info: Any, id: str) -> None:
    """Raise BackboneUnavailable where transformers filled weights with random numbers."""
    wrong = [*sorted(info.get("missing_keys") or ()), *sorted(info.get("mismatched_keys") or ())]
    if wrong:
        name = wrong[0] if isinstance(wrong[0], str) else wrong[0][0]
        raise BackboneUnavailable("backbone_other_weights", id=id, name=name)


def hash_weights(model: nn.Module) -> str:
    """First 16 hex digits of SHA-256 over every parameter's name, shape and fp16 bytes, and over
    the running statistics of batch norms."""
    digest = hashlib.sha256()
    statistics = [(name, b) for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    for name, tensor in sorted([*model.named_parameters(), *statistics], key=lambda row: row[0]):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().half().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_tokens(ids: Tensor, known: int, id: str) -> None:
    """Raise BackboneUnavailable where ids ``(K, T)`` are outside a vocabulary of ``known`` tokens."""
    if int(ids.max()) >= known:
        raise BackboneUnavailable("backbone_other_tokenizer", id=id, token=int(ids.max()), known=known)


def check_distinct(ids: Sequence[Sequence[int]], id: str) -> None:
    """Raise BackboneUnavailable where the two texts of :data:`DISTINCT` have the same tokens."""
    first, second = (list(row) for row in ids)
    if first == second:
        raise BackboneUnavailable("backbone_same_tokens", id=id)


def read_json(path: Path, id: str) -> dict[str, Any]:
    """Return a configuration file. Raises BackboneUnavailable."""
    try:
        found = plain_json.read(path)
    except (OSError, ValueError) as error:
        raise BackboneUnavailable("backbone_config", id=id, file=path.name, field=Note("its_contents")) from error
    if not isinstance(found, dict):
        raise BackboneUnavailable("backbone_config", id=id, file=path.name, field=Note("its_contents"))
    return found


def load_tokenizer(source: Any, id: str) -> Any:
    """Return the checkpoint's tokenizer, as transformers chooses it. Raises BackboneUnavailable.

    Where its class needs a file or library that is not here (sentencepiece's), the same tokenizer
    is read from tokenizer.json.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        try:
            return AutoTokenizer.from_pretrained(source)
        except (ImportError, ValueError):
            return PreTrainedTokenizerFast.from_pretrained(source)
    except Exception as error:  # a missing vocabulary surfaces as any of a dozen exceptions
        raise BackboneUnavailable("backbone_no_tokenizer", id=id) from error


def load_processor(source: Any, id: str) -> Any:
    """Return the checkpoint's image processor. Raises BackboneUnavailable."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneUnavailable("backbone_no_processor", id=id) from error


SAMPLE = "a photo of a cat, 고양이"
"""A text whose tokens must be in the vocabulary."""
DISTINCT = ("a cat", "a dog")
"""Two texts that must have different tokens."""


def load_transformers(cls: Any, source: str | Path, id: str, device: str) -> tuple[Any, Any, Any]:
    """Return (model, tokenizer, image processor) of a transformers checkpoint. Raises BackboneUnavailable."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what is wrong with a checkpoint is said in a sentence of ours
    with explained(id):
        file = find_weights(source)  # the download, outside the lock
        if not file:
            reason = Note.of("neither_file", first=WEIGHTS[0], second=WEIGHTS[2])
            raise BackboneUnavailable("backbone_no_weights", id=id, reason=reason)
        config = source / "config.json" if isinstance(source, Path) else hub_file(source, "config.json")
        if config:
            content = read_json(config, id)
            check_sizes(content, config.name, id)
            check_trunk(content, id)
            check_weights(content, weight_bytes(config.parent), id)
        with BUILDING:
            model, info = cls.from_pretrained(
                source,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                use_safetensors="safetensors" in file,
                weights_only=True,
                ignore_mismatched_sizes=True,
            )
    check_complete(info, id)
    check_finite(model, id)
    tokenizer, processor = load_tokenizer(source, id), load_processor(source, id)
    check_tokens(tokenizer(SAMPLE, return_tensors="pt").input_ids, model.config.text_config.vocab_size, id)
    check_distinct([tokenizer(text).input_ids for text in DISTINCT], id)
    check_processor(processor, model.config.vision_config.image_size, id)
    model.name_or_path = model.config._name_or_path = portable(id)  # what PEFT writes down
    return model.to(device), tokenizer, processor
