"""The whole page: header, tabs, first load, language and backbone."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from demo import api, html, tasks
from demo.model_download import Loading, backbone_name
from demo.page import HIDDEN, Key, Page, Screen, Surroundings, Visit, merged, notice
from demo.screens.ask.screen import Ask
from demo.screens.compare.screen import Compare
from demo.screens.continual.screen import Continual
from demo.screens.learn.screen import Learn
from demo.screens.regions.screen import Regions
from demo.screens.runs.screen import Runs
from demo.screens.tune.screen import Tune
from demo.words import LANGUAGES, Translator, negotiate_language
from demo.workspace import FULL, Workspace, Workspaces
from engine.errors import LabError

log = logging.getLogger("clip-tuning-lab")
STYLE = Path(__file__).resolve().parents[1] / "assets" / "style"
FONTS = [
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans KR",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "sans-serif",
]
SCREENS: tuple[type[Screen], ...] = (Tune, Compare, Continual, Regions, Ask, Learn, Runs)
"""Left to right; the page opens on the first."""
CLOSING = 20.0
"""Seconds that the end of a closed page is waited for."""
IS_DARK = "document.body.classList.contains('dark')"


class Header:
    """Name, promise, device, backbone, language."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Row(elem_id="header"):
            page.html(lambda t: html.header(t("title"), t("tagline")), elem_id="title", min_width=240, scale=4)
            self.chip = gr.HTML(
                html.device_chip(cpu_text(page.t)), padding=False, elem_id="chip", min_width=10, scale=0
            )
            self.backbone = page.make(
                gr.Dropdown,
                choices=[("Pocket CLIP", "pocket")],
                value="pocket",
                allow_custom_value=True,
                label=Key("header.backbone"),
                elem_id="backbone",
                min_width=220,
                scale=2,
            )
            self.language = page.make(
                gr.Radio,
                choices=[(language.name, code) for code, language in LANGUAGES.items()],
                value="en",
                label=Key("header.language"),
                show_label=False,
                container=False,
                elem_id="language",
                min_width=170,
                scale=0,
            )

    def build_loading(self) -> None:
        """Create what is shown while a backbone is on its way."""
        with gr.Row(elem_id="loading", elem_classes=HIDDEN) as self.row:
            self.progress = gr.HTML("", padding=False, min_width=200, scale=4, elem_id="loading-progress")
            self.cancel = self.page.make(
                gr.Button, value=Key("header.cancel"), size="sm", scale=0, min_width=110, elem_id="cancel-download"
            )

    @property
    def loading_parts(self) -> list[Any]:
        """What :meth:`show_loading` updates."""
        return [self.row, self.progress]

    def show_loading(self, job: Loading | None, t: Translator) -> dict[Any, Any]:
        """Return how far a download has come; None when there is none."""
        if job is None:
            return {self.row: gr.update(elem_classes=HIDDEN), self.progress: ""}
        name = backbone_name(job.id, t)
        done, total = job.latest
        return {self.row: gr.update(elem_classes=[]), self.progress: html.loading(name, done, total, t)}

    def view(self, backbone: str, t: Translator) -> dict[Any, Any]:
        """Show device and backbones; needs torch."""
        return {
            self.chip: html.device_chip(device_text(t)),
            self.backbone: gr.update(choices=backbone_choices(t), value=backbone),
        }


def cpu_text(t: Translator) -> str:
    """Return the number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return t("header.cpu", cores=cores)


def device_text(t: Translator) -> str:
    """Return the device that the engine computes on."""
    import torch

    from engine.devices import device_of

    if device_of() != "cuda":
        return cpu_text(t)
    found = torch.cuda.get_device_properties(0)
    return t("header.gpu", name=found.name, gib=round(found.total_memory / 2**30))


def backbone_choices(t: Translator) -> list[tuple[str, str]]:
    """Return the catalogue, with what is on this machine first."""
    from engine.backbones.entries import ENTRIES
    from engine.backbones.hub import on_this_machine

    rows = sorted(((not on_this_machine(entry), entry) for entry in ENTRIES), key=lambda row: row[0])
    return [(describe_backbone(entry, absent, t), entry.id) for absent, entry in rows]


def describe_backbone(entry: Any, absent: bool, t: Translator) -> str:
    """Return a backbone's line in the menu: what decides about it, in few words."""
    parts = [backbone_name(entry.id, t), f"{entry.parameters:g} M", f"{entry.image_size} px"]
    parts += [entry.licence] if entry.licence_known else []
    parts += [t("header.multilingual")] if entry.languages == "many" else []
    parts += [t("header.download", size=entry.download_mb)] if absent else []
    return " · ".join(parts)


