"""Dot-product attention in plain NumPy, on one worked example.

A translator is turning "the black cat drinks the cold milk" into French and has written "le" so
far. Before each of the next three words it looks back at the source. English says black cat, and
French says chat noir, so it has to look at these two words in reverse order. Attention takes four
steps: score, weights, context vector, final output. This script computes them, prints them, and
draws them in one picture.

    python 00_scratch.py      prints the four steps, draws assets/scratch_attention_weights.png
"""

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

# MPLBACKEND may name a back end that is not installed, which would stop the import below. Figures
# saved to files need none; a notebook needs its own.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# --- Attention ------------------------------------------------------------------------------------


def softmax(scores: np.ndarray) -> np.ndarray:
    """Turn scores (..., S) into weights that sum to 1 along the last axis; -inf gets weight 0."""
    # Subtracting the largest score changes no weight, and keeps exp from overflowing.
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    # alpha_ts = exp(score_ts) / sum over s' of exp(score_ts')
    return exp / exp.sum(axis=-1, keepdims=True)


def attention_for_one_query(query: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Let one query h_t, (d,), look at the keys h_s, (S, d), one by one: the idea without matrices.

    Returns (context, weights): (d,) and (S,). The next function handles all queries at once.
    """
    scores = np.zeros(len(keys))
    for s, h_s in enumerate(keys):
        # score(h_t, h_s) = h_t . h_s
        scores[s] = sum(q * k for q, k in zip(query, h_s, strict=True))
    weights = softmax(scores)
    context = np.zeros(len(query))
    for alpha, h_s in zip(weights, keys, strict=True):
        context += alpha * h_s  # c_t = sum over s of alpha_ts h_s
    return context, weights


def dot_product_attention(
    query: np.ndarray, keys: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Let T queries look at S keys at once (Luong et al. 2015, section 3.1, the score called dot).

    The keys are the encoder's states. They are also the values: a source word is found by its
    state, and its state is what is found. In dot_product_attention(x, x) a sequence looks at
    itself, which is self-attention.

    Shapes: query h_t (T, d), keys h_s (S, d), mask (S,), True where a query may look; the other
    positions get a weight of exactly 0. Additional axes may come first, the same for all three.
    Returns (context (T, d), weights (T, S)).
    """
    scores = query @ np.swapaxes(keys, -1, -2)  # score(h_t, h_s) = h_t . h_s             (T, S)
    if mask is not None:
        scores = np.where(mask[..., None, :], scores, -np.inf)
    weights = softmax(scores)  # alpha_ts = softmax over s of score(h_t, h_s)              (T, S)
    context = weights @ keys  # c_t = sum over s of alpha_ts h_s                           (T, d)
    return context, weights


def final_output(
    context: np.ndarray, query: np.ndarray, W_c: np.ndarray, W_s: np.ndarray
) -> np.ndarray:
    """Combine what was found with what was asked for, and predict the next word.

    Luong et al. 2015, equations 5 and 6. Shapes: context c_t and query h_t (T, d), W_c (d, 2d),
    W_s (V, d) for V target words. Returns probabilities, (T, V).
    """
    found_and_asked = np.concatenate([context, query], axis=-1)  # [c_t ; h_t]            (T, 2d)
    attentional = np.tanh(found_and_asked @ W_c.T)  # tanh(W_c [c_t ; h_t])                (T, d)
    logits = attentional @ W_s.T  # W_s tanh(W_c [c_t ; h_t])                              (T, V)
    return softmax(logits)  # p(y_t) = softmax(W_s tanh(W_c [c_t ; h_t]))                  (T, V)


# --- The worked example: "the black cat drinks" -> "chat noir boit" -------------------------------

# What a trained encoder might know about each word: its grammar, its place in the sentence, its
# meaning. A real encoder learns features without names. These have names, so that every score can
# be checked by eye.
FEATURES = ("noun", "adjective", "verb", "subject", "object", "animal", "liquid", "dark", "cold")
SOURCE = [
    ("the", ("subject",)),
    ("black", ("adjective", "subject", "dark")),
    ("cat", ("noun", "subject", "animal")),
    ("drinks", ("verb",)),
    ("the", ("object",)),
    ("cold", ("adjective", "object", "cold")),
    ("milk", ("noun", "object", "liquid")),
    ("PAD", ()),  # pads the sentence to the longest of its batch, and must get no weight
]
# What the decoder asks for before it writes each word: it knows the grammar, but not yet the word.
ASKED = [("chat", ("noun", "subject")), ("noir", ("adjective", "subject")), ("boit", ("verb",))]
TARGET_VOCABULARY = [
    ("chat", ("noun", "animal")),
    ("lait", ("noun", "liquid")),
    ("noir", ("adjective", "dark")),
    ("froid", ("adjective", "cold")),
    ("boit", ("verb",)),
]


class Example(NamedTuple):
    """The numbers of the four steps: T queries, S source words, d features, V target words."""

    query: np.ndarray  # h_t, (T, d)
    keys: np.ndarray  # h_s, (S, d)
    scores: np.ndarray  # h_t . h_s before the mask, (T, S)
    weights: np.ndarray  # alpha_ts, (T, S)
    unmasked: np.ndarray  # the weights that a forgotten mask would give, (T, S)
    context: np.ndarray  # c_t, (T, d)
    with_context: np.ndarray  # probabilities of the next word, a row for each query, (T, V)
    without_context: np.ndarray  # the same with zeros in place of c_t, (T, V)


def words(meanings: list[tuple[str, tuple[str, ...]]]) -> list[str]:
    """Return the words of (word, features) pairs."""
    return [word for word, _ in meanings]


def feature_vectors(meanings: list[tuple[str, tuple[str, ...]]]) -> np.ndarray:
    """Return a row for each (word, features) pair: 1 where the word has a feature, else 0."""
    return np.array([[float(name in features) for name in FEATURES] for _, features in meanings])


def worked_example() -> Example:
    """Compute the four steps for the three queries, and check the matrices against the loop."""
    # The factor 2 makes all scores larger, and so the weights sharper.
    query = 2 * feature_vectors(ASKED)
    keys = feature_vectors(SOURCE)
    mask = np.array(words(SOURCE)) != "PAD"
    context, weights = dot_product_attention(query, keys, mask)
    _, unmasked = dot_product_attention(query, keys)
    for t in range(len(query)):
        context_by_loop, weights_by_loop = attention_for_one_query(query[t], keys[mask])
        assert np.allclose(context_by_loop, context[t])
        assert np.allclose(weights_by_loop, weights[t, mask])
    # A decoder learns these two matrices. Set by hand, W_c adds c_t and h_t, and W_s compares the
    # tanh of the sum with the features of each target word. The factor 3 makes the result sharper.
    W_c = np.hstack([np.eye(len(FEATURES)), np.eye(len(FEATURES))])
    W_s = 3 * feature_vectors(TARGET_VOCABULARY)
    with_context = final_output(context, query, W_c, W_s)
    without_context = final_output(np.zeros_like(context), query, W_c, W_s)
    return Example(
        query=query,
        keys=keys,
        scores=query @ keys.T,
        weights=weights,
        unmasked=unmasked,
        context=context,
        with_context=with_context,
        without_context=without_context,
    )


# --- Report and figure ----------------------------------------------------------------------------


def report(example: Example) -> str:
    """Return the four steps for "chat", then the weights of all three queries, as ASCII text."""
    lines = ['Source: "the black cat drinks the cold milk". Written so far: "le".', ""]
    lines += ['For "chat", the query h_t asks for the noun in the subject.']
    lines += ["Step 1, scores h_t . h_s, and step 2, weights alpha_ts, their softmax, PAD masked:"]
    lines += ["  word    score  weight"]
    columns = example.scores[0], example.weights[0]
    for word, score, weight in zip(words(SOURCE), *columns, strict=True):
        lines.append(f"  {word:<6}  {score:5.0f}  {weight:6.3f}")
    lines += ["Step 3, context vector c_t = sum over s of alpha_ts h_s, beside the query:"]
    lines += ["  feature     h_t    c_t"]
    for name, h, c in zip(FEATURES, example.query[0], example.context[0], strict=True):
        lines.append(f"  {name:<9}  {h:4.0f}  {c:5.3f}")
    lines += ["Step 4, probability of the next word, softmax(W_s tanh(W_c [c_t ; h_t])):"]
    lines += ["  word   with c_t  with zeros in its place"]
    probabilities = example.with_context[0], example.without_context[0]
    for word, found, zeros in zip(words(TARGET_VOCABULARY), *probabilities, strict=True):
        lines.append(f"  {word:<5}  {found:8.3f}  {zeros:10.3f}")
    lines += [
        "",
        "The attention matrix for all three words (the loop over keys gives the same numbers):",
    ]
    lines += ["        " + " ".join(f"{word:>6}" for word in words(SOURCE))]
    for word, weights in zip(words(ASKED), example.weights, strict=True):
        lines.append(f"  {word:<6}" + " ".join(f"{weight:6.3f}" for weight in weights))
    unmasked = example.unmasked[-1, -1]
    lines.append(f"Without the mask, PAD would get a weight of {unmasked:.3f} in the row of boit.")
    return "\n".join(lines)


def as_text(value: float) -> str:
    """Return a number with three decimals, or with none if it is whole."""
    return f"{value:.3f}" if value % 1 else f"{value:.0f}"


def draw_matrix(axes: Axes, values: np.ndarray, labels: list[str], highest: float) -> None:
    """Draw a matrix (rows, columns) and its numbers, in colours from 0 to `highest`."""
    axes.imshow(values, cmap="viridis", vmin=0, vmax=highest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "black" if value > 0.6 * highest else "white"
        axes.text(column, row, as_text(value), color=colour, size=9, ha="center", va="center")
    axes.set(xticks=[], yticks=range(len(labels)), yticklabels=labels)


def draw_bars(axes: Axes, places: np.ndarray, values: np.ndarray, **style: object) -> None:
    """Draw values as bars, each with its number."""
    bars = axes.bar(places, values, **style)
    axes.bar_label(bars, [as_text(value) for value in values], size=9, padding=1)
    axes.margins(y=0.3)


def draw_example(example: Example) -> Figure:
    """Draw the four steps for "chat" from top to bottom, then the attention matrix of all three."""
    figure = Figure(figsize=(8, 11), dpi=150, layout="constrained")
    panels = figure.subplot_mosaic(
        [
            ["query", "keys", "keys scale"],
            [".", "scores", "."],
            [".", "weights", "."],
            [".", "weighted", "context"],
            [".", "next word", "."],
            [".", "matrix", "matrix scale"],
        ],
        width_ratios=[1, len(SOURCE), 1],
        height_ratios=[9, 4, 4, 9, 4, 4],
    )
    # Steps 1 to 3, and the matrix below: what belongs to a source word is in its column.
    columns = np.arange(len(SOURCE))
    weighted = example.weights[0][:, None] * example.keys
    draw_matrix(panels["query"], example.query[:1].T, list(FEATURES), highest=2)
    draw_matrix(panels["keys"], example.keys.T, [], highest=2)
    draw_bars(panels["scores"], columns, example.scores[0], color="#0072B2")
    draw_bars(panels["weights"], columns, example.weights[0], color="#E69F00")
    draw_matrix(panels["weighted"], weighted.T, list(FEATURES), highest=2)
    draw_matrix(panels["context"], example.context[:1].T, [], highest=2)
    draw_matrix(panels["matrix"], example.weights, words(ASKED), highest=1)
    for name in ("keys", "scores", "weights", "weighted", "matrix"):
        panels[name].set(xlim=(-0.5, len(SOURCE) - 0.5), xticks=columns, xticklabels=words(SOURCE))
    # Step 4: the next word, with the context and with zeros in its place.
    axes, places = panels["next word"], np.arange(len(TARGET_VOCABULARY))
    orange = {"width": 0.4, "color": "#E69F00", "label": "with $c_t$"}
    grey = {"width": 0.4, "color": "0.8", "edgecolor": "0.3", "hatch": "//", "label": "with zeros"}
    draw_bars(axes, places - 0.2, example.with_context[0], **orange)
    draw_bars(axes, places + 0.2, example.without_context[0], **grey)
    axes.set(xticks=places, xticklabels=words(TARGET_VOCABULARY), ylabel="probability")
    axes.legend(fontsize=9)
    for name, label in (("keys", "value of a feature"), ("matrix", "weight")):
        scale = panels[f"{name} scale"]
        scale.axis("off")
        figure.colorbar(panels[name].images[0], cax=scale.inset_axes((0, 0, 0.25, 1)), label=label)
    titles = {
        "query": "query $h_t$",
        "keys": "keys $h_s$: what the encoder knows about each source word",
        "scores": 'Step 1, for "chat": scores $h_t \\cdot h_s$',
        "weights": "Step 2: weights $\\alpha_{ts}$, the softmax of the scores (PAD is masked)",
        "weighted": "Step 3: weighted values $\\alpha_{ts} h_s$ (the values are the keys)",
        "context": "sum $c_t$",
        "next word": "Step 4: the next word",
        "matrix": "All three words at once: the attention matrix",
    }
    for name, title in titles.items():
        panels[name].set_title(title, size=10)
    return figure


# --- Command line ---------------------------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`; an older one is replaced only when the new one is finished."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder) / path.name
        figure.savefig(unfinished)
        unfinished.replace(path)


def main(argv: list[str] | None = None) -> None:
    """Compute the example, draw its figure, print its report."""
    script = Path(__file__).resolve()
    description = "Dot-product attention on one worked example, printed and drawn."
    parser = argparse.ArgumentParser(prog=script.name, description=description)
    where = "where the figure goes (default: assets/ beside the script)"
    default = script.parent / "assets"
    parser.add_argument("--assets", type=Path, metavar="DIR", default=default, help=where)
    folder = parser.parse_args(argv).assets
    example = worked_example()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with matplotlib.style.context("default"):  # whatever a matplotlibrc says
            save(draw_example(example), folder / "scratch_attention_weights.png")
    except OSError as error:
        parser.error(f"argument --assets: {error}")
    print(f"{report(example)}\n\nfigure: {folder / 'scratch_attention_weights.png'}")


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that know only ASCII
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
