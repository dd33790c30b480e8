"""The Learn screen: where a method trains in the visitor's backbone, its maths and limits, and the field's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from demo.page import Key, Page, Visit
from demo.screens.learn import lessons
from demo.screens.tune.method import method_choices
from demo.words import Translator
from demo.workspace import Workspace


class Learn:
    """Components of the screen."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        with gr.Row(elem_id="learn-row"):
            self.method = page.make(
                gr.Dropdown, choices=[], value=None, label=Key("learn.method"), scale=3, min_width=220,
                elem_id="learn-method",
            )  # fmt: skip
            self.use = page.make(
                gr.Button, value=Key("learn.try"), size="sm", scale=0, min_width=200, elem_id="learn-use"
            )
        self.lesson = gr.HTML("", padding=False, elem_id="lesson")
        page.html(lessons.glossary, elem_id="glossary")

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [self.method, self.lesson]

    def view(self, workspace: Workspace, t: Translator, method: str | None) -> dict[Any, Any]:
        """Show a method; None where the screen was not opened yet."""
        if method is None:
            return {}
        choices = method_choices(t, workspace.backbone)
        return {
            self.method: gr.update(choices=choices, value=method),
            self.lesson: lessons.lesson(workspace, method, t),
        }

    def bind(
        self, tab: gr.Tab, links: list[gr.Button], screens: gr.Tabs, chosen: Callable[[Visit], dict[Any, Any]],
        outputs: list[Any],
    ) -> None:  # fmt: skip
        """Attach the handlers.

        Args:
            links: buttons of the Tune screen that open its method here.
            chosen: shows the Tune screen's method after it was chosen here; ``outputs`` are what it updates.
        """
        page = self.page
        page.on(tab.select, self._open, [self.method], self.outputs)
        page.on(self.method.input, self._open, [self.method], self.outputs)

        def follow(visit: Visit) -> dict[Any, Any]:
            shown = self.view(visit.workspace, visit.t, visit.workspace.method)
            return {**shown, screens: gr.update(selected="learn")}

        for link in links:
            page.on(link.click, follow, (), [*self.outputs, screens])

        def use(visit: Visit) -> dict[Any, Any]:
            workspace, method = visit.workspace, visit[self.method]
            if method and method != workspace.method:
                workspace.method, workspace.preset, workspace.settings = method, "budget", {}
            return {**chosen(visit), screens: gr.update(selected="tune")}

        page.on(self.use.click, use, [self.method], [*outputs, screens])

    def _open(self, visit: Visit) -> dict[Any, Any]:
        return self.view(visit.workspace, visit.t, visit[self.method] or visit.workspace.method)
