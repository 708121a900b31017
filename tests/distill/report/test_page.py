"""The report page, read as a browser would: its elements, its texts and what it would load."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from distill.config import OptimConfig, Recipe
from distill.logs import METRICS
from distill.report.page import REPORT, write_report
from distill.report.settings import settings
from tests.distill.report.conftest import TERMS, Log

VOID = {"meta", "link", "br", "img", "hr", "input"}
RETRIEVAL = {
    "n_photos": 1000,
    "n_captions": 5000,
    "n_failed": 0,
    "text_to_photo": {"R@1": 0.228, "R@10": 0.658},
    "photo_to_text": {"R@1": 0.317, "R@10": 0.74},
    "intervals": {"text_to_photo": {"R@1": [0.211, 0.248]}},
    "limits": {"color": {"n": 1697, "accuracy": 0.8, "interval": [0.773, 0.823]}},
}


@dataclass
class Page(HTMLParser):
    """Elements with their attributes, and texts with their elements."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def text(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    page.close()
    assert not page.open
    return page


def facts(page: Page) -> dict[str, str]:
    return dict(zip(page.text("dt"), page.text("dd"), strict=True))


def test_the_header_summarizes_the_run(log: Log, recipe: Recipe) -> None:
    page = read(write_report(log(60), recipe))
    assert page.text("h1") == ["shapes"]
    assert {"pocket · license of the weights: CC0", "drawn by a test"} <= set(page.text("p"))
    shown = facts(page)
    assert (shown["state"], shown["steps"], shown["epochs"]) == ("not finished", "60", "6 of 6")
    assert (shown["photos per second"], shown["waiting for data"], shown["unreadable photos"]) == ("103", "25.0 %", "6")
    assert shown["started"][:4] == shown["last step"][:4] == str(time.gmtime().tm_year)


def test_a_finished_run_reports_its_parameters(log: Log, recipe: Recipe) -> None:
    from safetensors.numpy import save_file

    run = log(5)
    (run / "student").mkdir()
    weights = {"image.a": (500, 1000), "image.norm.running_mean": (7,), "text.b": (30, 1000), "logit_scale": ()}
    save_file({name: np.zeros(shape, np.float16) for name, shape in weights.items()}, run / "student/model.safetensors")
    shown = facts(read(write_report(run, recipe)))
    assert shown["state"] == "finished"
    assert (shown["parameters, image tower"], shown["parameters, text tower"]) == ("0.50 M", "0.03 M")
    os.utime(run / "student/model.safetensors", (0, 0))  # from an earlier run in this folder
    assert facts(read(write_report(run, recipe)))["state"] == "not finished"


def test_every_figure_has_a_chart(log: Log, recipe: Recipe) -> None:
    page = read(write_report(log(60, validation=0.5), recipe))
    charts = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    rest = {"lr", "logit_scale", "gradient_norm", "validation", "photos_per_second", "wait", "unread"}
    assert charts[: len(TERMS)] == list(TERMS) and set(charts[len(TERMS) :]) == rest
    assert page.text("h2")[:3] == ["Losses", "Optimization", "Speed"]
    assert page.text("text").count("48 px") == page.text("text").count("texts") == len(charts)
    ends = dict(zip(page.text("b"), page.text("em"), strict=False))
    assert ends["masked feature"] == f"{1 + 4 / 60:.4g}"


def test_the_page_loads_nothing_and_runs_nothing(log: Log, recipe: Recipe) -> None:
    run = log(20)
    (run / "evaluation.json").write_text(json.dumps(RETRIEVAL))
    text = write_report(run, recipe).read_text("utf-8")
    page = read(run / REPORT)
    assert not {"script", "img", "iframe", "link", "object", "use", "image"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name in ("src", "href", "srcset", "style") or name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_names_cannot_break_out(log: Log, recipe: Recipe) -> None:
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}"
    run = log(4, **{evil: 1.0})
    result = {**RETRIEVAL, evil: {evil: 0.5}, "intervals": {evil: evil}, "limits": {evil: {"accuracy": 0.5}}}
    (run / "evaluation-<b>'x.json").write_text(json.dumps(result))
    (run / "evaluation-other.json").write_text(json.dumps({"top1": 0.5, "n": 3, evil: 0.25}))
    photos = (replace(recipe.photos[0], name=evil, names={evil: evil}),)
    page = read(write_report(run, replace(recipe, name=evil, licence=evil, provenance=evil, photos=photos)))
    assert not {"script", "img", "b'x"} & {tag for tag, _ in page.elements}
    assert page.text("h1") == [evil] and evil in page.text("p") and evil in page.text("title")[0]
    charts = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert evil in charts and "<b>'x" in page.text("h3")
    assert any(name.startswith(f"photos[{evil}]") for name in page.text("th"))


