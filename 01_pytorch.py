"""A GRU encoder and an attention decoder learn to reverse strings: sequence to sequence with attention, in PyTorch.

Reversal is the smallest task that shows attention at work: the first output symbol is the last input symbol, so a
decoder that looks at the right place draws an anti-diagonal. The file follows the README.

    python 01_pytorch.py                          trains for some seconds, reports, draws three figures in assets/
    python 01_pytorch.py --sequence hello         shows where the decoder looks as it reverses your own string
    python 01_pytorch.py --experiment alignment   when is such a picture true? trains some models, prints a table
"""

import argparse
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# --- The task: reverse a string --------------------------------------------------------------------------------------


class Settings(NamedTuple):
    """All that a run depends on: the flags (max_length is --max-length), what each means, and its choices or limits."""

    task: Annotated[str, "what to do with a string", "reverse", "copy"] = "reverse"
    alphabet: Annotated[str, "the symbols of the strings"] = "abcdefghijklmnopqrstuvwxyz"
    min_length: Annotated[int, "symbols in the shortest string", 1, 512] = 1
    max_length: Annotated[int, "symbols in the longest string", 1, 512] = 16
    encoder: Annotated[str, "how the encoder reads", "bidirectional", "forward"] = "bidirectional"
    gates: Annotated[str, "how the encoder's update gates start", "forgetful", "usual"] = "forgetful"
    attention: Annotated[str, "how a key is scored, if at all", "dot", "additive", "none"] = "dot"
    hidden_size: Annotated[int, "size of h_s and h_t, an even number", 2, 1024] = 64
    embedding_size: Annotated[int, "size of a symbol's embedding", 1, 1024] = 16
    embedding_std: Annotated[float, "standard deviation of the embeddings at the start", 1e-9, 100] = 0.2
    steps: Annotated[int, "training steps", 1, 10**6] = 400
    batch_size: Annotated[int, "strings in a batch", 1, 4096] = 64
    lr: Annotated[float, "peak of the learning rate, which rises and then falls to zero", 1e-9, 1e99] = 0.03
    teacher_forcing: Annotated[float, "chance that a step of training reads the true previous symbol", 0, 1] = 1.0
    noise: Annotated[float, "share of the previous symbols that are replaced by random ones in training", 0, 1] = 0.2
    seed: Annotated[int, "draws the weights and the strings", 0, 2**32 - 1] = 0
    device: Annotated[str, "where PyTorch computes"] = "cpu"


PAD, SOS, EOS = 0, 1, 2  # padding, start of sequence, end of sequence: tokens of their own
FIRST_SYMBOL = 3  # token FIRST_SYMBOL + i stands for symbol i of the alphabet
SHIFTS = (-2, -1, 0, 1, 2)  # columns from the true source position to the largest weight, left to right


def sample_sources(count: int, settings: Settings, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `count` random strings of the `--alphabet`, their lengths uniform from `--min-length` to `--max-length`.

    Returns (source, lengths): (B, S) tokens, padded with PAD after the last symbol, and (B,), both on the CPU.
    """
    lengths = torch.randint(settings.min_length, settings.max_length + 1, (count,), generator=generator)
    shape = (count, int(lengths.max()))
    source = torch.randint(FIRST_SYMBOL, FIRST_SYMBOL + len(settings.alphabet), shape, generator=generator)
    return source.masked_fill(torch.arange(shape[1]) >= lengths[:, None], PAD), lengths


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


# --- The encoder -----------------------------------------------------------------------------------------------------


class EncoderRNN(nn.Module):
    """A GRU (Cho et al. 2014) that turns each source position s into a state, h_s.

    By default one GRU reads forward and another backward, half the size each (Bahdanau et al. 2015, section 3.2), and
    h_s is both states side by side. A forward GRU alone has the symbol in its next state too, and a decoder can learn
    to attend there: `--experiment alignment` shows when it does.

    The update gate is the share of the old state that stays. "forgetful" ones start nearly closed: a state is then
    mostly its own symbol and learns to remember. PyTorch's own, `--gates usual`, start with a longer memory.
    """

    def __init__(self, embedding: nn.Embedding, settings: Settings) -> None:
        super().__init__()
        self.embedding = embedding
        directions = 2 if settings.encoder == "bidirectional" else 1
        size = settings.hidden_size // directions
        self.gru = nn.GRU(embedding.embedding_dim, size, batch_first=True, bidirectional=directions == 2)
        if settings.gates == "forgetful":
            for name, parameter in self.gru.named_parameters():
                if name.startswith("bias_ih"):
                    parameter.data[size : 2 * size] -= 2  # the update gate starts at about sigmoid(-2), an eighth

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, S) tokens with (B,) lengths, on the CPU, into outputs h_s (B, S, H) and a last state (1, B, H).

        Packing keeps PAD out of the recurrence: the last state is that of the last real symbol (and of the first, read
        backward), and a string's outputs are the same alone and in any batch. Outputs at PAD are zeros.
        """
        packed = pack_padded_sequence(self.embedding(source), lengths, batch_first=True, enforce_sorted=False)
        packed, last = self.gru(packed)
        outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=source.size(1))
        return outputs, torch.cat([*last], dim=-1)[None]


