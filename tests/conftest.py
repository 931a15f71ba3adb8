"""How hard Hypothesis looks: FERROX_HYPOTHESIS is default, ci, thorough or hunt.

The default run is derandomised, because equal input must give equal results here as everywhere; `ci` and `thorough`
look somewhere else each time; `hunt` stops at a failure without making it small, for `scripts/plant_bugs.py`.  A
failure prints the blob that brings it back (`@reproduce_failure`), and a random one its seed (`--hypothesis-seed`).
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, settings

EXAMPLES = {"default": 100, "ci": 400, "thorough": 5_000, "hunt": 100}
STEPS = {"default": 40, "ci": 60, "thorough": 150, "hunt": 40}

for name, examples in EXAMPLES.items():
    settings.register_profile(
        name,
        max_examples=examples,
        stateful_step_count=STEPS[name],
        derandomize=name in ("default", "hunt"),
        phases=(Phase.explicit, Phase.generate) if name == "hunt" else tuple(Phase),
        database=None,
        deadline=None,  # a slow machine is no defect; pytest-timeout finds what hangs
        print_blob=True,
        verbosity=Verbosity.normal,
        suppress_health_check=[HealthCheck.too_slow],
    )

# What a test starts is the build that is tested too: not the checkout, because it happens to be the current folder.
os.environ.setdefault("PYTHONSAFEPATH", "1")

CHOSEN = os.environ.get("FERROX_HYPOTHESIS", "default")
if CHOSEN not in EXAMPLES:
    raise pytest.UsageError(f"FERROX_HYPOTHESIS is {CHOSEN!r}; choose one of: {', '.join(EXAMPLES)}")
settings.load_profile(CHOSEN)


def pytest_report_header() -> str:
    return f"hypothesis: {EXAMPLES[CHOSEN]} examples of each property (FERROX_HYPOTHESIS={CHOSEN})"


def pytest_configure(config: pytest.Config) -> None:
    config.option.importmode = "importlib"  # unit/ and properties/ both have a test_decode.py
