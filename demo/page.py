"""What all tabs share: words that follow the language switch, and handlers that know their visitor."""

from __future__ import annotations

import html
import inspect
import logging
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gradio as gr

from demo.words import Translator
from demo.workspace import FULL, MOST_VISITORS, Workspace, Workspaces
from engine.errors import LabError

log = logging.getLogger("clip-tuning-lab")


HIDDEN = ["ctl-gone"]
"""Classes of what is not shown. Such a part stays in the page: gradio loses updates of components that are just being
put there, so what is updated together with its appearance is never taken out."""


MODES = {"click": "once", "select": "multiple", "upload": "multiple"}
"""What becomes of an event while an earlier one of its kind is answered. A second press of a button is none; what
carries something of its own counts each time; of all others (a value was changed) the last one is sent afterwards."""


class Key(str):
    """A key of the words, where a component's property wants a text."""


@dataclass
class Visit:
    """What a handler gets: whose event it is, in which language and theme, and the inputs' values."""

    workspace: Workspace
    t: Translator
    dark: bool | None
    data: dict[Any, Any]
    event: gr.EventData | None = None

    def __getitem__(self, component: Any) -> Any:
        return self.data[component]


class Page:
    """State and words of one page under construction."""

    def __init__(self, workspaces: Workspaces):
        self.workspaces = workspaces
        self.t = Translator("en")
        self.visitor, self.language, self.dark = gr.State(None), gr.State("en"), gr.State(None)
        self.version = gr.State(-1)
        """Changes when images, labels or backbone changed: zero-shot is then computed anew."""
        self.notice = gr.HTML("", elem_id="notice", padding=False, render=False)
        self.bound: list[tuple[gr.blocks.Block, dict[str, str | Callable]]] = []

    def make(self, kind: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return a component; options that are :class:`Key` follow the language, ``choices`` may be a function of t."""
        keys: dict[str, Any] = {name: value for name, value in options.items() if isinstance(value, Key)}
        if callable(options.get("choices")):
            keys["choices"] = options["choices"]
        component = kind(*args, **{**options, **self.say(keys, self.t)})
        if keys:
            self.bound.append((component, keys))
        return component

    def html(self, render: Callable[[Translator], str], **options: Any) -> gr.HTML:
        """Static HTML that follows the language."""
        component = gr.HTML(render(self.t), padding=False, **options)
        self.bound.append((component, {"value": render}))
        return component

    def go_row(self, words: str, name: str, other: str = "") -> tuple[gr.Button, ...]:
        """Return a row with a button that starts something, one that stops it, and one for something else, where there
        is ``other``.

        Args:
            words: key of what the first one says.
            name: start of their ids.
            other: key of what the third one says; its id is ``NAME-other``.
        """
        with gr.Row(elem_id=f"{name}-go-row", elem_classes="ctl-go-row"):
            go = self.make(
                gr.Button, value=Key(words), variant="primary", scale=3, min_width=120, elem_id=f"{name}-button"
            )
            more = (
                [self.make(gr.Button, value=Key(other), scale=3, min_width=120, elem_id=f"{name}-other")]
                if other
                else []
            )
            stop = self.make(
                gr.Button,
                value=Key("go.stop"),
                variant="stop",
                scale=1,
                min_width=80,
                interactive=False,
                elem_id=f"{name}-stop",
            )
        return go, stop, *more

    @staticmethod
    def say(keys: dict[str, Any], t: Translator) -> dict[str, Any]:
        """Return the properties in a language."""
        return {name: value(t) if callable(value) else t(value) for name, value in keys.items()}

    def in_language(self, t: Translator) -> dict[Any, Any]:
        """Updates that put every component's words into a language."""
        return {component: gr.update(**self.say(keys, t)) for component, keys in self.bound}

    # ---- handlers

    def on(
        self,
        triggers: Any,
        work: Callable[[Visit], Any],
        inputs: Collection[Any] = (),
        outputs: Collection[Any] = (),
        clears: bool = True,
        **options: Any,
    ) -> Any:
        """Call ``work(visit)`` on events; it returns (or yields) a dict of updates.

        A LabError becomes its sentence, anything else a plain one; what was there stays. An earlier sentence goes, but
        not where ``clears`` is False, for what follows by itself (``event.then``, a changed state), nor by a generator
        that does not empty the notice.
        """
        needed = {self.visitor, self.language, self.dark, *inputs}
        targets = list({id(c): c for c in [*outputs, self.notice]}.values())
        event = getattr(triggers[0] if isinstance(triggers, list) else triggers, "event_name", "")
        mode = {"trigger_mode": MODES.get(event, "always_last")}
        options = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": 8, **mode, **options}
        handle = self._generator(work) if inspect.isgeneratorfunction(work) else self._function(work, clears)
        if isinstance(triggers, list):
            return gr.on(triggers, handle, needed, targets, **options)
        return triggers(handle, needed, targets, **options)

    def _visit(self, data: dict[Any, Any], event: gr.EventData | None) -> Visit:
        workspace = self.workspaces.get(data[self.visitor])
        if data[self.visitor] == FULL:
            raise LabError("visitors_full", most=MOST_VISITORS)
        if workspace is None:
            raise _Expired
        return Visit(workspace, Translator(data[self.language]), data[self.dark], data, event)

    def _function(self, work: Callable[[Visit], Any], clears: bool) -> Callable:
        cleared = {self.notice: ""} if clears else {}

        def answer(data: dict, event: gr.EventData = None) -> dict[Any, Any]:  # type: ignore[assignment]
            try:
                return {**cleared, **(work(self._visit(data, event)) or {})}
            except Exception as error:
                return self.explain(error, data[self.language])

        return answer

    def _generator(self, work: Callable[[Visit], Any]) -> Callable:
        def answer(data: dict, event: gr.EventData = None) -> Generator:  # type: ignore[assignment]
            try:
                yield from work(self._visit(data, event))
            except Exception as error:
                yield self.explain(error, data[self.language])

        return answer

    def explain(self, error: Exception, language: str) -> dict[Any, Any]:
        """Return the update that tells what went wrong."""
        t = Translator(language)
        if isinstance(error, LabError):
            sentence = t.error(error)
        elif isinstance(error, _Expired):
            sentence = t("error.expired")
        elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            sentence = t("error.memory")
        else:
            log.error("unexpected", exc_info=error)
            sentence = t("error.unexpected")
        return {self.notice: notice(sentence)}


class Screen:
    """A screen of the page: a class in ``demo/screens/NAME/screen.py`` and a row of ``demo.app.SCREENS``."""

    name: ClassVar[str]
    """Id of its tab, which the words call ``screen.NAME``."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        raise NotImplementedError

    @property
    def shown(self) -> list[Any]:
        """Components whose values :meth:`view` reads."""
        return []

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return []

    def view(self, visit: Visit) -> dict[Any, Any]:
        """Everything that words bound to components do not say, for the workspace and language as they are."""
        return {}

    def bind(self, around: Surroundings) -> None:
        """Attach the handlers, when all screens are built."""


@dataclass(frozen=True)
class Surroundings:
    """What a screen finds around it."""

    tab: gr.Tab
    """Its own."""
    tabs: gr.Tabs
    backbone: gr.Dropdown
    screens: Mapping[str, Screen]
    """All of them, by name."""


class _Expired(Exception):
    """The workspace is gone."""


def notice(sentence: str) -> str:
    """Return a sentence about what went wrong, as HTML."""
    return f'<div class="ctl-notice" role="alert">{html.escape(sentence)}</div>'


def merged(*parts: dict[Any, Any]) -> dict[Any, Any]:
    """Updates of several sources; where two update the same component, both count, the later one more."""
    result: dict[Any, Any] = {}
    for part in parts:
        for component, update in part.items():
            old = result.get(component)
            if component in result and (_properties(old) or _properties(update)):
                update = {**_as_update(old), **_as_update(update)}
            result[component] = update
    return result


def _properties(update: Any) -> bool:
    return isinstance(update, dict) and update.get("__type__") == "update"


def _as_update(update: Any) -> dict[str, Any]:
    return update if _properties(update) else gr.update(value=update)