# --- Attention and the decoder ---------------------------------------------------------------------------------------


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

    The kinds of attention differ in their score alone. With `--attention none` the encoder's last state is all that the
    decoder ever learns of the source (Sutskever et al. 2014): the context is empty, and W_c half as wide.
    """

    def __init__(self, embedding: nn.Embedding, settings: Settings) -> None:
        super().__init__()
        size, attention = settings.hidden_size, settings.attention
        self.embedding = embedding
        self.gru = nn.GRU(embedding.embedding_dim, size, batch_first=True)
        self.W_c = nn.Linear(size if attention == "none" else 2 * size, size)
        self.W_s = nn.Linear(size, embedding.num_embeddings)
        self.score = dot_score if attention == "dot" else None
        if attention == "additive":
            self.score = AdditiveScore(size)  # made last, so that all else starts as it does with dot

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
        """Combine what was found with what was asked, both (B, T, H): Luong et al. 2015, equations 5, 6, with biases.

        Returns logits (B, T, vocabulary), what stands before the softmax in p(y_t | y_<t, x).
        """
        attentional = torch.tanh(self.W_c(torch.cat([context, query], dim=-1)))  # tanh(W_c [c_t ; h_t])      (B, T, H)
        return self.W_s(attentional)


class Seq2Seq(nn.Module):
    """An encoder and a decoder that share one embedding."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        embedding = nn.Embedding(FIRST_SYMBOL + len(settings.alphabet), settings.embedding_size)
        nn.init.normal_(embedding.weight, std=settings.embedding_std)
        self.encoder = EncoderRNN(embedding, settings)
        self.decoder = AttnDecoderRNN(embedding, settings)

    def forward(self, source: Tensor, lengths: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode `source` (B, S), read previous symbols, `tokens` (B, T); return the decoder's logits and weights."""
        keys, hidden = self.encoder(source, lengths)
        logits, _, weights = self.decoder(tokens, hidden, keys, source != PAD)
        return logits, weights


# --- Training --------------------------------------------------------------------------------------------------------


def build_model(settings: Settings) -> Seq2Seq:
    """Return an untrained model, its weights drawn from `--seed`."""
    torch.manual_seed(settings.seed)
    return Seq2Seq(settings).to(settings.device)


def with_noise(tokens: Tensor, noise: float, vocabulary: int) -> Tensor:
    """Replace each symbol, with probability `--noise`, by a random one (Xie et al. 2017); PAD, SOS and EOS stay.

    A decoder that can trust the previous symbol may find its place by looking for it, and err where symbols repeat.
    `--experiment alignment` shows what becomes of one that cannot.
    """
    replaced = (torch.rand(tokens.shape, device=tokens.device) < noise) & (tokens >= FIRST_SYMBOL)
    return torch.where(replaced, torch.randint_like(tokens, FIRST_SYMBOL, vocabulary), tokens)


def previous_tokens(target: Tensor) -> Tensor:
    """Return what the decoder has read when it must write `target`: SOS, then all but the last. (B, T) -> (B, T)."""
    return F.pad(target[:, :-1], (1, 0), value=SOS)


def most_probable(logits: Tensor) -> Tensor:
    """Return the most probable token, EOS or a symbol: PAD and SOS are never written. (..., vocabulary) -> (...)."""
    return EOS + logits[..., EOS:].argmax(dim=-1)


def training_logits(model: Seq2Seq, source: Tensor, lengths: Tensor, target: Tensor, settings: Settings) -> Tensor:
    """Return the logits (B, T, vocabulary) for every step of `target` (B, T), teacher-forced (Williams & Zipser 1989).

    With `--teacher-forcing 1` all steps go through the decoder in one call. Below 1 they go one by one, and each reads
    the true symbol with that probability, else what the model has written (scheduled sampling, S. Bengio et al. 2015,
    at a constant rate).
    """
    vocabulary = model.decoder.embedding.num_embeddings
    true = previous_tokens(target)
    if settings.teacher_forcing == 1:
        return model(source, lengths, with_noise(true, settings.noise, vocabulary))[0]
    keys, hidden = model.encoder(source, lengths)
    forced = torch.rand(target.shape, device=target.device) < settings.teacher_forcing
    own, steps = true[:, :1], []
    for t in range(target.size(1)):
        read = torch.where(forced[:, t : t + 1], true[:, t : t + 1], own)
        logits, hidden, _ = model.decoder(with_noise(read, settings.noise, vocabulary), hidden, keys, source != PAD)
        own = most_probable(logits)
        steps.append(logits)
    return torch.cat(steps, dim=1)


def train(model: Seq2Seq, settings: Settings) -> Iterator[float]:
    """Train the model, and yield the loss of each step: cross-entropy per symbol in nats, EOS counted, PAD not.

    Gradients longer than 1 are clipped to 1, for those of a recurrent network grow with the length.

    Raises FloatingPointError at the first step after which the weights are NaN, infinite or more than 10,000 long.
    """
    strings = torch.Generator().manual_seed(2**32 - 1 - settings.seed)  # never the seed of the weights
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    progress = (np.arange(settings.steps + 1) + 0.5) / settings.steps
    shares = np.minimum(progress / 0.2, (1 - progress) / 0.8)  # the learning rate: up for a fifth, then down to zero
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shares.item)
    for step in range(1, settings.steps + 1):
        source, lengths = sample_sources(settings.batch_size, settings, strings)
        source = source.to(settings.device)
        target = make_targets(source, lengths, settings.task)
        logits = training_logits(model, source, lengths, target, settings)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1)
        optimizer.step()
        schedule.step()
        if not nn.utils.get_total_norm(model.parameters()) < 1e4:
            raise FloatingPointError(f"training diverged at step {step} of {settings.steps}, loss {loss.item():g}")
        yield loss.item()


def timed(losses: Iterator[float]) -> Iterator[tuple[float, float]]:
    """Yield each loss with the seconds of training so far; what the caller does in between does not count."""
    seconds, start = 0.0, time.perf_counter()
    for loss in losses:
        seconds += time.perf_counter() - start
        yield loss, seconds
        start = time.perf_counter()


