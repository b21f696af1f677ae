"""A GRU encoder and an attention decoder learn to reverse strings: sequence to sequence with attention, in PyTorch.

Reversal is the smallest task that shows attention at work: the first output symbol is the last input symbol, so a
decoder that looks at the right place draws an anti-diagonal. The file follows the README: the task, the encoder,
attention and the decoder, training, decoding and metrics, figures, experiments, the command line.

    python 01_pytorch.py                          trains for some seconds, reports, draws three figures in assets/
    python 01_pytorch.py --sequence hello         shows where the decoder looks as it reverses your own string
    python 01_pytorch.py --experiment alignment   when is such a plot true? trains some models, prints a table
"""

import argparse
import math
import multiprocessing
import os
import signal
import statistics
import string
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# ---------------------------------------------------------------------------------------------------------------------
# The task: reverse a string
# ---------------------------------------------------------------------------------------------------------------------

PAD, SOS, EOS = 0, 1, 2  # padding, start of sequence, end of sequence: tokens of their own
FIRST_SYMBOL = 3  # token FIRST_SYMBOL + i stands for symbol i of the alphabet


def sample_sources(
    count: int, alphabet_size: int, min_length: int, max_length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw `count` random strings, their lengths uniform in [min_length, max_length].

    Returns (source, lengths): (B, S) tokens, padded with PAD after the last symbol, and (B,), both on the CPU.
    """
    lengths = torch.randint(min_length, max_length + 1, (count,), generator=generator)
    longest = int(lengths.max())
    source = torch.randint(FIRST_SYMBOL, FIRST_SYMBOL + alphabet_size, (count, longest), generator=generator)
    return source.masked_fill(torch.arange(longest) >= lengths[:, None], PAD), lengths


def true_positions(lengths: Tensor, steps: int, task: str) -> Tensor:
    """Return the source position that each of `steps` output symbols comes from, (B,) -> (B, T); -1 past the last."""
    t, lengths = torch.arange(steps, device=lengths.device), lengths[:, None]
    positions = lengths - 1 - t if task == "reverse" else t.expand(len(lengths), -1)
    return positions.masked_fill(t >= lengths, -1)


def make_targets(source: Tensor, lengths: Tensor, task: str) -> Tensor:
    """Return what the decoder must write: each string reversed (or copied), EOS, then PAD. (B, S) -> (B, S + 1)."""
    lengths = lengths.to(source.device)
    positions = true_positions(lengths, source.size(1) + 1, task)
    symbols = source.gather(1, positions.clamp(min=0))
    return symbols.masked_fill(positions < 0, PAD).scatter(1, lengths[:, None], EOS)


# ---------------------------------------------------------------------------------------------------------------------
# The encoder
# ---------------------------------------------------------------------------------------------------------------------


class EncoderRNN(nn.Module):
    """A GRU (Cho et al. 2014) that turns each source position s into a state, h_s.

    By default one GRU reads forward and another backward, half the size each (Bahdanau et al. 2015, section 3.2), and
    h_s is both states side by side. A forward GRU alone has the symbol in its next state too, and a decoder can learn
    to attend there: `--experiment alignment` shows when it does.

    The update gate is the share of the old state that stays. "forgetful" ones start nearly closed: a state is then
    mostly its own symbol and learns to remember, where one that starts with a long memory, PyTorch's own, shows each
    symbol to its neighbours too.
    """

    def __init__(self, embedding: nn.Embedding, hidden_size: int, bidirectional: bool, forgetful: bool) -> None:
        super().__init__()
        self.embedding = embedding
        size = hidden_size // 2 if bidirectional else hidden_size
        self.gru = nn.GRU(embedding.embedding_dim, size, batch_first=True, bidirectional=bidirectional)
        for name, bias in self.gru.named_parameters():
            if forgetful and name.startswith("bias_ih"):
                bias.data[size : 2 * size] -= 2  # the update gate starts at sigmoid(-2), about an eighth

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, S) tokens with (B,) lengths, on the CPU, into outputs h_s (B, S, H) and a last state (1, B, H).

        Packing keeps PAD out of the recurrence: the last state is that of the last real symbol (and of the first, read
        backward), and a string's outputs are the same alone and in any batch. Outputs at PAD are zeros.
        """
        embedded = self.embedding(source)
        if lengths.min() == source.size(1):  # no PAD to pack away, and packing costs time
            outputs, last = self.gru(embedded)
        else:
            packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            outputs, last = self.gru(packed)
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.size(1))
        return outputs, torch.cat([*last], dim=-1)[None]


# ---------------------------------------------------------------------------------------------------------------------
# Attention and the decoder
# ---------------------------------------------------------------------------------------------------------------------


def dot_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score every key for every query (Luong et al. 2015, section 3.1): (B, T, H), (B, S, H) -> (B, T, S)."""
    return query @ keys.transpose(1, 2)  # score(h_t, h_s) = h_t . h_s


class AdditiveScore(nn.Module):
    """The score of Bahdanau et al. (2015, appendix A.1.2), at the cost of a tanh per pair of query and key.

    Bahdanau's query is the decoder's previous state; ours is h_t, as in Luong, so that all steps can be scored at once.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.W_q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.W_k = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every key for every query: (B, T, H), (B, S, H) -> (B, T, S)."""
        pairs = torch.tanh(self.W_q(query)[:, :, None] + self.W_k(keys)[:, None])  # (B, T, S, H)
        return self.v(pairs).squeeze(-1)  # score(h_t, h_s) = v . tanh(W_q h_t + W_k h_s)


def attend(scores: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn scores into weights and contexts (Luong et al. 2015, equation 7; Bahdanau et al. 2015, equations 5 and 6).

    Shapes: scores (B, T, S), keys (B, S, H), mask (B, S), True at real symbols: the others get weight exactly 0.
    Returns (context (B, T, H), weights (B, T, S)).
    """
    scores = scores.masked_fill(~mask[:, None], -math.inf)
    weights = scores.softmax(dim=-1)  # alpha_ts = softmax over s of score(h_t, h_s)
    context = weights @ keys  # c_t = sum over s of alpha_ts h_s
    return context, weights


