"""Dot-product attention in plain NumPy, on one worked example.

A translator has turned "the black cat drinks the cold milk" into "le" so far. Which French word comes next, and which
English word does it come from? Attention answers in four steps: score, weights, context vector, final output.
This script computes them one at a time, prints every number, and draws how the context vector is formed.

    python 00_scratch.py            prints the four steps, draws assets/scratch_attention_weights.png
"""

import argparse
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# ---------------------------------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------------------------------


def softmax(scores: ArrayLike, axis: int = -1) -> np.ndarray:
    """Turn scores into positive weights that sum to 1 along `axis` (Luong et al. 2015, equation 7).

    Stable for any finite scores: the largest is subtracted first, which changes no weight and keeps exp() at most 1.
    A score of -inf gets weight 0, as long as another one in its row is finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    with np.errstate(over="ignore"):  # a distance beyond float64 becomes -inf, and exp(-inf) = 0 is the right answer
        exp = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return exp / exp.sum(axis=axis, keepdims=True)  # alpha_ts = exp(score_ts) / sum_s' exp(score_ts')


def dot_product_attention(
    query: ArrayLike, keys: ArrayLike, mask: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Let each query look at all keys, and return what it sees (Luong et al. 2015, section 3.1, the dot score).

    The keys are the values too: the encoder's outputs play both parts. Called as dot_product_attention(x, x), a
    sequence is its own query, and this is self-attention, the step from here to the Transformer.

    Args:
        query: decoder states h_t: one, (d,), or a batch of sequences of them, (..., T, d).
        keys: encoder outputs h_s: (S, d) for one query, (..., S, d) for a batch.
        mask: boolean, (S,) or (..., S): True where a position may be attended. A masked one gets weight exactly 0.

    Returns:
        (context, weights), float64: (d,) and (S,) for one query, (..., T, d) and (..., T, S) for a batch.

    Raises:
        ValueError: sizes that do not fit, an empty source, a mask that is not boolean or leaves nothing to attend,
            or a value that is NaN, infinite or beyond 1e303. The message names the shapes, and the place.
    """
    query, keys = np.asarray(query, dtype=np.float64), np.asarray(keys, dtype=np.float64)
    if not query.ndim or keys.ndim < 2 or query.shape[-1] != keys.shape[-1] or query.shape[:-2] != keys.shape[:-2]:
        raise ValueError(
            f"query {query.shape} does not fit keys {keys.shape}: "
            "it takes (d,) on (S, d), or (..., T, d) on (..., S, d)"
        )
    if keys.shape[-2] == 0:
        raise ValueError(f"the source is empty: keys {keys.shape} hold no position to attend")
    for name, array in (("query", query), ("keys", keys)):
        bad = np.argwhere(~(np.abs(array) <= 1e303))  # NaN fails every comparison
        if len(bad):
            place = tuple(bad[0].tolist())
            raise ValueError(f"{name} {array.shape}: {array[place]} at {place}, not a number from -1e303 to 1e303")
    mask = np.ones(keys.shape[:-1], dtype=bool) if mask is None else np.asarray(mask)
    if mask.dtype != bool or mask.shape != keys.shape[:-1]:
        raise ValueError(f"mask {mask.shape} of {mask.dtype}: keys {keys.shape} take a bool mask {keys.shape[:-1]}")
    if not mask.any(axis=-1).all():
        row = tuple(np.argwhere(~mask.any(axis=-1))[0].tolist())
        raise ValueError(f"mask {mask.shape}: nothing to attend in row {row}, every position is masked")
    mask = mask if query.ndim == 1 else mask[..., None, :]  # one row of the mask serves all T queries of its sequence

    with np.errstate(over="ignore", invalid="ignore"):
        scores = query @ np.swapaxes(keys, -1, -2)  # score(h_t, h_s) = h_t . h_s                          (..., T, S)
        if not np.isfinite(scores).all():  # 1e200 * 1e200 left float64: score a smaller query, and enlarge the
            size = np.maximum(np.abs(query).max(axis=-1, keepdims=True), 1.0)  # distances to the best score instead
            scores = np.where(mask, (query / size) @ np.swapaxes(keys, -1, -2), -np.inf)
            scores = (scores - scores.max(axis=-1, keepdims=True)) * size
    weights = softmax(np.where(mask, scores, -np.inf))  # alpha_ts = softmax_s(score(h_t, h_s))           (..., T, S)
    context = weights @ keys  # c_t = sum_s alpha_ts h_s                                                   (..., T, d)
    return context, weights