# --- Greedy decoding and the metrics ---------------------------------------------------------------------------------


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
    return torch.cat(tokens, dim=1), None if weights is None else torch.cat(rows, dim=1)


def evaluate(model: Seq2Seq, source: Tensor, lengths: Tensor, task: str) -> tuple[float, list[float] | None]:
    """Decode N strings, (N, S) tokens with (N,) lengths, and compare them with what they should have become.

    Returns exact match, the percentage of strings right as a whole, EOS included, and for each of SHIFTS the percentage
    of output symbols (those with a true source position) whose largest weight is off by it; without attention None.
    """
    target = make_targets(source, lengths, task)
    tokens, weights = greedy_decode(model, source, lengths, max_steps=target.size(1))
    padded = F.pad(tokens, (0, target.size(1) - tokens.size(1)), value=PAD)
    exact_match = 100 * (padded == target).all(dim=1).double().mean().item()
    if weights is None:
        return exact_match, None
    true = true_positions(lengths, tokens.size(1), task).to(tokens.device)
    shift = (weights.argmax(dim=-1) - true)[(true >= 0) & (tokens > EOS)]
    return exact_match, [100 * (shift == k).sum().item() / max(1, len(shift)) for k in SHIFTS]


def evaluation_strings(settings: Settings, count: int = 2000) -> tuple[Tensor, Tensor]:
    """Draw the strings of the evaluation: the same for every seed, independent of those in training.

    Independent is not unseen: at the default settings 12 % of the 2,000 occur in training, those of 1 to 3 symbols.
    """
    strings = torch.Generator().manual_seed(987654321)  # few will train with the seed that draws the same
    source, lengths = sample_sources(count, settings, strings)
    return source.to(settings.device), lengths


# --- Figures and what the terminal shows -----------------------------------------------------------------------------


class Written(NamedTuple):
    """What a model made of one word, and where it looked."""

    word: str
    output: str
    labels: list[str]  # of the rows: the symbols of the output, and EOS, if it was written
    weights: np.ndarray | None  # (T, S), or None without attention
    places: list[int]  # the source position that each symbol should come from


