"""The right side of the Compare screen: advice, plots, table, damage, wrong labels, downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo import labelling, tasks
from demo.page import HIDDEN, Key, Page, Visit
from demo.screens.compare import html as pieces
from demo.screens.compare import service
from demo.screens.compare.service import Compared
from demo.words import Translator

if TYPE_CHECKING:
    from engine.checks.forgetting import Forgetting
    from engine.compare import Advice, Ranking
    from engine.metrics.calibration import Calibration

AXES = ("memory", "seconds", "parameters", "file")
DECISIONS = ("relabel", "drop", "keep_label")
FILES = ("csv", "json", "html")


class CompareResults:
    """Components of what came out."""

    limits: list[Any]
    """Set by the screen: the controls of the limits, in the order of :func:`comparing.limits`."""

    def __init__(self, page: Page):
        self.page = page

    def build(self) -> None:
        """Create the components."""
        page = self.page
        self.live = gr.HTML("", padding=False, elem_id="compare-live")
        self.advice = gr.HTML("", padding=False, elem_id="compare-advice")
        self.use = page.make(
            gr.Button, value=Key("compare.use"), variant="primary", elem_id="compare-use", elem_classes=HIDDEN
        )
        with gr.Column(elem_classes=HIDDEN, elem_id="compare-results") as self.column:
            self.axis = page.make(
                gr.Radio,
                choices=lambda t: [(t(f"compare.{name}"), name) for name in AXES],
                value="seconds",
                label=Key("compare.axis"),
                elem_id="compare-axis",
            )
            self.pareto = gr.Plot(show_label=False, container=False, elem_id="plot-pareto")
            self.table = gr.HTML("", padding=False, elem_id="compare-table")
            self.failed = gr.HTML("", padding=False, elem_id="compare-failed")
            page.html(
                lambda t: f'<h3 class="ctl-group">{t("compare.curve")}</h3>{pieces.hint(t("compare.curve_hint"))}'
            )
            self.curve = gr.Plot(show_label=False, container=False, elem_id="plot-shots")
            self._build_damage()
            self._build_suspects()
            with gr.Row(elem_classes="ctl-actions"):
                self.download = {
                    kind: page.make(
                        gr.DownloadButton,
                        label=Key(f"compare.download_{kind}"),
                        size="sm",
                        interactive=False,
                        min_width=120,
                        elem_id=f"compare-{kind}",
                    )
                    for kind in FILES
                }

    def _build_damage(self) -> None:
        page = self.page
        with page.make(gr.Accordion, label=Key("compare.calibration"), open=False, elem_id="compare-sure") as self.sure:
            page.html(lambda t: pieces.hint(t("compare.calibration_hint")))
            self.reliability = gr.Plot(show_label=False, container=False, elem_id="plot-reliability")
            self.calibration = gr.HTML("", padding=False, elem_id="compare-calibration")
        with page.make(
            gr.Accordion, label=Key("compare.damage"), open=False, elem_id="compare-damage-box"
        ) as self.damaged:
            page.html(lambda t: pieces.hint(t("compare.damage_hint")))
            self.test = page.make(gr.Button, value=Key("compare.damage_go"), size="sm", elem_id="compare-damage-go")
            self.damage = gr.HTML("", padding=False, elem_id="compare-damage")
            with gr.Column(elem_classes=HIDDEN, elem_id="compare-mixing") as self.mixing_part:
                page.html(lambda t: f"<h4>{t('compare.mix')}</h4>{_mix_hint(t)}")
                self.mixing = gr.Plot(show_label=False, container=False, elem_id="plot-mixing")

    def _build_suspects(self) -> None:
        page = self.page
        with page.make(gr.Accordion, label=Key("compare.wrong"), open=False, elem_id="compare-wrong-box"):
            page.html(lambda t: pieces.hint(t("compare.wrong_hint")))
            self.look = page.make(gr.Button, value=Key("compare.wrong_go"), size="sm", elem_id="compare-wrong-go")
            self.suspect = gr.HTML("", padding=False, elem_id="compare-suspect")
            with gr.Row(elem_classes=HIDDEN, elem_id="compare-decide") as self.decide_row:
                self.decide = {
                    what: page.make(
                        gr.Button,
                        value=Key(f"compare.{what}"),
                        size="sm",
                        variant="primary" if what == "relabel" else "secondary",
                        min_width=120,
                        elem_id=f"suspect-{what}",
                    )
                    for what in DECISIONS
                }

    # ---- showing

    @property
    def downloads(self) -> list[Any]:
        """What :meth:`files` updates."""
        return list(self.download.values())

    @property
    def outputs(self) -> list[Any]:
        """What :meth:`view` updates."""
        return [
            self.live,
            self.advice,
            self.use,
            self.column,
            self.pareto,
            self.table,
            self.failed,
            self.curve,
            self.calibration,
            *self.damage_parts,
            *self.suspect_parts,
        ]

    @property
    def sized(self) -> list[Any]:
        """Plots whose names are placed for a width."""
        return [self.pareto, self.curve]

    @property
    def damage_parts(self) -> list[Any]:
        """What was lost on labels that were held back."""
        return [self.damage, self.mixing_part, self.mixing]

    @property
    def suspect_parts(self) -> list[Any]:
        """What a decision about a suspect updates."""
        return [self.suspect, self.decide_row, self.decide["relabel"]]

    def arriving(self, found: Compared, t: Translator) -> dict[Any, Any]:
        """Return the table that grows while the comparison runs, in place of the last result."""
        return {
            self.live: pieces.arriving(found.rows, t),
            self.advice: "",
            self.use: gr.update(elem_classes=HIDDEN),
            self.column: gr.update(elem_classes=HIDDEN),
        }

    def advised(self, visit: Visit) -> str | None:
        """Return the method that the advice within the limits says to take; None before any comparison and where
        nothing fits the limits."""
        found = service.compared_of(visit.workspace)
        advised = service.advice(found, self._limits(visit)) if found else None
        return advised.method if advised else None

    def view(self, visit: Visit, width: float) -> dict[Any, Any]:
        """Return the workspace's comparison within the limits; nothing is run."""
        found, t = service.compared_of(visit.workspace), visit.t
        if found is None:
            empty = _empty(visit)
            gone = gr.update(elem_classes=HIDDEN)
            return {self.live: "", self.advice: empty, self.use: gone, self.column: gone}
        if found.comparison is None:
            return self.arriving(found, t)
        comparison, shared = found.comparison, pieces.shared(t)
        failed = str(shared.failed(comparison.rows))
        ranking = comparison.ranking
        if ranking is None:
            return {
                self.live: failed,
                self.advice: pieces.hint(t("compare.nothing")),
                self.use: gr.update(elem_classes=HIDDEN),
                self.column: gr.update(elem_classes=HIDDEN),
            }
        advised = service.advice(found, self._limits(visit))
        assert advised is not None
        stale = pieces.hint(t("compare.stale")) if found.version != visit.workspace.version else ""
        return {
            self.live: stale,
            self.advice: str(shared.advice(advised, ranking.standings, comparison.stopped)),
            self.use: self._use(visit),
            self.column: gr.update(elem_classes=[]),
            self.pareto: pareto(ranking, advised, visit[self.axis], t, visit.dark, width),
            self.table: str(shared.standings(ranking, advised.ranking.standings, advised.method)),
            self.failed: failed,
            self.curve: curves(ranking, advised.method, t, visit.dark, width),
            **self._damage(visit),
            **self._suspects(visit),
        }

    def _use(self, visit: Visit) -> dict[str, Any]:
        """The next step: the advised method on all photos, or zero-shot as it is."""
        from engine.tuning import registry

        method, t = self.advised(visit), visit.t
        if method is None:
            return gr.update(elem_classes=HIDDEN)
        if registry.get(method).family == "baseline":
            return gr.update(value=t("compare.use_zero_shot"), elem_classes=[])
        count = sum(tasks.counts(visit.workspace)[1])
        return gr.update(value=t("compare.use_method", method=t.name(method), count=count), elem_classes=[])

    def _limits(self, visit: Visit) -> Any:
        return service.limits(*(visit[control] for control in self.limits))

    def _damage(self, visit: Visit) -> dict[Any, Any]:
        """What was lost on labels that were held back, where that was measured."""
        found, t = service.compared_of(visit.workspace), visit.t
        measured = list(found.damage.values()) if found else []
        mixed = any(damage.curve for damage in measured)
        return {
            self.damage: str(pieces.shared(t).forgetting(measured)),
            self.mixing_part: gr.update(elem_classes=[] if mixed else HIDDEN),
            self.mixing: mixing(measured, t, visit.dark) if mixed else None,
        }

    def _suspects(self, visit: Visit) -> dict[Any, Any]:
        """The first suspect that is open."""
        workspace, t, found = visit.workspace, visit.t, service.compared_of(visit.workspace)
        gone = {self.decide_row: gr.update(elem_classes=HIDDEN)}
        if found is None or found.check is None:
            return {self.suspect: "", **gone}
        if not found.suspects:
            key = "compare.all_decided" if found.decided else "compare.none_wrong"
            said = t(key) if found.decided or found.check.able else ""
            return {self.suspect: pieces.searched(said, found.check.notes, t), **gone}
        suspect = found.suspects[0]
        image, suggested = found.images[suspect.image], found.labels[suspect.suggested].name
        judges = [t.name(method) for method in found.check.judges]
        return {
            self.suspect: pieces.suspect(
                tasks.thumb_uri(workspace, image, 160),
                image.name,
                found.labels[suspect.given].name,
                suggested,
                suspect.probability,
                len(found.suspects),
                judges,
                t,
            ),
            self.decide_row: gr.update(elem_classes=[]),
            self.decide["relabel"]: t("compare.relabel_as", label=suggested),
        }

    def files(self, visit: Visit) -> dict[Any, Any]:
        """Write what can be downloaded, as it is on screen."""
        found = service.compared_of(visit.workspace)
        if found is None or found.comparison is None or found.comparison.ranking is None:
            return dict.fromkeys(self.downloads, gr.update(value=None, interactive=False))
        advised = service.advice(found, self._limits(visit))
        paths = service.write_files(visit.workspace, found, advised, visit.t)
        return {self.download[kind]: gr.update(value=str(paths[kind]), interactive=True) for kind in FILES}

    # ---- events

    def bind(self, shown: list[Any], width: Any) -> None:
        """Attach the handlers of what came out."""
        page = self.page
        page.on(self.sure.expand, self._sure, shown, [self.reliability, self.calibration])
        page.on(
            self.damaged.expand,
            lambda visit: self._damage(visit) if service.compared_of(visit.workspace) else {},
            (),
            self.damage_parts,
        )
        for what in DECISIONS:
            page.on(
                self.decide[what].click,
                partial(self._decide, what=what),
                shown,
                [*self.suspect_parts, self.live, page.version],
            )

    def _sure(self, visit: Visit) -> dict[Any, Any]:
        """Calibration, drawn when it is looked at."""
        found, t = service.compared_of(visit.workspace), visit.t
        if found is None or found.comparison is None:
            return {}
        from engine.report.document import calibrations

        advised, measured = service.advice(found, self._limits(visit)), calibrations(found.comparison)
        return {
            self.reliability: reliability(measured, advised.method if advised else None, t, visit.dark),
            self.calibration: str(pieces.shared(t).calibration(measured)),
        }

    def _decide(self, visit: Visit, what: str) -> dict[Any, Any]:
        found = service.compared_of(visit.workspace)
        if found is None:
            return {}
        service.decide(visit.workspace, found, what)
        stale = found.version != visit.workspace.version
        return {
            **self._suspects(visit),
            self.live: pieces.hint(visit.t("compare.stale")) if stale else "",
            self.page.version: visit.workspace.version,
        }


