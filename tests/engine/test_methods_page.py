"""The documentation that is made from the methods' records."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from engine import methods_page
from engine.backbones.base import Shape
from engine.backbones.skeleton import meta_backbone
from engine.methods import count_formula, records
from engine.tuning import registry


def test_the_page_is_what_the_records_say():
    found = methods_page.PAGE.read_text(encoding="utf8")
    assert found == methods_page.page(), "docs/methods.md is not up to date: run python -m engine.methods_page"


def test_every_method_has_a_section_that_the_table_leads_to():
    text = methods_page.PAGE.read_text(encoding="utf8")
    for spec in registry.methods():
        assert f"### {methods_page.heading(spec)}\n" in text
        assert text.count(f"(#{methods_page.anchor(spec)})") == 1


def test_papers_are_linked_by_their_ids():
    assert (
        methods_page.linked("A 2021, arXiv 2106.09685")
        == "A 2021, [arXiv 2106.09685](https://arxiv.org/abs/2106.09685)"
    )
    for spec in registry.methods():
        assert re.search(r"(19|20)\d\d", spec.paper), spec.id
        assert "](https://" in methods_page.linked(spec.paper), spec.id


def test_every_tuner_of_peft_is_offered_or_its_absence_explained():
    import peft

    from engine.methods.peft_table import ROWS

    said = (methods_page.PAGE.parent / "peft.md").read_text(encoding="utf8")
    offered = {
        getattr(peft, row.peft)(**({"target_r": 1, "total_step": 9} if row.id == "adalora" else {})).peft_type
        for row in ROWS.values()
    }
    without = {kind.name for kind in peft.PeftType} - {kind.name for kind in offered}
    prompts = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT"}
    assert [name for name in without - prompts if name not in said] == []
    assert all(f"`{row}`" in said for row in ROWS)


def shape() -> Shape:
    return meta_backbone(methods_page.REFERENCE).shape


def test_letters_of_the_formulas():
    def said(method: str) -> str:
        spec = registry.get(method)
        return count_formula.in_words(count_formula.values(spec, spec.configure(shots=4), shape(), 10, 40))

    assert said("linear_probe") == "K = 10, P = 512"
    assert said("tip_adapter_f") == "N = 40, P = 512"
    assert said("visual_prompt_deep") == "L = 12, M = 5, Dv = 768"
    assert said("p_tuning") == "M = 8, Dt = 512"
    assert said("lora") == "r = 8, layers = 48"
    assert said("oft") == "b ≤ 32, layers = 48"
    assert said("prefix_tuning") == "M = 4, D = 512, L = 12"


def test_counts_follow_from_their_letters():
    """Formulas that are plain arithmetic give the declared count."""
    for method in ("linear_probe", "tip_adapter_f", "prolip", "visual_prompt", "visual_prompt_deep", "adapter"):
        spec = registry.get(method)
        config = spec.configure(shots=4)
        known = count_formula.values(spec, config, shape(), 10, 40)
        sum_of = re.sub(r"([A-Za-z])\(", r"\1*(", spec.formula.replace("·", "*"))
        numbers = {name: int(value.replace(",", "")) for name, value in known.items()}
        assert eval(sum_of, {}, numbers) == spec.count(shape(), config, 10, 40), method


def test_the_list_without_torch_is_what_the_records_say():
    kept = json.loads(records.FILE.read_text("utf8"))
    assert kept["methods"] == json.loads(json.dumps(records.derived())), "run python -m engine.methods_page"
    assert kept["sources"] == records.fingerprint(), "run python -m engine.methods_page"


def test_a_list_of_other_sources_is_not_believed(tmp_path, monkeypatch):
    file = tmp_path / "records.json"
    file.write_text(json.dumps({"sources": "others", "methods": []}))
    monkeypatch.setattr(records, "FILE", file)
    assert {record["id"] for record in records.records()} == {spec.id for spec in registry.methods()}


@pytest.mark.parametrize("command", [["methods"], ["backbones"], ["--help"], ["tune", "--help"]])
def test_lists_and_help_load_no_torch(command):
    code = f"""
import sys
from engine.cli.main import main
try:
    main({command})
finally:
    print([m for m in ("torch", "transformers", "scipy.stats") if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