def encode(word: str, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return (source, lengths) of one word: (1, S) tokens and (1,)."""
    tokens = [FIRST_SYMBOL + settings.alphabet.index(symbol) for symbol in word]
    return torch.tensor([tokens], device=settings.device), torch.tensor([len(word)])


def write(model: Seq2Seq, word: str, settings: Settings) -> Written:
    """Decode one word greedily, for 2 len + 1 steps if no EOS comes."""
    source, lengths = encode(word, settings)
    tokens, weights = greedy_decode(model, source, lengths, max_steps=2 * len(word) + 1)
    output = "".join(settings.alphabet[token - FIRST_SYMBOL] for token in tokens[0].tolist() if token != EOS)
    places = true_positions(lengths, len(word), settings.task)[0].tolist()
    labels = [*output, "EOS"][: tokens.size(1)]
    return Written(word, output, labels, None if weights is None else weights[0].cpu().numpy(), places)


def matrix_as_text(written: Written) -> str:
    """Return the attention matrix in ASCII, five shades from blank to @, a row for each output symbol."""
    lines = ["     " + " ".join(written.word)]
    for label, weights in zip(written.labels, written.weights, strict=True):
        lines.append(f"{label:>3}  " + " ".join(" .:*@"[min(4, int(5 * weight))] for weight in weights).rstrip())
    return "\n".join(lines)


@torch.no_grad()
def four_steps(model: Seq2Seq, word: str, settings: Settings) -> str:
    """Return the numbers of the four steps that write the third output symbol, or EOS, if there are fewer."""
    source, lengths = encode(word, settings)
    tokens = previous_tokens(greedy_decode(model, source, lengths, max_steps=len(word) + 1)[0])[:, :3]
    keys, hidden = model.encoder(source, lengths)
    query, _ = model.decoder.gru(model.decoder.embedding(tokens), hidden)
    scores = model.decoder.score(query, keys)
    context, weights = attend(scores, keys, source != PAD)
    lines = [f"output symbol {tokens.size(1)}:", "  s  symbol    score  weight"]
    for s, (symbol, score, weight) in enumerate(zip(word, scores[0, -1], weights[0, -1], strict=True)):
        lines.append(f" {s:>2}  {symbol:<6}  {score:7.2f}  {weight:6.3f}")
    for name, c_t in (("the context", context), ("zeros in its place", torch.zeros_like(context))):
        best = model.decoder.final_output(c_t, query)[0, -1].softmax(dim=-1)[EOS:].topk(3)
        found = [f"{['EOS', *settings.alphabet][i]} {p:.3f}" for p, i in zip(*best, strict=True)]
        lines.append(f"next symbol with {name}: {', '.join(found)}")
    return "\n".join(lines)


def draw_matrix(axes: Axes, written: Written, rows: int = sys.maxsize, readable: int = 40) -> AxesImage:
    """Draw the weights, (T, S), or their first `rows`: a row for each output symbol, a column for each source symbol.

    A ring marks where each symbol comes from, so that a picture one column off is seen to be. A word of more than
    `readable` symbols has positions in their place, and no rings.
    """
    word, labels = written.word, written.labels
    shown = np.where(np.arange(len(labels))[:, None] < rows, written.weights, math.nan)
    image = axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set(autoscale_on=False, xlabel="source symbol", ylabel="output symbol")
    if len(word) <= readable:
        places = written.places[: min(rows, len(written.output))]
        for color, width in (("white", 3.5), ("tab:red", 1.5)):
            ring = {"markeredgecolor": color, "markeredgewidth": width, "markersize": min(10, 240 / len(word))}
            axes.plot(places, range(len(places)), "o", markerfacecolor="none", **ring)
        axes.set_xticks(range(len(word)), list(word), parse_math=False)
    if len(labels) <= readable + 1:
        axes.set_yticks(range(len(labels)), [*labels[:rows], *[""] * (len(labels) - rows)], parse_math=False)
    return image


def draw_attention(written: Written) -> Figure:
    """Draw the attention matrix of the trained model."""
    figure = Figure(figsize=(8, 7), dpi=150, layout="constrained")
    axes = figure.subplots()
    figure.colorbar(draw_matrix(axes, written), label="attention weight")
    axes.set_title("Where the decoder looks" + " (rings: where the symbols come from)" * bool(axes.lines), size=11)
    return figure


def draw_decoding(written: Written) -> FuncAnimation:
    """Animate how the decoder writes the word, some symbols a frame if they are many, after a rest on the whole."""
    figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    bars, matrix = figure.subplots(1, 2)
    figure.colorbar(draw_matrix(matrix, written), label="attention weight")
    frames = np.unique(np.linspace(0, len(written.weights), 17).astype(int)).tolist()

    def draw_frame(rows: int) -> None:
        bars.clear()
        matrix.clear()
        draw_matrix(matrix, written, rows, readable=20)
        weights = written.weights[rows - 1] if rows else np.zeros(len(written.word))
        bars.bar(range(len(written.word)), weights, color="#E69F00")
        bars.set(ylim=(0, 1), xlabel="source symbol", ylabel="attention weight", xlim=matrix.get_xlim())
        if len(written.word) <= 20:
            bars.set_xticks(range(len(written.word)), list(written.word), parse_math=False)
        bars.set_title("writes: " + " ".join(written.labels[:rows][-14:]), loc="left", size=12, parse_math=False)

    draw_frame(frames[-1])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is laid out for the last frame stays where it is in all
    return FuncAnimation(figure, draw_frame, frames=[*[frames[-1]] * 3, *frames[:-1]])


def draw_loss(losses: list[float], snapshots: dict[int, Written]) -> Figure:
    """Draw the loss of every step, and above it what the model made of a word at some of them: {step: Written}."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 2]) if snapshots else (None, figure)
    axes = below.subplots()
    axes.semilogy(range(1, len(losses) + 1), losses, "." if len(losses) < 3 else "-", linewidth=1)
    axes.set(xlabel="training step", ylabel="cross-entropy (nats per symbol)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if not snapshots:
        return figure
    panels = above.subplots(1, len(snapshots), squeeze=False)[0]
    for letter, panel, (step, written) in zip("ABCDEF", panels, snapshots.items(), strict=False):
        axes.plot(step, losses[step - 1], "o", color="black")
        axes.annotate(letter, (step, losses[step - 1]), (-11, -13), textcoords="offset points", size=11)
        image = draw_matrix(panel, written._replace(places=[]))
        panel.set(xticks=[], yticks=[], ylabel="")
        panel.set_title(f"{letter}: step {step}", size=10)
        output = written.output if len(written.output) < 13 else written.output[:10] + "..."
        panel.set_xlabel(output, size=9, parse_math=False)
    above.colorbar(image, ax=panels[-1], label="weight", ticks=[0, 1])
    return figure


# --- Experiments -----------------------------------------------------------------------------------------------------


class Experiment(NamedTuple):
    """A question, put to several models that differ in what the question is about."""

    rows: dict[str, dict[str, object]]  # the name of each model, and what it changes of the settings
    measure: Callable[[Settings], dict]  # trains one model and returns what it measured
    draw: Callable[[dict[str, list[dict]]], Figure]  # what the runs of each row have measured -> the figure
    runs: int = 3


def prepare_process() -> None:
    """Set up a process for training."""
    torch.set_num_threads(1)  # the matrices are too small to share: two threads would mostly wait for each other
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports torch's compiler, which is no part of training
    if parent := multiprocessing.parent_process():  # if that is killed, this one ends, too
        threading.Thread(target=lambda: parent.join() or os._exit(1), daemon=True).start()


def run_rows(experiment: Experiment, settings: Settings, runs: int, workers: int) -> Iterator[tuple]:
    """Measure each row with `runs` seeds, from that of the settings on; yield (row, its settings, what it measured).

    They come as they end. Each seeds all that it draws, so that but for times nothing depends on the `workers`.
    """
    seeds = range(settings.seed, settings.seed + runs)
    jobs = [(row, settings._replace(**new, seed=seed)) for row, new in experiment.rows.items() for seed in seeds]
    jobs.sort(key=lambda job: -job[1].steps)  # the long ones first, so that all cores end together
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), prepare_process) as pool:
        try:
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for this process alone
            futures = {pool.submit(experiment.measure, changed): (row, changed) for row, changed in jobs}
            signal.signal(signal.SIGINT, handler)
            for future in as_completed(futures):
                yield *futures[future], future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def median_and_range(values: list[float]) -> str:
    """Return the median and the range of some runs, inf as "never" and nan as "none": 99.95 (99.8 to 100)."""
    numbers = [f"{x:,.2f}".rstrip("0").rstrip(".") for x in (np.median(values), min(values), max(values))]
    middle, low, high = ({"inf": "never", "nan": "none"}.get(number, number) for number in numbers)
    return middle if low == high else f"{middle} ({low} to {high})"


