"""Step 3 of the Tune screen: method, forecast, settings, seed."""

from __future__ import annotations

import itertools
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo import html
from demo.page import Key, Page, Visit
from demo.screens.tune import service, settings_form, sources
from demo.words import Translator
from demo.workspace import Workspace
from engine.errors import LabError

if TYPE_CHECKING:
    from engine.tuning.registry import MethodSpec

ATTACH = "window.ctlForm(element, trigger)"


class Method:
    """Components of step 3."""

    def __init__(self, page: Page):
        self.page = page
        self._drawn = itertools.count(1)

    def build(self) -> None:
        """Create the components."""
        page = self.page
        page.html(lambda t: html.step_title(3, t("method.title")))
        self.method = page.make(
            gr.Dropdown,
            choices=[],
            value=None,
            label=Key("method.menu"),
            show_label=False,
            container=False,
            elem_id="method",
        )
        self.panel = gr.HTML("", padding=False, elem_id="method-panel")
        self.how = page.make(gr.Button, value=Key("learn.how"), size="sm", elem_id="how", elem_classes="ctl-link")
        self.preset = page.make(
            gr.Radio,
            choices=[],
            value="budget",
            label=Key("method.preset"),
            show_label=False,
            container=False,
            visible=False,
            elem_id="preset",
        )
        with page.make(gr.Accordion, label=Key("method.settings"), open=False, elem_id="settings"):
            self.seed = page.make(
                gr.Number, value=0, precision=0, label=Key("method.seed"), info=Key("method.seed_info"), elem_id="seed"
            )
            self.problem = gr.HTML("", padding=False, elem_id="setting-problem")
            self.form = gr.HTML("", padding=False, js_on_load=ATTACH, elem_id="method-form")

    def bind(self) -> None:
        """Attach the handlers."""
        page = self.page
        page.on(self.method.input, self.choose, [self.method], self.outputs)
        page.on(self.preset.input, self.choose_preset, [self.preset], self.outputs)
        page.on(self.form.input, self.change, (), [self.problem, self.panel], trigger_mode="multiple")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.method, self.panel, self.preset, self.seed, self.form, self.problem]

    def view(self, workspace: Workspace, t: Translator, forecast: bool = True) -> dict[Any, Any]:
        """Show the workspace. Loads the engine's methods, and the backbone for a forecast."""
        from engine.tuning import registry

        spec = registry.get(workspace.method)
        presets = [(t(f"preset.{name}") if name in ("budget", "paper") else name, name) for name in spec.presets]
        sentence = escape(t.method(f"{spec.id}.sentence", spec.sentence))
        return {
            self.method: gr.update(choices=method_choices(t, workspace.backbone), value=workspace.method),
            self.preset: gr.update(choices=presets, value=workspace.preset, visible=len(presets) > 1),
            self.seed: workspace.seed,
            self.panel: self.describe(workspace, t) if forecast else f'<p class="ctl-hint">{sentence}</p>',
            self.problem: "",
            self.form: self._form(workspace, spec, t),
        }

    def redraw(self, visit: Visit) -> dict[Any, Any]:
        """Return the settings again: what is usual depends on the shots."""
        from engine.tuning import registry

        return {self.form: self._form(visit.workspace, registry.get(visit.workspace.method), visit.t)}

    def _form(self, workspace: Workspace, spec: MethodSpec, t: Translator) -> str:
        """The method's settings as controls."""
        fields = settings_form.controls(spec, workspace.preset, workspace.settings, workspace.shots, t)
        if not fields:
            return f'<p class="ctl-hint">{t("method.no_settings")}</p>'
        kinds = {field.offers for field in fields if field.offers}
        offered = {kind: sources.offered(workspace, kind, t) for kind in kinds}
        return settings_form.form(spec.id, workspace.preset, fields, offered, next(self._drawn))

    def describe(self, workspace: Workspace, t: Translator) -> str:
        """Return the method's sentence and what it will need."""
        from engine.costs.forecast import fits
        from engine.tuning import registry

        spec = registry.get(workspace.method)
        sentence = t.method(f"{spec.id}.sentence", spec.sentence)
        failures = [t.method(f"{spec.id}.failures.{k}", text) for k, text in enumerate(spec.failures)]
        try:
            known = service.forecast(workspace)
        except LabError as error:
            return html.method_panel(
                sentence, t(f"family.{spec.family}"), 0, 0.0, None, None, t.error(error), failures, spec.paper, t
            )
        share = known.trainable_parameters / max(1, known.total_parameters)
        unknown = known.reason if isinstance(known, service.UnknownForecast) else None
        return html.method_panel(
            sentence,
            t(f"family.{spec.family}"),
            known.trainable_parameters,
            share,
            known.memory_bytes,
            known.seconds,
            None,
            failures,
            spec.paper,
            t,
            fits(known) if spec.tuner().trains and not isinstance(known, service.UnknownForecast) else None,
            t.error(unknown) if unknown else "",
        )

    # ---- handlers

    def choose(self, visit: Visit) -> dict[Any, Any]:
        """Another method: its budget preset."""
        workspace = visit.workspace
        if visit[self.method] and visit[self.method] != workspace.method:
            workspace.method, workspace.preset, workspace.settings = visit[self.method], "budget", {}
        return {**self.view(workspace, visit.t), self.method: gr.skip()}  # the visitor may have gone on in the menu

    def choose_preset(self, visit: Visit) -> dict[Any, Any]:
        """Another preset: its values."""
        visit.workspace.preset, visit.workspace.settings = visit[self.preset], {}
        return {**self.view(visit.workspace, visit.t), self.preset: gr.skip()}

    def change(self, visit: Visit) -> dict[Any, Any]:
        """The form's values. Those of a method or preset that is no longer chosen, or that a later change overtook,
        are left alone: changes are sent as they come, for gradio's "always_last" sends the first one's values again."""
        workspace, told, problem = visit.workspace, visit.event, ""
        assert told is not None
        drawn, change = told.when
        with workspace.lock:
            other = (told.method, told.preset) != (workspace.method, workspace.preset)
            if other or (drawn == workspace.last_form_change[0] and change < workspace.last_form_change[1]):
                return {}
            workspace.last_form_change = (drawn, change)
            try:
                service.take_settings(workspace, told.values)
            except LabError as error:
                problem = f'<p class="ctl-warning" role="alert">{escape(visit.t.error(error))}</p>'
        shown = {self.problem: problem, self.panel: self.describe(workspace, visit.t)}
        return shown if workspace.last_form_change == (drawn, change) else {}

    def forecast(self, visit: Visit) -> dict[Any, Any]:
        """Show the forecast again: images or labels changed."""
        return {self.panel: self.describe(visit.workspace, visit.t)}


def method_choices(t: Translator, backbone: str) -> list[tuple[str, str]]:
    """Return methods for the menu, by family; those that the backbone cannot run are marked once it is loaded."""
    from engine.backbones import catalog
    from engine.tuning import registry

    model = catalog.load(backbone) if catalog.loaded(backbone) else None
    rows = []
    for spec in registry.methods():
        mark = "⊘ " if model and registry.obstacle(spec, model) else ""
        rows.append((f"{mark}{t(f'family.{spec.family}')} · {t.name(spec.id)}", spec.id))
    return rows
