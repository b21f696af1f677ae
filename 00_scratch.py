"""Dot-product attention in plain NumPy, on one worked example.

A translator is turning "the black cat drinks the cold milk" into French and has written "le" so
far. Before each of the next three words it looks back at the source. English says "black cat",
French "chat noir", so the translator has to look at these two words in reverse order. Attention
takes four steps: scores, weights, context, output. This script computes, prints and draws them.

    python 00_scratch.py      prints the four steps, draws assets/scratch_attention_weights.png

Shapes: S source words, T queries, d features of a word, V target words.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import matplotlib.style
import numpy as np
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

    Returns (context, weights): (d,) and (S,). For reading only: the script calls the next
    function, which handles all queries at once.
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

    The keys are also the values: the same vectors are compared and summed. In
    dot_product_attention(x, x) a sequence looks at itself, which is self-attention.

    Shapes: query h_t (T, d), keys h_s (S, d), mask (S,), True where a query may look; the other
    positions get a weight of exactly 0. Returns (context (T, d), weights (T, S)).
    """
    scores = query @ keys.T  # score(h_t, h_s) = h_t . h_s                    (T, S)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    weights = softmax(scores)  # alpha_ts = softmax over s of score(h_t, h_s)  (T, S)
    context = weights @ keys  # c_t = sum over s of alpha_ts h_s               (T, d)
    return context, weights


def attentional_state(context: np.ndarray, query: np.ndarray, W_c: np.ndarray) -> np.ndarray:
    """Combine what was found with what was asked for (Luong et al. 2015, equation 5).

    Shapes: context c_t and query h_t (T, d), W_c (d, 2d). Returns (T, d).
    """
    found_and_asked = np.concatenate([context, query], axis=-1)  # [c_t ; h_t]  (T, 2d)
    return np.tanh(found_and_asked @ W_c.T)  # tanh(W_c [c_t ; h_t])            (T, d)


def final_output(
    context: np.ndarray, query: np.ndarray, W_c: np.ndarray, W_s: np.ndarray
) -> np.ndarray:
    """Predict the next word (Luong et al. 2015, equation 6): p(y_t), (T, V), given W_s, (V, d)."""
    attentional = attentional_state(context, query, W_c)
    logits = attentional @ W_s.T  # W_s tanh(W_c [c_t ; h_t])                   (T, V)
    return softmax(logits)  # p(y_t) = softmax(W_s tanh(W_c [c_t ; h_t]))       (T, V)


# --- The worked example: "black cat drinks" -> "chat noir boit" -----------------------------------

# What a trained encoder might know about each word: its grammar, its role and its meaning. A real
# encoder learns features without names. These have names, so that scores can be checked by eye.
FEATURES = ("noun", "adjective", "verb", "subject", "object", "animal", "liquid", "dark", "cold")
SOURCE = {
    "the": ("subject",),
    "black": ("adjective", "subject", "dark"),
    "cat": ("noun", "subject", "animal"),
    "drinks": ("verb",),
    "the (2)": ("object",),
    "cold": ("adjective", "object", "cold"),
    "milk": ("noun", "object", "liquid"),
    "PAD": (),  # pads a sentence to the length of the longest, and must get no weight
}
# What the decoder asks for before it writes each word. It knows the grammar, but not yet the word.
ASKED = {"chat": ("noun", "subject"), "noir": ("adjective", "subject"), "boit": ("verb",)}
TARGETS = {
    "chat": ("noun", "animal"),
    "lait": ("noun", "liquid"),
    "noir": ("adjective", "dark"),
    "froid": ("adjective", "cold"),
    "boit": ("verb",),
}