def markdown_table(results: dict[str, list[dict]]) -> str:
    """Return a line for each row of an experiment: the median and the range of each number that its runs measured."""
    columns = [name for name, value in next(iter(results.values()))[0].items() if isinstance(value, int | float)]
    lines = [f"| model | {' | '.join(columns)} |", f"|---{'|--:' * len(columns)}|"]
    for row, runs in results.items():
        lines.append(f"| {row} | {' | '.join(median_and_range([run[name] for run in runs]) for name in columns)} |")
    return "\n".join(lines)


def measure_bottleneck(settings: Settings) -> dict:
    """Train for a budget of steps and see what it buys: exact match, by source length, a quarter beyond training."""
    model = build_model(settings)
    *_, (_, seconds) = timed(train(model, settings))
    exact = {}
    for length in range(settings.min_length, math.ceil(1.25 * settings.max_length) + 1):
        strings = evaluation_strings(settings._replace(min_length=length, max_length=length), 500)
        exact[length], _ = evaluate(model, *strings, settings.task)
    return {
        "steps": settings.steps,
        "seconds": seconds,
        "exact match": evaluate(model, *evaluation_strings(settings), settings.task)[0],
        "at the longest trained": exact[settings.max_length],
        "90 % right up to length": max((n for n in exact if min(exact[m] for m in exact if m <= n) >= 90), default=0),
        "by length": {length: share for length, share in exact.items() if length <= settings.max_length},
        "beyond": {length: share for length, share in exact.items() if length > settings.max_length},
    }


def draw_bottleneck(results: dict[str, list[dict]]) -> Figure:
    """Draw exact match by source length, the median of the runs: a panel for each model, a line for each budget."""
    figure = Figure(figsize=(8, 6.5), dpi=150, layout="constrained")
    panels = dict(zip(BUDGETS, figure.subplots(2, 3, sharex=True, sharey=True).flat, strict=True))
    budgets = sorted({runs[0]["steps"] for runs in results.values()})
    drawn = {}
    for row, runs in results.items():
        i, axes = budgets.index(runs[0]["steps"]), panels[row.rsplit(",", 1)[0]]
        curves = [{**run["by length"], **run["beyond"]} for run in runs]
        lengths, exact = list(curves[0]), np.median([list(curve.values()) for curve in curves], axis=0)
        look = {"color": colormaps["viridis_r"](0.2 + 0.8 * i / len(budgets)), "marker": "os^vDP*X"[i], "markersize": 4}
        (drawn[budgets[i]],) = axes.plot(lengths, exact, label=f"{budgets[i]} steps", **look)
    edge = max(runs[0]["by length"]) + 0.5
    for model, axes in panels.items():
        axes.axvspan(edge, lengths[-1] + 0.5, color="0.88")
        axes.text(lengths[-1] + 0.3, 99, "never trained", rotation=90, ha="right", va="top", size=9)
        axes.set_title(model, size=10)
        axes.set(ylim=(-3, 103), xlim=(lengths[0] - 0.5, lengths[-1] + 0.5))
        axes.set(xlabel="source length (symbols)", ylabel="exact match (%)")
        axes.label_outer()
        axes.grid(alpha=0.3)
    figure.legend(handles=[drawn[n] for n in budgets], loc="outside lower center", ncols=4)
    return figure


ONE_VECTOR = {"attention": "none", "encoder": "forward", "noise": 0.0}  # what suits a model without attention best
BUDGETS = {
    "no attention, copying": ((200, 400, 800, 1600, 3200), {**ONE_VECTOR, "task": "copy"}),
    "no attention, reversing": ((200, 400, 800, 1600, 3200), ONE_VECTOR),
    "the same, twice the vector": ((200, 400, 800, 1600), {**ONE_VECTOR, "hidden_size": 128, "lr": 0.02}),
    "dot attention, copying": ((50, 100, 150, 400), {"task": "copy"}),
    "dot attention, reversing": ((50, 100, 150, 400), {}),
    "the same, half the vector": ((50, 100, 150, 400), {"hidden_size": 32}),
}
BOTTLENECK = Experiment(
    {f"{model}, {n} steps": {**changes, "steps": n} for model, (budgets, changes) in BUDGETS.items() for n in budgets},
    measure_bottleneck,
    draw_bottleneck,
)


def measure_history(settings: Settings) -> dict:
    """Train, with an untimed look at 200 strings every 10 steps, and see what a paper bought, in steps and seconds."""
    model, strings = build_model(settings), evaluation_strings(settings)
    some = [part[:200] for part in strings]
    curve = [(0, 0.0, 0.0)]  # steps, seconds, exact match
    for step, (_, seconds) in enumerate(timed(train(model, settings)), start=1):
        if step % 10 == 0:
            curve.append((step, seconds, evaluate(model, *some, settings.task)[0]))
    steps_to_90, seconds_to_90, _ = next((look for look in curve if look[2] >= 90), [math.inf] * 3)
    exact_match, shifts = evaluate(model, *strings, settings.task)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "ms per step": 1000 * seconds / settings.steps,
        "steps to 90 %": steps_to_90,
        "seconds to 90 %": seconds_to_90,
        "exact match": exact_match,
        "alignment": shifts[SHIFTS.index(0)] if shifts else math.nan,
        "with zeros for c_t": exact_match_attending(model, *strings, settings.task, None) if shifts else math.nan,
        "curve": curve,
    }


