"""Questions about marked pictures: what a model is shown and told, what it says, and whether marks help it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.ask import catalog, pocket_vlm
from engine.ask.answerer import Answerer
from engine.ask.ask import ask, mentioned, pictures_of, ways_for
from engine.ask.check import check, names, sheets
from engine.ask.pocket import PocketAnswerer
from engine.ask.pocket_vlm import SPECIAL, PocketVlm, PocketVlmConfig, look, text_ids
from engine.ask.prompts import LABELLED, MARKED, PLAIN, Prompt, hint
from engine.cli.main import main
from engine.errors import AnswererUnavailable, BadConfig, BadTask
from engine.pretrain.vlm_data import train_tokenizer
from engine.regions.scores import Scorer
from engine.regions.types import Prompt as RegionPrompt
from engine.regions.types import Region
from engine.types import Label
from tests.tiny import picture

TEXTS = ["what is in mark 1", "mark 1 is a cup, mark 2 is a dog. which mark is the dog", "a red cup", "yes", "no"]


def photo(colour: str, side: int) -> Image.Image:
    return picture({"red": (200, 40, 40), "blue": (40, 40, 200)}[colour], 0, side)


class Parrot(Answerer):
    """Says what it was told of the mark that is asked for, else "nothing"; keeps what it was shown."""

    id, name, device = "parrot", "Parrot", torch.device("cpu")

    def __init__(self) -> None:
        self.shown: list[tuple[Image.Image, Prompt]] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def pieces(self, picture: Image.Image, prompt: Prompt, most: int, stop: threading.Event) -> Iterator[str]:
        self.shown.append((picture, prompt))
        mark = "".join(c for c in prompt.question if c.isdigit())
        told = [part for part in prompt.hint.split(", ") if part.startswith(f"mark {mark} is ")]
        for word in (told[0].split(" is ")[1] if told else "nothing").split():
            if stop.is_set():
                return
            yield f"{word} "


def regions(count: int, size: tuple[int, int] = (64, 64)) -> tuple[Region, ...]:
    found = []
    for k in range(count):
        mask = np.zeros(size[::-1], bool)
        mask[8:30, 4 + 20 * k : 20 + 20 * k] = True
        found.append(replace(Region.of(mask, size, 1.0, 1.0, RegionPrompt()), number=k + 1))
    return tuple(found)


def test_each_way_is_shown_and_told_what_it_should_be():
    parrot, plain = Parrot(), photo("red", 64)
    moments = list(ask(parrot, plain, " What is\nin mark 2? ", regions(2), {1: "a cup", 2: "a brown dog"}))
    last = {moment.way: moment for moment in moments}
    assert list(last) == [PLAIN, MARKED, LABELLED]
    assert [shown.tobytes() == plain.tobytes() for shown, _ in parrot.shown] == [True, False, False]
    assert [prompt.hint for _, prompt in parrot.shown] == ["", "", "mark 1 is a cup, mark 2 is a brown dog"]
    assert all(prompt.question == "What is in mark 2?" for _, prompt in parrot.shown)
    assert last[LABELLED].reply.text == "a brown dog" and last[PLAIN].reply.text == "nothing"
    assert last[LABELLED].reply.done and last[LABELLED].reply.tokens == 3 and last[LABELLED].reply.peak_bytes > 0
    assert next(m.reply.text for m in moments if m.way == LABELLED) == "a "  # piece by piece


@pytest.mark.parametrize(
    ("question", "found", "labels", "ways", "key"),
    [
        (" ", 1, {}, None, "ask_empty"),
        ("x" * 2000, 1, {}, None, "ask_long"),
        ("what?", 0, {}, [MARKED], "ask_no_marks"),
        ("what?", 1, {}, [LABELLED], "ask_no_labels"),
        ("what?", 1, {}, ["sideways"], "ask_way"),
    ],
)
def test_what_cannot_be_asked_is_said(question, found, labels, ways, key):
    with pytest.raises(BadConfig) as caught:
        list(ask(Parrot(), photo("red", 64), question, regions(found), labels, ways))
    assert caught.value.key == key


def test_only_ways_that_differ_are_asked_in():
    assert ways_for((), {1: "cup"}) == (PLAIN,)
    assert ways_for(regions(1), {}) == (PLAIN, MARKED)
    assert pictures_of(photo("red", 64), ())[MARKED].tobytes() == photo("red", 64).tobytes()


def test_stopping_keeps_what_was_said_and_asks_no_more():
    stop, said = threading.Event(), []
    for moment in ask(Parrot(), photo("red", 64), "mark 1?", regions(1), {1: "a big red cup"}, [LABELLED, PLAIN], stop):
        said.append(moment)
        stop.set()
    assert {moment.way for moment in said} == {LABELLED}
    assert said[-1].reply.stopped and said[-1].reply.text == "a"


def test_marks_in_an_answer_are_found():
    assert mentioned("Mark 2, not 12; and 1.", regions(2)) == (2, 1)
    assert hint({2: "a dog", 1: "a cup"}, "AB") == "mark A is a cup, mark B is a dog"


@pytest.mark.parametrize(
    ("text", "right"),
    [("It is a T-shirt.", True), ("t shirt", True), ("a shirt", False), ("tshirts", False), ("", False)],
)
def test_an_answer_names_a_label_by_whole_words(text, right):
    assert names(Label("티셔츠", "t-shirt"), text) is right


def test_a_check_counts_each_way_against_the_truth(tiny, task_images):
    images, labels = task_images
    scorer, parrot = Scorer.zero_shot(tiny, labels), Parrot()
    *_, last = check(parrot, scorer, images, count=6)
    assert last.done == last.total == 6
    assert last.right[LABELLED] == last.right["clip"]  # it says what it is told
    assert last.right[PLAIN] == last.right[MARKED] == 0
    assert 0 <= last.rates()[PLAIN].low <= last.rates()[PLAIN].high < 1
    assert len({prompt.question for _, prompt in parrot.shown}) > 1  # not always the same mark


def test_sheets_show_each_label_once_and_need_two(task_images):
    images, labels = task_images
    for sheet in sheets(images, labels, 5):
        assert len(set(sheet.truth)) == len(sheet.regions) == len(sheet.photos)
        assert [region.number for region in sheet.regions] == list(range(1, len(sheet.regions) + 1))
    with pytest.raises(BadTask, match="at least two labels"):
        next(sheets([image for image in images if image.label == labels[0].name], labels, 1))


@pytest.fixture
def task_images(task_folder, tmp_path):
    from engine import front_door

    task = front_door.read_task(task_folder)
    return task.images, task.labels


# ---- Pocket VLM


@pytest.fixture(scope="module")
def small():
    """A random pocket model with its tokenizer, as the bundled Pocket CLIP feeds it."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(iter(TEXTS * 3), 300)
    config = PocketVlmConfig(vocabulary=300, width=32, layers=1, heads=2, hidden=48, context=96)
    return PocketVlm(config).eval(), tokenizer