def feature_vectors(words: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Return a row for each word, a column for each feature: 1 where the word has it, else 0."""
    return np.array([[float(name in features) for name in FEATURES] for features in words.values()])


def worked_example() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return query (T, d), keys (S, d), mask (S,), W_c (d, 2d) and W_s (V, d)."""
    query = 2 * feature_vectors(ASKED)  # the 2 doubles the scores, and so sharpens the weights
    keys = feature_vectors(SOURCE)
    mask = np.array([word != "PAD" for word in SOURCE])
    # A decoder learns these two matrices. Here W_c, two identity matrices, adds c_t and h_t, and
    # W_s has a row for each target word: 3 where the word has a feature, else 0.
    W_c = np.hstack([np.eye(len(FEATURES)), np.eye(len(FEATURES))])
    W_s = 3 * feature_vectors(TARGETS)
    return query, keys, mask, W_c, W_s


# --- The lesson ends here. Report and figure ------------------------------------------------------


def as_text(value: float) -> str:
    """Format a number with three decimals, or with none if it is whole; nan means masked."""
    if np.isnan(value):
        return "masked"
    return f"{value:.3f}" if value % 1 else f"{value:.0f}"


def report() -> str:
    """Return the four steps for the first query, "chat", and what the mask does."""
    query, keys, mask, W_c, W_s = worked_example()
    context, weights = dot_product_attention(query, keys, mask)
    lines = [f'For "chat", the query h_t asks for the features {" and ".join(ASKED["chat"])}.']
    lines += ["Steps 1 and 2, scores h_t . h_s and their softmax, PAD masked:"]
    scores = np.where(mask, keys @ query[0], np.nan)
    for word, score, weight in zip(SOURCE, scores, weights[0], strict=True):
        lines += [f"  {word:<9}  score {as_text(score)}  weight {as_text(weight)}"]
    lines += ["Step 3, the query h_t and the context c_t (the weighted sum of the h_s):"]
    for name, h, c in zip(FEATURES, query[0], context[0], strict=True):
        lines += [f"  {name:<9}  h_t {as_text(h)}  c_t {as_text(c)}"]
    lines += ["Step 4, the probability of each word, with c_t and with zeros in its place:"]
    found = final_output(context, query, W_c, W_s)[0]
    zeros = final_output(0 * context, query, W_c, W_s)[0]
    for word, with_context, without_context in zip(TARGETS, found, zeros, strict=True):
        lines += [f"  {word:<9}  {with_context:.3f}  {without_context:.3f}"]
    _, unmasked = dot_product_attention(query, keys)
    lines += [f"Without the mask, PAD would get a weight of {unmasked[0, -1]:.3f}."]
    return "\n".join(lines)


def draw_numbers(
    axes: Axes, title: str, values: np.ndarray, labels: list[str], highest: float = 3
) -> None:
    """Draw a matrix as numbers on colours from 0 to `highest`; zeros are left blank."""
    shown = np.where(values == 0, np.nan, values)
    axes.imshow(shown, cmap="viridis", vmin=0, vmax=highest, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if value:
            style = {"color": "black" if value > 0.6 * highest else "white", "size": 9}
            axes.text(column, row, as_text(value), **style, ha="center", va="center")
    axes.set_title(title, size=10)
    axes.set(xticks=[], yticks=range(len(labels)), yticklabels=labels)


def draw_bars(axes: Axes, title: str, values: np.ndarray, colour: str) -> None:
    """Draw a bar and its number for each row of the matrix to the left."""
    bars = axes.barh(range(len(values)), np.nan_to_num(values), color=colour)
    axes.bar_label(bars, [as_text(value) for value in values], size=9, padding=2)
    axes.set_title(title, size=10)
    limit = 1.7 * np.nanmax(values)
    axes.set(ylim=(len(values) - 0.5, -0.5), xlim=(0, limit), xticks=[], yticks=[])


def draw_example() -> Figure:
    """Draw the four steps for "chat" from top to bottom, then the attention matrix."""
    query, keys, mask, W_c, W_s = worked_example()
    context, weights = dot_product_attention(query, keys, mask)
    figure = Figure(figsize=(8, 10.5), dpi=150)
    figure.subplots_adjust(left=0.08, right=0.99, top=0.93, bottom=0.03, wspace=0.04, hspace=0.35)
    rows = [["query", ".", "."], ["keys", "scores", "weights"], ["context", ".", "."]]
    rows += [["combined", ".", "."], ["W_s", "with", "without"], ["matrix"] * 3]
    heights = [1, 8, 1, 1, 5, 4]
    panels = figure.subplot_mosaic(rows, width_ratios=[9, 2.5, 2.5], height_ratios=heights)
    blue, orange, grey = "#0072B2", "#E69F00", "0.7"
    title = 'query $h_t$: what the decoder asks for before it writes "chat"'
    draw_numbers(panels["query"], title, query[:1], ["$h_t$"])
    panels["query"].xaxis.tick_top()
    panels["query"].set_xticks(range(len(FEATURES)), FEATURES, size=9, rotation=30, ha="left")
    # Steps 1 and 2.
    title = "keys $h_s$: the features of each source word"
    draw_numbers(panels["keys"], title, keys, list(SOURCE))
    scores = np.where(mask, keys @ query[0], np.nan)
    draw_bars(panels["scores"], "1. scores\n$h_t \\cdot h_s$", scores, blue)
    draw_bars(panels["weights"], "2. weights\n$\\alpha_{ts}$", weights[0], orange)
    # Steps 3 and 4.
    title = "3. context $c_t$: the sum of the keys, each times its weight"
    draw_numbers(panels["context"], title, context[:1], ["$c_t$"])
    title = "4. $\\tanh(W_c [c_t ; h_t])$: what was found and what was asked for"
    combined = attentional_state(context[:1], query[:1], W_c)
    draw_numbers(panels["combined"], title, combined, ["$\\tanh$"])
    title = "$W_s$: the features of each French word, times 3"
    draw_numbers(panels["W_s"], title, W_s, list(TARGETS))
    found = final_output(context, query, W_c, W_s)[0]
    zeros = final_output(0 * context, query, W_c, W_s)[0]
    draw_bars(panels["with"], "next word\n$p(y_t)$", found, orange)
    draw_bars(panels["without"], "if $c_t$ were 0", zeros, grey)
    # The attention matrix.
    title = "The attention matrix: step 2 for all three words"
    draw_numbers(panels["matrix"], title, weights, list(ASKED), highest=1)
    panels["matrix"].set_xticks(range(len(SOURCE)), SOURCE)
    return figure


# --- Command line ---------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    """Print the report and draw the figure."""
    script = Path(__file__).resolve()
    parser = argparse.ArgumentParser(prog=script.name, description=__doc__.splitlines()[0])
    where = "where the figure goes (default: assets/ beside the script)"
    parser.add_argument("--assets", metavar="DIR", default=script.parent / "assets", help=where)
    folder = Path(parser.parse_args(argv).assets)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # can a file be written there?
    except OSError as error:
        parser.error(f"argument --assets: {error}")
    print(report())
    path = folder / "scratch_attention_weights.png"
    try:
        # An older figure is replaced only when the new one is finished.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as unfinished:
            with matplotlib.style.context("default"):  # whatever a matplotlibrc says
                draw_example().savefig(Path(unfinished) / path.name)
            (Path(unfinished) / path.name).replace(path)
    except OSError as error:
        parser.exit(1, f"{parser.prog}: error: {path}: {error.strerror or error}\n")
    print(f"written to {folder}")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that know only ASCII
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
