"""Statements about what the figures and the terminal show: the run's numbers, in their places."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import scratch, seq2seq, small
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import nn


def reversed_as(word: str, output: str, weights: np.ndarray) -> tuple:
    """Return what a model might have made of a word when reversing."""
    labels = [*output, "EOS"][: len(weights)]
    return seq2seq.Decoded(word, output, labels, weights, list(range(len(word)))[::-1])


@pytest.fixture
def reversed_word() -> tuple:
    """Return "a$b" reversed, with a matrix made by hand; its last row is that of EOS."""
    rows = [[0.05, 0.15, 0.8], [0.19, 0.6, 0.21], [0.9, 0.06, 0.04], [0.5, 0.3, 0.2]]
    return reversed_as("a$b", "b$a", np.array(rows))


def titled(figure: Figure, word: str) -> Axes:
    """Return the panel with a word in its title."""
    (panel,) = (axes for axes in figure.axes if word in axes.get_title().replace("\n", " "))
    return panel


def num_colour_bars(figure: Figure) -> int:
    """Count the panels that are the colour bar of an image, with a label and the ends 0 and 1."""
    images = [image for axes in figure.axes for image in axes.images]
    bars = [image.colorbar for image in images if image.colorbar is not None]
    assert all(
        image.get_clim() == (0, 1) and image.get_cmap().name == "viridis" for image in images
    )
    for bar in bars:
        assert "weight" in bar.ax.get_ylabel() + bar.ax.get_xlabel()
        assert {0, 1} <= set(np.round(bar.get_ticks(), 6))
    return len(bars)


def assert_readable(figure: Figure) -> None:
    """Assert that every text has 9 points where the figure is 8 inches wide, and none is hidden."""
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    assert figure.get_figwidth() == 8
    for text in figure.findobj(Text):
        assert not text.get_text().strip() or text.get_fontsize() >= 9, text
    for legend in figure.legends:
        others = set(figure.findobj(Text)) - set(legend.findobj(Text))
        boxes = [text.get_window_extent() for text in others if text.get_text().strip()]
        assert not legend.get_window_extent().count_overlaps(boxes)
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2


def test_a_word_is_written_as_the_decoder_says_and_eos_gets_a_row() -> None:
    settings = small(alphabet="xyzw")
    model = seq2seq.build_model(settings)
    with torch.no_grad():
        model.decoder.W_s.bias.copy_(9 * torch.eye(7)[3 + 2])  # always the third symbol
    decoded = seq2seq.decode_word(model, "xy", settings)
    assert (decoded.output, decoded.labels) == ("zzzzz", list("zzzzz")), "twice the length, and one"
    with torch.no_grad():
        model.decoder.W_s.bias[seq2seq.EOS] = 99
    decoded = seq2seq.decode_word(model, "xy", settings)
    assert (decoded.output, decoded.labels) == ("", ["EOS"]) and decoded.weights.shape == (1, 2)
    assert decoded.positions == [1, 0]


def test_the_matrix_shows_the_weights_with_symbols_and_rings(reversed_word: tuple) -> None:
    figure = seq2seq.draw_attention(reversed_word)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), reversed_word.weights)
    assert num_colour_bars(figure) == 1
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "$", "b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "$", "a", "EOS"]
    assert list(axes.get_xticks()) == [0, 1, 2] and list(axes.get_yticks()) == [0, 1, 2, 3]
    assert axes.get_ylim() == (3.5, -0.5) and axes.get_xlim() == (-0.5, 2.5), "first at the top"
    for rings in axes.lines:
        assert rings.get_xydata().tolist() == [[2, 0], [1, 1], [0, 2]], "and none for EOS"
    short = seq2seq.draw_attention(reversed_as("a$b", "b", np.full((2, 3), 1 / 3)))
    assert short.axes[0].lines[0].get_xydata().tolist() == [[2, 0]], "EOS comes from nowhere"


@pytest.mark.parametrize(("length", "num_rows"), [(1, 3), (24, 25), (512, 3), (3, 1025)])
def test_no_word_is_too_short_or_too_long_to_be_drawn(length: int, num_rows: int) -> None:
    symbols, weights = "$%\\_^{" * 200, np.full((num_rows, length), 1 / length)
    word = reversed_as(symbols[:length], symbols[: num_rows - 1], weights)
    figure = seq2seq.draw_attention(word)
    assert_readable(figure)
    is_crowded = max(length, num_rows - 1) > 24
    assert bool(figure.axes[0].lines) != is_crowded, "rings that would overlap are left out"


def test_the_animation_writes_a_symbol_a_frame_and_stops_at_the_last(
    reversed_word: tuple, tmp_path: Path
) -> None:
    seq2seq.animate_decoding(reversed_word)(tmp_path / "some.gif")
    heights, blank = [], []
    with Image.open(tmp_path / "some.gif") as gif:
        assert gif.n_frames == 3 and "loop" not in gif.info and gif.info["duration"] == 1000
        for frame in range(3):
            gif.seek(frame)
            pixels = np.array(gif.convert("RGB")).astype(int)
            is_orange = np.abs(pixels - [230, 159, 0]).sum(axis=2) < 60
            column_heights = is_orange[:, : pixels.shape[1] // 2].sum(axis=0).tolist()
            groups = itertools.groupby(column_heights, bool)
            heights.append([max(group) for is_bar, group in groups if is_bar])
            blank.append((pixels[:, pixels.shape[1] // 2 :] > 250).all(axis=2).sum())
    scale = max(max(bars) for bars in heights) / reversed_word.weights[:3].max()
    np.testing.assert_allclose(np.array(heights) / scale, reversed_word.weights[:3], atol=0.02)
    assert blank[0] > blank[1] > blank[2], "the matrix fills row by row"


@pytest.mark.parametrize(("num_symbols", "num_frames"), [(0, 1), (20, 16)])
def test_the_animation_of_any_word_has_at_most_16_frames(
    num_symbols: int, num_frames: int, tmp_path: Path
) -> None:
    weights = np.linspace(0, 1, 3 * num_symbols + 3).reshape(-1, 3)  # no two frames are alike
    seq2seq.animate_decoding(reversed_as("abc", "a" * num_symbols, weights))(tmp_path / "some.gif")
    with Image.open(tmp_path / "some.gif") as gif:
        assert gif.n_frames == num_frames


def test_the_loss_figure_shows_every_step_and_the_matrices_at_its_letters(
    reversed_word: tuple,
) -> None:
    losses = [10.0 ** (-t / 50) for t in range(200)]
    early = reversed_as("a$b", "b$abbb", np.full((7, 3), 1 / 3))
    figure = seq2seq.draw_loss(losses, {1: early, 100: reversed_word})
    assert_readable(figure)
    (curve,) = (axes for axes in figure.axes if axes.get_xlabel() == "training step")
    np.testing.assert_array_equal(curve.lines[0].get_xydata(), [*enumerate(losses, start=1)])
    places = {"A": (1, losses[0]), "B": (100, losses[99])}
    assert [tuple(line.get_xydata()[0]) for line in curve.lines[1:]] == list(places.values())
    assert {text.get_text(): text.xy for text in curve.texts} == places
    panels = [titled(figure, "A: step 1"), titled(figure, "B: step 100")]
    for panel, decoded in zip(panels, (early, reversed_word), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), decoded.weights)
        assert panel.get_xlabel() == decoded.output and panel.get_ylim() == (3.5, -0.5)
    first, second = (panel.get_window_extent().height for panel in panels)
    assert first == pytest.approx(second) and num_colour_bars(figure) == 1
    assert curve.get_ylim()[0] == 0 < losses[0] < curve.get_ylim()[1]


def test_a_single_step_is_a_point_and_without_attention_the_loss_stands_alone() -> None:
    blind = reversed_as("ab", "ba", np.ones((3, 2)))._replace(weights=None)
    figure = seq2seq.draw_loss([3.0], {1: blind})
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 3.0]] and axes.lines[0].get_marker() == "."


def test_the_matrix_in_the_terminal_has_a_shade_for_each_fifth() -> None:
    weights = np.array([[0, 0.1, 0.9], [0.19, 0.6, 0.21], [1, 0.05, 0], [0.5, 0.3, 0.2]])
    assert seq2seq.matrix_as_text(reversed_as("a$b", "b$a", weights)).splitlines() == [
        "     a $ b", "  b      @", "  $    * .", "  a  @", "EOS  : . ."
    ]  # fmt: skip


def test_the_four_steps_in_the_terminal_are_those_of_the_model(trained: nn.Module) -> None:
    settings = seq2seq.Settings()
    decoded = seq2seq.decode_word(trained, "attention", settings)
    lines = seq2seq.four_steps_as_text(trained, decoded, settings).splitlines()
    table = [line.split() for line in lines[2:11]]
    assert [row[1] for row in table] == list("attention")
    scores, weights = (np.array([float(row[column]) for row in table]) for column in (2, 3))
    np.testing.assert_allclose(scratch.softmax(scores), weights, atol=0.01)
    np.testing.assert_allclose(weights, decoded.weights[2], atol=0.001)
    source, lengths = seq2seq.tokens_of("attention", settings)
    keys, hidden = trained.encoder(source, lengths)
    tokens = torch.tensor([[seq2seq.SOS, *seq2seq.tokens_of("no", settings)[0][0]]])
    for name, found, line in zip(("i", ""), (keys, 0 * keys), lines[-2:], strict=True):
        logits, _, _ = trained.decoder(tokens, hidden, found, source != seq2seq.PAD)
        best = logits[0, -1].softmax(dim=-1)[seq2seq.EOS :].max()
        assert f"{best:.3f}" in line and f": {name}" in line


# Figures of the experiments, drawn from runs made by hand; the second of three seeds is the median


def seeds(**numbers: float) -> list[dict]:
    """Return three runs: the numbers less 1, the numbers, and the numbers plus 2."""
    return [{name: number + d for name, number in numbers.items()} for d in (-1, 0, 2)]


def drawn_lines(axes: Axes) -> list[list[list[float]]]:
    """Return the points of each line."""
    return [np.round(line.get_xydata(), 4).tolist() for line in axes.lines]


def test_the_bottleneck_figure_shows_the_median_at_each_length_and_a_line_for_each_budget() -> None:
    prefix = "exact match at length"
    rows = seq2seq.EXPERIMENTS["bottleneck"].rows
    lengths = range(1, 6)
    runs_of = {
        row: seeds(**{f"{prefix} {n}": 90 - 10 * n - i for n in lengths})
        for i, row in enumerate(rows)
    }
    figure = seq2seq.draw_bottleneck(runs_of)
    for family in ("reversing without", "reversing with ", "copying without"):
        panel = titled(figure, family)
        budgets = [(i, row) for i, row in enumerate(rows) if row.startswith(family)]
        budgets = [(i, row) for i, row in budgets if not re.search("numbers|forward", row)]
        expected = [[[n, 90 - 10 * n - i] for n in lengths] for i, _ in budgets]
        assert drawn_lines(panel) == expected
        labels = {text.get_text() for text in panel.texts}
        assert {row.split(", ")[1].removesuffix(" steps") for _, row in budgets} <= labels
        thick = [line.get_linewidth() > 2 for line in panel.lines]
        assert thick == [", 400 steps" in row for _, row in budgets]
        (band,) = panel.patches
        assert band.get_extents().x0 == panel.transData.transform((4.5, 0))[0], (
            "4 is trained, 5 not"
        )
    assert_readable(figure)


def test_the_history_figure_shows_seeds_and_median_by_step_and_by_second() -> None:
    exact = {f"exact match at step {step}": step for step in (10, 20, 30)}
    rows = seq2seq.EXPERIMENTS["history"].rows
    runs_of = {row: seeds(**{"ms per step": 100 * (i + 1)}, **exact) for i, row in enumerate(rows)}
    figure = seq2seq.draw_history(runs_of)
    by_step, by_second = (axes for axes in figure.axes if axes.lines)
    thick = [line for line in by_step.lines if line.get_linewidth() > 2]
    assert [line.get_label() for line in thick] == list(rows) and len(by_step.lines) == 4 * len(
        rows
    )
    assert drawn_lines(by_step)[:4] == [
        [[step, step + d] for step in (10, 20, 30)] for d in (-1, 0, 2, 0)
    ]
    for i, line in enumerate(line for line in by_second.lines if line.get_linewidth() > 2):
        expected = [[step * (i + 1) / 10, step] for step in (10, 20, 30)]
        np.testing.assert_allclose(line.get_xydata(), expected)
    assert len({line.get_color() for line in thick}) == len(rows)
    assert_readable(figure)


def test_the_figure_of_the_tests_shows_a_word_three_times_for_each_of_three_models() -> None:
    runs_of = {row: [{}] for row in seq2seq.EXPERIMENTS["alignment"].rows}
    models = ("no noise", "small embeddings", "the default")
    words = [f"word, {test}" for test in ("none", "swap", "near")]
    cells = list(itertools.product(models, words))
    pictures = [np.random.default_rng(i).dirichlet(np.ones(5), 6) for i in range(len(cells))]
    for (row, word), weights in zip(cells, pictures, strict=True):
        runs_of[row][0][word] = reversed_as("abcde", "edcba", weights)
    figure = seq2seq.draw_tests(runs_of)
    panels = [axes for axes in figure.axes if axes.images]
    for axes, (row, _), picture in zip(panels, cells, pictures, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), picture)
        assert axes.get_figure(root=False).get_suptitle() == row
    # At the second output symbol, d, the decoder has written e.
    titles = ["undisturbed", "swap: it reads b, not e", "near: it reads d, not e"]
    assert [axes.get_title() for axes in panels] == 3 * titles
    assert [bool(axes.get_xlabel()) for axes in panels] == 6 * [False] + 3 * [True]
    assert [bool(axes.get_ylabel()) for axes in panels] == 3 * [True, False, False]
    frames = [[(frame.get_y(), frame.get_height()) for frame in axes.patches] for axes in panels]
    assert frames == 3 * [[], [(0.5, 1)], [(0.5, 1)]]
    assert num_colour_bars(figure) == 3
    assert_readable(figure)


def test_the_figure_of_the_scores_stacks_content_on_position() -> None:
    columns = range(-3, 4)
    numbers = {f"position part at {k:+d}": 10 - 2 * abs(k) for k in columns}
    numbers |= {f"content part at {k:+d}": -0.5 * k for k in columns}
    runs_of = {row: seeds(**numbers) for row in seq2seq.EXPERIMENTS["alignment"].rows}
    figure = seq2seq.draw_parts(runs_of)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert axes.get_title() in runs_of
        position, content = axes.containers
        spots = [(round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in position]
        assert spots == [(k, 10 - 2 * abs(k)) for k in range(-2, 4)]
        assert [bar.get_y() for bar in content] == [bar.get_height() for bar in position]
        assert [bar.get_height() for bar in content] == [-0.5 * k for k in range(-2, 4)]
        sums = [[k, 10 - 2 * abs(k) - 0.5 * k] for k in range(-2, 4)]
        assert drawn_lines(axes)[3] == sums, "after the sums of the three seeds"
        assert drawn_lines(axes)[0] == [[k, total - 2] for k, total in sums]
        rings = [line for line in axes.lines if line.get_marker() == "o"]
        assert [ring.get_xdata()[0] for ring in rings] == [0]
        assert [text.get_text() for text in axes.texts] == ["content -1.5"], "the largest"
    assert_readable(figure)


def test_the_figure_of_the_training_shows_where_two_models_look_on_the_way() -> None:
    names = ("true column", "one column right", "follows")
    numbers = {f"{name} at step {s}": 5 * i + s for s in (5, 9) for i, name in enumerate(names)}
    runs_of = {row: seeds(**numbers) for row in seq2seq.EXPERIMENTS["alignment"].rows}
    figure = seq2seq.draw_during_training(runs_of)
    assert [axes.get_title() for axes in figure.axes] == ["noise 0.2", "the default"]
    for axes in figure.axes:
        assert drawn_lines(axes)[3::4] == [[[s, 5 * i + s] for s in (5, 9)] for i in range(3)]
    assert_readable(figure)


def test_the_figure_of_the_worked_example_is_readable() -> None:
    assert_readable(scratch.draw_example(scratch.worked_example()))
