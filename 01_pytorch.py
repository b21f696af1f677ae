"""A GRU encoder and an attention decoder learn to reverse strings, in PyTorch.

Reversal is a small task that shows attention at work: the first output symbol is the last source
symbol, so the weights of a decoder that looks at the right positions form an anti-diagonal. Read
the file from top to bottom, alongside the README. The lesson ends at a divider in the middle.

    python 01_pytorch.py                           trains, reports, draws three figures
    python 01_pytorch.py --sequence hello          shows where the decoder looks in another word
    python 01_pytorch.py --experiment alignment    asks when such a picture can be trusted

Shapes: B strings, S source positions, T decoder steps, H numbers in a state, V different tokens.
"""

import argparse
import contextlib
import csv
import dataclasses
import itertools
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
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# MPLBACKEND may name a back end that is not installed, and the import below would fail.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image  # Pillow, which comes with Matplotlib

# --- Task and settings ----------------------------------------------------------------------------

# A task says from which source position each output symbol comes: (length, t) -> position of output
# symbol t, both counted from 0. The output ends at the first position outside the string, at the
# latest after as many symbols as the string has. To add a task, add a line; the rest follows.
TASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reverse": lambda length, t: length - 1 - t,
    "copy": lambda length, t: t,
}

PAD, SOS, EOS = 0, 1, 2  # padding, start of sequence, end of sequence
FIRST_SYMBOL = 3  # the alphabet's first symbol is token 3, its second is token 4, and so on


def setting(default: object, meaning: str) -> object:
    """Declare a setting."""
    return dataclasses.field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Settings:
    """The settings of a model and its training. Each is a flag, too: max_length is --max-length."""

    task: str = setting("reverse", "what to do with a string")
    alphabet: str = setting("abcdefghijklmnopqrstuvwxyz", "the symbols that strings are made of")
    min_length: int = setting(1, "symbols in the shortest string")
    max_length: int = setting(16, "symbols in the longest string")
    encoder: str = setting("bidirectional", "how the source is read")
    gates: str = setting("forgetful", "update gates of the encoder: near 1/8, or as usual near 1/2")
    attention: str = setting("dot", "how the decoder scores the keys")
    hidden_size: int = setting(64, "numbers in a state")
    embedding_size: int = setting(16, "numbers in an embedding")
    embedding_std: float = setting(0.2, "standard deviation of an embedding at the start")
    steps: int = setting(400, "training steps")
    batch_size: int = setting(64, "strings in a training step")
    lr: float = setting(0.03, "peak learning rate")
    teacher_forcing: float = setting(1.0, "probability, in training, of the true previous symbol")
    noise: float = setting(0.2, "probability, in training, of a random previous symbol")
    seed: int = setting(0, "fixes the initial parameters, the training strings and the noise")
    device: str = setting("cpu", "the device that PyTorch runs on: cpu, cuda, mps")