def output_probabilities(context: np.ndarray, query: np.ndarray, W_c: np.ndarray, W_s: np.ndarray) -> np.ndarray:
    """Combine what was found with what was asked, and predict the next word (Luong et al. 2015, equations 5 and 6).

    Shapes: context c_t and query h_t (d,), W_c (d, 2d), W_s (words, d); returns probabilities, (words,).
    """
    attentional = np.tanh(W_c @ np.concatenate([context, query]))  # tanh(W_c [c_t ; h_t])                         (d,)
    return softmax(W_s @ attentional)  # p(y_t | y_<t, x) = softmax(W_s tanh(W_c [c_t ; h_t]))                 (words,)


# ---------------------------------------------------------------------------------------------------------------------
# The worked example: "the black cat drinks the cold milk" -> "le ..."
# ---------------------------------------------------------------------------------------------------------------------

# What a trained encoder might know of each word: its grammar, the phrase it stands in, and what it means. A real
# encoder learns features that have no names; these have some, so that every number below can be checked by eye.
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


def feature_vectors(meanings: tuple[tuple[str, tuple[str, ...]], ...]) -> np.ndarray:
    """Return a row for each (word, features) pair, with 1 where the word has the feature: (words, d)."""
    return np.array([[float(feature in features) for feature in FEATURES] for _, features in meanings])