class AttnDecoderRNN(nn.Module):
    """A GRU decoder that looks back at the encoder's outputs before it writes each symbol (Luong et al. 2015).

    The kinds of attention differ in their score alone. With "none" the encoder's last state is all that the decoder
    ever learns of the source (Sutskever et al. 2014); the context is empty, and W_c half as wide.
    """

    def __init__(self, embedding: nn.Embedding, hidden_size: int, attention: str = "dot") -> None:
        super().__init__()
        self.embedding = embedding
        self.gru = nn.GRU(embedding.embedding_dim, hidden_size, batch_first=True)
        self.W_c = nn.Linear(hidden_size if attention == "none" else 2 * hidden_size, hidden_size)
        self.W_s = nn.Linear(hidden_size, embedding.num_embeddings)
        # Made last, so that dot and additive start with the same weights elsewhere.
        self.score = {"dot": lambda: dot_score, "additive": lambda: AdditiveScore(hidden_size), "none": lambda: None}[
            attention
        ]()

    def forward(
        self, tokens: Tensor, hidden: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Read T previous symbols at once and predict T next ones: the same call serves T = 1 and the whole target.

        h_t is the GRU's state of this step and owes nothing to the attention of earlier steps. So one GRU call gives
        all queries, and one matrix product all their scores.

        Shapes: tokens (B, T), hidden (1, B, H), keys (B, S, H), mask (B, S).
        Returns (logits (B, T, vocabulary), hidden (1, B, H), weights (B, T, S), or None without attention).
        """
        query, hidden = self.gru(self.embedding(tokens), hidden)  # h_t                                       (B, T, H)
        if self.score:
            context, weights = attend(self.score(query, keys), keys, mask)  # c_t                             (B, T, H)
        else:
            context, weights = query[..., :0], None  # nothing to look at                                     (B, T, 0)
        return self.final_output(context, query), hidden, weights

    def final_output(self, context: Tensor, query: Tensor) -> Tensor:
        """Combine what was found with what was asked (Luong et al. 2015, equations 5 and 6), (B, T, H) twice.

        Returns logits (B, T, vocabulary), whose softmax is p(y_t | y_<t, x).
        """
        attentional = torch.tanh(self.W_c(torch.cat([context, query], dim=-1)))  # tanh(W_c [c_t ; h_t])      (B, T, H)
        return self.W_s(attentional)


class Seq2Seq(nn.Module):
    """An encoder and a decoder that share one embedding."""

    def __init__(
        self,
        vocabulary: int,
        embedding_size: int = 16,
        embedding_std: float = 0.2,
        hidden_size: int = 64,
        encoder: str = "bidirectional",
        gates: str = "forgetful",
        attention: str = "dot",
    ) -> None:
        super().__init__()
        embedding = nn.Embedding(vocabulary, embedding_size)
        nn.init.normal_(embedding.weight, std=embedding_std)
        self.encoder = EncoderRNN(embedding, hidden_size, encoder == "bidirectional", gates == "forgetful")
        self.decoder = AttnDecoderRNN(embedding, hidden_size, attention)

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode `source` (B, S), read `tokens` (B, T), and return (logits (B, T, vocabulary), weights (B, T, S))."""
        keys, hidden = self.encoder(source, lengths)
        logits, _, weights = self.decoder(tokens, hidden, keys, source != PAD)
        return logits, weights


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


class Settings(NamedTuple):
    """All that a run depends on, as the flags of the same names have it."""

    steps: int = 400
    batch_size: int = 64
    lr: float = 0.03
    hidden_size: int = 64
    embedding_size: int = 16
    embedding_std: float = 0.2
    alphabet: str = string.ascii_lowercase
    min_length: int = 1
    max_length: int = 16
    task: str = "reverse"
    encoder: str = "bidirectional"
    gates: str = "forgetful"
    attention: str = "dot"
    teacher_forcing: float = 1.0
    noise: float = 0.2
    seed: int = 0
    device: str = "cpu"


def build_model(settings: Settings) -> Seq2Seq:
    """Return an untrained model, its weights drawn from the seed."""
    torch.manual_seed(settings.seed)
    return Seq2Seq(
        FIRST_SYMBOL + len(settings.alphabet),
        settings.embedding_size,
        settings.embedding_std,
        settings.hidden_size,
        settings.encoder,
        settings.gates,
        settings.attention,
    ).to(settings.device)


def with_noise(tokens: Tensor, noise: float, vocabulary: int) -> Tensor:
    """Replace each symbol, with probability `noise`, by a random one; PAD, SOS and EOS stay.

    A decoder that can trust the previous symbol finds its place by looking for it, and is lost where symbols repeat.
    One that cannot has to count. (Xie et al. 2017, section 3.3, replace words like this.)
    """
    replaced = (torch.rand(tokens.shape, device=tokens.device) < noise) & (tokens >= FIRST_SYMBOL)
    return torch.where(replaced, torch.randint_like(tokens, FIRST_SYMBOL, vocabulary), tokens)


def most_probable(logits: Tensor) -> Tensor:
    """Return the most probable token, EOS or a symbol: PAD and SOS are never written. (B, T, vocabulary) -> (B, T)."""
    return EOS + logits[..., EOS:].argmax(dim=-1)


def previous_tokens(target: Tensor) -> Tensor:
    """Return what the decoder has read when it must write `target`: SOS, then all but the last. (B, T) -> (B, T)."""
    return F.pad(target[:, :-1], (1, 0), value=SOS)


def training_logits(
    model: Seq2Seq, source: Tensor, lengths: Tensor, target: Tensor, teacher_forcing: float = 1, noise: float = 0
) -> Tensor:
    """Return the logits (B, T, vocabulary) for every step of `target` (B, T), with teacher forcing (Williams & Zipser).

    With ratio 1 each step reads the true previous symbol, and all steps go through the decoder in one call. Below 1,
    each step of each string reads it with that probability, else what the model itself has written (scheduled
    sampling, Bengio et al. 2015, at a constant rate), and the steps are taken one by one.
    """
    vocabulary = model.decoder.embedding.num_embeddings
    true = previous_tokens(target)
    if teacher_forcing == 1:
        return model(source, lengths, with_noise(true, noise, vocabulary))[0]
    keys, hidden = model.encoder(source, lengths)
    forced = torch.rand(target.shape, device=target.device) < teacher_forcing
    own, steps = true[:, :1], []
    for t in range(target.size(1)):
        read = torch.where(forced[:, t : t + 1], true[:, t : t + 1], own)
        logits, hidden, _ = model.decoder(with_noise(read, noise, vocabulary), hidden, keys, source != PAD)
        own = most_probable(logits)
        steps.append(logits)
    return torch.cat(steps, dim=1)


def rise_and_fall(progress: float) -> float:
    """Return the learning rate, as a share of its peak: up during the first fifth of training, then down to zero."""
    return min(progress / 0.2, (1 - progress) / 0.8)


def train(model: Seq2Seq, settings: Settings) -> Iterator[float]:
    """Train the model, and yield the loss of each step: cross-entropy per symbol in nats, EOS counted, PAD not.

    Gradients longer than 1 are cut to 1, for those of a recurrent network grow with the length.

    Raises FloatingPointError at the first step that leaves the weights NaN, infinite or 10,000 long in all.
    """
    strings = torch.Generator().manual_seed(2**32 - 1 - settings.seed)  # never the seed of the weights
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: rise_and_fall((done + 0.5) / settings.steps))
    for step in range(1, settings.steps + 1):
        source, lengths = sample_sources(
            settings.batch_size, len(settings.alphabet), settings.min_length, settings.max_length, strings
        )
        source = source.to(settings.device)
        target = make_targets(source, lengths, settings.task)
        logits = training_logits(model, source, lengths, target, settings.teacher_forcing, settings.noise)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1)
        optimizer.step()
        schedule.step()
        if not nn.utils.get_total_norm([*model.parameters()]) < 1e4:
            raise FloatingPointError(f"training diverged at step {step} of {settings.steps}, loss {loss.item():g}")
        yield loss.item()


