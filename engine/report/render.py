"""From templates to HTML. Whatever is put into a template is escaped, unless it is Markup, which only code of this
project makes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from engine.report.figures import Figures

if TYPE_CHECKING:
    from engine.errors import Note
    from engine.report.language import Words

TEMPLATES = Path(__file__).resolve().parent / "templates"


class Templates:
    """Templates that know the words and how numbers are written.

    Args:
        words: in whose language they speak.
        exact: for a file that is read at leisure: exact numbers, and nothing folded away.
        folder: more templates, beside the shared ones.
    """

    def __init__(self, words: Words, exact: bool = False, folder: Path | None = None):
        self.words, self.figures = words, Figures(words, exact)
        self.environment = _environment(folder)

    def __call__(self, template: str, **values: Any) -> Markup:
        """Return a template's HTML. Every template has ``t``, ``note``, ``name``, ``figures`` and ``exact``."""
        own = {"t": self.t, "note": self.note, "name": self.words.name, "figures": self.figures}
        found = self.environment.get_template(template)
        return Markup(found.render({**own, "exact": self.figures.exact, **values}).strip())

    def t(self, key: str, **fields: Any) -> Markup:
        """Return a sentence, whose own tags stay; what is put into it is escaped."""
        return Markup(self.words(key, **{name: _safe(value) for name, value in fields.items()}))

    def note(self, note: Note) -> str:
        """Return a sentence of another part of the engine, as plain text."""
        return self.words.engine(note.key, dict(note.values))


_ENVIRONMENTS: dict[Path | None, Environment] = {}


def _environment(folder: Path | None) -> Environment:
    """Return the environment of a folder, made once: it keeps the compiled templates."""
    if folder not in _ENVIRONMENTS:
        _ENVIRONMENTS[folder] = Environment(
            loader=FileSystemLoader([TEMPLATES, folder] if folder else TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
    return _ENVIRONMENTS[folder]


def _safe(value: Any) -> Any:
    """Return a field of a sentence, escaped; numbers stay numbers, because the sentence formats them."""
    return str(escape(value)) if isinstance(value, str) else value
