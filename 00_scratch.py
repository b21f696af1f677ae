"""Dot-product attention in plain NumPy, on one worked example.

A translator has turned "the black cat drinks the cold milk" into "le" so far. Which French word comes next, and which
English word does it come from? Attention answers in four steps: score, weights, context vector, final output.
This script computes them, prints the results, and draws all numbers in one picture.

    python 00_scratch.py            prints the four steps, draws assets/scratch_attention_weights.png
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# --- Attention -------------------------------------------------------------------------------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores (..., S) into positive weights that sum to 1 along the last axis; a score of -inf gets weight 0."""
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))  # less the largest: no weight changes, none overflows
    return exp / exp.sum(axis=-1, keepdims=True)  # alpha_ts = exp(score_ts) / sum_s' exp(score_ts')


def attention_for_one_query(query: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Let one query h_t, (d,), look at keys h_s, (S, d), one after the other: the idea without matrices.

    Returns (context, weights): (d,) and (S,). The next function does the same for all queries at once.
    """
    scores = np.array([sum(q * k for q, k in zip(query, h_s, strict=True)) for h_s in keys])
    weights = softmax(scores)
    context = np.zeros(len(query))
    for alpha, h_s in zip(weights, keys, strict=True):
        context += alpha * h_s
    return context, weights


def dot_product_attention(
    query: np.ndarray, keys: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Let T queries look at S keys at once: the same for each of them (Luong et al. 2015, section 3.1, the dot score).

    The keys are the values, too: a position is found by its encoder output, and that is what is found. Called as
    dot_product_attention(x, x), a sequence asks itself; that is self-attention, the step from here to the Transformer.

    Shapes: decoder states h_t (..., T, d), with T = 1 for one, encoder outputs h_s (..., S, d), both finite; boolean
    mask (..., S), True where one may look: the others get weight exactly 0. Returns (context (..., T, d), weights
    (..., T, S)). Raises ValueError for shapes that do not fit, or where the mask leaves nothing.
    """
    mask = np.ones(keys.shape[:-1], dtype=bool) if mask is None else mask
    if query.shape[-1] != keys.shape[-1] or mask.shape != keys.shape[:-1] or not mask.any(axis=-1).all():
        raise ValueError(f"query {query.shape}, keys {keys.shape}, mask {mask.shape} do not fit, or nothing is left")
    scores = query @ np.swapaxes(keys, -1, -2)  # score(h_t, h_s) = h_t . h_s                             (..., T, S)
    scores = np.where(mask[..., None, :], scores, -np.inf)  # padding is no candidate
    weights = softmax(scores)  # alpha_ts = softmax over s of score(h_t, h_s)                             (..., T, S)
    context = weights @ keys  # c_t = sum over s of alpha_ts h_s                                          (..., T, d)
    return context, weights


def final_output(context: np.ndarray, query: np.ndarray, W_c: np.ndarray, W_s: np.ndarray) -> np.ndarray:
    """Combine what was found with what was asked, and predict the next word (Luong et al. 2015, equations 5 and 6).

    Shapes: context c_t and query h_t (d,), W_c (d, 2d), W_s (words, d). Returns probabilities, (words,).
    """
    attentional = np.tanh(W_c @ np.concatenate([context, query]))  # tanh(W_c [c_t ; h_t])                         (d,)
    return softmax(W_s @ attentional)  # p(y_t | y_<t, x) = softmax(W_s tanh(W_c [c_t ; h_t]))                 (words,)


# --- The worked example: "the black cat drinks the cold milk" -> "le ..." --------------------------------------------

# What a trained encoder might know of each word: its grammar, the phrase it stands in, and what it means. A real
# encoder learns features that have no names; these have some, so that the scores can be checked by eye.
FEATURES = ("noun", "adjective", "verb", "subject", "object", "animal", "liquid", "dark", "cold")
SOURCE = (
    ("the", ("subject",)),
    ("black", ("adjective", "subject", "dark")),
    ("cat", ("noun", "subject", "animal")),
    ("drinks", ("verb",)),
    ("the", ("object",)),
    ("cold", ("adjective", "object", "cold")),
    ("milk", ("noun", "object", "liquid")),
)
# The decoder has written "le" and now wants the noun of the subject. It knows nothing yet of cats.
ASKED = ("noun", "subject")
TARGET_VOCABULARY = (
    ("chat", ("noun", "animal")),
    ("lait", ("noun", "liquid")),
    ("noir", ("adjective", "dark")),
    ("froid", ("adjective", "cold")),
    ("boit", ("verb",)),
)


class Example(NamedTuple):
    """The numbers of the four steps, for S source words, d features and a vocabulary of V next words."""

    encoder_outputs: np.ndarray  # h_s, (S, d)
    query: np.ndarray  # h_t, (d,)
    scores: np.ndarray  # (S,)
    weights: np.ndarray  # alpha_ts, (S,)
    context: np.ndarray  # c_t, (d,)
    with_context: np.ndarray  # probabilities of the next words, (V,)
    without_context: np.ndarray  # the same with zeros in place of c_t, (V,)


def feature_vectors(meanings: tuple[tuple[str, tuple[str, ...]], ...]) -> np.ndarray:
    """Return a row for each (word, features) pair, with 1 where the word has the feature: (words, d)."""
    return np.array([[float(feature in features) for feature in FEATURES] for _, features in meanings])


def worked_example() -> Example:
    """Compute the four steps for the sentence above."""
    encoder_outputs = feature_vectors(SOURCE)
    encoder_outputs += np.random.default_rng(0).normal(scale=0.05, size=encoder_outputs.shape)  # as learnt ones have
    query = 2 * feature_vectors((("?", ASKED),))[0]  # twice as long: the longer the query, the sharper the weights
    (context,), (weights,) = dot_product_attention(query[None], encoder_outputs)  # T is 1
    W_c = np.hstack([np.eye(len(FEATURES))] * 2)  # made by hand: it adds c_t and h_t; a decoder would learn it
    W_s = 3 * feature_vectors(TARGET_VOCABULARY)  # longer rows, sharper probabilities
    with_context, without_context = (final_output(c_t, query, W_c, W_s) for c_t in (context, np.zeros_like(context)))
    return Example(encoder_outputs, query, encoder_outputs @ query, weights, context, with_context, without_context)


# --- Report and figure -----------------------------------------------------------------------------------------------


def report(example: Example) -> str:
    """Return the four steps with their numbers, as lines of ASCII text."""
    words = [word for word, _ in SOURCE]
    lines = [
        f'Source: "{" ".join(words)}", {len(words)} encoder outputs h_s of {len(FEATURES)} features each.',
        f'Written so far: "le". The decoder state h_t asks for: {" + ".join(ASKED)}.',
        "",
        "Step 1, alignment scores h_t . h_s, and step 2, attention weights alpha_ts = softmax over s:",
        "  s  word     score  weight",
    ]
    for s, (word, score, weight) in enumerate(zip(words, example.scores, example.weights, strict=True)):
        lines.append(f"  {s}  {word:<6}  {score:6.2f}  {weight:6.3f}")
    lines += ["", "Step 3, context vector c_t = sum over s of alpha_ts h_s, beside the query that found it:"]
    lines += ["  feature    h_t     c_t"]
    for name, h, c in zip(FEATURES, example.query, example.context, strict=True):
        lines.append(f"  {name:<9}  {h:4.1f}  {c:6.3f}")
    lines += ["", "Step 4, final output softmax(W_s tanh(W_c [c_t ; h_t])), with c_t and with zeros in its place:"]
    lines += ["  next word  with c_t  without"]
    for (word, _), p, without in zip(TARGET_VOCABULARY, example.with_context, example.without_context, strict=True):
        lines.append(f"  {word:<9}  {p:8.3f}  {without:7.3f}")
    return "\n".join(lines)


def draw_matrix(axes: Axes, values: np.ndarray, digits: int, title: str) -> None:
    """Draw a matrix (d, columns) with its numbers, in the colours that all matrices of the figure share."""
    for (row, column), value in np.ndenumerate(values.round(digits) + 0.0):  # no -0.00
        colour = "black" if value > 1.2 else "white"
        axes.text(column, row, f"{value:.{digits}f}", color=colour, size=9, ha="center", va="center")
    axes.set(xticks=[], yticks=range(len(FEATURES)), yticklabels=FEATURES)
    axes.set_title(title, size=10)
    axes.imshow(values, cmap="viridis", vmin=0, vmax=2, aspect="auto")


def draw_bars(axes: Axes, places: np.ndarray, values: np.ndarray, digits: int, title: str, **style: object) -> None:
    """Draw values as bars, each with its number."""
    axes.bar_label(axes.bar(places, values, **style), fmt=f"%.{digits}f", size=9, padding=1)
    axes.margins(y=0.3)
    axes.set_title(title, size=10)


def draw_example(example: Example) -> Figure:
    """Draw the four steps from top to bottom; what belongs to a source word stands in its column."""
    figure = Figure(figsize=(8, 9.6), dpi=150, layout="constrained")
    query, outputs, colours, scores, weights, weighted, context, following = figure.subplot_mosaic(
        [["h_t", "h_s", "colours"], [".", "1", "."], [".", "2", "."], [".", "3", "c_t"], ["4", "4", "4"]],
        width_ratios=[1, len(SOURCE), 1],
        height_ratios=[9, 4, 4, 9, 4],
    ).values()
    words, places = np.arange(len(SOURCE)), np.arange(len(TARGET_VOCABULARY))
    draw_matrix(query, example.query[:, None], 1, "query $h_t$")
    draw_matrix(outputs, example.encoder_outputs.T, 2, "encoder outputs $h_s$, one for each source word")
    draw_bars(scores, words, example.scores, 2, "Step 1: scores $h_t \\cdot h_s$", color="#0072B2")
    draw_bars(weights, words, example.weights, 3, "Step 2: weights $\\alpha_{ts}$, their softmax", color="#E69F00")
    products = example.weights[:, None] * example.encoder_outputs
    draw_matrix(weighted, products.T, 3, "Step 3: weighted outputs $\\alpha_{ts} h_s$")
    draw_matrix(context, example.context[:, None], 3, "sum: $c_t$")
    for axes in (outputs, scores, weights, weighted):
        axes.set(xticks=words, xticklabels=[word for word, _ in SOURCE], xlim=(-0.5, len(SOURCE) - 0.5))
    for axes in (outputs, context):
        axes.set_yticks([])
    colours.axis("off")
    figure.colorbar(outputs.images[0], cax=colours.inset_axes((0, 0, 0.25, 1)), label="value of a feature")
    title, grey = "Step 4: the next word", {"color": "0.8", "edgecolor": "0.3", "hatch": "//"}
    draw_bars(following, places - 0.2, example.with_context, 3, title, width=0.4, color="#E69F00", label="with $c_t$")
    draw_bars(following, places + 0.2, example.without_context, 3, title, width=0.4, label="with zeros", **grey)
    following.set(xticks=places, xticklabels=[word for word, _ in TARGET_VOCABULARY], ylabel="probability")
    following.legend()
    return figure


# --- Command line ----------------------------------------------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, which is replaced only by a finished one, and print the path."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder) / path.name
        figure.savefig(unfinished)
        unfinished.replace(path)
    print(f"figure: {path}")


def main(argv: list[str] | None = None) -> None:
    """Run the script with the command line `argv`; a failure ends it with one line and the exit status."""
    parser = argparse.ArgumentParser(description="Dot-product attention, step by step, on one example.")
    assets = Path(__file__).resolve().parent / "assets"
    parser.add_argument("--assets", default=assets, metavar="DIR", help="where the figure goes (default: %(default)s)")
    args = parser.parse_args(argv)
    if not args.assets:
        parser.error("argument --assets: expected one argument")
    try:
        folder = Path(args.assets)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument --assets: {str(args.assets)!a} is not a folder that can be written: {error.strerror}")
    try:
        example = worked_example()
        print(f"{report(example)}\n")
        save(draw_example(example), folder / "scratch_attention_weights.png")
        sys.stdout.flush()
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: error: interrupted\n")
    except OSError as error:
        sys.stdout = None  # what it could not print is lost
        parser.exit(1, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tidies up on the way
    sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what an ASCII terminal cannot show
    main()
