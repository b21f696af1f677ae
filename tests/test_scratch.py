"""Statements about attention in NumPy, each checked against something independent."""

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal numbers of the given shape."""
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("scale", [1.0, 1e4, -1e4, 1e308, -1e308])
def test_softmax_is_stable_for_any_finite_scores(scratch: ModuleType, scale: float) -> None:
    weights = scratch.softmax([[scale, 0.0, -scale], [scale, scale, scale]])
    assert np.isfinite(weights).all() and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-15)
    np.testing.assert_allclose(weights[1], 1 / 3)
    if abs(scale) >= 1e4:
        np.testing.assert_array_equal(weights[0], [scale > 0, 0, scale < 0])


def test_softmax_is_the_exponential_share_along_its_axis(scratch: ModuleType) -> None:
    scores = random(3, 4)
    expected = [[math.exp(x) / sum(math.exp(y) for y in column) for x in column] for column in scores.T]
    np.testing.assert_allclose(scratch.softmax(scores, axis=0), np.array(expected).T, rtol=1e-12)


@pytest.mark.parametrize("shape", [((), (5,)), ((3,), (5,)), ((2, 3), (2, 5)), ((4, 2, 3), (4, 2, 5))])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_agrees_with_pytorch(
    scratch: ModuleType, shape: tuple[tuple[int, ...], tuple[int, ...]], masked: bool
) -> None:
    query, keys = random(*shape[0], 7, seed=1), random(*shape[1], 7, seed=2)
    mask = np.random.default_rng(3).random(keys.shape[:-1]) < 0.5
    mask[..., 0] = True
    context, weights = scratch.dot_product_attention(query, keys, mask if masked else None)
    q, k = torch.tensor(query), torch.tensor(keys)
    one = q.ndim == 1
    expected = F.scaled_dot_product_attention(
        q[None] if one else q, k, k, attn_mask=torch.tensor(mask)[..., None, :] if masked else None, scale=1.0
    )
    np.testing.assert_allclose(context, expected[0] if one else expected, rtol=1e-12)
    np.testing.assert_allclose(weights @ keys, context, rtol=1e-12)
    assert weights.shape == (*query.shape[:-1], keys.shape[-2])
    allowed = mask if one else mask[..., None, :]
    assert not masked or (weights[np.broadcast_to(~allowed, weights.shape)] == 0).all()


def test_one_query_at_a_time_sees_what_the_batch_sees(scratch: ModuleType) -> None:
    query, keys = random(2, 3, 4, seed=1), random(2, 5, 4, seed=2)
    mask = np.array([[True] * 5, [True, True, False, True, False]])
    context, weights = scratch.dot_product_attention(query, keys, mask)
    for b in range(2):
        for t in range(3):
            one_context, one_weights = scratch.dot_product_attention(query[b, t], keys[b], mask[b])
            np.testing.assert_allclose(one_context, context[b, t], rtol=1e-12)
            np.testing.assert_allclose(one_weights, weights[b, t], rtol=1e-12)


def test_the_score_is_the_dot_product_and_not_the_position(scratch: ModuleType) -> None:
    query, keys = random(4, seed=1), random(6, 4, seed=2)
    order = np.random.default_rng(3).permutation(6)
    context, weights = scratch.dot_product_attention(query, keys)
    moved_context, moved_weights = scratch.dot_product_attention(query, keys[order])
    np.testing.assert_allclose(moved_weights, weights[order], rtol=1e-12)
    np.testing.assert_allclose(moved_context, context, rtol=1e-12)
    assert weights.argmax() == (keys @ query).argmax()


def test_a_masked_position_changes_nothing(scratch: ModuleType) -> None:
    query, keys = random(3, 4, seed=1), random(5, 4, seed=2)
    mask = np.array([True, False, True, True, False])
    other = keys.copy()
    other[~mask] = 1e6
    context, weights = scratch.dot_product_attention(query, other, mask)
    alone, _ = scratch.dot_product_attention(query, keys[mask])
    np.testing.assert_allclose(context, alone, rtol=1e-12)
    assert (weights[:, ~mask] == 0).all()


def test_a_sequence_as_its_own_query_is_self_attention(scratch: ModuleType) -> None:
    x = random(4, 3)
    context, weights = scratch.dot_product_attention(x, x)
    expected = F.scaled_dot_product_attention(*[torch.tensor(x)] * 3, scale=1.0)
    np.testing.assert_allclose(context, expected, rtol=1e-12)
    assert weights.shape == (4, 4)


@pytest.mark.parametrize(
    ("query", "keys", "mask", "message"),
    [
        (np.ones(3), np.ones((5, 4)), None, r"query \(3,\) does not fit keys \(5, 4\)"),
        (np.ones((2, 3, 4)), np.ones((3, 5, 4)), None, r"query \(2, 3, 4\) does not fit keys \(3, 5, 4\)"),
        (np.ones(4), np.ones((2, 5, 4)), None, r"query \(4,\) does not fit keys \(2, 5, 4\)"),
        (np.float64(1), np.ones((5, 1)), None, r"query \(\) does not fit"),
        (np.ones(4), np.ones(4), None, r"does not fit keys \(4,\)"),
        (np.ones(4), np.ones((0, 4)), None, r"source is empty: keys \(0, 4\)"),
        (np.ones(4), np.ones((5, 4)), np.ones(4, bool), r"mask \(4,\) of bool"),
        (np.ones(4), np.ones((5, 4)), np.ones(5), r"mask \(5,\) of float64"),
        (np.ones((2, 1, 4)), np.ones((2, 1, 4)), np.array([[True], [False]]), r"nothing to attend in row \(1,\)"),
        (np.array([1, np.nan]), np.ones((5, 2)), None, r"query \(2,\): nan at \(1,\)"),
        (np.ones(2), np.array([[1, 2], [np.inf, 4]]), None, r"keys \(2, 2\): inf at \(1, 0\)"),
        (np.array([1, -1e304]), np.ones((5, 2)), None, r"query \(2,\): -1e\+304 at \(1,\)"),
    ],
)
def test_what_cannot_be_attended_is_refused_by_name(
    scratch: ModuleType, query: np.ndarray, keys: np.ndarray, mask: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scratch.dot_product_attention(query, keys, mask)


def test_scores_beyond_float64_still_tell_the_keys_apart(scratch: ModuleType) -> None:
    keys = np.array([[1e10], [1e10 + 1], [0]])  # scores 1e310, more than float64 holds, a distance of 1e300 apart
    context, weights = scratch.dot_product_attention(np.array([1e300]), keys)
    assert weights.tolist() == [0, 1, 0] and context.tolist() == [1e10 + 1]


def test_the_final_output_is_the_papers_formula(scratch: ModuleType) -> None:
    generator = np.random.default_rng(0)
    context, query = generator.normal(size=(2, 3))
    W_c, W_s = generator.normal(size=(3, 6)), generator.normal(size=(4, 3))
    attentional = np.tanh(W_c[:, :3] @ context + W_c[:, 3:] @ query)
    expected = np.exp(W_s @ attentional) / np.exp(W_s @ attentional).sum()
    np.testing.assert_allclose(scratch.output_probabilities(context, query, W_c, W_s), expected)


def test_the_seed_draws_the_noise_on_the_encoder_outputs(scratch: ModuleType) -> None:
    first, again, other = (scratch.worked_example(seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_worked_example_finds_the_cat_and_says_chat(scratch: ModuleType) -> None:
    words, encoder_outputs, query = scratch.worked_example(seed=0)
    _, weights = scratch.dot_product_attention(query, encoder_outputs)
    assert words[weights.argmax()] == "cat" and weights.max() > 0.5
    lines = scratch.report(words, encoder_outputs, query).splitlines()
    for word, weight in zip(words, weights, strict=True):
        assert any(word in line and f"{weight:.3f}" in line for line in lines)
    outputs = {line.split()[0]: line.split()[1:] for line in lines[-5:]}
    with_context, without = ({word: float(p[i]) for word, p in outputs.items()} for i in (0, 1))
    assert with_context["chat"] > 0.5
    assert without["chat"] == without["lait"], "without the context, the decoder cannot tell one noun from the other"


def test_the_figure_shows_the_weights_and_the_sum(scratch: ModuleType) -> None:
    words, encoder_outputs, query = scratch.worked_example(seed=0)
    context, weights = scratch.dot_product_attention(query, encoder_outputs)
    bars, outputs, scaled, total, _ = scratch.draw_context(words, encoder_outputs, weights, context).axes
    np.testing.assert_array_equal([bar.get_height() for bar in bars.patches], weights)
    np.testing.assert_array_equal(outputs.images[0].get_array(), encoder_outputs.T)
    np.testing.assert_allclose(scaled.images[0].get_array().sum(axis=1), total.images[0].get_array()[:, 0])
    assert [label.get_text() for label in bars.get_xticklabels()] == words
