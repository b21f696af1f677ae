"""Statements about attention in NumPy, each checked against something independent."""

import numpy as np
import pytest
import torch
from conftest import scratch
from torch.nn import functional as F


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal numbers of the given shape."""
    return np.random.default_rng(seed).normal(size=shape)


def test_softmax_is_pytorchs_also_for_large_scores_and_masked_ones() -> None:
    scores = np.vstack([random(3, 4), [[1e4, -1e4, 0, -np.inf]]])
    np.testing.assert_allclose(
        scratch.softmax(scores), torch.tensor(scores).softmax(dim=-1), rtol=1e-12
    )


def test_all_queries_at_once_see_what_each_sees_alone() -> None:
    query, keys = random(3, 4, seed=1), random(5, 4, seed=2)
    contexts, weights = scratch.dot_product_attention(query, keys)
    for t in range(3):
        context, alpha = scratch.attention_for_one_query(query[t], keys)
        np.testing.assert_allclose(context, contexts[t], rtol=1e-12)
        np.testing.assert_allclose(alpha, weights[t], rtol=1e-12)


@pytest.mark.parametrize("batch", [(), (2,), (4, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_pytorchs_unscaled(batch: tuple[int, ...], masked: bool) -> None:
    query, keys = random(*batch, 3, 7, seed=1), random(*batch, 5, 7, seed=2)
    mask = (
        np.random.default_rng(3).random(keys.shape[:-1]) < 0.5
        if masked
        else np.ones(keys.shape[:-1], dtype=bool)
    )
    mask[..., 0] = True
    context, weights = scratch.dot_product_attention(query, keys, mask if masked else None)
    q, k, allowed = torch.tensor(query), torch.tensor(keys), torch.tensor(mask)[..., None, :]
    expected = F.scaled_dot_product_attention(q, k, k, attn_mask=allowed, scale=1.0)
    np.testing.assert_allclose(context, expected, rtol=1e-12)
    np.testing.assert_allclose(
        weights, (q @ k.mT).masked_fill(~allowed, -torch.inf).softmax(dim=-1), rtol=1e-12
    )


def test_the_score_goes_by_what_stands_at_a_position_and_not_by_the_position() -> None:
    query, keys, order = (
        random(1, 4, seed=1),
        random(6, 4, seed=2),
        np.random.default_rng(3).permutation(6),
    )
    context, weights = scratch.dot_product_attention(query, keys)
    moved_context, moved_weights = scratch.dot_product_attention(query, keys[order])
    np.testing.assert_allclose(moved_weights, weights[:, order], rtol=1e-12)
    np.testing.assert_allclose(moved_context, context, rtol=1e-12)


def test_a_masked_position_changes_nothing() -> None:
    query, keys, mask = (
        random(3, 4, seed=1),
        random(5, 4, seed=2),
        np.array([True, False, True, True, False]),
    )
    alone, _ = scratch.dot_product_attention(query, keys[mask])
    keys[~mask] = 1e6
    context, weights = scratch.dot_product_attention(query, keys, mask)
    np.testing.assert_allclose(context, alone, rtol=1e-12)
    assert (weights[:, ~mask] == 0).all()


def test_a_sequence_as_its_own_query_is_self_attention() -> None:
    x = random(4, 3)
    expected = F.scaled_dot_product_attention(*[torch.tensor(x)] * 3, scale=1.0)
    np.testing.assert_allclose(scratch.dot_product_attention(x, x)[0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("query", "keys", "mask"),
    [
        (np.ones((1, 3)), np.ones((5, 4)), None),
        (np.ones((1, 4)), np.ones((0, 4)), None),
        (np.ones((1, 4)), np.ones((5, 4)), np.ones(4, dtype=bool)),
        (np.ones((2, 1, 4)), np.ones((2, 1, 4)), np.array([[True], [False]])),
    ],
)
def test_what_cannot_be_attended_is_refused_by_its_shapes(
    query: np.ndarray, keys: np.ndarray, mask: np.ndarray | None
) -> None:
    with pytest.raises(ValueError) as refused:
        scratch.dot_product_attention(query, keys, mask)
    assert str(query.shape) in str(refused.value) and str(keys.shape) in str(refused.value)


def test_the_final_output_is_the_papers_formula() -> None:
    (context, query), W_c, W_s = random(2, 3), random(3, 6, seed=1), random(4, 3, seed=2)
    logits = W_s @ np.tanh(W_c[:, :3] @ context + W_c[:, 3:] @ query)
    np.testing.assert_allclose(
        scratch.final_output(context, query, W_c, W_s), np.exp(logits) / np.exp(logits).sum()
    )


def test_the_worked_example_finds_the_cat_and_says_chat() -> None:
    example = scratch.worked_example()
    np.testing.assert_allclose(example.scores, example.encoder_outputs @ example.query)
    np.testing.assert_allclose(example.context, example.weights @ example.encoder_outputs)
    assert scratch.SOURCE[example.weights.argmax()][0] == "cat" and example.weights.max() > 0.5
    assert (
        scratch.TARGET_VOCABULARY[example.with_context.argmax()][0] == "chat"
        and example.with_context.max() > 0.5
    )
    chat, lait = example.without_context[:2]
    assert chat == lait == example.without_context.max(), (
        "without the context it cannot tell one noun from another"
    )


def test_the_report_and_the_picture_show_the_same_numbers() -> None:
    example = scratch.worked_example()
    report, axes = scratch.report(example), scratch.draw_example(example).axes
    drawn = {text.get_text() for panel in axes for text in panel.texts}
    for values, digits in (
        (example.query, 1),
        (example.scores, 2),
        (example.weights, 3),
        (example.context, 3),
        (example.with_context, 3),
        (example.without_context, 3),
    ):
        for value in values:
            assert f"{value:.{digits}f}" in drawn and f"{value:.{digits}f}" in report.split()
    matrices = [panel.images[0] for panel in axes if panel.images]
    assert len(matrices) == 4 and {image.get_clim() for image in matrices} == {(0, 2)}, (
        "one scale for all"
    )
    np.testing.assert_allclose(matrices[2].get_array().sum(axis=1), matrices[3].get_array()[:, 0])