def draw_history(results: dict[str, list[dict]]) -> Figure:
    """Draw exact match by step and by second: the median of the runs as a line, their range as a band."""
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = [("#D55E00", "-"), ("#009E73", "--"), ("#0072B2", "-"), ("#CC79A7", ":"), ("black", "-.")]
    for (row, runs), (color, style) in zip(results.items(), looks, strict=True):
        curves = np.array([run["curve"] for run in runs])  # (runs, looks, 3)
        median, low, high = np.median(curves, axis=0), curves.min(axis=0)[:, 2], curves.max(axis=0)[:, 2]
        for axes, x in zip(panels, median.T[:2], strict=True):
            axes.plot(x, median[:, 2], style, color=color, label=row)
            axes.fill_between(x, low, high, color=color, alpha=0.15)
            axes.grid(alpha=0.3)
    panels[0].set(xlabel="training step", ylabel="exact match (%)")
    panels[1].set(xlabel="seconds of training")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


HISTORY = Experiment(  # each at its best exact match over the learning rates 0.01, 0.02, 0.03, 0.05 and noise 0, 0.2
    {
        "no attention (Sutskever et al. 2014)": {**ONE_VECTOR, "teacher_forcing": 1.0},
        "additive (Bahdanau et al. 2015)": {"attention": "additive", "lr": 0.02},
        "dot (Luong et al. 2015)": {"attention": "dot"},
        "dot, half teacher forcing": {"attention": "dot", "teacher_forcing": 0.5},
        "dot, no teacher forcing": {"attention": "dot", "teacher_forcing": 0.0, "lr": 0.01},
    },
    measure_history,
    draw_history,
    runs=5,
)


@torch.no_grad()
def exact_match_attending(model: Seq2Seq, source: Tensor, lengths: Tensor, task: str, shift: int | None) -> float:
    """Return exact match, in percent, when all weight is put `shift` columns to the right of the true source position.

    With None the context is zeros. Else EOS, which has no true position, keeps the weights that the model gives it, and
    a column outside the string is the nearest one inside. A string is decoded right exactly if each step is right after
    true ones, so that one call with the true previous symbols tells.
    """
    target = make_targets(source, lengths, task)
    tokens = previous_tokens(target)
    keys, hidden = model.encoder(source, lengths)
    _, _, weights = model.decoder(tokens, hidden, keys, source != PAD)
    if shift is None:
        weights = torch.zeros_like(weights)
    else:
        column = (true_positions(lengths, target.size(1), task) + shift).clamp(min=0).minimum(lengths[:, None] - 1)
        one_hot = F.one_hot(column.to(source.device), source.size(1))
        weights = torch.where(target[..., None] > EOS, one_hot, weights)
    query, _ = model.decoder.gru(model.decoder.embedding(tokens), hidden)
    right = most_probable(model.decoder.final_output(weights @ keys, query)) == target
    return 100 * (right | (target == PAD)).all(dim=1).double().mean().item()