def timed(losses: Iterator[float]) -> Iterator[tuple[float, float]]:
    """Yield each loss with the seconds of training so far, without those that the caller takes in between."""
    seconds, start = 0.0, time.perf_counter()
    for loss in losses:
        seconds += time.perf_counter() - start
        yield loss, seconds
        start = time.perf_counter()


# ---------------------------------------------------------------------------------------------------------------------
# Greedy decoding and the metrics
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def greedy_decode(model: Seq2Seq, source: Tensor, lengths: Tensor, max_steps: int) -> tuple[Tensor, Tensor | None]:
    """Write the most probable symbol at each step until every string has its EOS, or for `max_steps` steps.

    Shapes: source (B, S), lengths (B,) on the CPU.
    Returns (tokens (B, T), weights (B, T, S), or None without attention), with PAD in a string's tokens after its EOS.
    """
    keys, hidden = model.encoder(source, lengths)
    token = torch.full_like(source[:, :1], SOS)
    finished = torch.zeros_like(token, dtype=torch.bool)
    tokens, rows = [], []
    while len(tokens) < max_steps and not finished.all():
        logits, hidden, weights = model.decoder(token, hidden, keys, source != PAD)
        token = most_probable(logits).masked_fill(finished, PAD)
        finished = finished | (token == EOS)
        tokens.append(token)
        rows.append(weights)
    return torch.cat(tokens, dim=1), torch.cat(rows, dim=1) if model.decoder.score else None


SHIFTS = range(-2, 3)  # columns from the true source position to the largest weight, left to right


class Evaluation(NamedTuple):
    """What greedy decoding got right."""

    exact: Tensor  # (N,) bool: the whole string right, EOS included
    shifts: list[float] | None  # % of output symbols whose largest weight lies so many columns off, as SHIFTS has them

    @property
    def exact_match(self) -> float:
        """The share of strings that are right as a whole, in percent."""
        return 100 * self.exact.double().mean().item()

    @property
    def alignment(self) -> float:
        """The share of output symbols whose largest weight lies on the true source position, in percent."""
        return self.shifts[SHIFTS.index(0)]


def evaluate(model: Seq2Seq, source: Tensor, lengths: Tensor, task: str) -> Evaluation:
    """Decode N strings, (N, S) tokens with (N,) lengths, and compare them with what they should have become.

    The shifts are those of all symbols that were written at a step which has a true source position.
    """
    target = make_targets(source, lengths, task)
    tokens, weights = greedy_decode(model, source, lengths, max_steps=target.size(1))
    padded = F.pad(tokens, (0, target.size(1) - tokens.size(1)), value=PAD)
    exact = (padded == target).all(dim=1).cpu()
    if weights is None:
        return Evaluation(exact, None)
    true = true_positions(lengths, tokens.size(1), task).to(tokens.device)
    counted = (true >= 0) & (tokens > EOS)
    shift = (weights.argmax(dim=-1) - true)[counted]
    return Evaluation(exact, [100 * (shift == k).sum().item() / max(1, len(shift)) for k in SHIFTS])


EVALUATION_SEED = 987654321  # few will train with the seed that makes the same strings


def evaluation_strings(settings: Settings, count: int = 2000) -> tuple[Tensor, Tensor]:
    """Draw the strings of the evaluation, the same for every seed and independent of those in training.

    Independent is not unseen: of the 2,000 at the default settings, 12 % occur in training, the short ones.
    """
    strings = torch.Generator().manual_seed(EVALUATION_SEED)
    source, lengths = sample_sources(count, len(settings.alphabet), settings.min_length, settings.max_length, strings)
    return source.to(settings.device), lengths


# ---------------------------------------------------------------------------------------------------------------------
# Figures and what the terminal shows
# ---------------------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """What the model made of one word, and where it looked."""

    word: str
    output: list[str]  # T symbols, or EOS
    weights: np.ndarray | None  # (T, S), None without attention
    places: list[int]  # the true source position of each symbol that it should write


