"""Statements about attention in NumPy, each checked against something independent."""

import re

import numpy as np
import pytest
import torch
from conftest import scratch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal numbers of the given shape."""
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


@pytest.mark.parametrize("batch", [(), (2,), (4, 2)])
@pytest.mark.parametrize("is_masked", [False, True])
def test_attention_is_pytorchs_unscaled(batch: tuple[int, ...], is_masked: bool) -> None:
    query, keys = random(*batch, 3, 7, seed=1), random(*batch, 5, 7, seed=2)
    mask = (random(*keys.shape[:-1], seed=3) < 0) | (np.arange(5) == 0) | (not is_masked)
    context, weights = scratch.dot_product_attention(query, keys, mask if is_masked else None)
    q, k, allowed = torch.tensor(query), torch.tensor(keys), torch.tensor(mask)[..., None, :]
    expected = F.scaled_dot_product_attention(q, k, k, attn_mask=allowed, scale=1.0)
    np.testing.assert_allclose(context, expected, rtol=1e-12)
    one_hot = torch.eye(5, dtype=q.dtype).expand(*batch, 5, 5)  # what finds its own position
    places = F.scaled_dot_product_attention(q, k, one_hot, attn_mask=allowed, scale=1.0)
    np.testing.assert_allclose(weights, places, rtol=1e-12)


def test_the_score_goes_by_what_stands_at_a_position_and_not_by_the_position() -> None:
    query, keys = random(1, 4, seed=1), random(6, 4, seed=2)
    order = np.array([3, 0, 5, 1, 4, 2])
    context, weights = scratch.dot_product_attention(query, keys)
    moved_context, moved_weights = scratch.dot_product_attention(query, keys[order])
    np.testing.assert_allclose(moved_weights, weights[:, order], rtol=1e-12)
    np.testing.assert_allclose(moved_context, context, rtol=1e-12)


def test_a_masked_position_changes_nothing() -> None:
    query, keys = random(3, 4, seed=1), random(5, 4, seed=2)
    mask = np.array([True, False, True, True, False])
    alone, _ = scratch.dot_product_attention(query, keys[mask])
    keys[~mask] = 1e6
    context, weights = scratch.dot_product_attention(query, keys, mask)
    np.testing.assert_allclose(context, alone, rtol=1e-12)
    assert (weights[:, ~mask] == 0).all()


def test_a_sequence_as_its_own_query_is_self_attention() -> None:
    x = random(4, 3)
    expected = F.scaled_dot_product_attention(*[torch.tensor(x)] * 3, scale=1.0)
    np.testing.assert_allclose(scratch.dot_product_attention(x, x)[0], expected, rtol=1e-12)


def test_the_final_output_is_the_papers_formula() -> None:
    (context, query), W_c, W_s = random(2, 3), random(3, 6, seed=1), random(4, 3, seed=2)
    exp = np.exp(W_s @ np.tanh(W_c[:, :3] @ context + W_c[:, 3:] @ query))
    found = scratch.final_output(context, query, W_c, W_s)
    np.testing.assert_allclose(found, exp / exp.sum(), rtol=1e-12)


def test_english_says_black_cat_and_french_chat_noir_so_the_weights_cross() -> None:
    example, source = scratch.worked_example(), scratch.words(scratch.SOURCE)
    asked, e = scratch.words(scratch.ASKED), np.e
    weight = {
        (french, word): example.weights[t, s]
        for t, french in enumerate(asked)
        for s, word in enumerate(source)
        if word != "the" or s == 0
    }
    # Scores by hand: chat 4 on cat, 2 on three words, 0 on the other three; boit 2 on drinks.
    assert weight["chat", "cat"] == pytest.approx(e**4 / (e**4 + 3 * e**2 + 3), abs=1e-12)
    assert round(weight["chat", "cat"], 3) == round(weight["noir", "black"], 3) == 0.684
    assert {round(weight["chat", word], 3) for word in ("the", "black", "milk")} == {0.093}
    assert round(weight["boit", "drinks"], 3) == 0.552
    assert (example.weights[:, source.index("PAD")] == 0).all()
    assert round(example.unmasked[asked.index("boit"), source.index("PAD")], 3) == 0.069
    chat = scratch.words(scratch.TARGET_VOCABULARY).index("chat")
    assert round(example.with_context[0, chat], 3) == 0.795
    assert round(example.without_context[0, chat], 3) == 0.462
    assert example.without_context[0, 0] == example.without_context[0, 1], "two nouns, no context"
    np.testing.assert_allclose(example.scores, np.einsum("td,sd->ts", example.query, example.keys))
    np.testing.assert_allclose(example.context, example.weights @ example.keys)


def test_the_report_and_the_picture_show_the_numbers_of_the_example() -> None:
    example = scratch.worked_example()
    axes, told = scratch.draw_example(example).axes, scratch.report(example)
    drawn = [panel.images[0] for panel in axes if panel.images]
    matrices = [example.query[:1].T, example.keys.T, example.weights[0] * example.keys.T]
    matrices += [example.context[:1].T, example.weights]
    for image, values in zip(drawn, matrices, strict=True):
        np.testing.assert_allclose(image.get_array(), values)
        cells = {text.get_position(): float(text.get_text()) for text in image.axes.texts}
        for (row, column), value in np.ndenumerate(values):
            assert cells[column, row] == pytest.approx(value, abs=0.0005)
    assert [image.get_clim() for image in drawn] == [(0, 2)] * 4 + [(0, 1)]
    assert sum(image.colorbar is not None for image in drawn) == 2, "one for each scale"
    bars = [[bar.get_height() for bar in group] for panel in axes for group in panel.containers]
    steps = [example.scores[0], example.weights[0]]
    steps += [example.with_context[0], example.without_context[0]]
    for heights, values in zip(bars, steps, strict=True):
        np.testing.assert_allclose(heights, values)
    numbers = {float(number) for number in re.findall(r"\d+\.\d+|\b\d+\b", told)}
    values = np.concatenate([*steps, example.query[0], example.context[0], *example.weights])
    assert numbers >= set(values.round(3).tolist()) and told.isascii()
    assert "0.069" in told


def test_a_number_in_a_cell_stands_out_from_its_colour() -> None:
    def luminance(colour: object) -> float:  # as the Web Content Accessibility Guidelines define it
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722] + 0.05

    for highest in (1, 2):
        axes = Figure().subplots()
        scratch.draw_matrix(axes, np.linspace(0, highest, 41)[None], ["row"], highest)
        for text in axes.texts:
            cell = axes.images[0].to_rgba(axes.images[0].get_array())[0, text.get_position()[0]]
            shades = luminance(cell[:3]), luminance(text.get_color())
            assert max(shades) / min(shades) > 2.9, text.get_text()