def worked_example(seed: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the source words, the encoder outputs h_s (S, d), and the decoder's query h_t (d,).

    `seed` draws the small noise on the encoder outputs; a learnt vector is never as clean as a hand-made one.
    """
    words = [word for word, _ in SOURCE]
    encoder_outputs = feature_vectors(SOURCE)
    encoder_outputs += np.random.default_rng(seed).normal(scale=0.05, size=encoder_outputs.shape)
    query = 2.0 * feature_vectors((("?", ASKED),))[0]  # twice as long: the longer the query, the sharper the weights
    return words, encoder_outputs, query


def report(words: list[str], encoder_outputs: np.ndarray, query: np.ndarray) -> str:
    """Return the four steps of dot-product attention with their numbers, as lines of ASCII text."""
    context, weights = dot_product_attention(query, encoder_outputs)
    lines = [
        f'Source: "{" ".join(words)}", {len(words)} encoder outputs h_s of {len(FEATURES)} features each.',
        f'Written so far: "le". The decoder state h_t asks for: {" + ".join(ASKED)}.',
        "",
        "Step 1, alignment scores h_t . h_s, and step 2, attention weights alpha_ts = softmax over s:",
        "  s  word     score  weight",
    ]
    for s, word in enumerate(words):
        peak = "  <- peak" if s == weights.argmax() else ""
        lines.append(f"  {s}  {word:<6}  {query @ encoder_outputs[s]:6.2f}  {weights[s]:6.3f}{peak}")
    lines += [
        f"                sum  {weights.sum():6.3f}",
        "",
        "Step 3, context vector c_t = sum over s of alpha_ts h_s, beside the query that found it:",
        "  feature    h_t     c_t",
    ]
    lines += [f"  {name:<9}  {h:4.1f}  {c:6.3f}" for name, h, c in zip(FEATURES, query, context, strict=True)]

    W_c = np.hstack([np.eye(len(FEATURES))] * 2)  # made by hand: it adds c_t and h_t; a decoder would learn it
    W_s = 3.0 * feature_vectors(TARGET_VOCABULARY)
    found = output_probabilities(context, query, W_c, W_s)
    blind = output_probabilities(np.zeros_like(context), query, W_c, W_s)
    lines += [
        "",
        "Step 4, final output softmax(W_s tanh(W_c [c_t ; h_t])), with the context and with zeros in its place:",
        "  next word  with c_t  without",
    ]
    for (word, _), p, p_blind in zip(TARGET_VOCABULARY, found, blind, strict=True):
        lines.append(f"  {word:<9}  {p:8.3f}  {p_blind:7.3f}")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# The figure
# ---------------------------------------------------------------------------------------------------------------------


def draw_context(words: list[str], encoder_outputs: np.ndarray, weights: np.ndarray, context: np.ndarray) -> Figure:
    """Draw the weights (S,) as bars, and the encoder outputs (S, d), scaled and summed to the context (d,), below.

    The panels that show positions share their columns: a bar stands over the vector that it scales.
    """
    figure = Figure(figsize=(8, 8), dpi=150, layout="constrained")
    bars, outputs, scaled, total = figure.subplot_mosaic(
        [["bars", "."], ["outputs", "."], ["scaled", "total"]],
        width_ratios=[len(words), 1],
        height_ratios=[2, 3, 3],
    ).values()

    positions = np.arange(len(words))
    peak = int(weights.argmax())
    bars.bar(positions, weights, color=["tab:orange" if s == peak else "tab:blue" for s in positions])
    for s in positions:
        note = f"peak\n{weights[s]:.3f}" if s == peak else f"{weights[s]:.3f}"
        bars.annotate(note, (s, weights[s]), (0, 2), textcoords="offset points", ha="center", va="bottom")
    bars.set(title=r"Attention weights $\alpha_{ts}$: where the decoder looks", ylabel="weight", ylim=(0, 1))

    low, high = encoder_outputs.min(), encoder_outputs.max()
    for axes, values, title in (
        (outputs, encoder_outputs.T, r"Encoder outputs $h_s$"),
        (scaled, (weights[:, None] * encoder_outputs).T, r"Scaled by their weights: $\alpha_{ts} h_s$"),
        (total, context[:, None], "Summed: $c_t$"),
    ):
        image = axes.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        axes.set(title=title, yticks=range(len(FEATURES)), yticklabels=FEATURES, ylabel="feature")
    for axes in (bars, outputs, scaled):
        axes.set(xticks=positions, xticklabels=words, xlim=(-0.5, len(words) - 0.5))
    scaled.set_xlabel("source word (encoder time step)")
    total.set(xticks=[0], xticklabels=["context"], yticks=[], ylabel="")
    figure.colorbar(image, ax=[outputs, scaled, total], label="value of a feature")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line: argparse itself puts the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Print the message on standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def seed_number(text: str) -> int:
    """Return the seed that `text` spells, or raise argparse.ArgumentTypeError."""
    try:
        if 0 <= int(text) < 2**63:
            return int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!a} is not a whole number from 0 to 2**63-1")


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, which is replaced only by a complete file."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format="png")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the command line; a bad value ends the process with one line and exit status 2."""
    parser = Parser(
        description="Dot-product attention, step by step, on one example.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add, assets = parser.add_argument, Path(__file__).resolve().parent / "assets"
    add("--seed", type=seed_number, default=0, metavar="N", help="draws the noise on the encoder outputs")
    add("--assets", type=Path, default=assets, metavar="DIR", help="where the figure goes")
    args = parser.parse_args(argv)
    try:
        args.assets.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.assets).close()
    except OSError as error:
        parser.error(f"argument --assets: {str(args.assets)!a} is not a folder that can be written: {error.strerror}")
    return args


def run(args: argparse.Namespace) -> None:
    """Print the four steps of the worked example and draw its figure."""
    words, encoder_outputs, query = worked_example(args.seed)
    print(report(words, encoder_outputs, query))
    context, weights = dot_product_attention(query, encoder_outputs)
    path = args.assets / "scratch_attention_weights.png"
    save(draw_context(words, encoder_outputs, weights, context), path)
    print(f"\nfigure: {path}")


def main(argv: list[str] | None = None) -> int:
    """Run the script with the command line `argv`; return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what an ASCII terminal cannot show
    args = parse_arguments(argv)
    try:
        run(args)
        print(end="", flush=True)
    except KeyboardInterrupt:
        return failure("interrupted", 130)
    except BrokenPipeError:  # `| head` has read enough
        return failure("", 141)
    except OSError as error:
        return failure(f"cannot write: {error}", 1)
    return 0


def failure(message: str, status: int) -> int:
    """Print the message on standard error, drop printed text that nobody can receive, and return the status."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if message:
        print(f"{Path(__file__).name}: error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
