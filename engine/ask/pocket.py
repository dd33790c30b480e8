"""Pocket VLM as an answerer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer

from engine.ask.answerer import Answerer
from engine.ask.pocket_vlm import PocketVlm, decode, load, look, text_ids
from engine.ask.prompts import Prompt
from engine.backbones.hf_clip import HFClip

SIDE = 224
"""Pixels of the square that a picture is squashed to, as in training."""


class PocketAnswerer(Answerer):
    """Pocket VLM with the image tower that it was trained on."""

    id, name, most_marks = "pocket", "Pocket VLM", 4

    def __init__(self, model: PocketVlm, tokenizer: Tokenizer, backbone: HFClip):
        self.model, self.tokenizer, self.backbone = model, tokenizer, backbone
        self.device = backbone.device
        self._seen: tuple[bytes, Any] = (b"", None)

    @classmethod
    def of(cls, folder: Path, backbone: HFClip) -> PocketAnswerer:
        """Load the model of a folder. Raises ValueError where it was trained on another image tower."""
        model, tokenizer = load(folder)
        if model.config.backbone != backbone.weight_hash:
            raise ValueError(f"it was trained on the image tower {model.config.backbone}, not {backbone.weight_hash}")
        return cls(model.to(backbone.device), tokenizer, backbone)

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def pieces(self, picture: Image.Image, prompt: Prompt, most: int, stop: threading.Event) -> Iterator[str]:
        room = self.model.config.context - self.model.config.places - 2 - min(most, 40)
        ids = text_ids(self.tokenizer, prompt.question, prompt.hint)
        if len(ids) > room:  # the question comes last, and the marks' labels at the start are lost first
            ids = [ids[0], *ids[len(ids) - room + 1 :]]
        said: list[int] = []
        text = ""
        for token in self.model.answer(self._look(picture), torch.tensor([ids], device=self.device), most):
            if stop.is_set():
                return
            said.append(token)
            whole = decode(self.tokenizer, said)
            if not whole.endswith("\N{REPLACEMENT CHARACTER}"):  # half a letter
                yield whole[len(text) :]
                text = whole

    def _look(self, picture: Image.Image) -> torch.Tensor:
        """What the tower sees of a picture; of the last one it is kept, for the next question."""
        square = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        key = square.tobytes()
        if self._seen[0] != key:
            pixels = self.backbone.normalise(self.backbone.load_pixels([square]).to(self.device))
            self._seen = key, look(self.backbone, pixels.contiguous(memory_format=torch.channels_last))
        return self._seen[1]
