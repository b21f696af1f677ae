"""A GRU encoder and an attention decoder learn to reverse strings: a sequence-to-sequence model with attention.

Reversal is the smallest task that needs attention and shows it: the first output symbol comes from the last input
symbol, so a decoder that looks at the right place draws an anti-diagonal. The file follows the README: the task,
the encoder, attention, the decoder, training, greedy decoding, the metrics, the figures, the command line.

    python 01_pytorch.py                     trains for some seconds, reports, and draws the two figures in assets/
    python 01_pytorch.py --sequence hello    shows where the decoder looks as it reverses your own string
"""

import argparse
import io
import math
import os
import string
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# ---------------------------------------------------------------------------------------------------------------------
# The task: reverse a string
# ---------------------------------------------------------------------------------------------------------------------

# Tokens of their own, before the symbols of the alphabet: token SPECIALS + i stands for symbol i.
PAD, SOS, EOS = 0, 1, 2
SPECIALS = 3


def sample_sources(
    count: int, symbols: int, min_length: int, max_length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw `count` random strings over `symbols` symbols, their lengths uniform in [min_length, max_length].

    Returns (source, lengths): (B, S) tokens, padded with PAD after the last symbol, and (B,), both on the CPU.
    """
    lengths = torch.randint(min_length, max_length + 1, (count,), generator=generator)
    longest = int(lengths.max())
    source = torch.randint(SPECIALS, SPECIALS + symbols, (count, longest), generator=generator)
    return source.masked_fill(torch.arange(longest) >= lengths[:, None], PAD), lengths


def reversed_targets(source: Tensor, lengths: Tensor) -> Tensor:
    """Return what the decoder must write: each string reversed, then EOS, then PAD. (B, S) -> (B, S + 1)."""
    lengths = lengths.to(source.device)[:, None]  # (B, 1)
    steps = torch.arange(source.size(1) + 1, device=source.device)  # (S + 1,)
    target = F.pad(source, (0, 1), value=PAD).gather(1, (lengths - 1 - steps).clamp(min=0))
    return target.masked_fill(steps == lengths, EOS).masked_fill(steps > lengths, PAD)


# ---------------------------------------------------------------------------------------------------------------------
# The encoder
# ---------------------------------------------------------------------------------------------------------------------


class EncoderRNN(nn.Module):
    """A bidirectional GRU (Cho et al. 2014) that turns each source position into a vector, h_s.

    In a GRU that reads forward only, the state one position further on has read the symbol too, and a trained decoder
    attends there just as well: the attention plot is then one column off. Two directions, half the size each, meet at
    the symbol itself.

    So that they do meet there, the update gates start out letting little of the old state stay. A state is then mostly
    its own symbol, and learns to remember what it needs to; one that starts with a long memory shows every symbol to
    its neighbours too.
    """

    def __init__(self, embedding: nn.Embedding, hidden_size: int) -> None:
        """`embedding` is shared with the decoder; `hidden_size` is that of both directions together, an even number."""
        super().__init__()
        self.embedding = embedding
        half = hidden_size // 2
        self.gru = nn.GRU(embedding.embedding_dim, half, batch_first=True, bidirectional=True)
        with torch.no_grad():
            for bias in (self.gru.bias_ih_l0, self.gru.bias_ih_l0_reverse):
                bias[half : 2 * half] -= 2  # the update gate, which is the share of the old state that stays

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, S) tokens with (B,) lengths, on the CPU, into outputs h_s (B, S, H) and a state (1, B, H).

        Packing keeps PAD out of the recurrence: the forward state is that of the last real symbol, the backward one
        starts there, and a string's outputs are the same alone and in any batch. Outputs at PAD are zeros.
        """
        embedded = self.embedding(source)
        # Packing costs: on a CPU, the gradient of a packed GRU takes time that grows with the square of the length.
        if lengths.min() == source.size(1):  # no PAD, nothing to pack
            outputs, final = self.gru(embedded)
        else:
            packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            outputs, final = self.gru(packed)
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.size(1))
        return outputs, torch.cat([*final], dim=-1)[None]


