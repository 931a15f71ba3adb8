"""Every rule has one statement and a test, and every rule that is cited is stated."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*.md"))
CITING = ("ferrox", "tests", "benchmarks", "examples", "docs", "specs", "README.md")

# A statement opens a line or stands in the first cell of a table's row.
STATEMENT = re.compile(r"^(?:\| )?\*\*([A-Z]+-\d+)\*\*", re.MULTILINE)
CITATION = re.compile(r"\b([A-Z]{3,})-(\d+)\b(?:\s*\.\.\s*\1-(\d+)\b)?")
# Names from elsewhere that look like rules.
FOREIGN = {"CRC", "ISO", "PEP", "RFC", "SHA", "UTF"}


def stated() -> list[str]:
    return [rule for path in SPECS for rule in STATEMENT.findall(path.read_text("utf-8"))]


def citations(text: str) -> Iterator[str]:
    """Give every rule that a text cites; `RULE-a .. RULE-b` cites all between as well."""
    for family, first, last in CITATION.findall(text):
        if family not in FOREIGN:
            for number in range(int(first), int(last or first) + 1):
                yield f"{family}-{number}"


def files(*roots: str) -> Iterator[Path]:
    for root in roots:
        path = ROOT / root
        yield from (
            [path]
            if path.is_file()
            else sorted(
                file for file in path.rglob("*") if file.suffix in (".py", ".md", ".txt") and file != Path(__file__)
            )
        )


def test_no_rule_is_stated_twice():
    twice = [rule for rule, times in Counter(stated()).items() if times > 1]

    assert not twice


def test_every_rule_is_cited_by_a_test():
    tested = {rule for path in files("tests") for rule in citations(path.read_text("utf-8"))}

    assert not sorted(set(stated()) - tested)


@pytest.mark.parametrize("root", CITING)
def test_every_cited_rule_is_stated(root: str):
    rules = set(stated())
    unknown = {
        f"{path.relative_to(ROOT)}: {rule}"
        for path in files(root)
        for rule in citations(path.read_text("utf-8"))
        if rule not in rules
    }

    assert not sorted(unknown)


def test_a_range_cites_all_between():
    text = "See AAA-1 .. AAA-3, BBB-7 and SHA-256; AAA-9 .. BBB-9 is no range."

    assert list(citations(text)) == ["AAA-1", "AAA-2", "AAA-3", "BBB-7", "AAA-9", "BBB-9"]


def test_the_rules_of_every_page_are_found():
    families = {rule.partition("-")[0] for rule in stated()}

    assert families >= {"INSTR", "STATE", "NEW", "MATCH", "TIF", "MARKET", "POST", "CANCEL", "RPL", "STP", "MASS"}
    assert families >= {"REJECT", "REPORT", "WIRE", "SNAP", "DET", "LIM", "TEXT"}
    assert len(stated()) > 100
