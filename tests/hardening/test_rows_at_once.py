"""Many rows at once are what one row after the other is."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.exchange import Output
from proxy.hardening.matrix import MANY_ROWS, harden_rows, rounded
from proxy.hardening.scores import harden_row

OUTPUTS = st.builds(
    Output,
    st.just("o"),
    decimals=st.none() | st.integers(0, 15),
    top_k=st.none() | st.integers(1, 5),
    label_only=st.booleans(),
)
# Probabilities, logits, numbers on and beside ties, repeated numbers, and everything else that is finite.
SCORES = (
    st.floats(0, 1)
    | st.floats(-50, 50)
    | st.integers(-4000, 4000).map(lambda n: n / 1000)
    | st.integers(-64, 64).map(lambda n: n / 64)
    | st.sampled_from([0.0, -0.0, 0.285, 2.675, 1.005, 0.995, 0.5, 1.0])
    | st.floats(allow_nan=False, allow_infinity=False)
)
MATRICES = st.integers(1, 7).flatmap(
    lambda width: st.lists(st.lists(SCORES, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(MATRICES, OUTPUTS)
@example([[0.5, 0.5]], Output("o", decimals=2))
@example([[-0.0, 0.0, -3.0]], Output("o", top_k=1))
@example([[0.999, 0.998]], Output("o", decimals=2))
def test_the_vectorised_form_is_the_plain_form(rows, output):
    """Invariant: number by number the same, signs of zero apart where nothing is hardened."""
    given_rows = np.array(rows, dtype=np.float64)
    shown = harden_rows(given_rows, output)
    assert shown.tolist() == [harden_row(row, output) for row in rows]
    assert given_rows.tolist() == rows, "the raw rows are not written to"


@pytest.mark.parametrize(
    "output",
    [
        Output("o", label_only=True),
        *(Output("o", decimals=decimals, top_k=top_k) for decimals in (None, 0, 2) for top_k in (None, 1, 3, 5)),
    ],
    ids=lambda output: f"{output.decimals} decimals, top {output.top_k}, label {output.label_only}",
)
@pytest.mark.parametrize("decimals", [1, 2, 8], ids="of {} decimals".format)
@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_very_many_rows_are_too(kind, decimals, output):
    """Enough of them for the other way to the highest scores; with few decimals most rows hold equals."""
    draw = np.random.default_rng(8)
    raw = draw.dirichlet(np.ones(10), MANY_ROWS) if kind == "probabilities" else draw.normal(0, 5, (MANY_ROWS, 10))
    rows = np.round(raw, decimals)
    assert harden_rows(rows, output).tolist() == [harden_row(row, output) for row in rows.tolist()]


@given(st.lists(SCORES, min_size=1, max_size=50), st.integers(0, 15))
def test_rounding_is_pythons(scores, decimals):
    assert rounded(np.array(scores), decimals).tolist() == [round(score, decimals) for score in scores]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        harden_rows(np.array([[0.5, bad]]), Output("o", decimals=2))