# ---------------------------------------------------------------------------------------------------------------------
# Attention and the decoder
# ---------------------------------------------------------------------------------------------------------------------


ATTENTION = ("dot", "additive", "none")


def dot_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score every key for every query (Luong et al. 2015, section 3.1): (B, T, H), (B, S, H) -> (B, T, S)."""
    return query @ keys.transpose(1, 2)  # score(h_t, h_s) = h_t . h_s


class AdditiveScore(nn.Module):
    """The score of Bahdanau et al. (2015, appendix A.1.2), as a drop-in for `dot_score`: its cost is a tanh per pair.

    Bahdanau's query is the decoder's previous state; ours is h_t, as in Luong, so that all steps can be scored at once.
    """

    def __init__(self, hidden_size: int) -> None:
        """`hidden_size` is that of the queries, the keys, and the space in which they are added."""
        super().__init__()
        self.W_q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.W_k = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every key for every query: (B, T, H), (B, S, H) -> (B, T, S)."""
        pairs = torch.tanh(self.W_q(query)[:, :, None] + self.W_k(keys)[:, None])  # (B, T, S, H)
        return self.v(pairs).squeeze(-1)  # score(h_t, h_s) = v^T tanh(W_q h_t + W_k h_s)


def attend(scores: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn scores into weights and contexts (Luong et al. 2015, equation 7; Bahdanau et al. 2015, equations 5 and 6).

    Shapes: scores (B, T, S), keys (B, S, H), mask (B, S), True at real symbols: the others get weight exactly 0.
    Returns (context (B, T, H), weights (B, T, S)).
    """
    weights = scores.masked_fill(~mask[:, None], -math.inf).softmax(dim=-1)  # alpha_ts = softmax_s(score(h_t, h_s))
    return weights @ keys, weights  # c_t = sum_s alpha_ts h_s


class AttnDecoderRNN(nn.Module):
    """A GRU decoder that looks back at the encoder outputs before it writes each symbol (Luong et al. 2015).

    The kinds of attention differ in their score alone. With "none" the encoder's final state is all that the decoder
    ever learns of the source (Sutskever et al. 2014), and W_c, with no context to combine, is half as wide.
    """

    def __init__(self, embedding: nn.Embedding, hidden_size: int, attention: str = "dot") -> None:
        """`embedding` is shared with the encoder, `hidden_size` is the encoder's, `attention` is one of ATTENTION."""
        super().__init__()
        self.embedding = embedding
        self.gru = nn.GRU(embedding.embedding_dim, hidden_size, batch_first=True)
        # One is made in any case, so that dot and additive start out with the same weights elsewhere.
        scores = {"dot": dot_score, "additive": AdditiveScore(hidden_size), "none": None}
        self.score: Callable[[Tensor, Tensor], Tensor] | None = scores[attention]
        self.combine = nn.Linear(2 * hidden_size if self.score else hidden_size, hidden_size)  # W_c
        self.output = nn.Linear(hidden_size, embedding.num_embeddings)  # W_s

    def forward(
        self, tokens: Tensor, hidden: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Read T previous symbols at once and predict T next ones: the same call serves T = 1 and the whole target.

        The query h_t is the GRU's state of this step and owes nothing to the attention of earlier steps. So one GRU
        call gives all queries, and one matrix product gives all their scores.

        Shapes: tokens (B, T), hidden (1, B, H), keys (B, S, H), mask (B, S).
        Returns (logits (B, T, vocabulary), hidden (1, B, H), weights (B, T, S), or None without attention).
        """
        query, hidden = self.gru(self.embedding(tokens), hidden)  # h_t                                       (B, T, H)
        if self.score:
            context, weights = attend(self.score(query, keys), keys, mask)  # c_t                             (B, T, H)
            combined = torch.cat([context, query], dim=-1)  # [c_t ; h_t]                                    (B, T, 2H)
        else:
            combined, weights = query, None
        attentional = torch.tanh(self.combine(combined))  # tanh(W_c [c_t ; h_t])                             (B, T, H)
        return self.output(attentional), hidden, weights


def build_model(symbols: int, embedding_size: int, hidden_size: int, attention: str = "dot") -> nn.ModuleList:
    """Return an untrained [encoder, decoder] that share one embedding, initialised from torch's global seed."""
    embedding = nn.Embedding(SPECIALS + symbols, embedding_size)
    nn.init.normal_(embedding.weight, std=0.2)  # small: a state not flooded by the symbol has room for the position
    return nn.ModuleList([EncoderRNN(embedding, hidden_size), AttnDecoderRNN(embedding, hidden_size, attention)])


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------

NOISE = 0.2  # the share of the symbols that the decoder reads in training that are replaced by random ones


def with_noise(tokens: Tensor, share: float, vocabulary: int) -> Tensor:
    """Replace each symbol, with a probability of `share`, by a random one; PAD, SOS and EOS stay.

    A decoder that can trust the previous symbol finds its place by looking for it, and gets lost where symbols repeat.
    One that cannot has to keep count, and soon does. (After word dropout, Bowman et al. 2016, which blanks them out.)
    """
    replaced = (torch.rand(tokens.shape, device=tokens.device) < share) & (tokens >= SPECIALS)
    return torch.where(replaced, torch.randint_like(tokens, SPECIALS, vocabulary), tokens)


def training_logits(
    model: nn.ModuleList, source: Tensor, lengths: Tensor, target: Tensor, ratio: float, noise: float = 0.0
) -> Tensor:
    """Return the logits (B, T, vocabulary) for every step of `target` (B, T), with teacher forcing (Williams & Zipser).

    With ratio 1 each step reads the true previous symbol, so all steps go through the decoder in one call. Below 1,
    each step of each string reads the true previous symbol with that probability, else the model's own (scheduled
    sampling, Bengio et al. 2015, at a constant rate): the steps depend on each other, and are taken one by one.
    `noise` is the share of symbols that are replaced by random ones on their way in, whoever wrote them.
    """
    encoder, decoder = model
    vocabulary = decoder.embedding.num_embeddings
    keys, hidden = encoder(source, lengths)
    mask = source != PAD
    true_previous = F.pad(target[:, :-1], (1, 0), value=SOS)
    if ratio == 1:
        return decoder(with_noise(true_previous, noise, vocabulary), hidden, keys, mask)[0]
    forced = torch.rand(target.shape, device=target.device) < ratio
    steps: list[Tensor] = []
    previous = true_previous[:, :1]
    for t in range(target.size(1)):
        if t:
            own = steps[-1].argmax(dim=-1)
            previous = torch.where(forced[:, t : t + 1], true_previous[:, t : t + 1], own)
        logits, hidden, _ = decoder(with_noise(previous, noise, vocabulary), hidden, keys, mask)
        steps.append(logits)
    return torch.cat(steps, dim=1)


def rise_and_fall(progress: float) -> float:
    """Return the learning rate, as a share of its peak: up during the first fifth of training, then down to zero."""
    return min(progress / 0.2, (1 - progress) / 0.8)


def train(
    model: nn.ModuleList, sample: Callable[[], tuple[Tensor, Tensor]], steps: int, lr: float, ratio: float
) -> Iterator[float]:
    """Train `model` for `steps` steps on batches, (source, lengths), from `sample`, and yield the loss of each.

    The loss is the cross-entropy per symbol in nats, EOS counted, PAD not. `lr` is the peak of the learning rate's
    rise and fall. Gradients longer than 1 are cut to 1, for those of a recurrent network grow with the length.

    Raises FloatingPointError at the first step whose loss or gradient is NaN or infinite, or whose loss is beyond
    1000 nats, where it stays finite only because tanh bounds what the output layer sees: guessing costs less than 5.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: rise_and_fall((done + 0.5) / steps))
    for step in range(1, steps + 1):
        source, lengths = sample()
        source = source.to(device)
        target = reversed_targets(source, lengths)
        logits = training_logits(model, source, lengths, target, ratio, NOISE)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        if not (loss.item() < 1000 and math.isfinite(norm.item())):
            raise FloatingPointError(f"loss {loss.item():g}, gradient norm {norm.item():g} at step {step} of {steps}")
        optimizer.step()
        schedule.step()
        yield loss.item()


# ---------------------------------------------------------------------------------------------------------------------
# Greedy decoding and the metrics
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def greedy_decode(
    model: nn.ModuleList, source: Tensor, lengths: Tensor, max_steps: int
) -> tuple[Tensor, Tensor | None]:
    """Write the most probable symbol at each step until every string has its EOS, or for `max_steps` steps.

    Shapes: source (B, S), lengths (B,) on the CPU.
    Returns (tokens (B, T), weights (B, T, S), or None without attention), with PAD in a string's tokens after its EOS.
    """
    encoder, decoder = model
    keys, hidden = encoder(source, lengths)
    mask = source != PAD
    token = torch.full_like(source[:, :1], SOS)
    finished = torch.zeros_like(token, dtype=torch.bool)
    tokens: list[Tensor] = []
    rows: list[Tensor | None] = []
    while len(tokens) < max_steps and not finished.all():
        logits, hidden, weights = decoder(token, hidden, keys, mask)
        token = EOS + logits[:, :, EOS:].argmax(dim=-1)  # EOS or a symbol: PAD and SOS are never written
        token = token.masked_fill(finished, PAD)
        finished |= token == EOS
        tokens.append(token)
        rows.append(weights)
    return torch.cat(tokens, dim=1), None if rows[0] is None else torch.cat(rows, dim=1)


def count_aligned(tokens: Tensor, weights: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Count the output symbols whose largest attention weight lies on their true source position, len - 1 - t.

    Shapes: tokens (B, T), weights (B, T, S), lengths (B,). Returns (aligned, written), (B,) each, EOS not counted.
    """
    true_position = lengths[:, None] - 1 - torch.arange(tokens.size(1))  # negative, so never right, past the end
    written = tokens > EOS
    aligned = written & (weights.argmax(dim=-1) == true_position)
    return aligned.sum(dim=1), written.sum(dim=1)


class Evaluation(NamedTuple):
    """What greedy decoding got right, string by string: each field is (N,), on the CPU, in the order of the strings."""

    lengths: Tensor  # symbols in the source
    exact: Tensor  # bool: the whole output right, EOS included
    aligned: Tensor | None  # output symbols whose largest weight lies on their true source position
    written: Tensor | None  # output symbols; both are None without attention

    def exact_match(self) -> float:
        """Return the share of strings that are right as a whole, in percent."""
        return 100 * self.exact.double().mean().item()

    def alignment(self) -> float | None:
        """Return the share of output symbols that are aligned, in percent (0 if none was written), if any can be."""
        if self.aligned is None:
            return None
        return 100 * self.aligned.sum().item() / max(1, self.written.sum().item())


def evaluate(model: nn.ModuleList, source: Tensor, lengths: Tensor) -> Evaluation:
    """Decode N strings, (N, S) tokens with (N,) lengths, and compare them with their reversals."""
    device = next(model.parameters()).device
    exact = torch.zeros(len(source), dtype=torch.bool)
    aligned, written = torch.zeros_like(lengths), torch.zeros_like(lengths)
    weights = None
    for chunk in lengths.argsort().split(250):  # strings of similar length together: short ones need few steps
        longest = int(lengths[chunk].max())
        some = source[chunk, :longest].to(device)
        target = reversed_targets(some, lengths[chunk])
        tokens, weights = greedy_decode(model, some, lengths[chunk], max_steps=longest + 1)
        # A string without EOS so far is wrong anyway. Cut it to what it would have written alone.
        tokens = tokens.cpu().masked_fill(torch.arange(tokens.size(1)) > lengths[chunk, None], PAD)
        missing = longest + 1 - tokens.size(1)
        exact[chunk] = (F.pad(tokens, (0, missing), value=PAD) == target.cpu()).all(dim=1)
        if weights is not None:
            aligned[chunk], written[chunk] = count_aligned(tokens, weights.cpu(), lengths[chunk])
    return Evaluation(lengths, exact, *((None, None) if weights is None else (aligned, written)))


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def smoothing_window(losses: list[float]) -> int:
    """Return over how many steps a curve of these losses is smoothed."""
    return max(1, len(losses) // 40)


def moving_mean(losses: list[float], window: int) -> np.ndarray:
    """Return the mean of the last `window` losses at each step, from step `window` on."""
    return np.convolve(losses, np.ones(window) / window, mode="valid")


def draw_loss(losses: list[float]) -> Figure:
    """Draw the loss of every step faintly, and its mean over a sliding window on top."""
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    window = smoothing_window(losses)
    axes.semilogy(steps, losses, color="tab:blue", alpha=0.3, linewidth=1, label="each step")
    mean = moving_mean(losses, window)
    axes.semilogy(steps[window - 1 :], mean, color="tab:blue", linewidth=2, label=f"mean of the last {window} steps")
    axes.set(title="Training loss: reversing strings", xlabel="training step", ylabel="cross-entropy (nats per symbol)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def draw_attention(source: str, output: list[str], weights: np.ndarray) -> Figure:
    """Draw the weights, (T, S): a row for each output symbol from the top, a column for each source symbol.

    A ring marks where each symbol of the true reversal comes from, so that a plot one column off is seen to be.
    """
    size = 2.5 + 0.4 * min(max(len(source), 6), 32)
    figure = Figure(figsize=(size + 0.8, size), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    true_steps = np.arange(len(source))
    ring = {"marker": "o", "linestyle": "", "markerfacecolor": "none", "markeredgecolor": "tab:red"}
    axes.plot(true_steps[::-1], true_steps, **ring, label="true source position")
    axes.set(xlabel="source symbol", ylabel="output symbol, first at the top", ylim=(len(output) - 0.5, -0.5))
    axes.set_xticks(range(len(source)), list(source), parse_math=False)
    axes.set_yticks(range(len(output)), output, parse_math=False)
    axes.tick_params(labelsize=min(10, 400 / max(weights.shape)))  # symbols that stay apart in a long string, too
    axes.set_title("Reversing a string: where each output symbol looks")
    figure.legend(loc="outside lower right")
    figure.colorbar(image, label="attention weight")
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# The history of attention, measured
# ---------------------------------------------------------------------------------------------------------------------

# Name, attention, teacher-forcing ratio: what the papers proposed one after the other, and what forcing adds to it.
HISTORY = (
    ("no attention (Sutskever et al. 2014)", "none", 1.0),
    ("additive (Bahdanau et al. 2015)", "additive", 1.0),
    ("dot (Luong et al. 2015)", "dot", 1.0),
    ("dot, no teacher forcing", "dot", 0.0),
)


class Result(NamedTuple):
    """What training and evaluating one model of the history gave."""

    name: str
    parameters: int
    losses: list[float]  # nats per symbol, a value for each step
    milliseconds: float  # median of a training step
    passed: int | None  # first step, of those looked at, with more than 90 % exact match
    evaluation: Evaluation
    by_length: dict[int, float]  # exact match in percent by source length


def comparison_table(results: list[Result], max_length: int) -> str:
    """Return the results as a Markdown table, a row for each model."""
    lines = [
        f"| model | parameters | ms per step | 90 % exact at step | exact match | at length {max_length} | alignment |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        alignment = result.evaluation.alignment()
        cells = (
            result.name,
            f"{result.parameters:,}",
            f"{result.milliseconds:.1f}",
            "never" if result.passed is None else str(result.passed),
            f"{result.evaluation.exact_match():.2f} %",
            f"{result.by_length[max_length]:.1f} %",
            "none" if alignment is None else f"{alignment:.2f} %",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_comparison(results: list[Result], max_length: int) -> Figure:
    """Draw the loss by step of every model, and exact match by source length, also past the trained lengths."""
    figure = Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    # Colours that colour-blind readers tell apart (Okabe and Ito), and a line style each.
    looks = (("#D55E00", "-"), ("#009E73", "--"), ("#0072B2", "-"), ("#56B4E9", ":"))
    for result, (colour, style) in zip(results, looks, strict=True):
        window = smoothing_window(result.losses)
        steps = np.arange(window, len(result.losses) + 1)
        left.semilogy(steps, moving_mean(result.losses, window), style, color=colour, label=result.name)
    left.set(title="Loss while training", xlabel="training step", ylabel="cross-entropy (nats per symbol)")
    for result, (colour, style) in list(zip(results, looks, strict=True))[2::-1]:  # dashes last, over the full line
        right.plot(*zip(*result.by_length.items(), strict=True), style, color=colour, marker=".", label=result.name)
    right.axvspan(max_length + 0.5, max(results[0].by_length) + 0.5, color="0.9")
    right.text(max_length + 0.7, 103, "never trained", va="bottom")
    right.set(title="Exact match by length", xlabel="source length (symbols)", ylabel="exact match (%)", ylim=(-3, 112))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------

EVALUATION_STRINGS = 2000
EVALUATION_SEED = 987654321  # torch keeps 32 bits of a seed (2**63 is the same as 0): one that few will train with
WORD = "attention"  # drawn where no --sequence is given and the alphabet has its letters


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line: argparse itself puts the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Print the message on standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def number(kind: type, allowed: Callable[[float], bool], description: str) -> Callable[[str], float]:
    """Return an argparse type: a `kind` (int or float) for which `allowed` holds, or an error with `description`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
            if allowed(value):
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!a} is not {description}")

    return parse


def whole_number(low: int, high: int) -> Callable[[str], float]:
    """Return an argparse type: a whole number from `low` to `high`."""
    return number(int, lambda value: low <= value <= high, f"a whole number from {low} to {high}")


def alphabet(text: str) -> str:
    """Return `text` if it can serve as the alphabet, or raise argparse.ArgumentTypeError."""
    if len(text) < 2 or len(set(text)) < len(text) or not all("!" <= symbol <= "~" for symbol in text):
        raise argparse.ArgumentTypeError(f"{text!a} is not 2 or more different printable ASCII symbols without spaces")
    return text


def usable_device(text: str) -> torch.device:
    """Return the device that `text` names if a tensor can live there, or raise argparse.ArgumentTypeError."""
    try:
        device = torch.device(text)
        torch.zeros(1, device=device).tolist()
    except Exception as error:  # each kind of device that is missing has an exception of its own
        raise argparse.ArgumentTypeError(f"{text!a} is not a device that PyTorch can use here, like cpu") from error
    return device


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the command line; a bad value ends the process with one line and exit status 2."""
    parser = Parser(
        description="Train a GRU encoder and an attention decoder to reverse strings.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--steps", type=whole_number(1, 10**6), default=400, metavar="N", help="training steps")
    add("--batch-size", type=whole_number(1, 4096), default=64, metavar="N", help="strings in a batch")
    positive = number(float, lambda value: 0 < value < math.inf, "a positive, finite number")
    add("--lr", type=positive, default=3e-2, metavar="LR", help="peak learning rate of Adam's one-cycle schedule")
    even = number(int, lambda value: value in range(2, 1025, 2), "an even whole number from 2 to 1024")
    add("--hidden-size", type=even, default=64, metavar="N", help="size of h_s and h_t, half for each direction")
    add("--embedding-size", type=whole_number(1, 1024), default=16, metavar="N", help="size of a symbol's embedding")
    add("--alphabet", type=alphabet, default=string.ascii_lowercase, metavar="TEXT", help="the symbols of the strings")
    add("--min-length", type=whole_number(1, 512), default=1, metavar="N", help="symbols in the shortest string")
    add("--max-length", type=whole_number(1, 512), default=16, metavar="N", help="symbols in the longest string")
    add("--attention", choices=ATTENTION, default="dot", help="how a key is scored, if at all")
    share = number(float, lambda value: 0 <= value <= 1, "a number from 0 to 1")
    add("--teacher-forcing", type=share, default=1.0, metavar="RATIO", help="chance that a step reads the true symbol")
    add("--sequence", metavar="TEXT", help=f"the string to draw ({WORD}, or a random one, if not given)")
    add("--compare", action="store_true", help="train every kind of attention, print a table, draw the comparison")
    add("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="N", help="draws the weights and the strings")
    add("--device", type=usable_device, default="cpu", metavar="NAME", help="where PyTorch computes")
    assets = Path(__file__).resolve().parent / "assets"
    add("--assets", type=Path, default=assets, metavar="DIR", help="where the figures go")
    args = parser.parse_args(argv)
    if args.min_length > args.max_length:
        parser.error(f"argument --min-length: {args.min_length} is more than --max-length, {args.max_length}")
    if args.compare and (args.attention != "dot" or args.teacher_forcing != 1 or args.sequence is not None):
        parser.error("argument --compare: it chooses --attention and --teacher-forcing, and has no use for --sequence")
    if args.sequence is not None:
        unknown = sorted(set(args.sequence) - set(args.alphabet))
        if unknown or not 1 <= len(args.sequence) <= 512:
            problem = f"holds {unknown[0]!a}" if unknown else f"has {len(args.sequence)} symbols"
            parser.error(f"argument --sequence: {args.sequence!a} {problem}; it takes 1 to 512 of {args.alphabet!a}")
    try:
        args.assets.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.assets).close()
    except OSError as error:
        parser.error(f"argument --assets: {str(args.assets)!a} is not a folder that can be written: {error.strerror}")
    return args


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, which is replaced only by a complete file, and print the path."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format="png")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"figure: {path}")


def lines_by_length(evaluation: Evaluation) -> Iterator[str]:
    """Yield a line of exact match for each length, or for each range of lengths where there are many."""
    shortest, longest = int(evaluation.lengths.min()), int(evaluation.lengths.max())
    width = math.ceil((longest - shortest + 1) / 16)
    for low in range(shortest, longest + 1, width):
        high = min(low + width - 1, longest)
        exact = evaluation.exact[(evaluation.lengths >= low) & (evaluation.lengths <= high)]
        if len(exact):
            name = f"{low}" if low == high else f"{low}-{high}"
            yield f"  {name:>7}  {100 * exact.double().mean():6.2f}%  ({exact.sum()} of {len(exact)})"


def fit(
    args: argparse.Namespace, attention: str, ratio: float, look: Callable[[nn.ModuleList, int], None] | None = None
) -> tuple[nn.ModuleList, list[float], list[float]]:
    """Build a model from the seed and train it, with a line of progress every second.

    `look(model, step)` is called after each step, outside the timing.
    Returns (model, losses, seconds), a value for each step in both lists.
    """
    symbols = len(args.alphabet)
    torch.manual_seed(args.seed)
    model = build_model(symbols, args.embedding_size, args.hidden_size, attention).to(args.device)
    generator = torch.Generator().manual_seed(args.seed)

    def sample() -> tuple[Tensor, Tensor]:
        return sample_sources(args.batch_size, symbols, args.min_length, args.max_length, generator)

    steps = train(model, sample, args.steps, args.lr, ratio)
    losses: list[float] = []
    seconds: list[float] = []
    shown = -math.inf
    for step in range(1, args.steps + 1):
        start = time.perf_counter()
        losses.append(next(steps))
        seconds.append(time.perf_counter() - start)
        if start - shown > 1 or step == args.steps:
            print(f"step {step:>{len(str(args.steps))}} of {args.steps}  loss {losses[-1]:.4f}", flush=True)
            shown = start
        if look:
            look(model, step)
    return model, losses, seconds


def fresh_strings(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Draw the strings of the evaluation: uniform over the whole alphabet, the same for every --seed."""
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    return sample_sources(EVALUATION_STRINGS, len(args.alphabet), args.min_length, args.max_length, generator)


def run(args: argparse.Namespace) -> None:
    """Train one model, report, and draw its figures."""
    print(f"reversing strings of {args.min_length} to {args.max_length} symbols from {args.alphabet}", flush=True)
    model, losses, seconds = fit(args, args.attention, args.teacher_forcing)
    source, lengths = fresh_strings(args)
    evaluation = evaluate(model, source, lengths)

    def text(tokens: list[int]) -> str:
        return "".join(args.alphabet[token - SPECIALS] for token in tokens if token >= SPECIALS)

    shown = args.sequence or (WORD if set(WORD) <= set(args.alphabet) else text(source[lengths.argmax()].tolist()))
    decoded = []
    print("\nexamples:")
    for word in (shown, *(text(tokens) for tokens in source[:4].tolist())):
        one = torch.tensor([[SPECIALS + args.alphabet.index(symbol) for symbol in word]], device=args.device)
        tokens, weights = greedy_decode(model, one, torch.tensor([len(word)]), max_steps=2 * len(word) + 1)
        decoded.append((tokens[0].tolist(), weights))
        output = text(decoded[-1][0])
        print(f"  {word} -> {output}  {'right' if output == word[::-1] else 'wrong'}")
    if not args.min_length <= len(shown) <= args.max_length:
        print(f"  ({shown} has {len(shown)} symbols: a length that this model was not trained on)")
    print("\nexact match by length:")
    for line in lines_by_length(evaluation):
        print(line)

    exact = int(evaluation.exact.sum())
    print(f"\nexact match: {evaluation.exact_match():.2f}% ({exact} of {EVALUATION_STRINGS} fresh sequences)")
    if evaluation.alignment() is not None:
        print(f"alignment: {evaluation.alignment():.2f}%")
    print(f"training time: {sum(seconds):.1f} s")
    save(draw_loss(losses), args.assets / "pytorch_seq2seq_loss.png")
    tokens, weights = decoded[0]
    if weights is None:
        print("no attention, so no alignment to report and no attention matrix to draw")
    else:
        output_symbols = ["EOS" if token == EOS else text([token]) for token in tokens]
        figure = draw_attention(shown, output_symbols, weights[0].cpu().numpy())
        save(figure, args.assets / "pytorch_attention_matrix.png")


def compare(args: argparse.Namespace) -> None:
    """Train the models of the history from the same seed on the same batches, and compare what comes out."""
    source, lengths = fresh_strings(args)
    few = slice(200)  # strings of the evaluation that are decoded again and again during training
    every = max(1, args.steps // 40)
    generator = torch.Generator().manual_seed(EVALUATION_SEED + 1)
    reach = np.linspace(args.min_length, math.ceil(1.5 * args.max_length), 24).round().astype(int).tolist()
    by_length = {
        length: sample_sources(200, len(args.alphabet), length, length, generator)
        for length in sorted({*reach, args.max_length})
    }
    results = []
    for name, attention, ratio in HISTORY:
        print(name, flush=True)
        passed: list[int] = []

        def look(model: nn.ModuleList, step: int, passed: list[int] = passed) -> None:
            if not passed and step % every == 0 and evaluate(model, source[few], lengths[few]).exact_match() > 90:
                passed.append(step)

        model, losses, seconds = fit(args, attention, ratio, look)
        results.append(
            Result(
                name,
                parameters=sum(weight.numel() for weight in model.parameters()),
                losses=losses,
                milliseconds=1000 * float(np.median(seconds)),
                passed=passed[0] if passed else None,
                evaluation=evaluate(model, source, lengths),
                by_length={length: evaluate(model, *strings).exact_match() for length, strings in by_length.items()},
            )
        )
    print(f"\n{comparison_table(results, args.max_length)}\n")
    save(draw_comparison(results, args.max_length), args.assets / "pytorch_comparison.png")


def main(argv: list[str] | None = None) -> int:
    """Run the script with the command line `argv`; return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what an ASCII terminal cannot show
    torch.set_num_threads(1)  # the matrices are too small to share: two threads would mostly wait for each other
    args = parse_arguments(argv)
    try:
        (compare if args.compare else run)(args)
        print(end="", flush=True)
    except KeyboardInterrupt:
        return failure("interrupted", 130)
    except FloatingPointError as error:
        return failure(f"training diverged, {error}: try a smaller --lr than {args.lr:g}", 1)
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