def test_what_is_looked_at_is_as_the_model_expects(pocket):
    pixels = pocket.normalise(pocket.load_pixels([photo("red", 224), photo("blue", 224)]))
    seen = look(pocket, pixels)
    assert seen.shape == (2, PocketVlmConfig.places, PocketVlmConfig.seen)
    assert torch.allclose(look(pocket, pixels[1:]), seen[1:], atol=1e-4)
    assert not torch.allclose(seen[0], seen[1], atol=0.1)


def test_a_pocket_model_answers_until_it_ends_or_is_stopped(small, pocket):
    model, tokenizer = small
    answerer = PocketAnswerer(model, tokenizer, pocket)
    reply = answerer.answer(photo("red", 100), Prompt("What is in mark 1?"), 5)
    assert reply.done and reply.tokens <= 5 and reply.asked_tokens == answerer.count_tokens("What is in mark 1?")
    again = answerer.answer(photo("red", 100), Prompt("What is in mark 1?"), 5)
    assert again.text == reply.text
    long = answerer.answer(photo("red", 100), Prompt("which mark is the dog " * 40, "mark 1 is a cup " * 40), 5)
    assert long.done  # cut to what there is room for
    stop = threading.Event()
    stop.set()
    *_, halted = answerer.stream(photo("red", 100), Prompt("what"), stop)
    assert halted.stopped and not halted.text


