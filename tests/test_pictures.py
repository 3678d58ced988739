"""Pictures: what they show in words and shapes, that they are the same everywhere, and that no name can harm them."""

from __future__ import annotations

import copy
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from templates import picture

if TYPE_CHECKING:
    from pytest_regressions.file_regression import FileRegressionFixture

ANSWERS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text())
ROOM = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"


def answer(name: str) -> dict[str, Any]:
    return copy.deepcopy(ANSWERS[name])


def drawn(case: dict[str, Any]) -> str:
    return picture.svg(case["host"], case["routes"], verdict=case["verdict"])


def texts(svg: str) -> list[str]:
    return [t.text or "" for t in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - our own output


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


def many(number: int) -> dict[str, Any]:
    case = answer("subset_empty")
    route = case["routes"][0]
    pair = route["destinations"]
    route["destinations"] = [
        pair[i % 2] | {"envoy_cluster": f"outbound|80|v{i}-{'x' * 90}|{case['host']}", "share": 1 / number} for i in range(number)
    ]
    case["routes"] = [route]
    return case


@pytest.mark.parametrize("name", ANSWERS)
def test_a_picture_is_drawn_so(name: str, file_regression: FileRegressionFixture):
    file_regression.check(drawn(answer(name)).replace("><", ">\n<") + "\n", extension=".svg", encoding="utf-8")


def test_a_picture_says_who_calls_the_rule_and_each_destination_with_share_and_endpoints():
    said = texts(drawn(answer("subset_empty")))
    for part in ("degraded", "destination.mynamespace", "caller (any namespace)", "rule 1 of VirtualService", "mynamespace/destination"):
        assert part in said
    for part in ("95 % of the requests fail: v1 has no endpoint", "v1", "95 %", "0 endpoints, 503 UH", "v2", "5 %", "2 of 2 usable"):
        assert part in said


def test_a_broken_branch_is_told_by_shape_and_words_too():
    broken, well = drawn(answer("subset_empty")), drawn(answer("well"))
    assert "stroke-dasharray" in broken
    assert "stroke-dasharray" not in well
    # A cross is a circle with two strokes: one on the way, one on the card, one beside the verdict.
    assert broken.count("<circle") == 3
    assert well.count("<circle") == 0


def test_no_tick_stands_where_calls_fail_for_another_reason_than_the_route():
    svg = drawn(answer("service_entry_doubled"))
    assert "Calls fail for a reason that routes and endpoints do not show" in texts(svg)
    assert picture._tick(0, 0).split("stroke=")[1] not in svg


def test_a_picture_is_wide_enough_to_read_and_has_the_size_that_it_says():
    svg = drawn(answer("subset_empty"))
    width, height = size(picture.png(svg))
    assert width >= 1000
    root = ET.fromstring(svg)  # noqa: S314 - our own output
    assert (width, height) == (int(root.attrib["width"]), round(float(root.attrib["height"])))


def test_letters_are_really_drawn_with_the_bundled_fonts():
    svg = drawn(answer("subset_empty"))
    without = re.sub(r"<text.*?</text>", "", svg)
    assert len(picture.png(svg)) > len(picture.png(without)) + 5_000
    assert "DejaVu changes are in public domain" in (ROOM / "templates/fonts/LICENSE").read_text()


def test_the_same_routes_give_the_same_bytes_in_another_process():
    program = (
        "import sys, yaml, hashlib; from templates import picture;"
        "c = yaml.safe_load(open('tests/answers.yaml'))['subset_empty'];"
        "print(hashlib.sha256(picture.png(picture.svg(c['host'], c['routes'], verdict=c['verdict']))).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOM, env={"PYTHONPATH": ".", "PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.mark.parametrize(("number", "cards"), [(1, 1), (9, 9), (60, 8), (400, 8)])
def test_many_destinations_are_folded_and_counted(number: int, cards: int):
    svg = drawn(many(number))
    said = texts(svg)
    assert sum(t.startswith("v") and t.endswith("…") for t in said) == cards
    assert any(t.startswith(f"{number - cards} more with") for t in said) == (number > cards)
    _width, height = size(picture.png(svg))
    assert height < 1200


def test_many_rules_are_folded_and_those_that_fail_are_drawn_first():
    route = answer("subset_empty")["routes"][0]
    well = route | {"failing_share": 0.0, "destinations": [route["destinations"][1] | {"share": 1.0}]}
    routes = [well | {"path": f"spec.http[{i}]"} for i in range(9)] + [route | {"path": "spec.http[9]"}]
    said = texts(picture.svg(route["host"], routes, verdict="degraded"))
    assert "rule 10 of VirtualService" in said
    assert "and 7 other rules, none of them failing" in said
    assert "95 % of the requests of rule 10 fail: v1 has no endpoint" in said


def test_a_host_that_nobody_holds_has_a_picture_that_says_so():
    case = answer("unreadable")
    assert "No proxy that was looked at holds a rule of this host." in texts(drawn(case))
    assert size(picture.png(drawn(case)))[0] >= 1000


POISONS = [
    "</text><script>alert(1)</script>",
    "&amp; \" ' ]]>",
    "\x00\x1b\ufffe\uffff\ud800",
    "a\u202eb\u2066c",
    "👩‍👩‍👧‍👦🇩🇪é" * 900,
    "x" * 10_000,
    "a" + "\u0301" * 5000,
    "\n\r\t",
    "",
]


@pytest.mark.parametrize(
    "poison", POISONS, ids=["tags", "entities", "controls", "right to left", "emoji", "long", "combining", "space", "empty"]
)
def test_no_name_harms_a_picture(poison: str):
    case = answer("subset_empty")
    for route in case["routes"]:
        route |= {"source": f"VirtualService {poison}", "match": poison, "path": f"spec.http[0]{poison}"}
        for destination in route["destinations"]:
            destination["envoy_cluster"] = f"outbound|80|{poison}|{poison}"
            destination["endpoints"] = [{"address": poison, "state": "unhealthy", "cluster": poison, "workload": poison, "reason": poison}]
    case["routes"][0]["viewpoint"] |= {"namespace": poison, "selector": poison}
    svg = picture.svg(f"{poison}.x", case["routes"], verdict="degraded")
    assert {e.tag.removeprefix(SVG) for e in ET.fromstring(svg).iter()} <= {"svg", "rect", "text", "path", "circle"}  # noqa: S314 - our own output
    assert "\u202e" not in svg
    assert size(picture.png(svg))[0] >= 1000
    assert len(svg) < 60_000
    assert 0 < len(picture.alt(f"{poison}.x", case["routes"])) <= 300


def test_names_stay_inside_their_boxes():
    case = many(2)
    case["routes"][0]["source"] = "VirtualService " + "very-long-namespace" * 6 + "/" + "very-long-name" * 9
    for element in ET.fromstring(drawn(case)).iter(f"{SVG}text"):  # noqa: S314 - our own output
        if "Mono" in element.attrib["font-family"]:
            right = float(element.attrib["x"]) + len(element.text or "") * float(element.attrib["font-size"]) * 0.602
            assert right <= picture.WIDTH - 36


def test_the_alt_text_tells_the_same_facts_the_broken_ones_first():
    case = answer("subset_empty")
    assert picture.alt(case["host"], case["routes"]) == (
        "destination.mynamespace, caller (any namespace), rule 1 of VirtualService mynamespace/destination. "
        "95 % to v1: 0 endpoints, 503 UH, fails; 5 % to v2: 2 of 2 usable."
    )
    assert len(picture.alt(many(60)["host"], many(60)["routes"])) <= 300
    assert picture.alt("x", []) == "No proxy that was looked at holds a rule of x."


def test_what_is_no_svg_is_refused():
    with pytest.raises(ValueError, match=r".+"):
        picture.png("not a picture")
