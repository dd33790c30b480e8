"""The Learn screen: where a method trains in the visitor's backbone, its maths and limits, and the field's words."""

from __future__ import annotations

from typing import Any

import gradio as gr

from demo.page import Key, Screen, Surroundings, Visit
from demo.screens.learn import lessons, step
from demo.screens.tune.method import method_choices
from demo.screens.tune.screen import Tune


class Learn(Screen):
    """Components of the screen."""

    name = "learn"

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Row(elem_id="learn-row"):
            self.method = page.make(
                gr.Dropdown,
                choices=[],
                value=None,
                label=Key("learn.method"),
                scale=3,
                min_width=220,
                elem_id="learn-method",
            )
            self.use = page.make(
                gr.Button, value=Key("learn.try"), size="sm", scale=0, min_width=200, elem_id="learn-use"
            )
        self.lesson = gr.HTML("", padding=False, elem_id="lesson")
        page.html(step.lesson, elem_id="gradient-step")
        page.html(lessons.glossary, elem_id="glossary")

    @property
    def shown(self) -> list[Any]:
        return [self.method]

    @property
    def outputs(self) -> list[Any]:
        return [self.method, self.lesson]

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Show the method that is chosen here; nothing where the screen was not opened yet."""
        return self._show(visit, visit[self.method]) if visit[self.method] else {}

    def _show(self, visit: Visit, method: str) -> dict[Any, Any]:
        choices = method_choices(visit.t, visit.workspace.backbone)
        return {
            self.method: gr.update(choices=choices, value=method),
            self.lesson: lessons.lesson(visit.workspace, method, visit.t),
        }

    def _open(self, visit: Visit) -> dict[Any, Any]:
        return self._show(visit, visit[self.method] or visit.workspace.method)

    def bind(self, around: Surroundings) -> None:
        """Attach the handlers: the Tune screen's link leads here, and a method that is chosen here leads back."""
        page, tune = self.page, around.screens["tune"]
        assert isinstance(tune, Tune)
        page.on(around.tab.select, self._open, self.shown, self.outputs)
        page.on(self.method.input, self._open, self.shown, self.outputs)

        def follow(visit: Visit) -> dict[Any, Any]:
            return {**self._show(visit, visit.workspace.method), around.tabs: gr.update(selected=self.name)}

        page.on(tune.method.how.click, follow, (), [*self.outputs, around.tabs])

        def use(visit: Visit) -> dict[Any, Any]:
            workspace, method = visit.workspace, visit[self.method]
            if method and method != workspace.method:
                workspace.method, workspace.preset, workspace.settings = method, "budget", {}
            return {**tune.method.view(workspace, visit.t), around.tabs: gr.update(selected=tune.name)}

        page.on(self.use.click, use, self.shown, [*tune.method.outputs, around.tabs])