def test_words_are_learnt_and_the_end_is_said(small, pocket):
    """Trained on one pair, it answers it: the positions, the projection and the end fit together."""
    from engine.pretrain.vlm_data import padded
    from engine.pretrain.vlm_scenes import Asked

    model, tokenizer = small
    seen = look(pocket, pocket.normalise(pocket.load_pixels([photo("red", 224), photo("blue", 224)])))
    asked = [Asked("what is it", "a red cup"), Asked("what is it", "no")]
    parts = padded(tokenizer, [[row] for row in asked], False)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model.logits_of(seen, *parts[:3]), parts[3])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    answerer = PocketAnswerer(model.eval(), tokenizer, pocket)
    said = [answerer.answer(photo(colour, 224), Prompt("What is it?")).text for colour in ("red", "blue")]
    assert said == ["a red cup", "no"]


def test_only_answers_are_learnt_unless_the_whole_is_asked_for(small):
    from engine.pretrain.vlm_data import padded
    from engine.pretrain.vlm_scenes import Asked

    _, tokenizer = small
    row = Asked("what is it", "a red cup", "mark 1 is a cup")
    before = text_ids(tokenizer, row.question, row.hint)
    ids, _, positions, targets = padded(tokenizer, [[row], [Asked("what", "no")]], False)
    own = targets[positions[:, 0] == 0].tolist()
    assert own == ids[0, len(before) : len(before) + len(own)].tolist()
    assert own[-1] == SPECIAL.index("<end>")
    assert len(padded(tokenizer, [[row]], True)[3]) == len(before) + len(own) - 1


def test_texts_in_one_row_see_the_picture_and_not_each_other(small, pocket):
    from engine.pretrain.vlm_data import padded
    from engine.pretrain.vlm_scenes import Asked

    model, tokenizer = small
    seen = look(pocket, pocket.normalise(pocket.load_pixels([photo("red", 224)])))
    texts = [
        Asked("what is it", "a red cup"),
        Asked("which mark is the dog", "no", "mark 1 is a cup"),
        Asked("what", "yes"),
    ]
    together = padded(tokenizer, [texts, texts[:1]], False)
    found = model.logits_of(seen.expand(2, -1, -1), *together[:3])
    alone = []
    for row in texts:
        parts = padded(tokenizer, [[row]], False)
        alone.append(model.logits_of(seen, *parts[:3]))
        given = model.embed(seen, parts[0])  # as an answer reads it
        plain = model.language.lm_head(model.language.model(inputs_embeds=given).last_hidden_state)
        assert torch.allclose(plain[0, parts[2][:, 1] + seen.shape[1]], alone[-1], atol=1e-4)
    assert torch.allclose(found, torch.cat([*alone, alone[0]]), atol=1e-4)


def test_a_saved_model_says_the_same_and_belongs_to_its_tower(small, pocket, tmp_path):
    model, tokenizer = small
    pocket_vlm.save(model, tokenizer, tmp_path)
    loaded, _ = pocket_vlm.load(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value.half().float()), name
    with pytest.raises(ValueError, match="image tower"):
        PocketAnswerer.of(tmp_path, pocket)


def test_any_script_is_read_at_its_price(small):
    _, tokenizer = small
    korean = tokenizer.encode("표시 1에 무엇이 있나요", add_special_tokens=False)
    assert tokenizer.decode(korean.ids).strip() == "표시 1에 무엇이 있나요"
    assert len(korean.ids) > len(tokenizer.encode("what is in mark 1", add_special_tokens=False).ids)