def build_app(workspaces: Workspaces | None = None) -> gr.Blocks:
    """Return the page, not launched."""
    workspaces = workspaces or Workspaces()
    keep = int(workspaces.seconds)
    with gr.Blocks(
        title="CLIP Tuning Lab", analytics_enabled=False, delete_cache=(1800, keep), fill_width=False
    ) as app:
        page = Page(workspaces)
        header = Header(page)
        screens = {kind.name: kind(page) for kind in SCREENS}
        header.build()
        header.build_loading()
        page.notice.render()
        wake = gr.Button("", elem_id="wake", elem_classes=HIDDEN)  # see assets/style/queue.js
        wake.click(lambda: None, show_progress="hidden", api_visibility="private")
        first, tab = SCREENS[0].name, {}
        with gr.Tabs(elem_id="screens", selected=first) as tabs:
            for name, screen in screens.items():
                label, more = Key(f"screen.{name}"), {} if name == first else {"render_children": True}
                with page.make(gr.Tab, label=label, id=name, elem_id=f"screen-{name}", **more) as tab[name]:
                    screen.build()
        for name, screen in screens.items():
            screen.bind(Surroundings(tab[name], tabs, header.backbone, screens))
        tune = screens[Tune.name]
        assert isinstance(tune, Tune)
        _bind_language(page, header, list(screens.values()))
        _bind_backbone(page, header, tune)
        _bind_load(app, page, header, tune)
        api.bind()
    return app


def _bind_language(page: Page, header: Header, screens: list[Screen]) -> None:
    words = [component for component, _ in page.bound]

    def switch(visit: Visit) -> dict[Any, Any]:
        t = visit.t = Translator(visit[header.language])
        tasks.translate_sample(visit.workspace, t.language)
        return merged(
            {page.language: t.language, header.language: t.language},
            page.in_language(t),
            *(screen.view(visit) for screen in screens),
            header.view(visit.workspace.backbone, t),
        )

    inputs = [header.language, *(component for screen in screens for component in screen.shown)]
    parts = [component for screen in screens for component in screen.outputs]
    outputs = [page.language, header.language, *words, *parts, header.chip, header.backbone]
    page.on(header.language.input, switch, inputs, outputs)
    header.language.input(
        None, header.language, None, js="(code) => { window.ctlLanguage && window.ctlLanguage(code); }"
    )


def _bind_backbone(page: Page, header: Header, tune: Tune) -> None:
    def change(visit: Visit) -> Iterator[dict[Any, Any]]:
        workspace, t, wanted = visit.workspace, visit.t, str(visit[header.backbone] or "").strip()
        before = workspace.backbone
        if not wanted or wanted == before:
            yield {header.backbone: before}
            return
        job = workspace.loading = Loading(wanted)
        try:
            for _ in job.watch():
                yield header.show_loading(job, t)
        except Exception as error:
            yield {header.backbone: before, **header.show_loading(None, t), **page.explain(error, t.language)}
            return
        finally:
            workspace.loading = None
        workspace.backbone = wanted
        workspace.changed()
        shown = {**header.view(wanted, t), **header.show_loading(None, t), page.notice: ""}
        yield {**shown, **tune.show_left(workspace, t), **tune.method.view(workspace, t)}

    def cancel(visit: Visit) -> dict[Any, Any]:
        if visit.workspace.loading:
            visit.workspace.loading.stop.set()
        return {}

    outputs = [header.backbone, header.chip, *header.loading_parts, *tune.method.outputs, *tune.left]
    page.on(header.backbone.input, change, [header.backbone], outputs, concurrency_id="download", concurrency_limit=4)
    page.on(header.cancel.click, cancel)


def _bind_load(app: gr.Blocks, page: Page, header: Header, tune: Tune) -> None:
    """First load: who, which language and theme; then what needs torch."""
    probe = gr.Checkbox(visible=False)
    kept = gr.BrowserState({"id": None, "language": None}, storage_key="clip-tuning-lab")
    words = [component for component, _ in page.bound]

    def arrive(data: dict[Any, Any], request: gr.Request) -> dict[Any, Any]:
        stored = data[kept] if isinstance(data[kept], dict) else {}
        asked = dict(request.query_params)
        known = stored.get("language") or negotiate_language(request.headers.get("accept-language"))
        t = Translator(asked["lang"] if asked.get("lang") in LANGUAGES else known)
        try:
            workspace = page.workspaces.open(stored.get("id"), request.session_hash)
        except LabError:  # what comes next says so
            return merged({page.visitor: FULL, page.language: t.language}, page.in_language(t))
        dark = bool(data[probe])
        tasks.translate_sample(workspace, t.language)
        told = follow_link(workspace, asked, t)
        own = {
            page.visitor: workspace.id,
            page.language: t.language,
            page.dark: dark,
            header.language: t.language,
            kept: {"id": workspace.id, "language": stored.get("language")},
            header.chip: html.device_chip(cpu_text(t)),
            page.notice: notice(told) if told else "",
        }
        return merged(own, page.in_language(t), tune.show_left(workspace, t), {page.version: gr.skip()})

    def ready(visit: Visit) -> Iterator[dict[Any, Any]]:
        """Fill the menus as soon as the engine is there, then the forecast as soon as the backbone is; the version
        starts zero-shot where images are there."""
        workspace, t = visit.workspace, visit.t
        found = workspace.stop
        menus = {**header.view(workspace.backbone, t), **tune.method.view(workspace, t, forecast=False)}
        yield {**menus, page.version: workspace.version}
        yield tune.method.forecast(visit)
        if was_stopped(workspace, found):
            yield {page.notice: notice(t("error.interrupted"))}

    first = app.load(
        arrive,
        {kept, probe},
        [page.visitor, page.language, page.dark, header.language, kept, header.chip, page.notice, *words, *tune.left],
        js=f"(...all) => all.map(x => typeof x === 'object' && x !== null ? x : {IS_DARK})",
        show_progress="hidden",
        api_visibility="private",
    )
    outputs = [header.chip, header.backbone, *tune.method.outputs, page.version]
    page.on(first.then, ready, (), outputs, clears=False)

    def leave(request: gr.Request) -> None:
        page.workspaces.left(request.session_hash)

    app.unload(leave)
    remember = "(code, kept) => ({...(kept || {}), language: code})"
    header.language.input(None, [header.language, kept], [kept], js=remember, api_visibility="private")


