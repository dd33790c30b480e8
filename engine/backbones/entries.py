"""The backbones that the menu offers."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Note, any_of

POCKET = "pocket"
POCKET_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "pocket-clip"
HUB_NAME = r"[\w.-]+/[\w.-]+"
ASK = "see its card"
"""Licence that is not stated here."""


@dataclass(frozen=True)
class Entry:
    """A backbone that the menu offers."""

    id: str
    name: str
    parameters: float
    """Millions."""
    image_size: int
    """Pixels."""
    download_mb: int
    """Size of the weights in fp32."""
    licence: str
    languages: str = "en"
    """``en``, or ``many``."""
    repo: str = ""
    """Hub repository of the weights, where it is not the id."""

    @property
    def licence_known(self) -> bool:
        """Whether the licence is stated here."""
        return self.licence != ASK


def _apple(id: str, name: str, parameters: float, repo: str, image_size: int = 256) -> Entry:
    return Entry(id, name, parameters, image_size, round(4 * parameters), ASK, repo=f"{repo}-OpenCLIP")


ENTRIES = (
    Entry(POCKET, "Pocket CLIP", 10.7, 224, 0, "Apache-2.0"),
    Entry("openai/clip-vit-base-patch32", "OpenAI CLIP ViT-B/32", 151.3, 224, 605, "MIT"),
    Entry("openai/clip-vit-base-patch16", "OpenAI CLIP ViT-B/16", 149.6, 224, 599, "MIT"),
    Entry("openai/clip-vit-large-patch14", "OpenAI CLIP ViT-L/14", 427.6, 224, 1710, "MIT"),
    Entry("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "LAION CLIP ViT-B/32", 151.3, 224, 605, "MIT"),
    Entry("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "LAION CLIP ViT-B/16", 149.6, 224, 599, "MIT"),
    Entry("google/siglip-base-patch16-224", "SigLIP B/16", 203.2, 224, 813, "Apache-2.0"),
    Entry("google/siglip2-base-patch16-224", "SigLIP 2 B/16", 375.2, 224, 1501, "Apache-2.0", "many"),
    Entry(
        "ViT-B-16-SigLIP-i18n-256",
        "SigLIP i18n B/16",
        370.6,
        256,
        1482,
        "Apache-2.0",
        "many",
        "timm/ViT-B-16-SigLIP-i18n-256",
    ),
    _apple("MobileCLIP-S1", "MobileCLIP-S1", 85.0, "apple/MobileCLIP-S1"),
    _apple("MobileCLIP-S2", "MobileCLIP-S2", 99.2, "apple/MobileCLIP-S2"),
    _apple("MobileCLIP-B", "MobileCLIP-B", 149.8, "apple/MobileCLIP-B", 224),
    _apple("MobileCLIP2-S0", "MobileCLIP2-S0", 74.8, "timm/MobileCLIP2-S0"),
    _apple("MobileCLIP2-S2", "MobileCLIP2-S2", 99.2, "timm/MobileCLIP2-S2"),
    _apple("MobileCLIP2-S3", "MobileCLIP2-S3", 248.9, "timm/MobileCLIP2-S3"),
    _apple("MobileCLIP2-S4", "MobileCLIP2-S4", 445.4, "timm/MobileCLIP2-S4"),
    _apple("MobileCLIP2-B", "MobileCLIP2-B", 149.8, "timm/MobileCLIP2-B", 224),
    Entry(
        "ViT-B-32@datacomp_xl_s13b_b90k",
        "DataComp CLIP ViT-B/32",
        151.3,
        224,
        605,
        "MIT",
        repo="laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    ),
    Entry(
        "ViT-B-16@datacomp_xl_s13b_b90k",
        "DataComp CLIP ViT-B/16",
        149.6,
        224,
        599,
        "MIT",
        repo="laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    ),
    Entry("PE-Core-T-16-384", "PE-Core T/16", 69.5, 384, 278, "Apache-2.0", repo="timm/PE-Core-T-16-384"),
    Entry("PE-Core-S-16-384", "PE-Core S/16", 87.2, 384, 349, "Apache-2.0", repo="timm/PE-Core-S-16-384"),
    Entry("PE-Core-B-16", "PE-Core B/16", 447.7, 224, 1791, "Apache-2.0", repo="timm/PE-Core-B-16"),
    Entry("PE-Core-L-14-336", "PE-Core L/14", 671.1, 336, 2684, "Apache-2.0", repo="timm/PE-Core-L-14-336"),
)


def similar(id: str) -> tuple[object, ...] | Note:
    """Return up to four known names like this one, for the field of a sentence."""
    import open_clip

    names = [*(entry.id for entry in ENTRIES), *open_clip.list_models()]
    by_lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(id.removeprefix("hf-hub:").lower(), by_lower, n=4, cutoff=0.6)
    return any_of(by_lower[name] for name in near if by_lower[name] != id)