def sample_sources(settings: Settings, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` random strings of uniformly distributed length, padded with PAD.

    Returns tokens (B, S), where S is the greatest length that was drawn.
    """
    bounds = settings.min_length, settings.max_length + 1
    lengths = torch.randint(*bounds, (count, 1), generator=generator)
    shape = (count, int(lengths.max()))
    end = FIRST_SYMBOL + len(settings.alphabet)
    source = torch.randint(FIRST_SYMBOL, end, shape, generator=generator)
    is_padding = torch.arange(shape[1]) >= lengths
    return source.masked_fill(is_padding, PAD).to(settings.device)


def lengths_of(source: Tensor) -> Tensor:
    """Count the symbols of each string: (B, S) -> (B, 1)."""
    return (source != PAD).sum(dim=1, keepdim=True)


def source_positions(source: Tensor, task: str) -> Tensor:
    """Return the source position of each output symbol: (B, S) -> (B, S + 1).

    After the last output symbol of a string the position is -1.
    """
    lengths = lengths_of(source)
    t = torch.arange(source.size(1) + 1, device=source.device)
    positions = TASKS[task](lengths, t).expand(len(source), -1)
    is_inside = (positions >= 0) & (positions < lengths) & (t < lengths)
    has_ended = (~is_inside).cumsum(dim=1) > 0
    return positions.masked_fill(has_ended, -1)


def make_targets(source: Tensor, task: str) -> Tensor:
    """Return what the decoder must write: the symbols, EOS, then PAD. (B, S) -> (B, S + 1)."""
    positions = source_positions(source, task)
    is_symbol = positions >= 0
    symbols = source.gather(1, positions.clamp(min=0))
    target = symbols.masked_fill(~is_symbol, PAD)
    end = is_symbol.sum(dim=1, keepdim=True)
    return target.scatter(1, end, EOS)


# --- The encoder ----------------------------------------------------------------------------------

ENCODERS = {"bidirectional": 2, "forward": 1}  # the number of GRUs
GATES = {"forgetful": -2.0, "usual": 0.0}  # what is added to the bias of the update gate


class EncoderRNN(nn.Module):
    """One or two GRUs that turn each source position s into a state h_s.

    A bidirectional encoder reads forward with one GRU and backward with another, each half as
    large, and h_s is both states side by side (Bahdanau et al. 2015, section 3.2). A GRU's update
    gate says how much of the old state it keeps (Cho et al. 2014, arXiv:1406.1078). If `forgetful`,
    it starts near an eighth, so that each state at first represents mainly its own symbol;
    otherwise, as usual, near one half.
    """

    def __init__(self, settings: Settings, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        count = ENCODERS[settings.encoder]
        size = settings.hidden_size // count
        self.grus = nn.ModuleList(
            nn.GRU(settings.embedding_size, size, batch_first=True) for _ in range(count)
        )
        for gru in self.grus:
            # The bias has three parts, in this order. They are views, so the GRU itself changes.
            _reset_gate, update_gate, _proposal = gru.bias_ih_l0.data.chunk(3)
            update_gate += GATES[settings.gates]  # sigmoid(-2) is about an eighth

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens (B, S).

        Returns keys (B, S, H), which mean nothing at PAD, and the last state (1, B, H): that of
        each GRU after the last symbol that it reads, side by side.
        """
        # Two orders of reading: as it stands, and mirrored within the string's own length. (nn.GRU
        # can read backward by itself, from packed strings, but trains much slower on a CPU.)
        last = lengths_of(source) - 1  # (B, 1)
        forward = torch.arange(source.size(1), device=source.device).expand_as(source)
        backward = (last - forward).clamp(min=0)  # at PAD it means nothing
        keys, last_states = [], []
        for gru, order in zip(self.grus, (forward, backward), strict=False):
            # Each order is its own inverse: the first gather puts the symbols in this order, the
            # second puts the states back. PAD comes after the string, so no state has seen it.
            states, _ = gru(self.embedding(source.gather(1, order)))
            keys.append(states.take_along_dim(order[:, :, None], dim=1))
            last_states.append(states.take_along_dim(last[:, :, None], dim=1))
        last_state = torch.cat(last_states, dim=-1)  # (B, 1, H)
        return torch.cat(keys, dim=-1), last_state.transpose(0, 1)


# --- Attention and the decoder --------------------------------------------------------------------


def dot_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score keys by their dot product with the query: (B, T, H), (B, S, H) -> (B, T, S).

    Luong et al. 2015, section 3.1.
    """
    return query @ keys.transpose(1, 2)  # score(h_t, h_s) = h_t . h_s


class AdditiveScore(nn.Module):
    """Score each pair with a small network (Bahdanau et al. 2015, appendix A.1.2).

    Their query is the decoder's state before the step. Ours is h_t, the state of the step itself.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.W_q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.W_k = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every key for every query: (B, T, H), (B, S, H) -> (B, T, S)."""
        sums = self.W_q(query)[:, :, None] + self.W_k(keys)[:, None]  # (B, T, S, H)
        return self.v(torch.tanh(sums)).squeeze(-1)  # score(h_t, h_s) = v . tanh(W_q h_t + W_k h_s)


def uniform_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score all keys alike, so that the context is their mean: a control, which chooses nothing."""
    return query.new_zeros(len(query), query.size(1), keys.size(1))


Score = Callable[[Tensor, Tensor], Tensor]  # (query, keys) -> scores

# Each entry makes a score, given the size of a state. To add a score, add a line.
SCORES: dict[str, Callable[[int], Score | None]] = {
    "dot": lambda hidden_size: dot_score,
    "additive": AdditiveScore,
    "uniform": lambda hidden_size: uniform_score,
    "none": lambda hidden_size: None,
}


def attend(score: Score, query: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Look at the keys, which are also the values (Luong et al. 2015, equation 7).

    Shapes: query (B, T, H), keys (B, S, H), mask (B, S), True at symbols; PAD gets a weight of
    exactly 0. Returns (context (B, T, H), weights (B, T, S)).
    """
    scores = score(query, keys)  # score(h_t, h_s)                              (B, T, S)
    scores = scores.masked_fill(~mask[:, None], -math.inf)  # [:, None]: the same for every t
    weights = scores.softmax(dim=-1)  # alpha_ts = softmax over s of the scores (B, T, S)
    context = weights @ keys  # c_t = sum over s of alpha_ts h_s                (B, T, H)
    return context, weights


class DecoderOutput(NamedTuple):
    """What the decoder makes of T tokens."""

    logits: Tensor  # (B, T, V), the numbers before the softmax in p(y_t)
    state: Tensor  # (1, B, H), after the last token
    weights: Tensor  # alpha_ts, (B, T, S)


class AttnDecoderRNN(nn.Module):
    """A GRU decoder that looks back at the keys before it writes each symbol (Luong et al. 2015).

    Without attention, weights and context are zero, and it learns about the source only from its
    first state, which is the encoder's last one (Sutskever et al. 2014).
    """

    def __init__(self, settings: Settings, embedding: nn.Embedding) -> None:
        super().__init__()
        size = settings.hidden_size
        self.embedding = embedding
        self.score = SCORES[settings.attention](size)
        self.gru = nn.GRU(settings.embedding_size, size, batch_first=True)
        self.W_c = nn.Linear(2 * size, size)
        self.W_s = nn.Linear(size, embedding.num_embeddings)

    def forward(self, tokens: Tensor, state: Tensor, keys: Tensor, mask: Tensor) -> DecoderOutput:
        """Read T previous tokens and predict, after each, the one that follows.

        The context goes to the output and not into the GRU, so h_t does not depend on what was
        found before: one GRU call gives the queries of all T decoder steps. Where the decoder reads
        its own output, T is 1. Shapes: tokens (B, T), state (1, B, H), keys (B, S, H), mask (B, S).
        """
        query, state = self.gru(self.embedding(tokens), state)  # h_t             (B, T, H)
        if self.score is None:
            context = torch.zeros_like(query)
            weights = query.new_zeros(len(query), query.size(1), keys.size(1))
        else:
            context, weights = attend(self.score, query, keys, mask)
        found_and_asked = torch.cat([context, query], dim=-1)  # [c_t ; h_t]      (B, T, 2H)
        # p(y_t) = softmax(W_s tanh(W_c [c_t ; h_t])), Luong et al. 2015, equations 5 and 6
        attentional = torch.tanh(self.W_c(found_and_asked))  #                    (B, T, H)
        logits = self.W_s(attentional)  #                                         (B, T, V)
        return DecoderOutput(logits, state, weights)


class Seq2Seq(nn.Module):
    """An encoder and a decoder, untrained, their parameters drawn with the settings' seed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)
        embedding = nn.Embedding(FIRST_SYMBOL + len(settings.alphabet), settings.embedding_size)
        nn.init.normal_(embedding.weight, std=settings.embedding_std)
        self.encoder = EncoderRNN(settings, embedding)
        self.decoder = AttnDecoderRNN(settings, embedding)
        self.to(settings.device)

    def forward(self, source: Tensor, tokens: Tensor) -> DecoderOutput:
        """Encode source (B, S), then read the previous tokens (B, T), whoever wrote them."""
        keys, last_state = self.encoder(source)
        return self.decoder(tokens, last_state, keys, mask=source != PAD)


# --- Training -------------------------------------------------------------------------------------


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """Return the learning rate for training step `step`, which runs from 1 to `num_steps`.

    It rises to `peak` over the first fifth of training, then falls to zero, in straight lines. Each
    step takes the rate at its middle, so that none has a rate of zero.
    """
    progress = (step - 0.5) / num_steps
    return peak * min(progress / 0.2, (1 - progress) / 0.8)


def previous_tokens(target: Tensor) -> Tensor:
    """Return what precedes each token of `target`: SOS, then all but the last. (B, T) -> (B, T)."""
    return F.pad(target[:, :-1], (1, 0), value=SOS)


def with_noise(tokens: Tensor, settings: Settings) -> Tensor:
    """Replace some symbols by random ones, but not PAD, SOS and EOS: (B, T) -> (B, T).

    The decoder then cannot safely rely on the previous symbol to find its position. Noise of this
    kind is due to Xie et al. 2017, arXiv:1703.02573.
    """
    is_replaced = torch.rand(tokens.shape, device=tokens.device) < settings.noise
    end = FIRST_SYMBOL + len(settings.alphabet)
    random_symbols = torch.randint_like(tokens, FIRST_SYMBOL, end)
    return torch.where(is_replaced & (tokens >= FIRST_SYMBOL), random_symbols, tokens)


def most_probable(logits: Tensor) -> Tensor:
    """Return the most probable token, but never PAD or SOS: (B, T, V) -> (B, T)."""
    return EOS + logits[..., EOS:].argmax(dim=-1)


def training_logits(model: Seq2Seq, source: Tensor, target: Tensor, settings: Settings) -> Tensor:
    """Return the logits for every decoder step of `target`: (B, S), (B, T) -> (B, T, V)."""
    # Full teacher forcing (Williams and Zipser 1989): the decoder reads the true previous symbols,
    # which are known beforehand, so one call handles all decoder steps.
    true_previous = previous_tokens(target)
    if settings.teacher_forcing == 1:
        return model(source, with_noise(true_previous, settings)).logits

    # Otherwise it goes step by step and reads, at random, the true previous symbol or the one that
    # it has just written. (Scheduled sampling, S. Bengio et al. 2015, arXiv:1506.03099.)
    keys, state = model.encoder(source)
    is_forced = torch.rand(target.shape, device=target.device) < settings.teacher_forcing
    written = true_previous[:, :1]  # SOS
    all_logits = []
    for t in range(target.size(1)):
        now = slice(t, t + 1)  # not t, which would drop the time axis
        tokens = torch.where(is_forced[:, now], true_previous[:, now], written)
        tokens = with_noise(tokens, settings)
        logits, state, _ = model.decoder(tokens, state, keys, mask=source != PAD)
        written = most_probable(logits)
        all_logits.append(logits)
    return torch.cat(all_logits, dim=1)


def train(model: Seq2Seq, settings: Settings) -> Iterator[tuple[int, float, float]]:
    """Train the model; after each training step yield (step, loss, seconds of training so far).

    The caller may look at the model in between, which does not count as training time. The loss is
    in nats per symbol. Noise goes on with the random numbers that the making of the model began.
    Raises FloatingPointError when a parameter is no longer a finite number.
    """
    # The strings have a generator of their own: models with the same seed see the same strings.
    # Its seeds count down from the largest, so that they differ from those of the parameters.
    generator = torch.Generator().manual_seed(2**32 - 1 - settings.seed)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    seconds = 0.0
    for step in range(1, settings.steps + 1):
        start = time.perf_counter()
        # 1. A batch of freshly drawn strings, and what the decoder should write.
        source = sample_sources(settings, settings.batch_size, generator)
        target = make_targets(source, settings.task)
        # 2. The prediction for every decoder step.
        logits = training_logits(model, source, target, settings)
        # 3. The loss: cross-entropy per symbol; EOS counts, PAD does not. It knows nothing of
        # positions. Where to look is learnt, because each step of attention can be differentiated.
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        # 4. The gradient, scaled down if its norm exceeds 1, since it can be very large in a
        # recurrent network.
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1)
        # 5. The update.
        optimizer.param_groups[0]["lr"] = learning_rate(step, settings.steps, settings.lr)
        optimizer.step()
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise FloatingPointError(f"training diverged at step {step} of {settings.steps}")
        seconds += time.perf_counter() - start
        yield step, loss.item(), seconds


# --- Decoding and metrics -------------------------------------------------------------------------


@torch.no_grad()
def greedy_decode(model: Seq2Seq, source: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    """Write the most probable symbol at each decoder step until every string has its EOS.

    It stops after at most `max_steps` decoder steps. After its EOS a string gets PAD. Shapes:
    source (B, S) -> (tokens (B, T), weights (B, T, S)).
    """
    keys, state = model.encoder(source)
    token = torch.full_like(source[:, :1], SOS)
    is_finished = torch.zeros_like(token, dtype=torch.bool)
    all_tokens, all_weights = [], []
    for _ in range(max_steps):
        # Read the symbol just written, and write the next one.
        logits, state, weights = model.decoder(token, state, keys, mask=source != PAD)
        token = most_probable(logits).masked_fill(is_finished, PAD)
        all_tokens.append(token)
        all_weights.append(weights)
        is_finished = is_finished | (token == EOS)
        if is_finished.all():
            break
    return torch.cat(all_tokens, dim=1), torch.cat(all_weights, dim=1)


@torch.no_grad()
def decode_while_reading(model: Seq2Seq, source: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """Let the decoder read given tokens, (B, T), SOS first, in place of what it writes.

    Returns what it would write after each, (B, T), and its weights, (B, T, S).
    """
    output = model(source, read)
    return most_probable(output.logits), output.weights


def evaluation_strings(settings: Settings, count: int = 2000) -> Tensor:
    """Draw the strings of the evaluation, (B, S), which are the same for every seed."""
    return sample_sources(settings, count, torch.Generator().manual_seed(987654321))


def percent(hits: Tensor) -> float:
    """Return the percentage of True values; nan if there are no values at all."""
    return 100 * hits.sum().item() / hits.numel() if hits.numel() else math.nan


def evaluate(model: Seq2Seq, source: Tensor, task: str) -> dict[str, float]:
    """Decode strings (B, S), and return four percentages by name.

    Is the answer right? Exact match counts strings that are right as a whole, including EOS. Is
    the picture right? Alignment counts output symbols whose largest weight lies on their true
    source position, or else one column beside it. These symbols may be right or wrong; EOS and what
    is written past the right end do not count. Without attention, all but exact match are nan.
    """
    target = make_targets(source, task)
    tokens, weights = greedy_decode(model, source, max_steps=target.size(1))
    written = F.pad(tokens, (0, target.size(1) - tokens.size(1)), value=PAD)
    positions = source_positions(source, task)[:, : tokens.size(1)]
    highest, column = weights.max(dim=-1)  # (B, T)
    is_counted = (tokens > EOS) & (positions >= 0) & (highest > 0)
    shift = (column - positions)[is_counted]
    return {
        "exact match": percent((written == target).all(dim=1)),
        "alignment": percent(shift == 0),
        "one column left": percent(shift == -1),
        "one column right": percent(shift == 1),
    }


# --- The run: what happens when you start the script ----------------------------------------------


class Decoded(NamedTuple):
    """What a model made of one word, and where it looked."""

    word: str  # S symbols
    written: list[str]  # T items, each a symbol or EOS
    read: list[str] | None  # T items, SOS and symbols; None if it read what it wrote
    weights: np.ndarray  # (T, S)
    positions: list[int]  # the source position from which each output symbol should come

    @property
    def output(self) -> str:
        """What was written before the first EOS."""
        return "".join(itertools.takewhile(lambda symbol: symbol != "EOS", self.written))


def tokens_of(text: str, settings: Settings) -> Tensor:
    """Return the tokens of one text: (1, S)."""
    tokens = [FIRST_SYMBOL + settings.alphabet.index(symbol) for symbol in text]
    return torch.tensor([tokens], dtype=torch.long, device=settings.device)


def decode_word(model: Seq2Seq, word: str, settings: Settings, read: str | None = None) -> Decoded:
    """Decode one word: greedily, for at most 2 S + 1 steps, or while the decoder reads `read`."""
    source = tokens_of(word, settings)
    if read is None:
        tokens, weights = greedy_decode(model, source, max_steps=2 * len(word) + 1)
        # EOS comes from no position, so its row is left out.
        tokens = tokens[:, : max(1, int((tokens > EOS).sum()))]
    else:
        previous = F.pad(tokens_of(read, settings), (1, 0), value=SOS)
        tokens, weights = decode_while_reading(model, source, previous)
    symbols = ["EOS", *settings.alphabet]
    positions = source_positions(source, settings.task)[0]
    return Decoded(
        word,
        written=[symbols[token - EOS] for token in tokens[0].tolist()],
        read=None if read is None else ["SOS", *read],
        weights=weights[0, : tokens.size(1)].cpu().numpy(),
        positions=positions[positions >= 0].tolist(),
    )


def run(settings: Settings, word: str, read: str | None, folder: Path) -> None:
    """Train one model, print its progress and its results, and draw its figures."""
    # Train, and look now and then at what the model makes of one word.
    model = Seq2Seq(settings)
    losses, snapshots = [], {}
    watched = {1 + (settings.steps - 1) * k // 16 for k in range(17)}
    for step, loss, seconds in train(model, settings):
        losses.append(loss)
        if step in watched:
            snapshots[step] = decode_word(model, word, settings)
            progress = f"step {step} of {settings.steps}  loss {loss:.4f}"
            print(f"{progress}  {word} -> {snapshots[step].output}", flush=True)

    # Report.
    decoded = decode_word(model, word, settings, read)
    if read is not None:
        print(f"reads {read}, writes {decoded.output}")
    source = evaluation_strings(settings)
    metrics = evaluate(model, source, settings.task)
    num_right = round(metrics["exact match"] / 100 * len(source))
    print(f"exact match: {metrics['exact match']:.2f}% ({num_right} of {len(source)} strings)")
    if settings.attention != "none":
        left, right = metrics["one column left"], metrics["one column right"]
        beside = f"one column left {left:.2f}%, right {right:.2f}%"
        print(f"alignment: {metrics['alignment']:.2f}% ({beside})")
    print(f"training time: {seconds:.1f} s")

    # Draw.
    save(draw_loss(losses, snapshots).savefig, folder / "pytorch_seq2seq_loss.png")
    if settings.attention != "none":
        save(draw_attention(decoded).savefig, folder / "pytorch_attention_matrix.png")
        save(animate_decoding(decoded), folder / "pytorch_decoding.gif")


# ==================================================================================================
# THE LESSON ENDS HERE. You have seen the whole program: the model, its training and its evaluation.
# Below are the pictures, the experiments that test what the lesson claims, and the command line.
# ==================================================================================================

# --- Pictures -------------------------------------------------------------------------------------

ORANGE, BLUE, GREY = "#E69F00", "#0072B2", "0.45"
READABLE = 24  # with more symbols than that, a matrix has no labels and no rings


def draw_matrix(axes: Axes, decoded: Decoded, num_rows: int | None = None) -> AxesImage:
    """Draw attention weights: a row for each decoder step, a column for each source symbol.

    A ring marks the source position from which an output symbol should come, so that one can see
    when a picture is one column off. Only the first `num_rows` rows are filled, by default all.
    """
    num_rows = len(decoded.written) if num_rows is None else num_rows
    weights = decoded.weights.copy()
    weights[num_rows:] = math.nan
    image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set(xlabel="source symbol", ylabel="symbol written", autoscale_on=False)
    if max(weights.shape) > READABLE:
        return image
    labels = decoded.written[:num_rows]
    if decoded.read is not None:
        labels = [f"{read} → {label}" for read, label in zip(decoded.read, labels, strict=False)]
        axes.set_ylabel("symbol read → symbol written")
    axes.set_xticks(range(len(decoded.word)), list(decoded.word), parse_math=False)
    axes.set_yticks(range(num_rows), labels, parse_math=False)
    rings = decoded.positions[:num_rows]
    for colour, width in (("white", 3), ("tab:red", 1.3)):
        style = {"markeredgecolor": colour, "markeredgewidth": width, "markersize": 7}
        axes.plot(rings, range(len(rings)), "o", markerfacecolor="none", **style)
    return image


def draw_attention(decoded: Decoded) -> Figure:
    """Draw the attention matrix of the trained model."""
    figure = Figure(figsize=(8, 7), dpi=150, layout="constrained")
    axes = figure.subplots()
    figure.colorbar(draw_matrix(axes, decoded), label="attention weight")
    axes.set_title("Where the decoder looks (ring: where the output symbol comes from)", size=11)
    return figure


def animate_decoding(decoded: Decoded) -> Callable[[Path], None]:
    """Animate how the decoder writes a word; return a function that writes the GIF.

    It shows a symbol a second in at most 16 frames, rests on the last one for three seconds, and
    starts again.
    """
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bars, matrix = figure.subplots(1, 2)
    num_rows = len(decoded.written)
    figure.colorbar(draw_matrix(matrix, decoded), ax=matrix, label="attention weight")
    frames = []
    for row in np.linspace(1, num_rows, min(16, num_rows)).astype(int).tolist():
        matrix.clear()
        draw_matrix(matrix, decoded, row)
        bars.clear()
        bars.bar(range(len(decoded.word)), decoded.weights[row - 1], color=ORANGE)
        bars.set_xticks(matrix.get_xticks(), matrix.get_xticklabels(), parse_math=False)
        bars.set(ylim=(0, 1), xlim=matrix.get_xlim(), xlabel="source symbol")
        bars.set_ylabel("attention weight")
        written = decoded._replace(written=decoded.written[:row]).output
        lines = f"source  {decoded.word[:READABLE]}\nwritten {written[:READABLE]}"
        style = {"size": 12, "family": ["monospace", "sans-serif"], "parse_math": False}
        bars.annotate(lines, (0, 1.03), xycoords="axes fraction", **style)
        canvas.draw()
        figure.set_layout_engine("none")  # what is laid out for the first frame stays where it is
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    milliseconds = [1000] * (len(frames) - 1) + [3000]
    options = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    return lambda path: frames[0].save(path, **options)


def draw_loss(losses: list[float], snapshots: dict[int, Decoded]) -> Figure:
    """Draw the loss of every training step, and above it the matrices of a word at four of them."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2, 3])
    axes = below.subplots()
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1, color=BLUE)
    axes.set(xlabel="training step", ylabel="loss (nats per symbol)", ylim=(0, 1.1 * max(losses)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    watched = list(snapshots)
    steps = sorted({watched[(len(watched) - 1) * k // 16] for k in (0, 2, 4, 16)})
    panels = above.subplots(1, len(steps), squeeze=False)[0]
    for letter, panel, step in zip("ABCD", panels, steps, strict=False):
        decoded = snapshots[step]
        # A letter on the curve, and the matrix above it, with as many rows as the word needs.
        axes.plot(step, losses[step - 1], "o", color="black", clip_on=False)
        place = {"xytext": (5, 6), "textcoords": "offset points"}
        axes.annotate(letter, (step, losses[step - 1]), **place, size=11)
        image = draw_matrix(panel, decoded._replace(positions=[]))
        panel.set(xticks=[], yticks=[], ylabel="", ylim=(len(decoded.word) - 0.5, -0.5))
        panel.set_title(f"{letter}: step {step}", size=10)
        panel.set_xlabel(f"writes {decoded.output[:12]}", size=9, parse_math=False)
    above.colorbar(image, ax=panels, label="weight", ticks=[0, 1])
    return figure


# --- Experiments: how they run --------------------------------------------------------------------


class Experiment(NamedTuple):
    """A question, put to several models, each trained with several seeds."""

    models: dict[str, dict[str, object]]  # the name of a model, and the settings that it changes
    columns: tuple[str, ...]  # what the printed table shows
    num_runs: int  # seeds for each model
    draw: Callable[[dict[str, list[dict]]], Figure] | None = None  # draws {model: its runs}


def one_letter_too_many(model: Seq2Seq, settings: Settings, count: int = 500) -> dict[str, float]:
    """Let the decoder read the true symbols, but somewhere among them one that the string lacks.

    From there on, a decoder that counts its steps looks one column further in every row. One that
    follows what it reads soon looks where it looked, without the extra symbol, after the same
    symbol. Returns both percentages, of the rows after the extra symbol. No symbol occurs twice.
    """
    generator = torch.Generator().manual_seed(1)
    length = min(settings.max_length, len(settings.alphabet) - 1)
    orders = torch.rand(count, len(settings.alphabet), generator=generator).argsort(dim=1)
    symbols = (FIRST_SYMBOL + orders).to(settings.device)
    source, extra = symbols[:, :length], symbols[:, length : length + 1]
    place = torch.randint(1, length - 1, (count, 1), generator=generator).to(settings.device)
    tokens = previous_tokens(make_targets(source, settings.task))  # (B, T), T = length + 1
    t = torch.arange(length + 1, device=tokens.device)
    moved = torch.where(t == place, extra, tokens.roll(1, dims=1))
    _, weights = decode_while_reading(model, source, tokens)
    _, weights_after = decode_while_reading(model, source, torch.where(t < place, tokens, moved))
    disturbed = weights_after.argmax(dim=-1)  # (B, T)
    # Where it looked, undisturbed, after the same symbol, which was then read one row earlier.
    same = weights.argmax(dim=-1).roll(1, dims=1)
    positions = source_positions(source, settings.task)
    further = same + positions - positions.roll(1, dims=1)
    is_after = (t > place) & (positions >= 0)
    return {
        "same column": percent((disturbed == same)[is_after]),
        "one column further": percent((disturbed == further)[is_after]),
    }


WORD, READINGS = "copyright", ("thgirypoc", "thgairypoc")  # the second has one a too many


def measure(settings: Settings) -> dict:
    """Train a model; return its settings, every number, and two pictures of WORD.

    Every 10 training steps, until nine of ten are right, 200 strings are decoded, which is not
    timed. Exact match is also measured for each source length, a quarter beyond the trained ones.
    """
    model, source = Seq2Seq(settings), evaluation_strings(settings)
    steps_to_90 = seconds_to_90 = math.inf
    losses = []
    for step, loss, seconds in train(model, settings):
        losses.append(loss)
        if step % 10 == 0 and steps_to_90 == math.inf:
            metrics = evaluate(model, source[:200], settings.task)
            if metrics["exact match"] >= 90:
                steps_to_90, seconds_to_90 = step, seconds
    exact_at = {}
    for length in range(settings.min_length, settings.max_length * 5 // 4 + 1):
        fixed = dataclasses.replace(settings, min_length=length, max_length=length)
        metrics = evaluate(model, evaluation_strings(fixed, 500), settings.task)
        exact_at[length] = metrics["exact match"]
    # The greatest length at which nine of ten strings are right, as at all smaller ones.
    is_right = itertools.takewhile(lambda length: exact_at[length] >= 90, exact_at)
    numbers = {
        "loss at step 20": losses[:20][-1],
        "ms per step": 1000 * seconds / settings.steps,
        "steps to 90%": steps_to_90,
        "seconds to 90%": seconds_to_90,
        **evaluate(model, source, settings.task),
        "90% right up to length": max(is_right, default=0),
        **{f"exact match at length {length}": exact for length, exact in exact_at.items()},
        **one_letter_too_many(model, settings),
    }
    return {
        **dataclasses.asdict(settings),
        **{name: round(number, 4) for name, number in numbers.items()},
        "pictures": [decode_word(model, WORD, settings, read) for read in READINGS],
    }


def end_with_parent() -> None:
    """Wait for the parent of this process to end, then end this process."""
    multiprocessing.parent_process().join()
    os._exit(1)


def start_worker() -> None:
    """Prepare a process for training: one thread, and it ends when its parent does."""
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C for a moment; processes that are started now ignore it for good."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def run_jobs(jobs: dict[tuple[str, int], Settings]) -> Iterator[tuple[tuple[str, int], dict]]:
    """Measure the settings of each job, one process for each core; yield (job, run) as they end."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(mp_context=context, initializer=start_worker)
    try:
        # Start one worker first: if it cannot start, a single message says why.
        with interrupts_ignored():
            first = pool.submit(os.getpid)
        first.result()
        with interrupts_ignored():
            futures = {pool.submit(measure, settings): job for job, settings in jobs.items()}
            pool.submit(os.getpid)  # at the next job, the executor sees that a process has started
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in multiprocessing.active_children():
            worker.terminate()


def short(number: float) -> str:
    """Return a number as a table shows it: with two, one or no decimals, or as never."""
    if math.isinf(number):
        return "never"
    digits = 2 if number < 1 or 99 < number < 100 else 1 if number < 10 else 0
    text = f"{number:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def cell(values: list[object]) -> str:
    """Return the median and the range of some runs, as 5.4 (4.5 to 6.9); text stays as it is."""
    if isinstance(values[0], str):
        return values[0]
    if any(math.isnan(value) for value in values):
        return ""
    middle, low, high = short(float(np.median(values))), short(min(values)), short(max(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def markdown_table(runs_of: dict[str, list[dict]], columns: tuple[str, ...]) -> str:
    """Return a line for each model, with the median and the range of each column over its runs."""
    table = [f"| model | {' | '.join(columns)} |", f"|---{'|--:' * len(columns)}|"]
    for model, runs in runs_of.items():
        cells = [cell([one_run[column] for one_run in runs]) for column in columns]
        table.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(table)


def write_csv(runs_of: dict[str, list[dict]], path: Path) -> None:
    """Write a line for each run: its model, its settings and its numbers, but no pictures."""
    lines = [{"model": model, **one_run} for model, runs in runs_of.items() for one_run in runs]
    names = [name for name in lines[0] if name != "pictures"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def run_experiment(name: str, settings: Settings, num_runs: int, folder: Path) -> None:
    """Run all models of an experiment, print its table, write its CSV file, draw its figure."""
    experiment = EXPERIMENTS[name]
    seeds = range(settings.seed, settings.seed + num_runs)
    jobs = {
        (model, seed): dataclasses.replace(settings, **changes, seed=seed)
        for model, changes in experiment.models.items()
        for seed in seeds
    }
    # Start the long jobs first, so that all cores end together.
    jobs = dict(sorted(jobs.items(), key=lambda job: -job[1].steps))
    start, finished = time.perf_counter(), {}
    for (model, seed), one_run in run_jobs(jobs):
        finished[model, seed] = one_run
        done = f"{len(finished)} of {len(jobs)} after {time.perf_counter() - start:.0f} s"
        print(f"{done}: {model}, seed {seed}, {one_run['exact match']:.2f}% right", flush=True)
    runs_of = {model: [finished[model, seed] for seed in seeds] for model in experiment.models}
    print(f"\n{markdown_table(runs_of, experiment.columns)}\n")
    save(lambda path: write_csv(runs_of, path), folder / f"pytorch_{name}.csv")
    if experiment.draw is not None:
        save(experiment.draw(runs_of).savefig, folder / f"pytorch_{name}.png")


# --- The experiments ------------------------------------------------------------------------------


def draw_bottleneck(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw the strings that are right by source length: the median of the seeds, a line a model."""
    figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    styles = {
        "uniform attention, 400 steps": {"color": GREY, "linestyle": "--", "linewidth": 2},
        "default, 400 steps": {"color": ORANGE, "linewidth": 4, "zorder": 1},
    }
    longest = Settings.max_length
    lengths = range(1, longest * 5 // 4 + 1)
    for model, runs in runs_of.items():
        names = [f"exact match at length {length}" for length in lengths]
        curve = np.median([[one_run[name] for name in names] for one_run in runs], axis=0)
        if model in styles:
            axes.plot(lengths, curve, label=model, **styles[model])
        elif model.startswith("no attention"):
            axes.plot(lengths, curve, color=BLUE)
            # The number of training steps stands where the line falls through 50%.
            place = np.interp(-50, -curve, lengths), 50
            axes.text(*place, f"{runs[0]['steps']} ", color=BLUE, size=10, ha="right", va="center")
    axes.plot([], [], color=BLUE, label="no attention (number: steps)")
    axes.axvspan(longest + 0.5, lengths[-1] + 0.5, color="0.9", zorder=0)
    axes.text(lengths[-1], 97, "never trained on", rotation=90, ha="center", va="top", size=9)
    axes.set(xlim=(0.5, lengths[-1] + 0.5), ylim=(-3, 105))
    axes.set(xlabel="source length (symbols)", ylabel="strings right (%)", xticks=lengths)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure


def draw_alignment(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw how four models read WORD, in pairs: as it should be read, and with a letter too many.

    On the right, in place of the ring, a square marks where the model looked after the same letter
    on the left.
    """
    figure = Figure(figsize=(8, 8), dpi=150, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[12, 1])
    for part, (model, runs) in zip(above.subfigures(2, 2).flat, runs_of.items(), strict=True):
        part.suptitle(model, size=11, weight="bold")
        left, right = part.subplots(1, 2)
        as_it_should, one_too_many = runs[0]["pictures"]
        draw_matrix(left, as_it_should)
        image = draw_matrix(right, one_too_many._replace(positions=[]))
        extra = one_too_many.read.index("a")
        right.axhspan(extra - 0.5, extra + 0.5, fill=False, edgecolor="tab:red", linewidth=2)
        rows = range(extra + 1, len(one_too_many.read))
        columns = as_it_should.weights[extra:].argmax(axis=1)
        style = {"markeredgecolor": "white", "markeredgewidth": 1.5, "markersize": 9}
        right.plot(columns, rows, "s", markerfacecolor="none", **style)
        for axes, decoded in ((left, as_it_should), (right, one_too_many)):
            axes.set_title(f"reads {''.join(decoded.read[1:])}", size=9)
            axes.set(xlabel="", ylabel="")
            axes.tick_params(labelsize=9)
    ring = "ring: where the letter comes from"
    square = "square: where it looked, on the left, after the same letter"
    label = f"weight ({ring}; {square})"
    below.colorbar(image, cax=below.subplots(), orientation="horizontal", label=label)
    return figure


# The bottleneck compares models that have the encoder and the noise that suit one vector best.
FORWARD = {"encoder": "forward", "noise": 0.0}
ONE_VECTOR = {**FORWARD, "attention": "none"}
# The encoder that one writes first, with gates and embeddings as PyTorch starts them.
PLAIN = {"encoder": "forward", "gates": "usual", "embedding_std": 1.0}
LONG = {"steps": 1600, "lr": 0.02}
EXPERIMENTS = {
    "bottleneck": Experiment(
        models={
            **{
                f"no attention, {steps} steps": {**ONE_VECTOR, "steps": steps}
                for steps in (200, 400, 800, 1600, 3200)
            },
            "uniform attention, 400 steps": {**FORWARD, "attention": "uniform"},
            "dot attention, 400 steps": {**FORWARD, "attention": "dot"},
            "default, 400 steps": {},
        },
        columns=("90% right up to length", "exact match"),
        num_runs=5,
        draw=draw_bottleneck,
    ),
    # Learning rate, noise and gates are those with the fewest training steps to 90% on average, or
    # without attention the highest exact match, among 0.01, 0.02, 0.03, 0.05, noise 0 and 0.2, and
    # both kinds of gates, on seeds 100 to 102.
    "history": Experiment(
        models={
            "no attention (Sutskever et al. 2014)": {**ONE_VECTOR, "lr": 0.05, "gates": "usual"},
            "additive score (Bahdanau et al. 2015)": {
                "attention": "additive",
                "lr": 0.02,
                "noise": 0.0,
                "gates": "usual",
            },
            "dot score (Luong et al. 2015)": {"attention": "dot", "lr": 0.02},
            "dot score, no teacher forcing": {"attention": "dot", "teacher_forcing": 0.0},
        },
        columns=(
            *("lr", "noise", "gates", "ms per step"),
            *("steps to 90%", "seconds to 90%", "exact match"),
        ),
        num_runs=10,
    ),
    "alignment": Experiment(
        models={
            "default": {**LONG},
            "default, no noise": {**LONG, "noise": 0.0},
            "plain": {**LONG, **PLAIN},
            "plain, no noise": {**LONG, **PLAIN, "noise": 0.0},
        },
        columns=(
            *("exact match", "alignment", "one column right"),
            *("same column", "one column further"),
        ),
        num_runs=10,
        draw=draw_alignment,
    ),
}


# --- Command line ---------------------------------------------------------------------------------

CHOICES = {"task": TASKS, "encoder": ENCODERS, "gates": GATES, "attention": SCORES}
LONGEST = 512  # memory grows with the square of the length


def save(write: Callable[[Path], None], path: Path) -> None:
    """Write a file to `path`; an older one is replaced only when the new one is finished."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder) / path.name
        write(unfinished)
        unfinished.replace(path)
    print(f"written: {path}", flush=True)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: a flag for each field of Settings, and five more.

    What it returns holds only the flags that were given.
    """
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name,
        description="Train a GRU encoder and an attention decoder on strings.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for field in dataclasses.fields(Settings):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            choices=CHOICES.get(field.name),
            metavar=None if field.name in CHOICES else "VALUE",
            help=f"{field.metadata['help']} (default: {field.default})",
        )
    word = "the word to draw (default: attention, if it fits)"
    parser.add_argument("--sequence", metavar="TEXT", help=word)
    read = "what the decoder reads while it writes (default: what it has written)"
    parser.add_argument("--read", metavar="TEXT", help=read)
    compare = "compare models instead: print a table, write every run as CSV, draw a figure"
    parser.add_argument("--experiment", choices=EXPERIMENTS, help=compare)
    runs = "seeds for each model of an experiment (default: its own number)"
    parser.add_argument("--runs", type=int, metavar="VALUE", help=runs)
    where = "where the figures go (default: assets/ beside the script)"
    parser.add_argument("--assets", metavar="DIR", help=where)
    return parser


def refuse_bad_values(
    parser: argparse.ArgumentParser, settings: Settings, word: str, given: dict[str, object]
) -> None:
    """End the process with argparse's error if a flag has a value that cannot work."""
    symbols = settings.alphabet
    is_text = len(set(symbols)) == len(symbols) > 1 and symbols.isprintable() and " " not in symbols
    read = given.get("read", word)
    alone = {"experiment", "runs", "seed", "device", "assets"}
    with_experiment = set(given) - alone if "experiment" in given else set()
    rules = [
        ("alphabet", is_text, "must be 2 or more printable symbols, all different, no space"),
        ("min-length", settings.min_length >= 1, "must be 1 or more"),
        ("min-length", settings.min_length <= settings.max_length, "is more than --max-length"),
        ("max-length", settings.max_length <= LONGEST, f"must be {LONGEST} or less"),
        ("hidden-size", settings.hidden_size >= 2, "must be 2 or more"),
        ("hidden-size", settings.hidden_size % 2 == 0, "must be even"),
        ("embedding-size", settings.embedding_size >= 1, "must be 1 or more"),
        ("embedding-std", 0 <= settings.embedding_std < math.inf, "must be 0 or more"),
        ("steps", settings.steps >= 1, "must be 1 or more"),
        ("batch-size", settings.batch_size >= 1, "must be 1 or more"),
        ("lr", 0 <= settings.lr < math.inf, "must be 0 or more"),
        ("teacher-forcing", 0 <= settings.teacher_forcing <= 1, "must be between 0 and 1"),
        ("noise", 0 <= settings.noise <= 1, "must be between 0 and 1"),
        ("seed", 0 <= settings.seed < 2**32, "must be between 0 and 2**32 - 1"),
        ("sequence", 1 <= len(word) <= LONGEST, f"must have 1 to {LONGEST} symbols"),
        ("sequence", set(word) <= set(symbols), "has symbols outside --alphabet"),
        ("read", 1 <= len(read) <= LONGEST, f"must have 1 to {LONGEST} symbols"),
        ("read", set(read) <= set(symbols), "has symbols outside --alphabet"),
        ("runs", "runs" not in given or "experiment" in given, "needs --experiment"),
        ("runs", given.get("runs", 1) >= 1, "must be 1 or more"),
        *((name, False, "is set by --experiment") for name in sorted(with_experiment)),
    ]
    for flag, is_fine, problem in rules:
        if not is_fine:
            parser.error(f"argument --{flag.replace('_', '-')}: {problem}")
    try:
        torch.zeros(1, device=settings.device).tolist()
    except Exception as error:  # each kind of device that is missing has an exception of its own
        parser.error(f"argument --device: {str(error).partition(chr(10))[0]}")


def main(argv: list[str] | None = None) -> None:
    """Run the script with the command line `argv`."""
    # Check everything before anything is trained or written.
    parser = make_parser()
    given = vars(parser.parse_args(argv))
    names = {field.name for field in dataclasses.fields(Settings)} & given.keys()
    settings = Settings(**{name: given[name] for name in names})
    symbols, length = settings.alphabet, min(settings.max_length, LONGEST)
    fits = settings.min_length <= len("attention") <= length and set("attention") <= set(symbols)
    word = given.get("sequence", "attention" if fits else (symbols * length)[:length])
    refuse_bad_values(parser, settings, word, given)
    folder = Path(given.get("assets", Path(__file__).resolve().parent / "assets")).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument --assets: {error}")

    # Run. The matrices are small: a second thread would mostly wait for the first.
    torch.set_num_threads(1)
    try:
        with matplotlib.style.context("default"):  # whatever a matplotlibrc says
            if "experiment" in given:
                name = given["experiment"]
                num_runs = given.get("runs", EXPERIMENTS[name].num_runs)
                run_experiment(name, settings, num_runs, folder)
            else:
                run(settings, word, given.get("read"), folder)
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: error: {error}; a smaller learning rate may help\n")
    except BrokenProcessPool:
        reason = "a process ended; if no message above says why, memory may have run out"
        parser.exit(1, f"{parser.prog}: error: {reason}\n")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that know only ASCII
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
