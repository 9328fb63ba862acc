"""Which weights of the losses a series finds best."""

import itertools

import pytest
from bad_input_data import project_script

RUN = project_script("loss_weights/run.py")
PAIRS = list(itertools.product(RUN.GRID, RUN.GRID))


@pytest.mark.parametrize(
    ("given", "best"),
    [
        ({PAIRS[4]: 3.0, PAIRS[1]: 2.0}, [PAIRS[4]]),
        ({PAIRS[1]: 3.0, PAIRS[7]: 3.0, PAIRS[0]: 1.0}, [PAIRS[1], PAIRS[7]]),
        ({PAIRS[2]: 0.0}, [PAIRS[2]]),
        ({}, []),
    ],
)
def test_ties_and_runs_without_a_figure(given: dict, best: list):
    assert RUN.best_weights({pair: {"PQ": given.get(pair)} for pair in PAIRS}) == best