@torch.no_grad()
def swap_test(model: Seq2Seq, settings: Settings) -> dict[str, float]:
    """Let the decoder read, at one step in the middle, another symbol than the true previous one; see where it looks.

    swap: the symbol stands in the string, once, more than two places from the true previous one.
    repeat: nothing is swapped, but the true symbol stands elsewhere, too, as far away.
    control: the string lacks the symbol.
    All strings have the greatest length, and all other steps read the true symbol.

    A decoder that *looks up* what it read last goes to where that symbol stands (or next to it, if the state there has
    read that symbol too) and writes its neighbour; in the control it is lost. One that *counts* stays where it was.

    Returns the shares of strings, in percent, nan where no string allows the test.
    """
    source, lengths = evaluation_strings(settings._replace(min_length=settings.max_length))
    step, generator = max(1, settings.max_length // 2), torch.Generator(source.device).manual_seed(0)
    true, onward = (step, 1) if settings.task == "copy" else (settings.max_length - 1 - step, -1)
    places = torch.arange(settings.max_length, device=source.device)
    # More than two places away, and with a neighbour to be written next.
    far = ((places - (true - onward)).abs() > 2) & (places != (places[-1] if settings.task == "copy" else 0))
    once = (source[:, :, None] == source[:, None]).sum(dim=2) == 1  # (N, S)
    again = source == source[:, true - onward, None]  # the true previous symbol, elsewhere
    lacking = F.one_hot(source, FIRST_SYMBOL + len(settings.alphabet)).sum(dim=1) == 0  # (N, vocabulary)
    lacking[:, :FIRST_SYMBOL] = False
    target, shares = make_targets(source, lengths, settings.task), {}
    for name, candidates in (("swap", once & far), ("repeat", again & far), ("control", lacking)):
        chosen = torch.rand(candidates.shape, device=source.device, generator=generator).mul(candidates).argmax(dim=1)
        tokens = previous_tokens(target)
        tokens[:, step] = chosen if name == "control" else source.gather(1, chosen[:, None])[:, 0]
        logits, weights = model(source, lengths, tokens)
        column, symbol = weights[:, step].argmax(dim=-1), most_probable(logits[:, step])
        found = {"stays": column == true, "one column right": column == true + 1}
        if name != "control":
            found |= {"on that symbol": column == chosen, "next to it": column == chosen + onward}
            neighbour = (chosen + onward).clamp(0, settings.max_length - 1)
            found |= {"writes its neighbour": symbol == source.gather(1, neighbour[:, None])[:, 0]}
        found["writes the right one"] = symbol == target[:, step]
        possible = candidates.any(dim=1) & (settings.max_length > 1)
        shares |= {f"{name}: {what}": 100 * hits[possible].double().mean().item() for what, hits in found.items()}
    return shares


def measure_alignment(settings: Settings) -> dict:
    """Train, and see whether the picture is true: where the decoder looks, needs to look, and goes after a swap.

    Our reading: a previous symbol that never lies and large embeddings, which make each state show its symbol, invite
    the look-up. It ends on a state that has read both the previous symbol and the next. When reversing, that is one
    column right of the true one in a forward encoder, and the true one in a bidirectional encoder; when copying, the
    true one in either. Much the same is an induction head (Olsson et al. 2022). With enough noise the model counts.
    """
    model, strings = build_model(settings), evaluation_strings(settings)
    list(train(model, settings))
    exact_match, shifts = evaluate(model, *strings, settings.task)
    return {
        "exact match": exact_match,
        **{f"{k:+d}" if k else "true column": share for k, share in zip(SHIFTS, shifts, strict=True)},
        "exact, all weight on true": exact_match_attending(model, *strings, settings.task, 0),
        "exact, all on +1": exact_match_attending(model, *strings, settings.task, 1),
        **swap_test(model, settings),
        "written": write(model, default_word(settings), settings),
    }


def draw_alignment(results: dict[str, list[dict]]) -> Figure:
    """Draw the matrix of a word for three models, and below each where it looks after a swap: median and runs."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, 3, height_ratios=[3, 2])
    names = ["stays", "one column right", "on that symbol", "next to it"]
    drawn = ("forward, std 1, noise 0", "forward, std 1, noise 1", "the default")
    for matrix, axes, row in zip(above, below, drawn, strict=True):
        image = draw_matrix(matrix, results[row][0]["written"])
        matrix.set_title(row, size=10)
        shares = np.array([[run[f"swap: {name}"] for name in names] for run in results[row]])  # (runs, 4)
        axes.bar(range(4), np.median(shares, axis=0), color="#56B4E9")
        axes.plot(range(4), shares.T, "o", color="black", markersize=4)
        axes.set_ylim(-5, 105)
        axes.set_xticks(range(4), names, rotation=30, ha="right")
    below[0].set_ylabel("after a swap (% of strings)")
    figure.colorbar(image, ax=above, label="attention weight")
    return figure


USUAL = {"encoder": "forward", "gates": "usual", "embedding_std": 1.0, "noise": 0.0}  # as it is usually written
ALIGNMENT = Experiment(
    {
        **{f"forward, std 1, noise {noise:g}": USUAL | {"noise": noise} for noise in (0.0, 0.2, 0.5, 1.0)},
        **{f"forward, std 0.2, noise {n:g}": USUAL | {"embedding_std": 0.2, "noise": n} for n in (0.0, 0.2)},
        "forward, std 1, noise 0, copying": USUAL | {"task": "copy"},
        "forward, std 1, noise 0, additive": USUAL | {"attention": "additive"},
        "forward, std 1, noise 0, forgetful": USUAL | {"gates": "forgetful"},
        "bidirectional, std 1, noise 0": USUAL | {"encoder": "bidirectional"},
        "the default": {},
    },
    measure_alignment,
    draw_alignment,
)
EXPERIMENTS = {"bottleneck": BOTTLENECK, "history": HISTORY, "alignment": ALIGNMENT}


# --- Command line ----------------------------------------------------------------------------------------------------


def default_word(settings: Settings) -> str:
    """Return the word that is drawn where no --sequence is given."""
    fits = set("attention") <= set(settings.alphabet) and settings.min_length <= 9 <= settings.max_length
    return "attention" if fits else (settings.alphabet * settings.max_length)[: settings.max_length]


def run(settings: Settings, word: str, folder: Path) -> None:
    """Train one model, show how it goes, and draw its figures."""
    lengths = f"{settings.min_length} to {settings.max_length} symbols"
    print(f"task: {settings.task} strings of {lengths} from {settings.alphabet}", flush=True)
    model, losses, snapshots = build_model(settings), [], {}
    moments = {max(1, settings.steps * eighths // 8) for eighths in (0, 1, 2, 3, 4, 8)}
    for step, (loss, seconds) in enumerate(timed(train(model, settings)), start=1):  # noqa: B007
        losses.append(loss)
        if step in moments or step % max(1, settings.steps // 16) == 0:
            written = write(model, word, settings)
            print(f"step {step} of {settings.steps}  loss {loss:.4f}  {word} -> {written.output}", flush=True)
            snapshots |= {step: written} if step in moments and model.decoder.score else {}
    exact_match, shifts = evaluate(model, *evaluation_strings(settings), settings.task)
    if shifts:
        text = f"{four_steps(model, word, settings)}\n\n{matrix_as_text(written)}"
        print(f"\n{text if len(word) < 38 else 'The word is too long for 80 columns: see the figure.'}\n")
    if not settings.min_length <= len(word) <= settings.max_length:
        print(f"{word} has {len(word)} symbols: a length that this model was not trained on")
    if shifts:
        histogram = ", ".join(f"{k:+d} {share:.2f}%" for k, share in zip(SHIFTS, shifts, strict=True))
        print(f"off the true column by: {histogram}")
    print(f"exact match: {exact_match:.2f}% ({round(20 * exact_match)} of 2000 strings)")
    if shifts:
        print(f"alignment: {shifts[2]:.2f}% (one column left {shifts[1]:.2f}%, right {shifts[3]:.2f}%)")
    print(f"training time: {seconds:.1f} s")
    save(draw_loss(losses, snapshots).savefig, folder / "pytorch_seq2seq_loss.png")
    if shifts:
        save(draw_attention(written).savefig, folder / "pytorch_attention_matrix.png")
        save(lambda at: draw_decoding(written).save(at, writer=PillowWriter(fps=1)), folder / "pytorch_decoding.gif")


def run_experiment(name: str, settings: Settings, runs: int, folder: Path) -> None:
    """Run all rows of an experiment, print its table, and draw its figure."""
    experiment, start, done = EXPERIMENTS[name], time.perf_counter(), 0
    total = runs * sum(settings._replace(**changes).steps for changes in experiment.rows.values())
    results = {row: [{}] * runs for row in experiment.rows}
    measurements = run_rows(experiment, settings, runs, workers=os.cpu_count() or 1)
    for count, (row, changed, measured) in enumerate(measurements, start=1):
        results[row][changed.seed - settings.seed] = measured
        done += changed.steps
        left = (time.perf_counter() - start) * (total / done - 1)
        ended = f"{row}, seed {changed.seed}: exact match {measured['exact match']:.2f}%"
        print(f"{count} of {runs * len(results)}  {ended}  (about {left:.0f} s left)", flush=True)
    print(f"\n{markdown_table(results)}\n")
    save(experiment.draw(results).savefig, folder / f"pytorch_{name}.png")


def save(write_to: Callable[[Path], None], path: Path) -> None:
    """Write a figure to `path`, which is replaced only by a finished one, and print the path."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder) / path.name
        write_to(unfinished)
        unfinished.replace(path)
    print(f"figure: {path}", flush=True)


def parse_arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, dict[str, object], Settings]:
    """Read the command line; a bad value ends the process with argparse's own error and exit status 2."""
    parser = argparse.ArgumentParser(
        description="Train a GRU encoder and an attention decoder to reverse strings.",
        argument_default=argparse.SUPPRESS,  # the result holds only what was given
        allow_abbrev=False,
    )
    flags = Settings.__annotations__ | {
        "sequence": Annotated[str, "the word to draw"],
        "experiment": Annotated[str, "compare models instead: print a table, draw a figure", *EXPERIMENTS],
        "runs": Annotated[int, "seeds for each row of an experiment", 1, 100],
        "assets": Annotated[str, "where the figures go"],
    }
    assets = str(Path(__file__).resolve().parent / "assets")
    defaults = {"sequence": "attention, if it fits", "experiment": "no", "runs": "3; history: 5", "assets": assets}
    for name, note in flags.items():
        kind, meaning, *allowed = get_args(note)
        options = {"choices": allowed} if kind is str and allowed else {"type": kind, "metavar": "VALUE"}
        meaning += f" (default: {(defaults | Settings._field_defaults)[name]})".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", help=meaning, **options)
    given = vars(parser.parse_args(argv))

    def refuse(name: str, why: str) -> None:
        parser.error(f"argument --{name.replace('_', '-')}: {why}")

    rows = EXPERIMENTS[given["experiment"]].rows.values() if "experiment" in given else ()
    chosen = {"sequence", *(name for changes in rows for name in changes)} if rows else {"runs"}
    for name, value in given.items():
        kind, _, *allowed = get_args(flags[name])
        if value in ([], ""):  # argparse before Python 3.13 makes [] of --steps=--
            refuse(name, "expected one argument")
        if name in chosen:
            refuse(name, "an experiment chooses it" if rows else "it takes an --experiment")
        if kind is not str and not allowed[0] <= value <= allowed[1]:
            refuse(name, f"{value} is not a number from {allowed[0]} to {allowed[1]}")
    settings = Settings(**{name: value for name, value in given.items() if name in Settings._fields})
    if settings.min_length > settings.max_length:
        refuse("min_length", f"{settings.min_length} is more than --max-length, {settings.max_length}")
    if settings.hidden_size % 2:
        refuse("hidden_size", f"{settings.hidden_size} is not even")
    symbols = settings.alphabet
    if len(symbols) < 2 or len(set(symbols)) < len(symbols) or not all("!" <= symbol <= "~" for symbol in symbols):
        refuse("alphabet", f"{symbols!a} is not 2 or more different printable ASCII symbols without spaces")
    try:
        torch.zeros(1, device=settings.device).tolist()
    except Exception:  # each kind of device that is missing has an exception of its own
        refuse("device", f"{settings.device!a} is not a device that PyTorch can use here, like cpu")
    word = given.get("sequence", default_word(settings))
    if not (1 <= len(word) <= 512 and set(word) <= set(symbols)):
        refuse("sequence", f"{word!a} is not 1 to 512 symbols from {symbols!a}")
    return parser, {"assets": assets, "sequence": word} | given, settings


def main(argv: list[str] | None = None) -> None:
    """Run the script with the command line `argv`; a failure ends it with one line and the exit status."""
    parser, given, settings = parse_arguments(argv)
    try:
        folder = Path(given["assets"])
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument --assets: {given['assets']!a} is not a folder that can be written: {error.strerror}")
    try:
        if "experiment" in given:
            name = given["experiment"]
            run_experiment(name, settings, given.get("runs", EXPERIMENTS[name].runs), folder)
        else:
            prepare_process()
            run(settings, given["sequence"], folder)
        sys.stdout.flush()
        return
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    except BrokenPipeError:
        status, message = 141, ""
    except FloatingPointError as error:
        status, message = 1, f"{error}: try a smaller --lr than {settings.lr:g}"
    except (OSError, MemoryError, RuntimeError) as error:
        status, message = 1, str(error).partition("\n")[0]
        if "memory" in message:
            message = "not enough memory: try a smaller --batch-size, --max-length or --hidden-size"
    sys.stdout = None  # what it could not print is lost
    parser.exit(status, message and f"{parser.prog}: error: {message}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tidies up on the way
    sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what an ASCII terminal cannot show
    main()
