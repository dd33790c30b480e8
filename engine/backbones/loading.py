"""What loading a backbone has in common: reasons why it fails, and checks of what was loaded."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from engine.errors import BackboneUnavailable, messages

messages(
    backbone_missing="The backbone {id} cannot be loaded: {reason}. Choose another backbone, or give the path of a "
    "folder with config.json, model.safetensors and the tokenizer's files.",
    backbone_not_clip="{id} is a {kind} model, not an image-text model that is known here. Choose a CLIP, SigLIP or "
    "OpenCLIP checkpoint.",
    backbone_no_model="The folder {id} holds no model: it has neither config.json nor open_clip_config.json. Choose "
    "a folder that a model was saved to.",
    backbone_config="The file {file} of {id} cannot be read: it is no JSON or lacks {field}. Choose another backbone, "
    "or copy the file again.",
    backbone_no_weights="{id} has no weights: {reason}. Choose another backbone, or copy or download it again.",
    backbone_damaged="The weights of {id} are damaged or cut short. Choose another backbone, or delete them and copy "
    "or download them again.",
    backbone_pickle="The weights of {id} hold more than tensors, or are cut short; such a file may run code and is not "
    "opened. Choose a checkpoint with model.safetensors.",
    backbone_not_finite="The weights of {id} hold numbers that are not finite (in {name}). Choose another checkpoint.",
    backbone_other_weights="The weights of {id} do not fit its configuration (for example {name}). Choose a checkpoint "
    "whose files belong together.",
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
    backbone_offline="{id} is not on this machine and cannot be downloaded now (no connection). Choose a backbone that "
    "is here already, or connect and try again. Known names like it: {near}.",
    backbone_not_found="The hub has no model {id}, or it is private. Choose another name; similar names: {near}.",
    backbone_gated="{id} can only be downloaded after its terms were accepted on its hub page. Accept them and log in "
    "there, or choose another backbone.",
    backbone_disk="There is no space left on the disk for {id}. Free some, or choose a smaller backbone.",
)

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""transformers' weight files, most wanted first. A .bin is read as tensors alone (``weights_only``), never as code;
some well-known checkpoints have nothing else."""

BUILDING = threading.Lock()
"""Held while a library builds a model: both transformers and open_clip change global state for that
moment. Downloads happen outside, so visitors wait for seconds at most."""


@contextmanager
def explained(id: str) -> Iterator[None]:
    """Turn what libraries raise while a backbone is being loaded into BackboneUnavailable."""
    try:
        yield
    except UnpicklingError as error:
        raise BackboneUnavailable("backbone_pickle", id=id) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise explain(error, id) from error


def explain(error: BaseException, id: str) -> BackboneUnavailable:
    """The sentence for a library's exception; its own first line where there is no better one."""
    import httpx
    from huggingface_hub import errors as hub

    from engine.backbones.catalog import similar

    offline = (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, httpx.TransportError, ConnectionError)
    for cause in causes(error):
        if isinstance(cause, hub.GatedRepoError):
            return BackboneUnavailable("backbone_gated", id=id)
        if isinstance(cause, hub.RepositoryNotFoundError | hub.RevisionNotFoundError | hub.HFValidationError):
            return BackboneUnavailable("backbone_not_found", id=id, near=similar(id))
        if isinstance(cause, offline):
            return BackboneUnavailable("backbone_offline", id=id, near=similar(id))
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return BackboneUnavailable("backbone_disk", id=id)
        if isinstance(cause, SafetensorError | EOFError) or "PytorchStreamReader" in str(cause):
            return BackboneUnavailable("backbone_damaged", id=id)
    if found := re.search(r'(?:key\(s\) in state_dict: "|size mismatch for )([\w.]+)', str(error)):
        return BackboneUnavailable("backbone_other_weights", id=id, name=found[1])
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    return BackboneUnavailable("backbone_missing", id=id, reason=reason)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def here(id: str, name: str) -> Path | None:
    """A file of a hub repository where it is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(id, name)
    return Path(found) if isinstance(found, str) else None


def hub_file(id: str, name: str) -> Path | None:
    """A file of a hub repository, downloaded if need be; None where the repository has no such file.
    Raises what huggingface_hub raises."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return here(id, name) or Path(hf_hub_download(id, name))
    except RemoteEntryNotFoundError:
        return None


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


def load_tokenizer(source: Any, id: str) -> Any:
    """The checkpoint's tokenizer, as transformers chooses it. Raises BackboneUnavailable.

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
    """The checkpoint's image processor. Raises BackboneUnavailable."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneUnavailable("backbone_no_processor", id=id) from error


SAMPLE = "a photo of a cat, 고양이"
"""A text whose tokens must be in the vocabulary."""


def load_transformers(cls: Any, source: str | Path, id: str, device: str) -> tuple[Any, Any, Any]:
    """(model, tokenizer, image processor) of a transformers checkpoint. Raises BackboneUnavailable."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with explained(id):
        file = find_weights(source)  # the download, outside the lock
        if not file:
            reason = f"there is neither {WEIGHTS[0]} nor {WEIGHTS[2]}"
            raise BackboneUnavailable("backbone_no_weights", id=id, reason=reason)
        with BUILDING:
            model, info = cls.from_pretrained(
                source, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True,
                use_safetensors="safetensors" in file, weights_only=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    check_complete(info, id)
    check_finite(model, id)
    tokenizer, processor = load_tokenizer(source, id), load_processor(source, id)
    check_tokens(tokenizer(SAMPLE, return_tensors="pt").input_ids, model.config.text_config.vocab_size, id)
    model.name_or_path = model.config._name_or_path = id  # what PEFT writes down: a name, not this machine's folder
    return model.to(device), tokenizer, processor
