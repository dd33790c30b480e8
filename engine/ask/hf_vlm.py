"""transformers' image-text-to-text models as answerers: a hub name or a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image

from engine.ask.answerer import Answerer
from engine.ask.prompts import Prompt
from engine.errors import AnswererUnavailable
from engine.tuning.precision import multiplies_bf16

SHORT = "Answer in one short sentence."


class HFAnswerer(Answerer):
    """A model that ``AutoModelForImageTextToText`` loads, asked through its own chat template."""

    def __init__(self, model: Any, processor: Any, id: str, name: str, languages: tuple[str, ...] = ("en",)):
        self.model, self.processor, self.id, self.name, self.languages = model, processor, id, name, languages
        self.device = model.device

    def count_tokens(self, text: str) -> int:
        return len(self.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def text_of(self, prompt: Prompt) -> str:
        """What is asked, as the chat template has it."""
        told = f"In the picture, {prompt.hint}. " if prompt.hint else ""
        content = [{"type": "image"}, {"type": "text", "text": f"{told}{prompt.question} {SHORT}"}]
        chat = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)

    def pieces(self, picture: Image.Image, prompt: Prompt, most: int, stop: threading.Event) -> Iterator[str]:
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        inputs = self.processor(text=self.text_of(prompt), images=[picture.convert("RGB")], return_tensors="pt")
        inputs = inputs.to(self.device, self.model.dtype)
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        failed: list[BaseException] = []

        def halt(*_: Any, **__: Any) -> bool:
            return stop.is_set()

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(
                        **inputs,
                        max_new_tokens=most,
                        do_sample=False,
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([halt]),  # type: ignore[list-item]
                    )
            except BaseException as error:
                failed.append(error)
                streamer.end()

        thread = threading.Thread(target=work, daemon=True, name="answer")
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        except GeneratorExit:  # whoever listened has gone
            stop.set()
            raise
        finally:
            thread.join()
        if failed:
            raise failed[0]


def load(source: str, id: str, name: str, languages: tuple[str, ...], device: str) -> HFAnswerer:
    """Load a folder or hub name; weights in bf16 where the device multiplies it. No code of the checkpoint is run.

    Raises AnswererUnavailable where it is no model that answers about pictures, and what the libraries raise.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise AnswererUnavailable("ask_other_kind", id=id, kind=config.model_type)
    dtype = torch.bfloat16 if multiplies_bf16(torch.device(device).type) else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(
        source, dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
    if not getattr(processor, "chat_template", None):
        raise AnswererUnavailable("ask_no_template", id=id)
    return HFAnswerer(model.eval().to(device), processor, id, name, languages)
