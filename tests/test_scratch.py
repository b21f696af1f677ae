"""Statements about attention in NumPy, each checked against something independent."""

import re

import numpy as np
import pytest
import torch
from lesson import scratch
from torch.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_softmax_is_pytorchs_also_for_large_scores_and_masked_ones() -> None:
    scores = np.vstack([random(3, 4), [[1e4, -1e4, 0, -np.inf]]])
    expected = torch.tensor(scores).softmax(dim=-1)
    np.testing.assert_allclose(scratch.softmax(scores), expected, rtol=1e-12)


def test_all_queries_at_once_see_what_each_sees_alone() -> None:
    query, keys = random(3, 4, seed=1), random(5, 4, seed=2)
    contexts, weights = scratch.dot_product_attention(query, keys)
    for t in range(3):
        context, alpha = scratch.attention_for_one_query(query[t], keys)
        np.testing.assert_allclose(context, contexts[t], rtol=1e-12)
        np.testing.assert_allclose(alpha, weights[t], rtol=1e-12)


@pytest.mark.parametrize("is_masked", [False, True])
def test_attention_is_pytorchs_unscaled(is_masked: bool) -> None:
    query, keys = random(3, 7, seed=1), random(5, 7, seed=2)
    mask = np.array([True, False, True, True, False]) if is_masked else None
    context, weights = scratch.dot_product_attention(query, keys, mask)
    q, k, one_hot = torch.tensor(query), torch.tensor(keys), torch.eye(5, dtype=torch.double)
    options = {"attn_mask": torch.tensor(mask)[None] if is_masked else None, "scale": 1.0}
    expected = F.scaled_dot_product_attention(q, k, k, **options)
    np.testing.assert_allclose(context, expected, rtol=1e-12)
    # As values, one-hot vectors show the weights.
    expected = F.scaled_dot_product_attention(q, k, one_hot, **options)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_english_says_black_cat_and_french_chat_noir_so_the_weights_cross() -> None:
    (query, keys, mask, *_), source = scratch.worked_example(), list(scratch.SOURCE)
    _, (chat, noir, boit) = scratch.dot_product_attention(query, keys, mask)
    # Scores by hand: chat 4 on cat, 2 on three words, 0 on the other three; boit 2 on drinks.
    e = np.e
    assert chat[source.index("cat")] == pytest.approx(e**4 / (e**4 + 3 * e**2 + 3), abs=1e-12)
    assert noir[source.index("black")] == pytest.approx(chat[source.index("cat")])
    assert boit[source.index("drinks")] == pytest.approx(e**2 / (e**2 + 6), abs=1e-12)
    assert source[-1] == "PAD" and chat[-1] == noir[-1] == boit[-1] == 0
    _, unmasked = scratch.dot_product_attention(query, keys)
    assert unmasked[0, -1] == pytest.approx(1 / (e**4 + 3 * e**2 + 4), abs=1e-12)


def test_the_report_and_the_figure_show_the_four_steps() -> None:
    query, keys, mask, _, W_s = scratch.worked_example()
    _, weights = scratch.dot_product_attention(query, keys, mask)
    # Steps 1 to 4 for "chat", by hand.
    scores = [query[0] @ key for key in keys]
    context = sum(weight * key for weight, key in zip(weights[0], keys, strict=True))
    combined = np.tanh(context + query[0])
    found, zeros = (np.exp(W_s @ np.tanh(state)) for state in (context + query[0], query[0]))
    found, zeros = found / found.sum(), zeros / zeros.sum()
    assert round(found[0], 3) == 0.795 and found.argmax() == 0
    assert zeros[0] == zeros[1] and round(zeros[0], 3) == 0.462, "two nouns, no context"

    axes, told = scratch.draw_example().axes, scratch.report()
    matrices = [query[:1], keys, context[None], combined[None], W_s, weights]
    for image, values in zip([a.images[0] for a in axes if a.images], matrices, strict=True):
        np.testing.assert_allclose(image.get_array().filled(0), values)
        cells = {text.get_position(): float(text.get_text()) for text in image.axes.texts}
        for (row, column), value in np.ndenumerate(values):
            assert cells.get((column, row), 0) == pytest.approx(value, abs=0.0005)
            assert ((column, row) in cells) == bool(value), "zeros are blank"
    bars = [[bar.get_width() for bar in group] for panel in axes for group in panel.containers]
    for widths, values in zip(bars, [scores, weights[0], found, zeros], strict=True):
        np.testing.assert_allclose(widths, values)
    labels = [text.get_text() for panel in axes for text in panel.texts]
    assert labels.count("masked") == 1
    numbers = {float(number) for number in re.findall(r"\d+\.\d+|\b\d+\b", told)}
    values = np.concatenate([scores, weights[0], query[0], context, found, zeros])
    assert numbers >= set(values.round(3).tolist()) and "0.012" in told