def was_stopped(workspace: Workspace, found: threading.Event | None) -> bool:
    """Return, once, whether work was stopped because its page was closed.

    ``found`` stops the work that was going on when the page was opened, if there was any: of a page that is loaded
    again the old one may be gone a moment after the new one is there.
    """
    deadline = time.monotonic() + CLOSING
    while found and workspace.stop is found and not workspace.interrupted and time.monotonic() < deadline:
        time.sleep(0.1)
    if workspace.stop and workspace.stop is not found:
        return False  # other work has begun since
    told, workspace.interrupted = workspace.interrupted, False
    return told


def follow_link(workspace: Workspace, asked: Mapping[str, str], t: Translator) -> str:
    """Do what the page's address asks for: ``sample`` loads a sample task where nothing of the visitor's own is in the
    way, ``method`` chooses a method. Returns what of it cannot be."""
    told = []
    sample, method = asked.get("sample"), asked.get("method")
    if sample and sample not in tasks.samples():
        told.append(t("error.no_sample", sample=sample, known=", ".join(tasks.samples())))
    elif sample and sample != workspace.sample and (workspace.sample or not workspace.images):
        tasks.load_sample(workspace, sample, t.language)
    if method and method != workspace.method:
        from engine.tuning import registry

        try:
            workspace.method, workspace.preset, workspace.settings = registry.get(method).id, "budget", {}
        except LabError as error:
            told.append(t.error(error))
    return " ".join(told)


def css() -> str:
    """Return the page's styles."""
    return "\n".join(path.read_text(encoding="utf8") for path in sorted(STYLE.glob("*.css")))


def head() -> str:
    """Return the page's own scripts, inline: nothing is fetched from elsewhere."""
    known = {"ctlScreens": [screen.name for screen in SCREENS], "ctlLanguages": list(LANGUAGES)}
    names = f"Object.assign(window, {json.dumps(known)});"
    scripts = [names, *(path.read_text(encoding="utf8") for path in sorted(STYLE.glob("*.js")))]
    return "".join(f"<script>{script}</script>" for script in scripts)


def theme() -> gr.themes.Base:
    """Soft, blue, small spacing, the system's own fonts."""
    soft = gr.themes.Soft(
        primary_hue="blue",
        neutral_hue="gray",
        spacing_size="sm",
        text_size="sm",
        font=FONTS,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    plain = {"background_fill": "transparent", "text_color": "*body_text_color", "padding": "0"}
    return soft.set(
        body_background_fill="white",
        body_background_fill_dark="*neutral_950",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        input_border_width="1px",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_600",
        button_secondary_background_fill="*neutral_100",
        button_primary_background_fill="#3b6fe0",
        button_primary_background_fill_dark="#3b6fe0",
        button_primary_background_fill_hover="#2f5dc4",
        button_primary_background_fill_hover_dark="#2f5dc4",
        **{f"block_title_{name}": value for name, value in plain.items()},
        block_title_background_fill_dark="transparent",
        block_title_text_color_dark="*body_text_color",
        block_label_background_fill="*background_fill_secondary",
        block_label_text_color="*body_text_color",
    )


def warm_up() -> threading.Thread:
    """Load the engine and the bundled backbone in the background."""

    def work() -> None:
        started = time.perf_counter()
        try:
            from engine.backbones import catalog
            from engine.costs import machine
            from engine.devices import device_of
            from engine.tuning import registry

            list(registry.methods())
            catalog.load()
            machine.speed(device_of())
            from demo import plots  # noqa: F401
        except LabError as error:
            print(error, file=sys.stderr)
        except Exception:
            log.exception("the engine could not be loaded")
        log.info("engine ready after %.1f s", time.perf_counter() - started)

    thread = threading.Thread(target=work, daemon=True, name="warm-up")
    thread.start()
    return thread
