"""Plant bugs into copies of the fast engine, one at a time, and see whether the tests notice.

    python scripts/plant_bugs.py [--only NAME ...] [--json FILE]

Each bug is one line of `ferrox/fast` changed.  The copy is tested interpreted, by the tests that hold it against the
reference engine and the specification, until the first failure.  Exit status 1 when a bug survives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = ("tests/specs/test_matching_rules.py", "tests/specs", "tests/properties/test_engines_agree.py")
QUIET: Final = ("-p", "no:cacheprovider", "--no-header", "--tb=no", "--timeout=30")  # an endless loop is caught as well

# name: (file, the line as it is, the line as it must not be)
BUGS: Final = {
    "newest trades first": ("matching", "oldest = links >> 32", "oldest = links & HALF"),
    "trade at the taker's price": ("matching", "        at = slots[level + PRICE]", "        at = limit"),
    "limit is one tick wider": ("matching", "if (at - limit) * sign > 0:", "if (at - limit) * sign > 1:"),
    "one level and no further": ("matching", "    while leaves > 0:\n", "    while leaves > 0 and filled == 0:\n"),
    "filled is forgotten": (
        "matching",
        "            leaves -= traded\n            filled += traded\n",
        "            leaves -= traded\n",
    ),
    "fill or kill looks at one level": (
        "matching",
        "        level = worse(slots, maker_side, level)\n    return False",
        "        break\n    return False",
    ),
    "fill or kill counts own makers": ("matching", "if mode != CANCEL_MAKER:\n", "if mode == CANCEL_TAKER:\n"),
    "immediate or cancel rests": (
        "matching",
        "if time_in_force == GTC:\n            rest",
        "if True:\n            rest",
    ),
    "capacity off by one": (
        "matching",
        "slots[RESTING] >= slots[ORDER_CAPACITY]",
        "slots[RESTING] > slots[ORDER_CAPACITY]",
    ),
    "slide by two ticks": ("matching", "sign * slots[book + TICK]", "2 * sign * slots[book + TICK]"),
    "slide past the band": ("matching", " or entry < slots[book + LOW] or entry > slots[book + HIGH]", ""),
    "larger replace keeps its place": (
        "matching",
        "if price == slots[order + PRICE] and leaves <= slots[order + SIZES] & HALF:",
        "if price == slots[order + PRICE]:",
    ),
    "replace forgets what was filled": ("matching", "leaves = total - filled", "leaves = total"),
    "replace of the other side": ("matching", "if slots[order + OWNER] >> 32 != side:", "if False:"),
    "cancel in another instrument": (
        "matching",
        "order == 0 or slots[order + OWNER] & HALF != instrument",
        "order == 0",
    ),
    "account is one bit too wide": (
        "matching",
        "(maker_id ^ taker_id) >> ACCOUNT_SHIFT",
        "(maker_id ^ taker_id) >> 41",
    ),
    "decrement spares the taker": (
        "matching",
        "        from_taker = from_maker\n",
        "        from_taker = 0 * from_maker\n",
    ),
    "cancel-both spares the maker": (
        "matching",
        "if mode == CANCEL_MAKER or mode == CANCEL_BOTH:",
        "if mode == CANCEL_MAKER:",
    ),
    "band without its high end": ("matching", "price > slots[book + HIGH]) and", "price >= slots[book + HIGH]) and"),
    "lot is not asked": ("matching", "if lot != 1 and quantity % lot != 0:", "if False:"),
    "a run of makers is cut one short": ("matching", "slots[ORDERS] = oldest", "slots[ORDERS] = last"),
    "append at the front": (
        "queue",
        "slots[level + LINKS] = order | (links >> 32) << 32",
        "slots[level + LINKS] = links",
    ),
    "a middle order leaves one link behind": (
        "queue",
        "    slots[after + LINKS] = before | (slots[after + LINKS] >> 32) << 32\n",
        "",
    ),
    "a chain loses what follows": (
        "index",
        "    slots[before + CHAIN] = following\n",
        "    slots[before + CHAIN] = 0\n",
    ),
    "best is not renewed": (
        "ladder",
        "slots[book + BEST + side] = below if side == BUY else above",
        "slots[book + BEST + side] = above if side == BUY else below",
    ),
    "a level is linked one way": (
        "ladder",
        "    if below != 0:\n        slots[below + NEIGHBOURS] = (slots[below + NEIGHBOURS] & HALF) | level << 32\n",
        "",
    ),
    "a better level forgets the old best": (
        "ladder",
        "            slots[level + NEIGHBOURS] = best\n",
        "            slots[level + NEIGHBOURS] = 0\n",
    ),
    "a worse level is taken for the best": ("ladder", "if best == 0 or (", "if best != 0 and present == 0 or ("),
    "a chain's head is remembered elsewhere": ("index", "slots[slot + HEAD] = place", "slots[slot + HEAD] = place ^ 1"),
    "books are listed as they come": (
        "instruments",
        "        after = slots[before + NEXT]\n",
        "        after = 0\n",
    ),
    "looking ahead leaves something behind": ("ahead", "slots[SINK] = sink", "slots[SINK - 20] += sink & 1"),
    "a block keeps its bit": ("ladder", "^ slots[MASKS + (slots[level + TICK_NUMBER] & 63)]", "^ 0"),
    "the highest bit is missed": ("bits", "        return 63\n", "        return 62\n"),
    "the tree forgets to move a branch": ("tree", "if own != 0 and parent != block:", "if False:"),
    "the tree takes the wrong neighbour": (
        "tree",
        "return -outermost(slots, edge, RIGHT)",
        "return -outermost(slots, edge, LEFT)",
    ),
    "cancels are judged by price too late": ("decode", "return 0 if ident > 0 else BAD_ORDER_ID", "return 0"),
    "display is not looked at": ("decode", "return 0 if sizes == quantity else BAD_DISPLAY", "return 0"),
    "mass cancel begins with the asks": ("matching", "    for side in (BUY, SELL):", "    for side in (SELL, BUY):"),
    "halted takes a replace": ("matching", "if state != OPEN and state != PRE_OPEN:", "if False:"),
    "a snapshot of the crossed book is taken": (
        "image",
        "if side == SELL and bid_of == instrument and",
        "if False and",
    ),
    "a snapshot forgets the clock": ("image", "    words[3] = slots[CLOCK]\n", "    words[3] = slots[SEQUENCE]\n"),
    "the last flag is missing": ("engine", "            out[slots[WRITTEN] - 1] |= last\n", ""),
}


def plant(folder: Path, file: str, line: str, wrong: str) -> None:
    """Change one line of a copy; it must stand there, or the list above is out of date."""
    path = folder / "ferrox" / "fast" / f"{file}.py"
    source = path.read_text()
    if line not in source:
        raise SystemExit(f"{path.name} has no line {line!r} any more; mend the list of bugs")
    path.write_text(source.replace(line, wrong))


def caught_by(folder: Path) -> str | None:
    """Return the first test that fails on a copy, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", *QUIET, *TESTS]
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"FERROX_HYPOTHESIS": "hunt", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if run.returncode == 0:
        return None
    if run.returncode != 1:  # not a failed test, but a copy that cannot even be imported, or no test at all
        raise SystemExit(run.stdout[-2000:] + run.stderr[-2000:])
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" ")[1] if failed else "a test that had to be stopped"


def main() -> int:
    """Plant every bug, print who caught it, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="plant only these")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    caught: dict[str, str | None] = {}
    for name, (file, line, wrong) in BUGS.items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for part in ("ferrox", "tests", "specs", "docs", "README.md", "pyproject.toml"):
                source = ROOT / part
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, folder / part)
            plant(folder, file, line, wrong)
            start = time.monotonic()
            caught[name] = caught_by(folder)
            print(f"{name:<42}{time.monotonic() - start:5.0f} s  {caught[name] or 'SURVIVED'}", flush=True)
    survived = [name for name, test in caught.items() if test is None]
    print(f"\n{len(caught)} planted, {len(caught) - len(survived)} caught")
    if options.json:
        options.json.write_text(json.dumps(caught, indent=1) + "\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