# ---- transformers' models


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A folder with a tiny random LLaVA, its processor and chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "<image>",
        "USER",
        ":",
        "what",
        "is",
        "in",
        "mark",
        "1",
        "cup",
        "?",
    ]
    raw = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words) + 1,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=4,
    )
    folder = tmp_path_factory.mktemp("llava")
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"height": 28, "width": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    processor.save_pretrained(folder)
    return folder


def test_a_folder_of_transformers_answers_piece_by_piece_and_stops(llava):
    answerer = catalog.load(str(llava), "cpu")
    assert "<image> In the picture, mark 1 is a cup. what?" in answerer.text_of(Prompt("what?", "mark 1 is a cup"))
    replies = list(answerer.stream(photo("red", 40), Prompt("what is in mark 1 ?"), most=6))
    assert replies[-1].done and not replies[-1].stopped
    stop = threading.Event()
    replies = []
    for reply in answerer.stream(photo("red", 40), Prompt("what is in mark 1 ?"), stop, most=2000):
        replies.append(reply)
        stop.set()
    assert replies[-1].stopped


def test_a_model_that_answers_nothing_is_refused_in_a_sentence(tmp_path, llava):
    from tests.tiny import make_tiny

    make_tiny().model.save_pretrained(tmp_path / "clip")
    with pytest.raises(AnswererUnavailable, match="does not answer questions"):
        catalog.load(str(tmp_path / "clip"), "cpu")
    with pytest.raises(AnswererUnavailable, match="There is no model nowhere"):
        catalog.load("nowhere", "cpu")
    with pytest.raises(AnswererUnavailable, match="513 MB"):
        catalog.load("smolvlm-256m", "cpu")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(AnswererUnavailable, match="cannot be loaded"):
        catalog.load(str(tmp_path / "broken"), "cpu")


# ---- command line


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_marks_labels_asks_and_measures(task_folder, tmp_path, capsys, monkeypatch):
    import json

    monkeypatch.setattr(catalog, "load", lambda *_: Parrot())
    path = tmp_path / "photo.png"
    photo("red", 96).save(path)
    question = ("ask", "--image", path, "--question", "What is in mark 1?")
    code, out, _ = run(capsys, *question, "--box", "10,10,60,60", "--labels", "cup,dog", "--json")
    if code == 0:  # one colour all over: nothing may be found in it
        found = json.loads(out)
        assert list(found["answers"]) == [PLAIN, MARKED, LABELLED]
        assert found["answers"][LABELLED]["text"] == found["marks"]["1"]
    code, out, _ = run(capsys, "ask", "--image", path, "--question", "Describe it", "--json")
    assert code == 0 and list(json.loads(out)["answers"]) == [PLAIN]
    code, out, _ = run(capsys, "ask", "--check", "--task", task_folder, "--sheets", 3, "--json")
    assert code == 0 and json.loads(out)["sheets"] == 3
    code, out, _ = run(capsys, "ask", "--models")
    assert code == 0 and "qwen2-vl-2b" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give a picture and a question"),
        (("--image", "/nowhere.jpg", "--question", "what?"), "nowhere.jpg"),
        (("--image", "{photo}"), "There is no question"),
        (("--image", "{photo}", "--question", "x" * 2000), "2,000 characters"),
        (("--image", "{photo}", "--question", "what?", "--ways", "marked"), "no marks yet"),
        (("--image", "{photo}", "--question", "what?", "--model", "nothing-here"), "There is no model"),
        (("--check", "--task", "/nowhere"), "nowhere"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, said, tmp_path, capsys, monkeypatch):
    if "--model" not in arguments:
        monkeypatch.setattr(catalog, "load", lambda *_: Parrot())
    photo("red", 96).save(tmp_path / "photo.png")
    words = [word.replace("{photo}", str(tmp_path / "photo.png")) for word in arguments]
    code, _, err = run(capsys, "ask", *words)
    assert code == 2 and said in err
