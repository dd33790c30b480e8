"""Files of the Hugging Face hub: what is on this machine, and why a download or a load fails."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError

from engine.backbones.entries import POCKET, POCKET_FOLDER, Entry, similar
from engine.errors import BackboneUnavailable, Note, messages
from engine.paths import paths_allowed

messages(
    sizes_unknown="it is not on this machine, and its sizes are not known without it",
    backbone_missing="The backbone {id} cannot be loaded: {reason}. Choose another backbone, or give the path of a "
    "folder with config.json, model.safetensors and the tokenizer's files.",
    backbone_damaged="The weights of {id} are damaged or cut short. Choose another backbone, or delete them and copy "
    "or download them again.",
    backbone_pickle="The weights of {id} hold more than tensors, or are cut short; such a file may run code and is not "
    "opened. Choose a checkpoint with model.safetensors.",
    backbone_other_weights="The weights of {id} do not fit its configuration (for example {name}). Choose a checkpoint "
    "whose files belong together.",
    backbone_other_architecture="The weights of {id} belong to another architecture ({reason}). Write "
    "open_clip:NAME@FILE with the architecture that they were trained as.",
    other_sizes="their sizes differ",
    backbone_script="{id} is a TorchScript archive, as OpenAI published its models; it holds code and is not opened. "
    "Convert it once where you trust it: torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), "
    "'weights.pt'), or choose OpenAI's weights as open_clip:NAME@openai.",
    backbone_offline="{id} is not on this machine and cannot be downloaded now (no connection). Choose a backbone that "
    "is here already, or connect and try again. Known names like it: {near}.",
    backbone_not_found="The hub has no model {id}, or it is private. Choose another name; similar names: {near}.",
    backbone_gated="{id} can only be downloaded after its terms were accepted on its hub page. Accept them and log in "
    "there, or choose another backbone.",
    backbone_disk="There is no space left on the disk for {id}. Free some, or choose a smaller backbone.",
)

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""transformers' weight files, most wanted first. A .bin is read as tensors alone (``weights_only``), never as code;
some well-known checkpoints have nothing else."""
ALL_WEIGHTS = (*WEIGHTS, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""The same, and open_clip's."""


@contextmanager
def explained(id: str) -> Iterator[None]:
    """Turn what libraries raise while a backbone is being loaded into BackboneUnavailable."""
    try:
        yield
    except UnpicklingError as error:
        raise BackboneUnavailable("backbone_pickle", id=id) from error
    except AssertionError as error:  # open_clip's, where tables of positions have other sizes
        reason = str(error).strip().rstrip("!.") or Note("other_sizes")
        raise BackboneUnavailable("backbone_other_architecture", id=id, reason=reason) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise explain(error, id) from error


def explain(error: BaseException, id: str) -> BackboneUnavailable:
    """Return the sentence for a library's exception; its own first line where there is no better one."""
    import httpx
    from huggingface_hub import errors as hub

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
    if not paths_allowed():
        reason = re.sub(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\"]+){2,}", "(a file here)", reason)
    return BackboneUnavailable("backbone_missing", id=id, reason=reason)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def here(id: str, name: str) -> Path | None:
    """Return a file of a hub repository where it is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(id, name)
    return Path(found) if isinstance(found, str) else None


def hub_file(id: str, name: str) -> Path | None:
    """Return a file of a hub repository, downloaded if need be; None where the repository has no such file.
    Raises what huggingface_hub raises."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return here(id, name) or Path(hf_hub_download(id, name))
    except RemoteEntryNotFoundError:
        return None


def on_this_machine(entry: Entry) -> bool:
    """Return whether an entry's weights are here, so that nothing has to be downloaded."""
    if entry.id == POCKET:
        return any(POCKET_FOLDER.glob("model*.safetensors"))
    return in_cache(entry.repo or entry.id)


def in_cache(repo: str) -> bool:
    """Return whether weights of a hub repository are on this machine."""
    return any(here(repo, file) for file in ALL_WEIGHTS)