def encode(word: str, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return (source, lengths) of one word: (1, S) tokens and (1,)."""
    tokens = [FIRST_SYMBOL + settings.alphabet.index(symbol) for symbol in word]
    return torch.tensor([tokens], device=settings.device), torch.tensor([len(word)])


def write(model: Seq2Seq, word: str, settings: Settings) -> Written:
    """Decode one word greedily, to twice its length if no EOS comes."""
    source, lengths = encode(word, settings)
    tokens, weights = greedy_decode(model, source, lengths, max_steps=2 * len(word) + 1)
    output = ["EOS" if token == EOS else settings.alphabet[token - FIRST_SYMBOL] for token in tokens[0].tolist()]
    places = true_positions(lengths, len(word), settings.task)[0].tolist()
    return Written(word, output, None if weights is None else weights[0].cpu().numpy(), places)


def text(output: list[str]) -> str:
    """Return output symbols as one string, without EOS."""
    return "".join(symbol for symbol in output if symbol != "EOS")


def matrix_as_text(written: Written) -> str:
    """Return the attention matrix in five shades of ASCII: a row for each output symbol, a column for each source symbol."""
    rows = ["     " + " ".join(written.word)]
    for symbol, weights in zip(written.output, written.weights, strict=True):
        rows.append(f"{symbol:>3}  " + " ".join(" .:*@"[min(4, int(5 * weight))] for weight in weights).rstrip())
    return "\n".join(rows)


@torch.no_grad()
def four_steps(model: Seq2Seq, word: str, settings: Settings) -> str:
    """Return a table of the four steps as the model takes them when it writes the word's third symbol."""
    source, lengths = encode(word, settings)
    tokens = previous_tokens(greedy_decode(model, source, lengths, max_steps=len(word) + 1)[0])[:, :3]
    decoder = model.decoder
    keys, hidden = model.encoder(source, lengths)
    query, _ = decoder.gru(decoder.embedding(tokens), hidden)
    scores = decoder.score(query, keys)
    context, weights = attend(scores, keys, source != PAD)
    lines = [f"step {tokens.size(1)}: s  symbol   score  weight"]
    for s, (symbol, score, weight) in enumerate(zip(word, scores[0, -1], weights[0, -1], strict=True)):
        lines.append(f"  {s:>6}  {symbol}       {score:6.2f}  {weight:6.3f}")
    for name, c_t in (("the context", context), ("zeros in its place", torch.zeros_like(context))):
        best = decoder.final_output(c_t, query)[0, -1].softmax(dim=-1)[EOS:].topk(3)
        names = ["EOS", *settings.alphabet]
        shares = ", ".join(f"{names[i]} {p:.3f}" for p, i in zip(best.values, best.indices, strict=True))
        lines.append(f"next symbol with {name}: {shares}")
    return "\n".join(lines)


READABLE = 36  # symbols of a word that fit on a terminal's line, or beside an axis


def draw_matrix(axes: Axes, written: Written, rows: int | None = None) -> AxesImage:
    """Draw the weights, (T, S), or their first rows: an output symbol a row, first at the top, a source symbol a column.

    A ring marks where each symbol comes from, so that a plot one column off is seen to be. A word too long for its
    symbols to be read has positions in their place, and no rings.
    """
    weights = written.weights.copy()
    weights[rows:] = math.nan if rows is not None else weights[rows:]
    image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if len(written.word) <= READABLE:
        shown = min(len(written.places), len(written.output))
        for colour, width in (("white", 3), ("tab:red", 1.5)):
            ring = {"markersize": min(10, 240 / len(written.word)), "markeredgewidth": width, "markeredgecolor": colour}
            axes.plot(written.places[:shown], range(shown), "o", markerfacecolor="none", **ring)
        axes.set_xticks(range(len(written.word)), list(written.word), parse_math=False)
    if len(written.output) <= READABLE + 1:
        axes.set_yticks(range(len(written.output)), written.output, parse_math=False)
    axes.set(xlim=(-0.5, len(written.word) - 0.5), ylim=(len(written.output) - 0.5, -0.5))
    return image


def draw_attention(written: Written) -> Figure:
    """Draw the attention matrix of the trained model."""
    figure = Figure(figsize=(8, 7), dpi=150, layout="constrained")
    axes = figure.subplots()
    figure.colorbar(draw_matrix(axes, written), label="attention weight")
    axes.set(xlabel="source symbol", ylabel="output symbol, first at the top")
    axes.set_title("Where the decoder looks (ring: where the symbol comes from)", size=11)
    return figure


def draw_decoding(written: Written) -> FuncAnimation:
    """Animate how the decoder writes the word: a frame for each symbol, or for some of them if they are many."""
    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    bars, matrix = figure.subplots(1, 2)
    steps = np.unique(np.linspace(0, len(written.output), 16).round().astype(int)).tolist()
    figure.colorbar(draw_matrix(matrix, written, 0), label="attention weight")

    def draw_frame(step: int) -> None:
        bars.clear()
        matrix.clear()
        draw_matrix(matrix, written, step)
        matrix.set(xlabel="source symbol", ylabel="output symbol")
        weights = written.weights[step - 1] if step else np.zeros(len(written.word))
        bars.bar(range(len(written.word)), weights, color="#E69F00")
        bars.set(ylim=(0, 1), ylabel="attention weight", xlabel="source symbol")
        if len(written.word) <= READABLE:
            bars.set_xticks(range(len(written.word)), list(written.word), parse_math=False)
        bars.set_title(
            f"writes: {text(written.output[:step])[-24:]}", loc="left", size=12, family="monospace", parse_math=False
        )

    return FuncAnimation(figure, draw_frame, frames=[*steps, steps[-1], steps[-1]])


def draw_loss(losses: list[float], snapshots: dict[int, Written]) -> Figure:
    """Draw the loss of every step, and above it the attention matrix of the word at some of them: {step: Written}."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    drawn = {step: written for step, written in snapshots.items() if written.weights is not None}
    grid = figure.add_gridspec(2, max(1, len(drawn)), height_ratios=[1, 2])
    axes = figure.add_subplot(grid[1 if drawn else slice(None), :])
    axes.semilogy(range(1, len(losses) + 1), losses, ".-", linewidth=1, markersize=2)
    axes.set(xlabel="training step", ylabel="cross-entropy (nats per symbol)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    for i, (step, written) in enumerate(drawn.items()):
        axes.plot(step, losses[step - 1], "o", color="black")
        axes.annotate("ABCDEF"[i], (step, losses[step - 1]), (4, 4), textcoords="offset points", size=11)
        small = figure.add_subplot(grid[0, i])
        image = draw_matrix(small, written._replace(places=[]))
        small.set(xticks=[], yticks=[])
        small.set_title(f"{'ABCDEF'[i]}: step {step}", size=10)
        output = text(written.output)
        small.set_xlabel(output if len(output) < 12 else output[:9] + "...", size=9, parse_math=False)
    if drawn:
        figure.colorbar(image, ax=small, label="attention weight", ticks=[0, 1])
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Experiments
# ---------------------------------------------------------------------------------------------------------------------


class Experiment(NamedTuple):
    """A question, put to several models that differ in what the question is about."""

    rows: dict[str, dict[str, object]]  # the name of each model, and what it changes of the settings
    measure: Callable[[Settings], dict]  # trains one model, in a process of its own, and returns what it measured
    columns: dict[str, str]  # what of that stands in the table, and in which format
    draw: Callable[[dict[str, list[dict]]], Figure]  # the measurements of each row's runs -> the figure
    runs: int = 3


def prepare_worker() -> None:
    """Set up a process for its runs."""
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports torch's compiler, which is no part of training


def run_rows(
    experiment: Experiment, settings: Settings, runs: int, workers: int
) -> Iterator[tuple[str, Settings, dict]]:
    """Measure every row with the seeds `settings.seed`, + 1, ..., and yield (row, its settings, measurements) as they end.

    The runs are independent processes, so the measurements, times apart, do not depend on how many `workers` there are.
    """
    jobs = [
        (row, settings._replace(**changes, seed=settings.seed + run))
        for row, changes in experiment.rows.items()
        for run in range(runs)
    ]
    jobs.sort(key=lambda job: -job[1].steps * job[1].max_length)  # the long ones first, so that all cores end together
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), prepare_worker) as pool:
        try:
            handler = signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # inherited: Ctrl-C is for the parent, to end them all
            futures = {pool.submit(experiment.measure, changed): (row, changed) for row, changed in jobs}
            signal.signal(signal.SIGINT, handler)
            for future in as_completed(futures):
                yield *futures[future], future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def median_and_range(values: list[float], form: str) -> str:
    """Return the median and the range of several runs, inf as "never" and nan as "none": 99.95 % (99.80-100.00)."""
    low, middle, high = (
        {math.inf: "never"}.get(value, form.format(value)) if value == value else "none"
        for value in (min(values), statistics.median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low}-{high})"


def markdown_table(experiment: Experiment, results: dict[str, list[dict]]) -> str:
    """Return a row for each model, with the median and the range of each column over its runs."""
    lines = [f"| model | {' | '.join(experiment.columns)} |", f"|---{'|--:' * len(experiment.columns)}|"]
    for row, runs in results.items():
        cells = [median_and_range([run[name] for run in runs], form) for name, form in experiment.columns.items()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


# What does a training budget buy, with one vector and with attention?


def measure_bottleneck(settings: Settings) -> dict:
    """Train for a budget of steps, and measure exact match by source length, a quarter beyond the trained ones too."""
    model = build_model(settings)
    *_, (_, seconds) = timed(train(model, settings))
    by_length = {}
    for length in range(settings.min_length, settings.max_length + settings.max_length // 4 + 1):
        strings = evaluation_strings(settings._replace(min_length=length, max_length=length), 500)
        by_length[length] = evaluate(model, *strings, settings.task).exact_match
    reached = [
        length for length in by_length if min(list(by_length.values())[: length - settings.min_length + 1]) >= 90
    ]
    return {
        "steps": settings.steps,
        "seconds": seconds,
        "exact match": evaluate(model, *evaluation_strings(settings), settings.task).exact_match,
        "at the longest": by_length[settings.max_length],
        "90 % right up to": max(reached, default=0),
        "by length": by_length,
        "longest": settings.max_length,
    }


def draw_bottleneck(results: dict[str, list[dict]]) -> Figure:
    """Draw exact match by source length, the median of the runs: a panel for each model, a line for each budget."""
    figure = Figure(figsize=(8, 4), dpi=150, layout="constrained")
    models = list(dict.fromkeys(row.rsplit(",", 1)[0] for row in results))
    for axes, model in zip(figure.subplots(1, len(models), sharey=True), models, strict=True):
        rows = [runs for row, runs in results.items() if row.rsplit(",", 1)[0] == model]
        for i, runs in enumerate(rows):
            lengths = list(runs[0]["by length"])
            exact = [statistics.median(run["by length"][length] for run in runs) for length in lengths]
            colour = colormaps["viridis_r"](0.15 + 0.85 * i / max(1, len(rows) - 1))
            axes.plot(lengths, exact, color=colour, marker="osD^v"[i % 5], markersize=4, label=f"{runs[0]['steps']:,}")
        axes.axvspan(runs[0]["longest"] + 0.5, lengths[-1] + 0.5, color="0.88")
        axes.text(runs[0]["longest"] + 0.8, 50, "never trained", rotation=90, va="center", size=9)
        axes.set_title(model, size=10)
        axes.set(xlabel="source length (symbols)", ylim=(-3, 103), xlim=(lengths[0] - 0.5, lengths[-1] + 0.5))
        axes.legend(title="steps", fontsize=9, loc="lower left")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("exact match (%)")
    return figure


ONE_VECTOR = {"attention": "none", "encoder": "forward", "noise": 0.0}  # what suits it best, tried one by one
BOTTLENECK = Experiment(
    rows={
        f"{name}, {steps:,} steps": {"steps": steps, **changes}
        for name, budgets, changes in (
            ("no attention, copying", (200, 400, 800, 1600, 3200), {**ONE_VECTOR, "task": "copy"}),
            ("no attention, reversing", (200, 400, 800, 1600, 3200), {**ONE_VECTOR, "task": "reverse"}),
            ("dot attention, reversing", (50, 100, 150, 400), {"task": "reverse"}),
        )
        for steps in budgets
    },
    measure=measure_bottleneck,
    columns={
        "seconds": "{:.1f}",
        "exact match": "{:.2f} %",
        "at the longest": "{:.1f} %",
        "90 % right up to": "{:.0f}",
    },
    draw=draw_bottleneck,
)


# What did each paper buy, in steps and in seconds?


def measure_history(settings: Settings) -> dict:
    """Train, with a look at 200 strings every 10 steps, outside the timing, and measure what the model needs."""
    model = build_model(settings)
    source, lengths = evaluation_strings(settings)
    curve = [(0, 0.0, 0.0)]  # steps, seconds, exact match
    for step, (_, seconds) in enumerate(timed(train(model, settings)), start=1):
        if step % 10 == 0:
            curve.append((step, seconds, evaluate(model, source[:200], lengths[:200], settings.task).exact_match))
    steps_to_90, seconds_to_90 = next(((*at,) for *at, exact in curve if exact >= 90), (math.inf, math.inf))
    evaluation = evaluate(model, source, lengths, settings.task)
    attends = evaluation.shifts is not None
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "ms per step": 1000 * seconds / settings.steps,
        "steps to 90 %": steps_to_90,
        "seconds to 90 %": seconds_to_90,
        "exact match": evaluation.exact_match,
        "alignment": evaluation.alignment if attends else math.nan,
        "with zeros for c_t": exact_match_looking(model, source, lengths, settings.task, None) if attends else math.nan,
        "curve": curve,
    }


def draw_history(results: dict[str, list[dict]]) -> Figure:
    """Draw exact match by step and by second: the median of the runs as a line, their range as a band."""
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = [("#D55E00", "-"), ("#009E73", "--"), ("#0072B2", "-"), ("#CC79A7", ":"), ("black", "-.")]
    for (row, runs), (colour, style) in zip(results.items(), looks, strict=True):
        steps, seconds, exact = np.moveaxis(np.array([run["curve"] for run in runs]), -1, 0)  # each (runs, looks)
        for axes, x in zip(panels, (steps, seconds), strict=True):
            axes.plot(np.median(x, axis=0), np.median(exact, axis=0), style, color=colour, label=row)
            axes.fill_between(np.median(x, axis=0), exact.min(axis=0), exact.max(axis=0), color=colour, alpha=0.15)
            axes.grid(alpha=0.3)
    panels[0].set(xlabel="training step", ylabel="exact match (%)")
    panels[1].set(xlabel="seconds of training")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    return figure


HISTORY = Experiment(
    rows={
        "no attention (Sutskever et al. 2014)": {**ONE_VECTOR, "teacher_forcing": 1.0},
        "additive (Bahdanau et al. 2015)": {"attention": "additive", "teacher_forcing": 1.0},
        "dot (Luong et al. 2015)": {"attention": "dot", "teacher_forcing": 1.0},
        "dot, half teacher forcing": {"attention": "dot", "teacher_forcing": 0.5},
        "dot, no teacher forcing": {"attention": "dot", "teacher_forcing": 0.0},
    },
    measure=measure_history,
    columns={
        "parameters": "{:,.0f}",
        "ms per step": "{:.1f}",
        "steps to 90 %": "{:.0f}",
        "seconds to 90 %": "{:.1f}",
        "exact match": "{:.2f} %",
        "alignment": "{:.2f} %",
        "with zeros for c_t": "{:.2f} %",
    },
    draw=draw_history,
    runs=5,
)


# When is the plot true, and what does the decoder do when it is not?


@torch.no_grad()
def exact_match_looking(model: Seq2Seq, source: Tensor, lengths: Tensor, task: str, columns_right: int | None) -> float:
    """Return exact match, in percent, when all weight is put so many columns to the right of the true source position.

    With None there is no weight at all, and the context is zeros. Else EOS, which comes from nowhere, keeps the weights
    that the model gives it, and a column outside the string is the last one inside. A string is decoded right exactly
    if each step is right after true ones, so one call with the true previous symbols tells.
    """
    target = make_targets(source, lengths, task)
    tokens, mask = previous_tokens(target), source != PAD
    keys, hidden = model.encoder(source, lengths)
    _, _, weights = model.decoder(tokens, hidden, keys, mask)
    if columns_right is None:
        weights = torch.zeros_like(weights)
    else:
        true = true_positions(lengths, target.size(1), task)
        column = torch.minimum((true + columns_right).clamp(min=0), lengths[:, None] - 1).to(source.device)
        weights = torch.where(target[..., None] > EOS, F.one_hot(column, source.size(1)), weights)
    query, _ = model.decoder.gru(model.decoder.embedding(tokens), hidden)
    logits = model.decoder.final_output(weights @ keys, query)
    return 100 * ((most_probable(logits) == target) | (target == PAD)).all(dim=1).double().mean().item()


@torch.no_grad()
def swap_test(model: Seq2Seq, settings: Settings, step: int) -> dict[str, float]:
    """Let the decoder read, at one step, another symbol than it should have written, and see where it looks then.

    All strings have the greatest length, and all other previous symbols are true. In the test the symbol stands
    elsewhere in the string, once, more than two places from the true one; in the control the string lacks it.

    A decoder that *looks up* what it read last goes to where that symbol stands (or to the place next to it, where the
    encoder has read both) and writes its neighbour; in the control it is lost. One that *counts* stays where it was.

    Returns shares of the strings, in percent.
    """
    source, lengths = evaluation_strings(settings._replace(min_length=settings.max_length))
    source, vocabulary = source.cpu(), FIRST_SYMBOL + len(settings.alphabet)
    generator = torch.Generator().manual_seed(0)
    onward = 1 if settings.task == "copy" else -1  # from a symbol's place to that of the next to be written
    true = int(true_positions(lengths[:1], step + 1, settings.task)[0, step])
    places = torch.arange(settings.max_length)
    once = (source[:, :, None] == source[:, None, :]).sum(dim=2) == 1
    inside = (places + onward >= 0) & (places + onward < settings.max_length)
    present = F.one_hot(source, vocabulary).sum(dim=1) > 0
    present[:, :FIRST_SYMBOL] = True  # PAD, SOS and EOS are no candidates for a symbol that the string lacks
    shares = {}
    for name, candidates in (("swap", once & inside & ((places - (true - onward)).abs() > 2)), ("control", ~present)):
        some = candidates.any(dim=1)
        chosen = torch.multinomial(candidates[some].double(), 1, generator=generator)
        strings, count = source[some], lengths[some]
        target = make_targets(strings, count, settings.task)
        tokens = previous_tokens(target)
        tokens[:, step] = (strings.gather(1, chosen) if name == "swap" else chosen)[:, 0]
        logits, weights = model(strings.to(settings.device), count, tokens.to(settings.device))
        column, symbol = weights[:, step].argmax(dim=-1).cpu(), most_probable(logits[:, step]).cpu()
        found = {"true column": column == true, "one right": column == true + 1}
        if name == "swap":
            neighbour = strings.gather(1, chosen + onward)[:, 0]
            found |= {"that symbol": column == chosen[:, 0], "next to it": column == chosen[:, 0] + onward}
            found |= {"writes its neighbour": symbol == neighbour}
        found |= {"writes the right one": symbol == target[:, step]}
        shares |= {f"{name}: {what}": 100 * hits.double().mean().item() for what, hits in found.items()}
    return shares


def measure_alignment(settings: Settings) -> dict:
    """Train, and measure where the decoder looks, what it does after a swap, and where it needs to look."""
    model = build_model(settings)
    for _ in train(model, settings):
        pass
    source, lengths = evaluation_strings(settings)
    evaluation = evaluate(model, source, lengths, settings.task)
    return {
        "exact match": evaluation.exact_match,
        **{f"{k:+d}" if k else "true": share for k, share in zip(SHIFTS, evaluation.shifts, strict=True)},
        "all on true": exact_match_looking(model, source, lengths, settings.task, 0),
        "all on +1": exact_match_looking(model, source, lengths, settings.task, 1),
        **swap_test(model, settings, settings.max_length // 2),
        "written": write(model, default_word(settings), settings),
    }


def draw_alignment(results: dict[str, list[dict]]) -> Figure:
    """Draw the matrix of a word for three models, and below each what a swapped-in symbol does to it."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 3, height_ratios=[3, 2])
    bars = {"true column": "true", "one right": "true", "that symbol": "that", "next to it": "next"}
    for matrix, axes, row in zip(above, below, DRAWN_ALIGNMENT, strict=True):
        runs = results[row]
        image = draw_matrix(matrix, runs[0]["written"])
        matrix.set_title(row, size=10)
        shares = np.array([[run[f"swap: {name}"] for name in bars] for run in runs])  # (runs, bars)
        axes.bar(range(len(bars)), np.median(shares, axis=0), color="#56B4E9")
        for run in shares:
            axes.plot(range(len(bars)), run, "o", color="black", markersize=4)
        axes.set(ylim=(0, 105))
        axes.set_xticks(range(len(bars)), bars, rotation=30, ha="right", size=9)
    above[0].set(ylabel="output symbol", xlabel="source symbol")
    below[0].set_ylabel("largest weight (% of strings)")
    figure.colorbar(image, ax=above, label="attention weight")
    return figure


FORWARD = {"encoder": "forward", "gates": "usual"}
DRAWN_ALIGNMENT = ("forward, std 1", "forward, std 1, noise 1", "the default")
ALIGNMENT = Experiment(
    rows={
        "forward, std 1": {**FORWARD, "embedding_std": 1.0, "noise": 0.0},
        "forward, std 1, noise 0.2": {**FORWARD, "embedding_std": 1.0, "noise": 0.2},
        "forward, std 1, noise 0.5": {**FORWARD, "embedding_std": 1.0, "noise": 0.5},
        "forward, std 1, noise 1": {**FORWARD, "embedding_std": 1.0, "noise": 1.0},
        "forward, std 0.2": {**FORWARD, "noise": 0.0},
        "forward, std 0.2, noise 0.2": {**FORWARD, "noise": 0.2},
        "forward, std 1, additive": {**FORWARD, "embedding_std": 1.0, "noise": 0.0, "attention": "additive"},
        "bidirectional, std 1": {"gates": "usual", "embedding_std": 1.0, "noise": 0.0},
        "the default": {},
    },
    measure=measure_alignment,
    columns={
        "exact match": "{:.2f}",
        **{name: "{:.1f}" for name in ("-1", "true", "+1", "all on true", "all on +1")},
        **{
            f"{name}": "{:.0f}"
            for name in (
                "swap: true column",
                "swap: one right",
                "swap: that symbol",
                "swap: next to it",
                "swap: writes the right one",
                "swap: writes its neighbour",
                "control: true column",
                "control: one right",
                "control: writes the right one",
            )
        },
    },
    draw=draw_alignment,
)
EXPERIMENTS = {"bottleneck": BOTTLENECK, "history": HISTORY, "alignment": ALIGNMENT}


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------

WORD = "attention"  # drawn where no --sequence is given and the alphabet has its letters


def default_word(settings: Settings) -> str:
    """Return the word that is drawn unless another is asked for: WORD, or one of the evaluation's if it has to be."""
    if set(WORD) <= set(settings.alphabet):
        return WORD
    source, lengths = evaluation_strings(settings)
    return "".join(settings.alphabet[token - FIRST_SYMBOL] for token in source[lengths.argmax()].tolist())


def exact_match_by_length(exact: Tensor, lengths: Tensor) -> str:
    """Return exact match for four groups of lengths, or as many as there are: 1-4 100.00%, 5-8 ..."""
    groups = np.array_split(lengths.unique().numpy(), min(4, len(lengths.unique())))
    parts = []
    for group in groups:
        inside = exact[(lengths >= group[0]) & (lengths <= group[-1])].double()
        parts.append(f"{'-'.join(map(str, sorted({group[0], group[-1]})))} {100 * inside.mean():.2f}%")
    return ", ".join(parts)


def run(settings: Settings, word: str, folder: Path) -> None:
    """Train one model, tell how it goes, and draw its figures."""
    lengths_told = f"{settings.min_length} to {settings.max_length} symbols from {settings.alphabet}"
    print(f"task: {settings.task} strings of {lengths_told}; word: {word}", flush=True)
    model, losses, snapshots = build_model(settings), [], {}
    moments = {max(1, settings.steps * eighths // 8) for eighths in (0, 1, 2, 3, 4, 8)}
    for step, (loss, seconds) in enumerate(timed(train(model, settings)), start=1):
        losses.append(loss)
        if step in moments or step % max(1, settings.steps // 16) == 0:
            written = write(model, word, settings)
            print(f"step {step} of {settings.steps}  loss {loss:.4f}  {word} -> {text(written.output)}", flush=True)
            snapshots |= {step: written} if step in moments else {}

    source, lengths = evaluation_strings(settings)
    evaluation = evaluate(model, source, lengths, settings.task)
    written = write(model, word, settings)
    figures = {"pytorch_seq2seq_loss.png": draw_loss(losses, snapshots)}
    if settings.attention != "none":
        print(f"\n{four_steps(model, word, settings)}\n\n{matrix_as_text(written)}\n" if len(word) <= READABLE else "")
        figures["pytorch_attention_matrix.png"] = draw_attention(written)
        figures["pytorch_decoding.gif"] = draw_decoding(written)
    if not settings.min_length <= len(word) <= settings.max_length:
        print(f"{word} has {len(word)} symbols: a length that this model was not trained on")
    print(f"exact match by length: {exact_match_by_length(evaluation.exact, lengths)}")
    right = int(evaluation.exact.sum())
    print(f"exact match: {evaluation.exact_match:.2f}% ({right} of {len(lengths)} strings)")
    if settings.attention != "none":
        _, left, true, right, _ = evaluation.shifts
        print(f"alignment: {true:.2f}% (one column left {left:.2f}%, right {right:.2f}%)")
    print(f"training time: {seconds:.1f} s")
    for name, figure in figures.items():
        save(figure, folder / name)


def run_experiment(experiment: Experiment, settings: Settings, runs: int, folder: Path, name: str) -> None:
    """Run every row of an experiment, print its table, and draw its figure."""
    start, done, results = time.perf_counter(), 0, {row: {} for row in experiment.rows}
    jobs = len(experiment.rows) * runs
    total = sum(settings._replace(**changes).steps for changes in experiment.rows.values()) * runs
    for count, (row, changed, measured) in enumerate(
        run_rows(experiment, settings, runs, os.cpu_count() or 1), start=1
    ):
        results[row][changed.seed] = measured
        done += changed.steps
        left = (time.perf_counter() - start) * (total - done) / done
        print(
            f"{count} of {jobs}: {row}, seed {changed.seed}: exact match {measured['exact match']:.2f}%  ({left:.0f} s left)",
            flush=True,
        )
    ordered = {row: [by_seed[seed] for seed in sorted(by_seed)] for row, by_seed in results.items()}
    print(f"\n{markdown_table(experiment, ordered)}\n")
    save(experiment.draw(ordered), folder / f"pytorch_{name}.png")


def save(figure: Figure | FuncAnimation, path: Path) -> None:
    """Write a figure or an animation to `path`, which is replaced only by a finished one, and print the path."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder) / path.name
        if isinstance(figure, FuncAnimation):
            figure.save(unfinished, writer=PillowWriter(fps=1))
        else:
            figure.savefig(unfinished)
        unfinished.replace(path)
    print(f"figure: {path}", flush=True)


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: a number of this kind (int or float) from `low` to `high`."""

    def parse(value: str) -> float:
        try:
            if low <= kind(value) <= high:
                return kind(value)
        except ValueError:
            pass
        sort = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"{value!a} is not a {sort} from {low} to {high}")

    return parse


def alphabet(value: str) -> str:
    """Return `value` if it can serve as the alphabet."""
    if len(value) < 2 or len(set(value)) < len(value) or not all("!" <= symbol <= "~" for symbol in value):
        raise argparse.ArgumentTypeError(f"{value!a} is not 2 or more different printable ASCII symbols without spaces")
    return value


def device(value: str) -> str:
    """Return `value` if PyTorch can compute there."""
    try:
        torch.zeros(1, device=value).tolist()
    except Exception as error:  # each kind of device that is missing has an exception of its own
        raise argparse.ArgumentTypeError(f"{value!a} is not a device that PyTorch can use here, like cpu") from error
    return value


# The settings as flags: type or choices, and what --help says.
FLAGS = {
    "steps": (number(int, 1, 10**6), "training steps"),
    "batch_size": (number(int, 1, 4096), "strings in a batch"),
    "lr": (number(float, 1e-9, 1e99), "peak of the learning rate, which rises and then falls to zero"),
    "hidden_size": (
        number(int, 2, 1024),
        "size of h_s and h_t, an even number: each direction of the encoder has half",
    ),
    "embedding_size": (number(int, 1, 1024), "size of a symbol's embedding"),
    "embedding_std": (number(float, 1e-9, 1e9), "standard deviation of the embeddings at the start"),
    "alphabet": (alphabet, "symbols of the strings"),
    "min_length": (number(int, 1, 512), "symbols in the shortest string"),
    "max_length": (number(int, 1, 512), "symbols in the longest string"),
    "task": (("reverse", "copy"), "what to do with a string"),
    "encoder": (("bidirectional", "forward"), "directions in which the encoder reads"),
    "gates": (("forgetful", "usual"), "how the encoder's update gates start"),
    "attention": (("dot", "additive", "none"), "how a key is scored, if at all"),
    "teacher_forcing": (number(float, 0, 1), "chance that a step of training reads the true previous symbol"),
    "noise": (number(float, 0, 1), "share of the symbols read in training that are replaced by random ones"),
    "seed": (number(int, 0, 2**32 - 1), "draws the weights and the strings"),
    "device": (device, "where PyTorch computes"),
}


def parse_arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace, Settings]:
    """Read and check the command line; a bad value ends the process with argparse's own error and exit status 2."""
    parser = argparse.ArgumentParser(
        description="Train a GRU encoder and an attention decoder to reverse strings.",
        argument_default=argparse.SUPPRESS,  # only what was given is in the result
        allow_abbrev=False,
    )
    for name, (allowed, meaning) in FLAGS.items():
        kind = {"choices": allowed} if isinstance(allowed, tuple) else {"type": allowed, "metavar": "VALUE"}
        default = Settings._field_defaults[name]
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"{meaning} (default: {default})", **kind)
    parser.add_argument("--sequence", metavar="TEXT", help=f"string to draw (default: {WORD}, or a random one)")
    parser.add_argument(
        "--experiment", choices=EXPERIMENTS, help="compare models instead: prints a table, draws a figure"
    )
    parser.add_argument(
        "--runs",
        type=number(int, 1, 100),
        metavar="N",
        help="seeds for each row of an experiment (default: 3; history: 5)",
    )
    assets = Path(__file__).resolve().parent / "assets"
    parser.add_argument("--assets", default=assets, metavar="DIR", help="where the figures go (default: %(default)s)")
    args = parser.parse_args(argv)
    given = vars(args)
    experiment = EXPERIMENTS.get(given.get("experiment"))
    chosen = (
        {name for changes in experiment.rows.values() for name in changes} | {"sequence"} if experiment else {"runs"}
    )
    for name, value in given.items():
        flag = f"argument --{name.replace('_', '-')}"
        if value == []:  # --steps=-- is no value, which argparse lets pass before Python 3.13
            parser.error(f"{flag}: expected one argument")
        if name in chosen:
            parser.error(f"{flag}: an experiment chooses it itself" if experiment else f"{flag}: takes an --experiment")
    settings = Settings(**{name: value for name, value in given.items() if name in FLAGS})
    if settings.min_length > settings.max_length:
        parser.error(f"argument --min-length: {settings.min_length} is more than --max-length, {settings.max_length}")
    if settings.hidden_size % 2:
        parser.error(f"argument --hidden-size: {settings.hidden_size} is not even")
    word = given.get("sequence")
    if word is not None and not (set(word) <= set(settings.alphabet) and 1 <= len(word) <= 512):
        parser.error(f"argument --sequence: {word!a} is not 1 to 512 symbols from {settings.alphabet!a}")
    return parser, args, settings


def main(argv: list[str] | None = None) -> None:
    """Run the script with the command line `argv`; a failure ends it with one line and the exit status."""
    torch.set_num_threads(1)  # the matrices are too small to share: two threads would mostly wait for each other
    parser, args, settings = parse_arguments(argv)
    try:
        folder = Path(args.assets or os.devnull)
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument --assets: {str(args.assets)!a} is not a folder that can be written: {error.strerror}")
    try:
        if "experiment" in args:
            experiment = EXPERIMENTS[args.experiment]
            run_experiment(experiment, settings, getattr(args, "runs", experiment.runs), folder, args.experiment)
        else:
            run(settings, getattr(args, "sequence", default_word(settings)), folder)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    except FloatingPointError as error:
        status, message = 1, f"{error}: try a smaller --lr than {settings.lr:g}"
    except BrokenPipeError:  # `| head` has read enough
        status, message = 141, ""
    except (OSError, MemoryError, RuntimeError) as error:
        status, message = 1, str(error).splitlines()[0]
        if "memory" in message:
            message = "not enough memory: try a smaller --batch-size, --max-length or --hidden-size"
    else:
        return
    sys.stdout = None  # what it could not print is lost
    parser.exit(status, message and f"{parser.prog}: error: {message}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tidies up on the way
    sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what an ASCII terminal cannot show
    main()