def test_evaluations_are_shown(log: Log, recipe: Recipe) -> None:
    run = log(4)
    (run / "best").mkdir()
    (run / "evaluation-flickr8k.json").write_text(json.dumps(RETRIEVAL))
    (run / "best/evaluation.json").write_text(json.dumps({**RETRIEVAL, "captions": "held-out.jsonl"}))
    for number, nonsense in enumerate(("", "[]", "3", '{"n": "x", "text_to_photo": {"R@1": "a"}}', '{"limits": {}}')):
        (run / f"evaluation-{number}.json").write_text(nonsense)
    page = read(write_report(run, recipe))
    assert page.text("h3") == ["best: held-out.jsonl", "flickr8k"]
    assert page.text("p").count("1,000 photos, 5,000 captions") == 2
    cells = page.text("b", "small")
    assert cells.count("22.8 %") == cells.count("(21.1–24.8)") == cells.count("80.0 %") == 2
    assert "text → photo" in page.text("th") and "color" in page.text("th")


def test_changed_settings_come_before_all_settings(log: Log, recipe: Recipe) -> None:
    made = {setting.name: setting for setting in settings(recipe)}
    chosen = {name: setting.value for name, setting in made.items() if setting.chosen}
    assert chosen["optim.lr"] == "0.002" and chosen["photos[cats].use"] == "train, more"
    assert chosen["stages[3].texts_only"] == "yes" and chosen["open_clip[1].model"] == "ViT-B-32"
    assert "optim.clip" not in chosen and made["optim.clip"].value == str(OptimConfig().clip)
    assert "validate" not in chosen and made["validate"].value == ""
    tables = re.findall(r'<table class="settings">.*?</table>', write_report(log(2), recipe).read_text(), re.DOTALL)
    assert [table.count("<tr>") for table in tables] == [len(chosen), len(made)]


def test_a_run_in_progress_and_one_not_started(log: Log, recipe: Recipe) -> None:
    run = log(9)
    with (run / METRICS).open("a") as metrics:
        metrics.write('{"step": 10, "loss": 1.')
    assert facts(read(write_report(run, recipe)))["steps"] == "9"
    (run / METRICS).write_text("")
    page = read(write_report(run, recipe))
    assert "No steps yet." in page.text("p") and facts(page)["steps"] == "0"


def test_a_long_run_makes_a_small_page(log: Log, recipe: Recipe) -> None:
    run = log(1)
    line = json.loads((run / METRICS).read_text())
    random = np.random.default_rng(0)
    steps = ({**line, "step": step, "loss": float(loss)} for step, loss in enumerate(random.random(8_000), 1))
    (run / METRICS).write_text("".join(json.dumps(step) + "\n" for step in steps))
    assert write_report(run, recipe).stat().st_size < 400_000


def test_both_palettes_have_enough_contrast(log: Log, recipe: Recipe) -> None:
    """Text contrast by WCAG 2 is at least 4.5 to 1 on page and card, light and dark."""
    palettes = list(_palettes(write_report(log(2), recipe).read_text()))
    assert len(palettes) == 2 and palettes[0]["--page"] != palettes[1]["--page"]
    for palette in palettes:
        for ink in ("--text", "--pale", "--line"):
            for paper in ("--page", "--card"):
                light, dark = sorted((_luminance(palette[ink]), _luminance(palette[paper])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def _palettes(text: str) -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL):
        yield dict(re.findall(r"(--\w+): (#\w+)", block))


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