def _empty(visit: Visit) -> str:
    """What is missing before anything can be compared, or what to press."""
    lacks, t = labelling.missing(visit.workspace), visit.t
    said = t(lacks[0], **lacks[1]) if lacks else t("compare.empty")
    return f'<div class="ctl-empty" role="status">{said}</div>'


def _mix_hint(t: Translator) -> str:
    return pieces.hint(f"{t('compare.mix_hint')} {t('compare.mix_slider')}")


def pareto(ranking: Ranking, advised: Advice, axis: str, t: Translator, dark: bool | None, width: float) -> Any:
    """Cost against accuracy."""
    from demo import plots
    from engine.report.figures import Figures
    from engine.report.plots import COSTS, dots

    tick = partial(COSTS[axis][1], Figures(t))
    found = dots(ranking, axis, advised.method, t, within=advised.ranking)
    return plots.pareto(found, t(f"compare.{axis}"), tick, t, dark, width)


def curves(ranking: Ranking, chosen: str | None, t: Translator, dark: bool | None, width: float) -> Any:
    """Return accuracy by training images a label."""
    from demo import plots
    from engine.report.plots import growths

    return plots.shot_curves(growths(ranking, chosen, t), t, dark, width)


def mixing(measured: Sequence[Forgetting], t: Translator, dark: bool | None) -> Any:
    """Return the WiSE-FT curves of methods that can be mixed."""
    from demo import plots
    from engine.report.plots import mixtures

    return plots.mixing(mixtures(measured, t), t, dark)


def reliability(measured: Mapping[str, Calibration], chosen: str | None, t: Translator, dark: bool | None) -> Any:
    """Return the recommended method beside zero-shot."""
    from demo import plots
    from engine.report.plots import before_and_after

    before, after = before_and_after(measured, chosen)

    def bins(method: str | None) -> list[tuple[float, float, int]]:
        return [(b.confidence, b.accuracy, b.count) for b in measured[method].bins] if method else []

    return plots.reliability(bins(before), bins(after), t.name(after) if after else "", t, dark)
