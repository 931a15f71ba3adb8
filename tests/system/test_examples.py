"""Every example runs as it stands, quickly, and prints what it is there to show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SERVED = {"market_maker", "taker"}
"""Those that need a running service; tests/system/test_client.py runs them against one."""
EXAMPLES = sorted(path for path in (CHECKOUT / "examples").glob("*.py") if path.stem not in SERVED)

SHOWN = {
    "first_trades": [
        r"traded 10 at 100, the price of the order that was there first",
        r"filled 10 at 100\.0, leaves 5 in the book",
        r"\(1\) +5 +101$",
        r"<Result rejected #4 outside-band>",
    ],
    "market_data": [
        r"<Top of 1: 10 @ 99 \| 110 @ 101>, spread 2, middle 100\.0",
        r"bid prices \[99 98\] and quantities \[10 50\]",
        r"bid 98: #2/1 20, #3/1 30$",
        r"  10 at 99 from account 1\n   20 at 98 from account 2\n   10 at 98 from account 3\n",
    ],
    "arrays": [
        r"100,000 commands gave 144,264 reports in \d+\.\d\d s",
        r"'trade': 44264",
        r"volume 1,119,483, mean price 10020\.38",
        r"│ 5 +┆ sell ┆ 2998 +┆ 75755 +┆ 10014\.42",
        r"<Depth of 1 at sequence 100,001: 3 bid levels, 3 ask levels>",
    ],
    "journal": [
        r"wrote 5,001 commands",
        r"state digest  ([0-9a-f]{64})\nafter replay  \1\nequal\n",
        r"from command 2,001 on, 2,200 trades at a mean of 500\.19",
    ],
    "queue_position": [
        r"orders_ahead=12, quantity_ahead=231",
        r"filled by command 26",
        r"<Result replaced #9/2 8 @ 99 kept>",
        r"<Result replaced #9/2 12 @ 99>\nnow 1 order with 10 lots stands ahead of it",
    ],
}


def test_every_example_is_expected_to_show_something():
    assert sorted(SHOWN) == [example.stem for example in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_an_example_runs_and_shows_what_it_promises(example, tmp_path):
    run = subprocess.run(
        [sys.executable, example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(CHECKOUT)])},
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert [pattern for pattern in SHOWN[example.stem] if not re.search(pattern, run.stdout, re.MULTILINE)] == []
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
