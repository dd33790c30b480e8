"""The endpoints for programs: ``gradio_client``, plain HTTP and MCP.

Each call stands for itself: files go in with it, nothing of the page's visitors is reached, and what it made is kept
only until its answer is sent. The limits are the page's, and so is the queue: one run at a time on the device. Names of
backbones are looked up as the page does, so that a Space's callers reach no file of its server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from demo.api_calls import (
    Json,
    Report,
    adapter_of,
    named,
    numbers_of,
    on_device,
    plainly,
    problems_of,
    scorer_of,
    task_of,
    zipped,
)
from engine import temporary
from engine.errors import BadConfig


def methods() -> Json:
    """Every tuning method: id, name, family, what it does, paper, settings with their ranges and presets.

    Returns:
        {"methods": [...]}, a record for each method.
    """
    from engine.methods.records import records

    return {"methods": records()}


def forecast(method: str, backbone: str = "pocket", labels: int = 10, shots: int = 8, preset: str = "budget") -> Json:
    """What a run would need: trained parameters, memory in bytes by part, seconds by part, where it fits.

    Args:
        method: id of a method, such as lora; see methods.
        backbone: pocket, or a model of the Hugging Face hub.
        labels: number of labels, at least 2.
        shots: training images a label, at least 1.
        preset: budget, or paper for the published schedule.
    """
    from engine.costs.planned import plan

    with plainly():
        return plan(method, backbone, int(labels), int(shots), preset=preset)


def zero_shot(task: list[str], labels: str = "", backbone: str = "pocket") -> Iterator[Json]:
    """Score labelled photos without any training.

    Args:
        task: a zip with a folder a label.
        labels: by comma; "name=prompt text" gives the text apart. Empty: the folders' names.
        backbone: pocket, or a model of the Hugging Face hub.

    Returns:
        Accuracy (0 to 1) with one template and with the ensemble, 95 % intervals, the number of test images.
    """

    def work(report: Report, stop: threading.Event) -> Json:
        from engine import front_door

        found = task_of(task, labels)
        return front_door.zero_shot(found, backbone).to_json() | {"left_out": problems_of(found)}

    yield from on_device(work)


def tune(
    task: list[str],
    method: str = "lora",
    shots: int = 8,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    labels: str = "",
    backbone: str = "pocket",
    preset: str = "budget",
) -> Iterator[tuple[Json, str | None]]:
    """Tune a method on some photos and test it on the others, beside zero-shot.

    Args:
        task: a zip with a folder a label.
        method: id of a method; see methods.
        shots: most training images a label.
        seed: decides the draw of the training images and the random start.
        settings: fields of the method's config, such as {"epochs": 10}.
        labels: by comma; "name=prompt text" gives the text apart. Empty: the folders' names.
        backbone: pocket, or a model of the Hugging Face hub.
        preset: budget, or paper for the published schedule.

    Returns:
        While it runs {"stage", "done", "total", "loss"}; at the end the result (accuracy 0 to 1, intervals, verdict,
        cost) and the adapter as a zip for predict and export.
    """
    with temporary.folder() as kept:

        def work(report: Report, stop: threading.Event) -> tuple[Json, str]:
            from engine import front_door
            from engine.tuning.adapter_files import pack

            found = task_of(task, labels)
            tuned = front_door.tune(
                found,
                method,
                backbone,
                int(shots),
                int(seed),
                preset=preset,
                progress=lambda p: report({"stage": p.stage, "done": p.done, "total": p.total, "loss": p.loss}),
                stop=stop,
                **(settings or {}),
            )
            tuned.save(Path(kept) / "adapter")
            file = pack(Path(kept) / "adapter", Path(kept) / f"{method}.zip")
            return tuned.result.to_json() | {"left_out": problems_of(found)}, str(file)

        yield from on_device(work, lambda moment: (moment, None))


def predict(adapter: str, images: list[str], backbone: str = "") -> Iterator[Json]:
    """Label photos with a tuned model, and by zero-shot beside it.

    Args:
        adapter: the zip that tune returned.
        images: image files, or zips of them; the answers keep this order.
        backbone: where the adapter's backbone is found now; empty: as it was when it was saved.

    Returns:
        {"predictions": [{"image", "zero_shot", "tuned", "likely", "unlike"}]}: each side has its label and the
        probability of every label; likely are the labels among which the right one is in nine of ten; unlike says
        whether the photo is unlike the training photos of every label (null where the adapter cannot tell).
    """

    def work(report: Report, stop: threading.Event) -> Json:
        from engine import front_door
        from engine.data.own_images import read_in_order

        if not images:
            raise BadConfig("api_no_images")
        with temporary.folder() as folder:
            intake = read_in_order(images, Path(folder))
            loaded = front_door.load_adapter(adapter_of(adapter), None, backbone or None)
            rows = front_door.predict(loaded, intake.images)
        return {
            "predictions": [row.to_json() | {"image": named(row.image, images)} for row in rows],
            "left_out": [named(problem.message, images) for problem in intake.problems],
        }

    yield from on_device(work, files=images)


def compare(
    task: list[str],
    methods: str = "quick",
    shots: str = "",
    seeds: str = "0,1,2",
    labels: str = "",
    backbone: str = "pocket",
) -> Iterator[Json]:
    """Run many methods on the same photos, rank them with their uncertainty and say which one to take.

    Args:
        task: a zip with a folder a label.
        methods: quick, all, a family, or ids by comma.
        shots: training images a label by comma; empty: 1,2,4,8,16 as far as the photos go.
        seeds: draws of the training images by comma.
        labels: by comma; "name=prompt text" gives the text apart. Empty: the folders' names.
        backbone: pocket, or a model of the Hugging Face hub.

    Returns:
        While it runs {"done", "total", "seconds_left"}; at the end rows, ranking, shot curves and advice.
    """

    def work(report: Report, stop: threading.Event) -> Json:
        from engine import front_door
        from engine.compare import Results

        def tell(event: Any) -> None:
            report({"stage": event.kind, "done": event.done, "total": event.total})

        found = task_of(task, labels)
        with temporary.folder() as folder:
            comparison = front_door.compare(
                found,
                methods,
                backbone,
                numbers_of("shots", shots),
                numbers_of("seeds", seeds),
                results=Results(folder),
                progress=tell,
                stop=stop,
            )
            return comparison.to_json() | {"left_out": problems_of(found)}

    yield from on_device(work)


def regions(
    image: str, labels: str = "", adapter: str | None = None, granularity: str = "objects"
) -> Iterator[tuple[Json, Any]]:
    """Find everything in a photo, number it (Set-of-Mark), and score each region.

    Args:
        image: an image file.
        labels: by comma, for zero-shot scores; leave empty with an adapter.
        adapter: the zip that tune returned, for tuned scores beside zero-shot.
        granularity: objects, or parts for more and smaller regions.

    Returns:
        Regions with number, box (left, top, width, height in pixels), area and scores; the photo with its marks.
    """

    def work(report: Report, stop: threading.Event) -> tuple[Json, Any]:
        from engine.data.images import read_image
        from engine.regions import catalog, marks, scores
        from engine.regions.export import guess_json, region_json, sides_of
        from engine.tuning.outcome import Stopped

        if not image:
            raise BadConfig("api_no_images")
        picture = read_image(image, whole=True)
        scorer = scorer_of(labels, adapter)
        scene = catalog.load(catalog.POCKET).set_image(picture)

        def tell(done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            report({"stage": "regions", "done": done, "total": total})

        found = scene.everything(granularity, tell)
        scored = scores.score(scene.picture, found, scorer, "crop", 0.1) if scorer else ()
        by_number = {row.number: row for row in scored}
        rows = [
            {
                **region_json(region, str(region.number)),
                **({side: guess_json(guess, scorer) for side, guess in sides_of(by_number.get(region.number))}),
            }
            for region in found
        ]
        size = {"width": picture.width, "height": picture.height}
        return {"image": size, "regions": rows}, marks.draw(picture, found, marks.Style()).image

    yield from on_device(work, lambda moment: (moment, None))


def ask(
    image: str, question: str, labels: str = "", adapter: str | None = None, mark: bool = True, model: str = "pocket"
) -> Iterator[tuple[Json, Any]]:
    """Ask a small vision-language model about a photo: plain, with Set-of-Mark, and with CLIP's label of each mark.

    Args:
        image: an image file.
        question: in English, such as "What is in mark 2?".
        labels: by comma, of which CLIP gives each mark one; leave empty with an adapter.
        adapter: the zip that tune returned, whose tuned labels are told instead.
        mark: whether what is found in the photo is marked; without it only the plain photo is asked about.
        model: pocket, or another id of the catalogue that is on the server.

    Returns:
        The answers by way (plain, marked, labelled) with their tokens and seconds; the photo with its marks.
    """

    def work(report: Report, stop: threading.Event) -> tuple[Json, Any]:
        from engine.ask import ask as asking
        from engine.ask import catalog as answerers
        from engine.ask.prompts import MARKED, checked
        from engine.data.images import read_image
        from engine.regions import catalog, scores

        checked(question)
        if not image:
            raise BadConfig("api_no_images")
        picture = read_image(image, whole=True)
        scorer, told = scorer_of(labels, adapter), dict[int, str]()
        scene = catalog.load(catalog.POCKET).set_image(picture) if mark else None
        found = scene.everything("objects") if scene else ()
        picture = scene.picture if scene else picture
        if scorer and found:
            rows = scores.score(picture, found, scorer)
            told = {row.number: (row.tuned or row.zero_shot).label for row in rows}
        said = {}
        for moment in asking.ask(answerers.load(model), picture, question, found, told, stop=stop):
            said[moment.way] = {**moment.reply.to_json(), "told": moment.prompt.hint}
            report({"stage": "ask", "way": moment.way, "text": moment.reply.text})
        return {"answers": said}, asking.pictures_of(picture, found)[MARKED]

    yield from on_device(work, lambda moment: (moment, None))


def export(adapter: str, to: str = "onnx") -> Iterator[tuple[Json, str | None]]:
    """Write a tuned model in a form that other programs read.

    Args:
        adapter: the zip that tune returned.
        to: transformers, open_clip or onnx.

    Returns:
        What was written, and the files as one zip.
    """
    with temporary.folder() as kept:

        def work(report: Report, stop: threading.Event) -> tuple[Json, str]:
            from engine import front_door

            folder = Path(kept) / to.strip().replace("/", "_")
            done = front_door.export_adapter(adapter_of(adapter), to.strip(), folder)
            return done.to_json(), zipped(folder)

        yield from on_device(work, lambda moment: (moment, None))


def bind() -> None:
    """Add the endpoints to the Blocks under construction; nothing of them is shown."""
    file: dict[str, Any] = {"type": "filepath"}
    with gr.Column(visible=False):
        photos = gr.File(label="task", file_count="multiple", **file)
        images = gr.File(label="images", file_count="multiple", **file)
        image, adapter = gr.File(label="image", **file), gr.File(label="adapter (zip)", **file)
        method, preset = gr.Textbox("lora", label="method"), gr.Textbox("budget", label="preset")
        labels, backbone = gr.Textbox("", label="labels"), gr.Textbox("pocket", label="backbone")
        place, form = gr.Textbox("", label="backbone's place"), gr.Textbox("onnx", label="form")
        question, marks = gr.Textbox("", label="question"), gr.Checkbox(True, label="mark")
        answerer = gr.Textbox("pocket", label="model")
        many, counts, draws = gr.Textbox("quick", label="methods"), gr.Textbox("", label="shots"), gr.Textbox("0,1,2")
        count, shots, seed = gr.Number(10, precision=0), gr.Number(8, precision=0), gr.Number(0, precision=0)
        settings, level = gr.JSON(label="settings", value={}), gr.Textbox("objects", label="granularity")
        answer, saved, drawn = gr.JSON(label="answer"), gr.File(label="zip"), gr.Image(label="marked", format="png")
        endpoints: list[tuple[Callable, list[Any], list[Any]]] = [
            (methods, [], [answer]),
            (forecast, [method, backbone, count, shots, preset], [answer]),
            (zero_shot, [photos, labels, backbone], [answer]),
            (tune, [photos, method, shots, seed, settings, labels, backbone, preset], [answer, saved]),
            (predict, [adapter, images, place], [answer]),
            (compare, [photos, many, counts, draws, labels, backbone], [answer]),
            (regions, [image, labels, adapter, level], [answer, drawn]),
            (ask, [image, question, labels, adapter, marks, answerer], [answer, drawn]),
            (export, [adapter, form], [answer, saved]),
        ]
        for work, inputs, outputs in endpoints:
            told = (work.__doc__ or "").strip()
            gr.Button().click(work, inputs, outputs, api_name=work.__name__, api_description=told, concurrency_limit=4)
