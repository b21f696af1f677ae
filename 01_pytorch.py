"""A GRU encoder and an attention decoder learn to reverse strings, in PyTorch.

Reversal is a small task that shows attention at work: the first output symbol is the last source
symbol, so the weights of a decoder that looks at the right places form an anti-diagonal. Read the
file from top to bottom, alongside the README. The lesson ends at a divider in the middle.

    python 01_pytorch.py                          trains, reports, draws three figures
    python 01_pytorch.py --sequence hello         shows where the decoder looks in another word
    python 01_pytorch.py --experiment alignment   asks when such a picture can be trusted
"""

import argparse
import csv
import dataclasses
import importlib.machinery
import io
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# MPLBACKEND may name a back end that is not installed, which would stop the import below. Figures
# saved to files need none; a notebook needs its own.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image  # Pillow, which comes with Matplotlib

# --- The task: reverse a string -------------------------------------------------------------------

# A task says from which source position each output symbol comes: (length, t) -> position of output
# symbol t, both counted from 0. The output ends at the first position outside the string, and all
# later positions have to be outside as well. To add a task that writes no more symbols than it
# reads, add a line; the rest follows from it.
TASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reverse": lambda length, t: length - 1 - t,
    "copy": lambda length, t: t,
}

PAD, SOS, EOS = 0, 1, 2  # padding, start of sequence, end of sequence
FIRST_SYMBOL = 3  # the alphabet's first symbol is token 3, its second is token 4, and so on


def sample_sources(
    count: int, alphabet_size: int, min_length: int, max_length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw `count` random strings, their lengths uniform from `min_length` to `max_length`.

    Returns (source, lengths) on the CPU: tokens (count, S), padded with PAD, and (count,), where S
    is the greatest length that was drawn.
    """
    lengths = torch.randint(min_length, max_length + 1, (count,), generator=generator)
    shape = (count, int(lengths.max()))
    end = FIRST_SYMBOL + alphabet_size
    source = torch.randint(FIRST_SYMBOL, end, shape, generator=generator)
    is_padding = torch.arange(shape[1]) >= lengths[:, None]
    return source.masked_fill(is_padding, PAD), lengths


def source_positions(lengths: Tensor, num_steps: int, task: str) -> Tensor:
    """Return the source position of each of `num_steps` output symbols: (B,) -> (B, T).

    After the last output symbol of a string the position is -1.
    """
    t = torch.arange(num_steps, device=lengths.device)
    positions = TASKS[task](lengths[:, None], t).expand(len(lengths), num_steps)
    is_inside = (positions >= 0) & (positions < lengths[:, None])
    return torch.where(is_inside, positions, -1)


def make_targets(source: Tensor, lengths: Tensor, task: str) -> Tensor:
    """Return what the decoder must write: the symbols, EOS, then PAD. (B, S) -> (B, S + 1)."""
    positions = source_positions(lengths, source.size(1) + 1, task)
    symbols = source.gather(1, positions.clamp(min=0))
    target = torch.where(positions >= 0, symbols, PAD)
    end = (positions >= 0).sum(dim=1, keepdim=True)
    return target.scatter(1, end, EOS)


# --- The encoder ----------------------------------------------------------------------------------


class EncoderRNN(nn.Module):
    """One or two GRUs (Cho et al. 2014) that turn each source position s into a state h_s.

    `embedding` is shared with the decoder. The states serve attention both as keys and as values.

    A bidirectional encoder reads forward with one GRU and backward with another, and h_s is both
    states side by side (Bahdanau et al. 2015, section 3.2). Here, each GRU has half the size.

    A GRU's update gate is the share of the old state that the GRU keeps. If `forgetful`, the gate
    starts near an eighth, so that each state at first represents mainly its own symbol; otherwise,
    as PyTorch starts it, near one half.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        hidden_size: int,
        bidirectional: bool = True,
        forgetful: bool = True,
    ) -> None:
        super().__init__()
        size = hidden_size // 2 if bidirectional else hidden_size
        self.embedding = embedding
        self.forward_gru = nn.GRU(embedding.embedding_dim, size, batch_first=True)
        self.backward_gru = None
        if bidirectional:
            self.backward_gru = nn.GRU(embedding.embedding_dim, size, batch_first=True)
        for gru in (self.forward_gru, self.backward_gru):
            if forgetful and gru is not None:
                # Of the two bias vectors that are added up in a gate, it is enough to change one.
                # It holds three parts, in this order; they are views, so the GRU changes as well.
                _reset_gate, update_gate, _proposal = gru.bias_ih_l0.data.chunk(3)
                update_gate -= 2  # sigmoid(-2) is about an eighth

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens (B, S) of strings with lengths (B,).

        Returns keys (B, S, H) and the last state (1, B, H), in the shape that a GRU of one layer
        expects. It is the forward GRU's state at the last real symbol, joined, if there is a
        backward GRU, with the state of that one at the first symbol. The keys at PAD mean nothing
        and have to be masked.
        """
        # Padding comes after the string, so the states at real symbols never see it.
        states, _ = self.forward_gru(self.embedding(source))  # (B, S, H), or half of H
        end = (lengths - 1)[:, None, None]  # (B, 1, 1)
        last_state = states.take_along_dim(end, dim=1)
        if self.backward_gru is not None:
            # Reverse each string within its own length, read it, and put its states back in order.
            # (nn.GRU can do this by itself, with bidirectional=True and a packed sequence, but on a
            # CPU its training then takes time that grows with the square of the length.)
            s = torch.arange(source.size(1), device=source.device)
            mirrored = (lengths[:, None] - 1 - s).clamp(min=0)  # (B, S); at PAD it means nothing
            reversed_source = source.gather(1, mirrored)
            reversed_states, _ = self.backward_gru(self.embedding(reversed_source))
            backward_states = reversed_states.take_along_dim(mirrored[:, :, None], dim=1)
            states = torch.cat([states, backward_states], dim=-1)
            last_backward_state = reversed_states.take_along_dim(end, dim=1)
            last_state = torch.cat([last_state, last_backward_state], dim=-1)
        return states, last_state.transpose(0, 1)


# --- Attention and the decoder --------------------------------------------------------------------


def dot_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score every key for every query: (B, T, H), (B, S, H) -> (B, T, S).

    Luong et al. 2015, section 3.1.
    """
    return query @ keys.transpose(1, 2)  # score(h_t, h_s) = h_t . h_s


class AdditiveScore(nn.Module):
    """The score of Bahdanau et al. (2015, appendix A.1.2): a small network for each pair.

    Bahdanau's query is the decoder's state before the step. Ours is h_t, the state of the step
    itself, as in Luong et al.
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


class LocationScore(nn.Module):
    """A control that never sees a key: the location-based score (Luong et al. 2015, 3.1).

    It has one row of parameters for each source position, up to `max_length`.
    """

    def __init__(self, hidden_size: int, max_length: int) -> None:
        super().__init__()
        self.W = nn.Linear(hidden_size, max_length, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every position for every query: (B, T, H), (B, S, H) -> (B, T, S)."""
        return self.W(query)[:, :, : keys.size(1)]  # score(h_t, s) = (W h_t)_s


def attend(scores: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn scores into weights, and weights into contexts.

    Bahdanau et al. 2015, equations 5 and 6; Luong et al. 2015, equation 7.
    Shapes: scores (B, T, S), keys (B, S, H), mask (B, S), True at real symbols; PAD gets a
    weight of exactly 0. Returns (context (B, T, H), weights (B, T, S)).
    """
    scores = scores.masked_fill(~mask[:, None], -math.inf)
    weights = scores.softmax(dim=-1)  # alpha_ts = softmax over s of score(h_t, h_s)
    context = weights @ keys  # c_t = sum over s of alpha_ts h_s
    return context, weights


class AttnDecoderRNN(nn.Module):
    """A GRU decoder that looks back at the keys before it writes each symbol (Luong et al. 2015).

    The kinds of attention differ in `score` alone, a function of query and keys. If `score` is None
    there is no attention: the decoder learns about the source only from the encoder's last state,
    which becomes its own first state (Sutskever et al. 2014).
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        hidden_size: int,
        score: Callable[[Tensor, Tensor], Tensor] | None = dot_score,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.score = score
        self.gru = nn.GRU(embedding.embedding_dim, hidden_size, batch_first=True)
        self.W_c = nn.Linear(hidden_size if score is None else 2 * hidden_size, hidden_size)
        self.W_s = nn.Linear(hidden_size, embedding.num_embeddings)

    def forward(
        self, tokens: Tensor, hidden: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Read T previous symbols and predict, after each, the symbol that follows.

        The context goes to the output and not into the GRU, so the state h_t does not depend on
        what was found before. One GRU call therefore gives the queries of all T steps, and one
        matrix product all their scores. Where the decoder reads its own output, T is 1.

        Shapes: tokens (B, T), hidden (1, B, H), keys (B, S, H), mask (B, S). Returns (logits
        (B, T, vocabulary), hidden (1, B, H), weights (B, T, S), or None without attention).
        """
        query, hidden = self.gru(self.embedding(tokens), hidden)  # h_t           (B, T, H)
        if self.score is None:
            return self.final_output(query), hidden, None
        scores = self.score(query, keys)  # score(h_t, h_s)                       (B, T, S)
        context, weights = attend(scores, keys, mask)  # c_t                      (B, T, H)
        return self.final_output(query, context), hidden, weights

    def final_output(self, query: Tensor, context: Tensor | None = None) -> Tensor:
        """Combine what was found with what was asked for, both (B, T, H), into logits.

        Luong et al. 2015, equations 5 and 6, with biases. Logits are the numbers before the softmax
        in p(y_t) = softmax(W_s tanh(W_c [c_t ; h_t])). Without a context, the query alone is used.
        Returns (B, T, vocabulary).
        """
        found_and_asked = query if context is None else torch.cat([context, query], dim=-1)
        attentional = torch.tanh(self.W_c(found_and_asked))  # tanh(W_c [c_t ; h_t])  (B, T, H)
        return self.W_s(attentional)


class Seq2Seq(nn.Module):
    """An encoder and a decoder."""

    def __init__(self, encoder: EncoderRNN, decoder: AttnDecoderRNN) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, source: Tensor, lengths: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Encode source (B, S) with lengths (B,), then read tokens (B, T).

        Returns (logits (B, T, vocabulary), weights (B, T, S), or None without attention).
        """
        keys, last_state = self.encoder(source, lengths)
        logits, _, weights = self.decoder(tokens, last_state, keys, mask=source != PAD)
        return logits, weights


# --- Training -------------------------------------------------------------------------------------


def setting(default: object, meaning: str, **limits: object) -> object:
    """Declare a field of Settings. `limits` are `choices`, or `at_least` and `at_most`."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class Settings:
    """The settings of a model and its training. Each is a flag, too: max_length is --max-length."""

    task: str = setting("reverse", "what to learn to do with a string", choices=tuple(TASKS))
    alphabet: str = setting("abcdefghijklmnopqrstuvwxyz", "the symbols; fonts may lack rare ones")
    min_length: int = setting(1, "symbols in the shortest string", at_least=1, at_most=512)
    max_length: int = setting(16, "symbols in the longest string", at_least=1, at_most=512)
    encoder: str = setting(
        "bidirectional", "how the source is read", choices=("bidirectional", "forward")
    )
    gates: str = setting(
        "forgetful",
        "the encoder's update gates start near 1/8, or as usual near 1/2",
        choices=("forgetful", "usual"),
    )
    attention: str = setting(
        "dot", "how the decoder scores the keys", choices=("dot", "additive", "location", "none")
    )
    hidden_size: int = setting(64, "size of a state, an even number", at_least=2, at_most=1024)
    embedding_size: int = setting(16, "numbers in an embedding", at_least=1, at_most=1024)
    embedding_std: float = setting(
        0.2, "standard deviation of an embedding at the start", at_least=0, at_most=100
    )
    steps: int = setting(400, "training steps", at_least=1, at_most=10**6)
    batch_size: int = setting(64, "strings in a training step", at_least=1, at_most=4096)
    lr: float = setting(0.03, "peak of the learning rate", at_least=0, at_most=1e99)
    teacher_forcing: float = setting(
        1.0, "probability, in training, of the true previous symbol", at_least=0, at_most=1
    )
    noise: float = setting(
        0.2, "probability, in training, of a random previous symbol", at_least=0, at_most=1
    )
    seed: int = setting(
        0, "decides the parameters, training strings and noise", at_least=0, at_most=2**32 - 1
    )
    device: str = setting("cpu", "the device that PyTorch runs on: cpu, cuda, mps")


def build_model(settings: Settings) -> Seq2Seq:
    """Return an untrained model whose parameters are drawn with the settings' seed."""
    torch.manual_seed(settings.seed)
    embedding = nn.Embedding(FIRST_SYMBOL + len(settings.alphabet), settings.embedding_size)
    nn.init.normal_(embedding.weight, std=settings.embedding_std)
    encoder = EncoderRNN(
        embedding,
        settings.hidden_size,
        bidirectional=settings.encoder == "bidirectional",
        forgetful=settings.gates == "forgetful",
    )
    score = dot_score
    if settings.attention == "additive":
        score = AdditiveScore(settings.hidden_size)
    elif settings.attention == "location":
        score = LocationScore(settings.hidden_size, settings.max_length)
    elif settings.attention == "none":
        score = None
    decoder = AttnDecoderRNN(embedding, settings.hidden_size, score)
    return Seq2Seq(encoder, decoder).to(settings.device)


def learning_rate(step: int, num_steps: int, peak: float) -> float:
    """Return the learning rate for training step `step`, which runs from 1 to `num_steps`.

    It rises in a straight line towards `peak` over the first fifth of training, then falls towards
    zero. Each step takes the rate at its middle, so that no step has a rate of zero.
    """
    progress = (step - 0.5) / num_steps
    return peak * min(progress / 0.2, (1 - progress) / 0.8)


def previous_tokens(target: Tensor) -> Tensor:
    """Return what precedes each token of `target`: SOS, then all but the last. (B, T) -> (B, T)."""
    return F.pad(target[:, :-1], (1, 0), value=SOS)


def with_noise(tokens: Tensor, noise: float, alphabet_size: int) -> Tensor:
    """Replace each symbol with probability `noise` by a random one (Xie et al. 2017).

    A decoder that can always trust the previous symbol may find its place by searching for it.
    With noise, a search is often misled. PAD, SOS and EOS are left alone. Shapes: (B, T) -> (B, T).
    """
    is_replaced = torch.rand(tokens.shape, device=tokens.device) < noise
    random_symbols = torch.randint_like(tokens, FIRST_SYMBOL, FIRST_SYMBOL + alphabet_size)
    return torch.where(is_replaced & (tokens >= FIRST_SYMBOL), random_symbols, tokens)


def most_probable(logits: Tensor) -> Tensor:
    """Return the most probable token, but never PAD or SOS: (..., vocabulary) -> (...)."""
    return EOS + logits[..., EOS:].argmax(dim=-1)


def training_logits(
    model: Seq2Seq,
    source: Tensor,
    lengths: Tensor,
    target: Tensor,
    teacher_forcing: float = 1.0,
    noise: float = 0.0,
) -> Tensor:
    """Return the logits for every step of `target`: (B, T) -> (B, T, vocabulary).

    1. With full teacher forcing (Williams and Zipser 1989) the decoder reads the true previous
       symbols, which are known beforehand, so one call handles all steps.
    2. Otherwise it goes step by step. At each, it reads the true previous symbol with probability
       `teacher_forcing`, otherwise the one that it has just written (scheduled sampling, S. Bengio
       et al. 2015, here at a constant rate).
    """
    alphabet_size = model.decoder.embedding.num_embeddings - FIRST_SYMBOL
    true_previous = previous_tokens(target)
    if teacher_forcing == 1:
        tokens = with_noise(true_previous, noise, alphabet_size)
        logits, _ = model(source, lengths, tokens)
        return logits

    keys, hidden = model.encoder(source, lengths)
    is_forced = torch.rand(target.shape, device=target.device) < teacher_forcing
    written = true_previous[:, :1]  # SOS
    all_logits = []
    for t in range(target.size(1)):
        now = slice(t, t + 1)  # and not t, which would drop the axis of time
        tokens = torch.where(is_forced[:, now], true_previous[:, now], written)
        tokens = with_noise(tokens, noise, alphabet_size)
        logits, hidden, _ = model.decoder(tokens, hidden, keys, mask=source != PAD)
        written = most_probable(logits)
        all_logits.append(logits)
    return torch.cat(all_logits, dim=1)


def train(model: Seq2Seq, settings: Settings) -> Iterator[tuple[int, float, float]]:
    """Train the model; after each training step yield (step, loss, seconds of training so far).

    It is a generator: each round of the caller's for loop runs one training step, and the caller
    may look at the model in between, which does not count as training time.

    1. Draw new strings. 2. Predict every output symbol. 3. Measure the loss, the cross-entropy per
    symbol in nats; EOS counts, PAD does not. 4. Compute the gradient, and scale it down if its
    norm exceeds 1, since that of a recurrent network is sometimes very large. 5. Update the
    parameters. Strings have a random generator of their own; noise and scheduled sampling draw from
    PyTorch's global one, which `build_model` has seeded.

    Raises FloatingPointError when a parameter is no longer a finite number.
    """
    # Not the seed of the parameters, so that the two random streams differ.
    generator = torch.Generator().manual_seed(2**32 - 1 - settings.seed)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)  # each step sets its rate
    seconds = 0.0
    for step in range(1, settings.steps + 1):
        start = time.perf_counter()
        # 1. A batch of freshly drawn strings, and what they should become.
        source, lengths = sample_sources(
            settings.batch_size,
            len(settings.alphabet),
            settings.min_length,
            settings.max_length,
            generator,
        )
        source, lengths = source.to(settings.device), lengths.to(settings.device)
        target = make_targets(source, lengths, settings.task)
        # 2. The prediction for every step of every target.
        logits = training_logits(
            model, source, lengths, target, settings.teacher_forcing, settings.noise
        )
        # 3. The loss. It knows nothing of positions: where to look is learnt, because score,
        # softmax, context and output can all be differentiated.
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        # 4. The gradient.
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

SHIFTS = (-2, -1, 0, 1, 2)  # distances from the true column to be counted; + is to the right


@torch.no_grad()
def greedy_decode(
    model: Seq2Seq, source: Tensor, lengths: Tensor, max_steps: int
) -> tuple[Tensor, Tensor | None]:
    """Write the most probable symbol at each step until every string has its EOS.

    It stops after `max_steps` at the latest. Shapes: source (B, S), lengths (B,). Returns (tokens
    (B, T), weights (B, T, S), or None without attention). After its EOS a string gets PAD.
    """
    keys, hidden = model.encoder(source, lengths)
    token = torch.full_like(source[:, :1], SOS)
    is_finished = torch.zeros_like(token, dtype=torch.bool)
    all_tokens, all_weights = [], []
    for _ in range(max_steps):
        # Read the symbol just written, and write the next one.
        logits, hidden, weights = model.decoder(token, hidden, keys, mask=source != PAD)
        token = most_probable(logits).masked_fill(is_finished, PAD)
        all_tokens.append(token)
        all_weights.append(weights)
        is_finished = is_finished | (token == EOS)
        if is_finished.all():
            break
    weights = None if weights is None else torch.cat(all_weights, dim=1)
    return torch.cat(all_tokens, dim=1), weights


def evaluation_strings(settings: Settings, count: int = 2000) -> tuple[Tensor, Tensor]:
    """Draw the strings of the evaluation: the same for every seed, independent of training.

    Independent does not mean unseen: at the default settings 12% of the 2,000 strings also occur
    in training, nearly all of them only 1 to 3 symbols long. Returns (source (N, S), lengths (N,)).
    """
    source, lengths = sample_sources(
        count,
        len(settings.alphabet),
        settings.min_length,
        settings.max_length,
        torch.Generator().manual_seed(987654321),
    )
    return source.to(settings.device), lengths.to(settings.device)


def percent(hits: Tensor) -> float:
    """Return the percentage of True values; nan if there are no values at all."""
    return 100 * hits.sum().item() / hits.numel() if hits.numel() else math.nan


def evaluate(
    model: Seq2Seq, source: Tensor, lengths: Tensor, task: str
) -> tuple[float, dict[int, float]]:
    """Decode strings (N, S) with lengths (N,), and ask two questions.

    1. Is the answer right? Exact match is the percentage of strings that are right as a whole,
       including EOS.
    2. Is the picture right? For each k in SHIFTS, the percentage of output symbols whose largest
       weight lies k columns to the right of their true source position. At k = 0 it is called
       alignment. All symbols that the model writes count, right or wrong, but not EOS.

    Returns (exact match, {k: percentage}); the dictionary is empty without attention.
    """
    target = make_targets(source, lengths, task)
    tokens, weights = greedy_decode(model, source, lengths, max_steps=target.size(1))
    written = F.pad(tokens, (0, target.size(1) - tokens.size(1)), value=PAD)
    exact_match = percent((written == target).all(dim=1))
    if weights is None:
        return exact_match, {}
    positions = source_positions(lengths, tokens.size(1), task)
    has_position = (tokens > EOS) & (positions >= 0)
    shift = (weights.argmax(dim=-1) - positions)[has_position]
    return exact_match, {k: percent(shift == k) for k in SHIFTS}


# --- The run: what happens when you start the script ----------------------------------------------


class Decoded(NamedTuple):
    """What a model made of one word, and where it looked."""

    word: str  # S symbols
    output: str  # the symbols that it wrote
    labels: list[str]  # the same, plus EOS if the model wrote it: a label for each step
    weights: np.ndarray | None  # (T, S), or None without attention
    positions: list[int]  # the source position from which each output symbol should come


def tokens_of(word: str, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return (source, lengths) of one word: (1, S) tokens and (1,)."""
    tokens = [FIRST_SYMBOL + settings.alphabet.index(symbol) for symbol in word]
    source = torch.tensor([tokens], dtype=torch.long, device=settings.device)
    return source, torch.tensor([len(word)], device=settings.device)


def as_decoded(word: str, tokens: Tensor, weights: Tensor | None, settings: Settings) -> Decoded:
    """Turn tokens (1, T) and weights (1, T, S) into a Decoded, to be printed and drawn."""
    labels = [
        "EOS" if token == EOS else settings.alphabet[token - FIRST_SYMBOL]
        for token in tokens[0].tolist()
    ]
    positions = source_positions(torch.tensor([len(word)]), len(word), settings.task)[0]
    return Decoded(
        word,
        output="".join(label for label in labels if label != "EOS"),
        labels=labels,
        weights=None if weights is None else weights[0].cpu().numpy(),
        positions=positions[positions >= 0].tolist(),
    )


def decode_word(model: Seq2Seq, word: str, settings: Settings) -> Decoded:
    """Decode one word greedily, for at most 2 S + 1 steps."""
    source, lengths = tokens_of(word, settings)
    tokens, weights = greedy_decode(model, source, lengths, max_steps=2 * len(word) + 1)
    return as_decoded(word, tokens, weights, settings)


class FourSteps(NamedTuple):
    """The query and the results of the four steps, while a decoder reads T tokens."""

    query: Tensor  # h_t, (B, T, H)
    scores: Tensor  # score(h_t, h_s), (B, T, S)
    weights: Tensor  # alpha_ts, (B, T, S)
    context: Tensor  # c_t, (B, T, H)
    logits: Tensor  # (B, T, vocabulary)


@torch.no_grad()
def four_steps(model: Seq2Seq, source: Tensor, lengths: Tensor, tokens: Tensor) -> FourSteps:
    """Read tokens (B, T), as the model's forward does, and keep what it computes along the way."""
    keys, last_state = model.encoder(source, lengths)
    query, _ = model.decoder.gru(model.decoder.embedding(tokens), last_state)
    scores = model.decoder.score(query, keys)
    context, weights = attend(scores, keys, mask=source != PAD)
    logits = model.decoder.final_output(query, context)
    return FourSteps(query, scores, weights, context, logits)


@torch.no_grad()
def four_steps_as_text(model: Seq2Seq, decoded: Decoded, settings: Settings) -> str:
    """Return the numbers behind output symbol 3, or behind the last one if there are fewer."""
    t = min(2, len(decoded.labels) - 1)
    source, lengths = tokens_of(decoded.word, settings)
    written, _ = tokens_of(decoded.output[:t], settings)
    steps = four_steps(model, source, lengths, tokens=F.pad(written, (1, 0), value=SOS))
    lines = [f"How output symbol {t + 1} was written:", "  s  symbol    score  weight"]
    for s, symbol in enumerate(decoded.word):
        score, weight = steps.scores[0, t, s].item(), steps.weights[0, t, s].item()
        lines.append(f" {s:>2}  {symbol:<6}  {score:7.2f}  {weight:6.3f}")
    zeros = torch.zeros_like(steps.context)
    for name, context in (("the context", steps.context), ("zeros in its place", zeros)):
        logits = model.decoder.final_output(steps.query, context)[0, t]
        token = int(most_probable(logits))
        symbol = ["EOS", *settings.alphabet][token - EOS]
        probability = logits.softmax(dim=-1)[token].item()
        lines.append(f"next symbol with {name}: {symbol} (probability {probability:.3f})")
    return "\n".join(lines)


def matrix_as_text(decoded: Decoded) -> str:
    """Return the attention matrix as text: five shades from blank to @, a row for each output."""
    lines = ["     " + " ".join(decoded.word)]
    for label, weights in zip(decoded.labels, decoded.weights, strict=True):
        shades = [" .:*@"[min(4, int(5 * weight))] for weight in weights]
        lines.append(f"{label:>3}  {' '.join(shades)}".rstrip())
    return "\n".join(lines)


def run(settings: Settings, word: str, folder: Path) -> None:
    """Train one model, print its progress and its results, and draw its figures."""
    length_range = f"{settings.min_length} to {settings.max_length}"
    print(f"task: {settings.task} strings of {length_range} symbols")

    # Train, and look now and then at what the model makes of one word.
    model = build_model(settings)
    losses, snapshots = [], {}
    # The first step, some in between, and the last, whose word is reported and drawn below.
    snapshot_steps = {max(1, settings.steps * k // 8) for k in (0, 1, 2, 3, 4, 8)}
    for step, loss, seconds in train(model, settings):
        losses.append(loss)
        if step in snapshot_steps or step % max(1, settings.steps // 16) == 0:
            decoded = decode_word(model, word, settings)
            progress = f"step {step} of {settings.steps}  loss {loss:.4f}"
            print(f"{progress}  {word} -> {decoded.output}", flush=True)
        if step in snapshot_steps:
            snapshots[step] = decoded

    # Report: one word in detail, then the metrics on many strings.
    strings = evaluation_strings(settings)
    exact_match, shares = evaluate(model, *strings, settings.task)
    has_attention = settings.attention != "none"
    if has_attention:
        print(f"\n{four_steps_as_text(model, decoded, settings)}\n\n{matrix_as_text(decoded)}\n")
    if not settings.min_length <= len(word) <= settings.max_length:
        print(f"{word} has {len(word)} symbols, a length that this model was not trained on")
    num_strings = len(strings[0])
    num_right = round(exact_match / 100 * num_strings)
    print(f"exact match: {exact_match:.2f}% ({num_right} of {num_strings} strings)")
    if has_attention:
        left, right = f"left {shares[-1]:.2f}%", f"right {shares[1]:.2f}%"
        print(f"alignment: {shares[0]:.2f}% (one column {left}, {right})")
    print(f"training time: {seconds:.1f} s")

    # Draw.
    save(draw_loss(losses, snapshots).savefig, folder / "pytorch_seq2seq_loss.png")
    if has_attention:
        save(draw_attention(decoded).savefig, folder / "pytorch_attention_matrix.png")
        save(animate_decoding(decoded), folder / "pytorch_decoding.gif")


# ==================================================================================================
# THE LESSON ENDS HERE. You have seen the whole program: the model, its training and its evaluation.
# Below are the pictures, the experiments that test what the lesson claims, and the command line.
# ==================================================================================================

# --- Pictures -------------------------------------------------------------------------------------

ORANGE, BLUE, GREEN, PINK, GREY = "#E69F00", "#0072B2", "#009E73", "#CC79A7", "0.55"


def word_that_fits(preferred: str, settings: Settings) -> str:
    """Return the preferred word, or else one that fits the alphabet and the lengths."""
    fits = settings.min_length <= len(preferred) <= settings.max_length
    if fits and set(preferred) <= set(settings.alphabet):
        return preferred
    return (settings.alphabet * settings.max_length)[: settings.max_length]


def draw_matrix(
    axes: Axes, decoded: Decoded, num_rows: int | None = None, readable: int = 24
) -> AxesImage:
    """Draw attention weights: a row for each output symbol, a column for each source symbol.

    A ring marks the source position from which each symbol should come, so that a picture that is
    one column off can be seen to be. Only the first `num_rows` rows are filled, by default all.
    Where there are more than `readable` symbols, they and the rings are left out.
    """
    num_rows = len(decoded.labels) if num_rows is None else num_rows
    weights = decoded.weights.copy()
    weights[num_rows:] = math.nan
    image = axes.imshow(weights, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set(xlabel="source symbol", ylabel="output symbol", autoscale_on=False)
    if max(len(decoded.word), len(decoded.output)) > readable:
        return image
    num_rings = min(num_rows, len(decoded.output), len(decoded.positions))
    for colour, width in (("white", 3), ("tab:red", 1.3)):
        style = {"markeredgecolor": colour, "markeredgewidth": width, "markersize": 7}
        places = decoded.positions[:num_rings]
        axes.plot(places, range(num_rings), "o", markerfacecolor="none", **style)
    axes.set_xticks(range(len(decoded.word)), list(decoded.word), parse_math=False)
    axes.set_yticks(range(num_rows), decoded.labels[:num_rows], parse_math=False)
    return image


def draw_attention(decoded: Decoded) -> Figure:
    """Draw the attention matrix of the trained model."""
    figure = Figure(figsize=(8, 7), dpi=150, layout="constrained")
    axes = figure.subplots()
    figure.colorbar(draw_matrix(axes, decoded), label="attention weight")
    axes.set_title("Where the decoder looks (a ring: where the symbol comes from)", size=11)
    return figure


def animate_decoding(decoded: Decoded) -> Callable[[Path], None]:
    """Animate how the decoder writes a word, in at most 16 frames; return what writes the GIF.

    It opens on the first symbol, writes a symbol a second, and stops at the last one. Symbols still
    to be written are grey. EOS, for which there is no right place to look, is left out.
    """
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bars, matrix = figure.subplots(1, 2)
    num_symbols = max(1, len(decoded.output))
    decoded = decoded._replace(weights=decoded.weights[:num_symbols])
    figure.colorbar(draw_matrix(matrix, decoded), ax=matrix, label="attention weight")
    frames = []
    for row in np.linspace(1, num_symbols, min(16, num_symbols)).astype(int).tolist():
        matrix.clear()
        draw_matrix(matrix, decoded, row)
        bars.clear()
        bars.bar(range(len(decoded.word)), decoded.weights[row - 1], color=ORANGE)
        bars.set(ylim=(0, 1), xlim=matrix.get_xlim(), xlabel="source symbol")
        bars.set_ylabel("attention weight")
        bars.set_xticks(matrix.get_xticks(), matrix.get_xticklabels(), parse_math=False)
        # The word, its output in grey, and over it in black what is written so far.
        for text, colour in ((decoded.output[:24], "0.7"), (decoded.output[:row][:24], "black")):
            lines = f"reads  {decoded.word[:24]}\nwrites {text}"
            place = {"xy": (0, 1.03), "xycoords": "axes fraction", "parse_math": False}
            bars.annotate(lines, **place, color=colour, size=12, family="monospace")
        canvas.draw()
        figure.set_layout_engine("none")  # what is laid out for the first frame stays where it is
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))

    def write_gif(path: Path) -> None:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000)

    return write_gif


def draw_loss(losses: list[float], snapshots: dict[int, Decoded]) -> Figure:
    """Draw the loss of every training step, and above it the matrices of a word at some of them."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    drawable = {step: decoded for step, decoded in snapshots.items() if decoded.weights is not None}
    above, below = figure.subfigures(2, 1, height_ratios=[2, 3])
    axes = (below if drawable else figure).subplots()
    style = "." if len(losses) < 3 else "-"
    axes.plot(range(1, len(losses) + 1), losses, style, linewidth=1, color=BLUE)
    axes.set(xlabel="training step", ylabel="loss (nats per symbol)", ylim=(0, 1.1 * max(losses)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if not drawable:
        return figure
    panels = above.subplots(1, len(drawable), squeeze=False)[0]
    for letter, panel, (step, decoded) in zip("ABCDEF", panels, drawable.items(), strict=False):
        # A letter on the curve, and the matrix above it. All panels have as many rows as the word
        # needs, EOS included, so that their rows have the same height.
        axes.plot(step, losses[step - 1], "o", color="black", clip_on=False)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
        place = {"xytext": (5, 6), "textcoords": "offset points"}
        axes.annotate(letter, (step, losses[step - 1]), **place, size=11, bbox=box)
        image = draw_matrix(panel, decoded._replace(positions=[]))
        panel.set(xticks=[], yticks=[], ylabel="", ylim=(len(decoded.word) + 0.5, -0.5))
        panel.set_title(f"{letter}: step {step}", size=10)
        output = decoded.output if len(decoded.output) <= 12 else f"{decoded.output[:9]}..."
        panel.set_xlabel(output, size=9, parse_math=False)
    above.colorbar(image, ax=panels, label="weight", ticks=[0, 1])
    return figure


# --- Experiments: how they run --------------------------------------------------------------------


class Experiment(NamedTuple):
    """A question, put to several models, each with settings of its own.

    A run is a dictionary: its row and seed, the settings that differ between rows, and every number
    that it measured. The printed table, the CSV file and the figures are all made of such runs.
    """

    rows: dict[str, dict[str, object]]  # the name of each model, and the settings it changes
    measure: Callable[[Settings], dict]  # trains one model, returns {name: number}
    figures: dict[str, Callable[[dict[str, list[dict]]], Figure]]  # file name -> what draws it
    columns: tuple[str, ...]  # what the printed table shows of a run
    num_seeds: int


def settings_that_differ(experiment: Experiment) -> list[str]:
    """Return the names of the settings that some row changes."""
    changed = {name for changes in experiment.rows.values() for name in changes}
    return [field.name for field in dataclasses.fields(Settings) if field.name in changed]


def start_worker() -> None:
    """Prepare a process for training: one thread, and Ctrl-C is for the parent alone."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_job(job: tuple[str, Callable[[Settings], dict], Settings]) -> tuple[str, Settings, dict]:
    """Measure one row with one seed."""
    row, measure, settings = job
    return row, settings, measure(settings)


def count_workers() -> int:
    """Return how many processes to start: one for each core that this process may use.

    At most 61, which is all that Windows can wait for. 1, which means no extra process, where a new
    process could not import this script, as under a profiler.
    """
    main_module = sys.modules["__main__"]
    main_file = getattr(main_module, "__file__", None)
    if main_file is not None and not Path(main_file).exists():
        return 1
    if __name__ == "__main__":
        spec = getattr(main_module, "__spec__", None)
        is_found = main_module.__dict__ is globals() and (not spec or spec.name != "__main__")
    else:
        is_found = importlib.machinery.PathFinder.find_spec(__name__) is not None
    has_affinity = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(61, num_cores) if is_found else 1


def run_jobs(
    experiment: Experiment, settings: Settings, num_seeds: int, num_workers: int
) -> Iterator[tuple[str, Settings, dict]]:
    """Measure each row with `num_seeds` seeds; yield (row, its settings, numbers) as they end.

    Each run seeds all that it draws, so nothing but times depends on the number of workers.
    """
    jobs = [
        (row, experiment.measure, dataclasses.replace(settings, **changes, seed=seed))
        for row, changes in experiment.rows.items()
        for seed in range(settings.seed, settings.seed + num_seeds)
    ]
    jobs.sort(key=lambda job: -job[2].steps)  # long ones first, so that all cores end together
    if num_workers == 1:
        yield from map(run_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(num_workers, start_worker) as pool:
        yield from pool.imap_unordered(run_job, jobs)


def short(number: float) -> str:
    """Return a number as a table shows it: two decimals from 99 to 100, one below 10, else none."""
    if math.isinf(number):
        return "never"
    digits = 2 if 99 < number < 100 else 1 if abs(number) < 10 else 0
    text = f"{round(number, digits) + 0.0:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def cell(values: list[object]) -> str:
    """Return the median and the range of some runs, as 5.4 (4.5 to 6.9).

    Of a yes-or-no question it counts the yeses, as 9 of 10. A setting stays as it is.
    """
    if isinstance(values[0], str):
        return values[0]
    if isinstance(values[0], bool):
        return f"{sum(values)} of {len(values)}"
    if any(math.isnan(value) for value in values):
        return ""
    middle, low, high = short(float(np.median(values))), short(min(values)), short(max(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def markdown_table(runs_of: dict[str, list[dict]], columns: tuple[str, ...]) -> str:
    """Return a line for each row, with the median and the range of each column over its runs."""
    table = [f"| model | {' | '.join(columns)} |", f"|---{'|--:' * len(columns)}|"]
    for row, runs in runs_of.items():
        cells = [cell([one_run[column] for one_run in runs]) for column in columns]
        table.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(table)


def write_csv(runs_of: dict[str, list[dict]], path: Path) -> None:
    """Write a line for each run, a column for each of its numbers; pictures are left out."""
    lines = [
        {name: value for name, value in one_run.items() if not isinstance(value, Decoded)}
        for runs in runs_of.values()
        for one_run in runs
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def series(one_run: dict, prefix: str) -> dict[int, float]:
    """Return what a run measured at several lengths or steps: {x: number named prefix + x}."""
    return {
        int(key.removeprefix(prefix)): number
        for key, number in one_run.items()
        if key.startswith(prefix)
    }


def run_experiment(name: str, settings: Settings, num_seeds: int, folder: Path) -> None:
    """Run all rows of an experiment, print its table, write its CSV file and draw its figures."""
    experiment, start, steps_done = EXPERIMENTS[name], time.perf_counter(), 0
    settings_of = {
        row: dataclasses.replace(settings, **changes) for row, changes in experiment.rows.items()
    }
    steps_in_all = num_seeds * sum(changed.steps for changed in settings_of.values())
    runs_of = {row: [{}] * num_seeds for row in experiment.rows}
    finished = run_jobs(experiment, settings, num_seeds, count_workers())
    for count, (row, changed, measured) in enumerate(finished, start=1):
        differing = {
            field: str(getattr(changed, field)) for field in settings_that_differ(experiment)
        }
        numbers = {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in measured.items()
        }
        index = changed.seed - settings.seed
        runs_of[row][index] = {"row": row, "seed": changed.seed, **differing, **numbers}
        steps_done += changed.steps
        seconds_left = (time.perf_counter() - start) * (steps_in_all / steps_done - 1)
        ended = f"{row}, seed {changed.seed}: exact match {measured['exact match']:.2f}%"
        print(
            f"{count} of {num_seeds * len(runs_of)}  {ended}  (about {seconds_left:.0f} s left)",
            flush=True,
        )
    print(f"\n{markdown_table(runs_of, experiment.columns)}\n")
    for rule in ("off by one", "follows a swap"):
        if rule in experiment.columns:
            print(how_often_predicted(runs_of, rule))
    save(lambda path: write_csv(runs_of, path), folder / f"pytorch_{name}.csv")
    for file_name, draw in experiment.figures.items():
        save(draw(runs_of).savefig, folder / file_name)


# --- Experiment: what does one vector cost? -------------------------------------------------------


def measure_bottleneck(settings: Settings) -> dict:
    """Train, then measure exact match for each source length, a quarter beyond the trained ones."""
    model = build_model(settings)
    for _, _, seconds in train(model, settings):
        pass
    exact_at = {}
    for length in range(settings.min_length, math.ceil(1.25 * settings.max_length) + 1):
        fixed = dataclasses.replace(settings, min_length=length, max_length=length)
        exact_at[length], _ = evaluate(model, *evaluation_strings(fixed, 500), settings.task)
    # The longest length up to which nine of ten strings are right, at it and at all shorter ones.
    reached = settings.min_length - 1
    while exact_at.get(reached + 1, 0) >= 90:
        reached += 1
    exact_match, _ = evaluate(model, *evaluation_strings(settings), settings.task)
    return {
        "seconds": seconds,
        "exact match": exact_match,
        "90% right up to length": reached,
        **{f"exact match at length {length}": share for length, share in exact_at.items()},
    }


def draw_bottleneck(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw strings right by source length, the median over seeds: a line for each budget."""
    figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True, width_ratios=[3, 3, 2])
    prefix = "exact match at length "
    for axes, (family, (budgets, _)) in zip(panels, BUDGETS.items(), strict=True):
        medians = []
        for steps in budgets:
            curves = [series(one_run, prefix) for one_run in runs_of[f"{family}, {steps:,} steps"]]
            lengths = np.array(list(curves[0]))
            medians.append(np.median([list(curve.values()) for curve in curves], axis=0))
        longest = lengths[-1] * 4 // 5  # a fifth of the lengths were never trained
        for steps, median in zip(budgets, medians, strict=True):
            is_common = steps == 400
            style = {"color": ORANGE, "linewidth": 3} if is_common else {"color": BLUE}
            axes.plot(lengths, median, **style)
            # The number of steps stands where the line is furthest from all the others.
            others = [other for other in medians if other is not median]
            distance = np.min(np.abs(np.array(others) - median), axis=0)
            is_inside = (lengths > lengths[0] + 1) & (lengths <= longest)
            at = np.where(is_inside, distance, -1).argmax()
            text = {"size": 9, "weight": "bold" if is_common else "normal", "va": "center"}
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
            axes.text(lengths[at], median[at], f"{steps:,}", **text, ha="center", bbox=box)
        axes.axvspan(longest + 0.5, lengths[-1] + 0.5, color="0.88", zorder=0)
        axes.text(lengths[-1], 98, "never trained on", rotation=90, ha="center", va="top", size=9)
        axes.set_title(family.replace(" with", "\nwith"), size=11)
        axes.set(xlim=(lengths[0] - 0.5, lengths[-1] + 0.5), ylim=(-4, 107))
        axes.set_xlabel("source length (symbols)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("strings right (%)")
    figure.supxlabel("Number on each line: training steps. Thick line: 400 steps.", size=10)
    return figure


# What suits a model without attention best, as far as we tried.
ONE_VECTOR = {"attention": "none", "encoder": "forward", "noise": 0.0}
BUDGETS = {
    "reversing without attention": ((200, 400, 800, 1600, 3200), ONE_VECTOR),
    "reversing with attention": ((50, 100, 150, 400), {}),
    "copying without attention": ((400, 1600), {**ONE_VECTOR, "task": "copy"}),
}
SIZES = {
    "16 numbers, 1,600 steps": {"hidden_size": 16, "steps": 1600},
    "32 numbers, 1,600 steps": {"hidden_size": 32, "steps": 1600},
    "128 numbers, 1,600 steps": {"hidden_size": 128, "steps": 1600, "lr": 0.02},
    "16 numbers, 12,800 steps": {"hidden_size": 16, "steps": 12800},
    "32 numbers, 12,800 steps": {"hidden_size": 32, "steps": 12800},
}
BOTTLENECK = Experiment(
    rows={
        **{
            f"{family}, {steps:,} steps": {**changes, "steps": steps}
            for family, (budgets, changes) in BUDGETS.items()
            for steps in budgets
        },
        **{f"one vector of {size}": {**ONE_VECTOR, **changes} for size, changes in SIZES.items()},
        "reversing with attention, 32 numbers, 400 steps": {"hidden_size": 32, "steps": 400},
        "reversing with attention, forward, no noise, 400 steps": {
            **ONE_VECTOR,
            "attention": "dot",
            "steps": 400,
        },
    },
    measure=measure_bottleneck,
    figures={"pytorch_bottleneck.png": draw_bottleneck},
    columns=("encoder", "noise", "hidden_size", "90% right up to length", "exact match"),
    num_seeds=5,
)


# --- Experiment: what is each idea worth? ---------------------------------------------------------


def measure_history(settings: Settings) -> dict:
    """Train, and measure exact match on 200 strings every 10 training steps, which is not timed.

    Steps and seconds to 90% are those of the first such measurement that reaches it, or infinite.
    The final exact match and alignment are measured on 2,000 strings.
    """
    model = build_model(settings)
    source, lengths = evaluation_strings(settings)
    exact_at, steps_to_90, seconds_to_90 = {}, math.inf, math.inf
    for step, _, seconds in train(model, settings):
        if step % 10 == 0:
            exact_at[step], _ = evaluate(model, source[:200], lengths[:200], settings.task)
            if exact_at[step] >= 90 and steps_to_90 == math.inf:
                steps_to_90, seconds_to_90 = step, seconds
    exact_match, shares = evaluate(model, source, lengths, settings.task)
    return {
        "ms per step": 1000 * seconds / settings.steps,
        "steps to 90%": steps_to_90,
        "seconds to 90%": seconds_to_90,
        "exact match": exact_match,
        "alignment": shares.get(0, math.nan),
        **{f"exact match at step {step}": share for step, share in exact_at.items()},
    }


def draw_history(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw exact match by training step and by second: thin lines for seeds, a thick median."""
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = dict(zip(runs_of, (GREY, PINK, GREEN, BLUE, ORANGE), strict=True))
    for row, runs in runs_of.items():
        curves = [series(one_run, "exact match at step ") for one_run in runs]
        exact = np.array([list(curve.values()) for curve in curves])  # (runs, steps)
        steps = np.array([list(curve) for curve in curves])
        seconds = steps * np.array([[one_run["ms per step"] / 1000] for one_run in runs])
        for axes, x in zip(panels, (steps, seconds), strict=True):
            axes.plot(x.T, exact.T, color=colours[row], linewidth=0.6, alpha=0.45)
            middle = np.median(x, axis=0), np.median(exact, axis=0)
            axes.plot(*middle, color=colours[row], linewidth=2.5, label=row)
    for axes, label in zip(panels, ("training steps", "seconds of training"), strict=True):
        axes.set(xlabel=label, xlim=(0, None), ylim=(-3, 104))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("strings right (%)")
    figure.suptitle("Kinds of score inside the same decoder", size=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


# Learning rate and noise of each row are those with the fewest steps to 90% on average, or without
# attention the highest exact match, among 0.01, 0.02, 0.03, 0.05 and 0, 0.2, on seeds 100 to 102.
HISTORY = Experiment(
    rows={
        "no attention (Sutskever et al. 2014)": {**ONE_VECTOR, "lr": 0.05},
        "location score, a control": {"attention": "location", "lr": 0.02, "noise": 0.0},
        "additive score (Bahdanau et al. 2015)": {"attention": "additive", "noise": 0.0},
        "dot score (Luong et al. 2015)": {"attention": "dot", "lr": 0.02},
        "dot score, no teacher forcing": {"attention": "dot", "teacher_forcing": 0.0},
    },
    measure=measure_history,
    figures={"pytorch_history.png": draw_history},
    columns=(
        *("encoder", "lr", "noise", "ms per step", "steps to 90%", "seconds to 90%"),
        *("exact match", "alignment"),
    ),
    num_seeds=10,
)


# --- Experiment: when can you trust the picture? --------------------------------------------------

CHECKPOINTS = (50, 75, 100, 150, 200, 300, 400)  # training steps at which swaps are tried, too


class Probe(NamedTuple):
    """N strings, and for each one output step at which the decoder may read something else."""

    source: Tensor  # (N, S), all of the same length
    lengths: Tensor  # (N,)
    target: Tensor  # (N, T)
    step: Tensor  # (N, 1), the output step
    true: Tensor  # (N, 1), the source position of the symbol to be written at that step
    previous: Tensor  # (N, 1), the source position of the symbol written before


def occurs_once(source: Tensor) -> Tensor:
    """Mark the positions whose symbol occurs only once in its string: (N, S) -> (N, S)."""
    return (source[:, :, None] == source[:, None]).sum(dim=2) == 1


def probe_strings(settings: Settings) -> Probe:
    """Take strings of the greatest length, and for each a random step in the middle half.

    Only those strings are kept in which the symbol to be written then and the one before it each
    occur once, so that there is no doubt which position a symbol means.
    """
    longest = dataclasses.replace(settings, min_length=settings.max_length)
    source, lengths = evaluation_strings(longest)
    target = make_targets(source, lengths, settings.task)
    num_symbols = int((target[0] > EOS).sum())
    generator = torch.Generator().manual_seed(0)
    first, last = max(1, num_symbols // 4), max(1, 3 * num_symbols // 4)
    step = torch.randint(first, last + 1, (len(source), 1), generator=generator).to(source.device)
    positions = source_positions(lengths, target.size(1), settings.task).clamp(min=0)
    true, previous = positions.gather(1, step), positions.gather(1, step - 1)
    once = occurs_once(source)
    kept = (once.gather(1, true) & once.gather(1, previous)).squeeze(1) & (lengths > 1)
    return Probe(*(part[kept] for part in (source, lengths, target, step, true, previous)))


def pick(candidates: Tensor) -> Tensor:
    """Return a random True column of each row, 0 if it has none: (..., C) -> (..., 1).

    It is the same one at each call.
    """
    generator = torch.Generator().manual_seed(1)
    draws = torch.rand(candidates.shape, generator=generator).to(candidates.device)
    return torch.where(candidates, draws, -1).argmax(dim=-1, keepdim=True)


def in_parts(
    model: Seq2Seq, source: Tensor, lengths: Tensor, tokens: Tensor, size: int = 100
) -> FourSteps:
    """Return the four steps of many strings, `size` at a time: additive scores need much memory."""
    parts = zip(source.split(size), lengths.split(size), tokens.split(size), strict=True)
    computed = [four_steps(model, *part) for part in parts]
    return FourSteps(*(torch.cat(pieces) for pieces in zip(*computed, strict=True)))


class Look(NamedTuple):
    """What the decoder does at the probed step."""

    scores: Tensor  # (N, S), score(h_t, h_s)
    column: Tensor  # (N, 1), where the largest weight lies
    symbol: Tensor  # (N, 1), what it writes


def with_symbol(probe: Probe, symbol: Tensor) -> Tensor:
    """Return the true previous symbols, (N, T), but at the probed step `symbol`, (N, 1)."""
    return previous_tokens(probe.target).scatter(1, probe.step, symbol)


def read_at_step(model: Seq2Seq, probe: Probe, tokens: Tensor) -> Look:
    """Let the decoder read `tokens`, (N, T), and return what it does at the probed step."""
    steps = in_parts(model, probe.source, probe.lengths, tokens)
    here = probe.step[:, :, None]
    scores = steps.scores.take_along_dim(here, dim=1).squeeze(1)
    logits = steps.logits.take_along_dim(here, dim=1).squeeze(1)
    return Look(scores, scores.argmax(dim=1, keepdim=True), most_probable(logits)[:, None])


def around_true(scores: Tensor, true: Tensor, reach: int = 3) -> dict[int, float]:
    """Average the scores (N, S) at each offset from -reach to +reach around the true column.

    They are relative to the mean score of the columns further away, in nats: a difference of 1
    makes a weight e times as large. Returns {offset: mean over the strings that reach so far}.
    """
    columns = torch.arange(scores.size(1), device=scores.device)
    is_far = (columns - true).abs() > reach
    baseline = (scores * is_far).sum(dim=1, keepdim=True) / is_far.sum(dim=1, keepdim=True)
    relative = scores - baseline
    means = {}
    for k in range(-reach, reach + 1):
        is_inside = ((true + k >= 0) & (true + k < scores.size(1))).squeeze(1)
        means[k] = relative[is_inside].gather(1, (true + k)[is_inside]).mean().item()
    return means


def substitute(model: Seq2Seq, probe: Probe, alphabet_size: int) -> dict[str, float]:
    """Let the decoder read another symbol at one step, and see where it looks and what it writes.

    - lacking: a symbol that does not occur in the string. Nothing can match it, so the scores that
      remain are the *position part*: where the decoder believes it is.
    - What the true previous symbol adds to them, column by column, is the *content part*.
    - all lacking: not only this symbol but all before it are ones that the string lacks. Where the
      scores then change, symbols read earlier have a share in the position part.
    - near: the very symbol that must be written. A decoder attracted to what it reads goes to the
      true column, one that is repelled leaves it, one that counts stays where it is.
    - swap: another symbol of the string, which stands once, more than two places from the previous
      one. A decoder that searches for what it reads goes there, or one place onward if the state
      there has also read that symbol, and writes the neighbour in that direction.

    Two rules. A model should be off by one if the two parts together are larger one column right
    than at the true column. This is near to a truism, as together they are the undisturbed score.
    And it should follow a swap, to the symbol or next to it, more often than it stays, at the true
    column or one right, if its largest content part is larger than its largest position part.

    Returns percentages of strings, scores in nats, and what the rules predict and what happened.
    """
    source, true, previous = probe.source, probe.true, probe.previous
    right_symbol, onward = source.gather(1, true), true - previous
    # The two parts.
    as_trained = read_at_step(model, probe, previous_tokens(probe.target))
    every_symbol = FIRST_SYMBOL + torch.arange(alphabet_size, device=source.device)
    is_lacking = (source[:, :, None] != every_symbol).all(dim=1)  # (N, symbols)
    possible = is_lacking.any(dim=1)
    lacking = read_at_step(model, probe, with_symbol(probe, FIRST_SYMBOL + pick(is_lacking)))
    position = around_true(lacking.scores[possible], true[possible])
    both = around_true(as_trained.scores[possible], true[possible])
    content = {k: both[k] - position[k] for k in both}
    # The position part once more, with all previous symbols replaced.
    at_each_step = is_lacking[:, None].expand(-1, probe.target.size(1) - 1, -1)
    tokens = F.pad(FIRST_SYMBOL + pick(at_each_step).squeeze(-1), (1, 0), value=SOS)
    all_lacking = read_at_step(model, probe, tokens)
    position_alone = around_true(all_lacking.scores[possible], true[possible])
    # The near test.
    near = read_at_step(model, probe, with_symbol(probe, right_symbol))
    was_on_true = as_trained.column == true
    # The swap.
    places = torch.arange(source.size(1), device=source.device)
    neighbours = places + onward
    has_neighbour = (neighbours >= 0) & (neighbours < source.size(1))
    candidates = occurs_once(source) & ((places - previous).abs() > 2) & has_neighbour
    swappable = candidates.any(dim=1)
    place = pick(candidates)
    swap = read_at_step(model, probe, with_symbol(probe, source.gather(1, place)))
    neighbour = (place + onward).clamp(0, source.size(1) - 1)
    is_on_symbol, is_next_to_it = swap.column == place, swap.column == place + onward
    is_on_true, is_one_right = swap.column == true, swap.column == true + 1
    writes_neighbour = swap.symbol == source.gather(1, neighbour)
    measured = {
        "read true: true column": percent(was_on_true),
        "read true: one column right": percent(as_trained.column == true + 1),
        "read lacking: true column": percent((lacking.column == true)[possible]),
        "read lacking: one column right": percent((lacking.column == true + 1)[possible]),
        "read lacking: right symbol": percent((lacking.symbol == right_symbol)[possible]),
        "read all lacking: true column": percent((all_lacking.column == true)[possible]),
        "read all lacking: one column right": percent((all_lacking.column == true + 1)[possible]),
        "near: goes to the symbol": percent((near.column == true) & ~was_on_true),
        "near: leaves the true column": percent((near.column != true) & was_on_true),
        "swap: goes to the symbol": percent(is_on_symbol[swappable]),
        "swap: goes next to it": percent(is_next_to_it[swappable]),
        "swap: true column": percent(is_on_true[swappable]),
        "swap: one column right": percent(is_one_right[swappable]),
        "swap: writes the neighbour": percent(writes_neighbour[swappable]),
    }
    measured |= {f"position part at {k:+d}": value for k, value in position.items()}
    measured |= {f"content part at {k:+d}": value for k, value in content.items()}
    measured |= {f"all lacking: score at {k:+d}": value for k, value in position_alone.items()}
    highest, strongest = max(position.values()), max(content.values())
    return measured | {
        "off by one, predicted": both[1] > both[0],
        "follows a swap, predicted": strongest > highest,
        "follows a swap": percent((is_on_symbol | is_next_to_it)[swappable])
        > percent((is_on_true | is_one_right)[swappable]),
    }


def intervene(model: Seq2Seq, settings: Settings) -> dict[str, float]:
    """Interfere with the decoder at every step, and count the symbols that are still right.

    1. Put all weight on the true column, then on the column to the right of it, where there is one.
    2. Give it the context that another string has at the same step: does it write the symbol of
       that string? Then it uses what it looks at.
    3. Let it read random previous symbols: can it do without?
    4. Where a letter is doubled, the symbol just written stands on the true column, too. Compare
       the errors there, undisturbed, with the errors elsewhere.

    All strings have the greatest length. Returns percentages of symbols, EOS not counted.
    """
    longest = dataclasses.replace(settings, min_length=settings.max_length)
    source, lengths = evaluation_strings(longest)
    target = make_targets(source, lengths, settings.task)
    positions = source_positions(lengths, target.size(1), settings.task)
    is_symbol = positions >= 0
    tokens = previous_tokens(target)
    steps = in_parts(model, source, lengths, tokens)
    measured = {}
    with torch.no_grad():
        # 1. The context of a single column is the key that stands there.
        keys, _ = model.encoder(source, lengths)
        for name, shift in (("true column", 0), ("one column right", 1)):
            columns = (positions + shift).clamp(0, source.size(1) - 1)
            is_counted = is_symbol & (positions + shift < source.size(1))
            context = keys.take_along_dim(columns[:, :, None], dim=1)
            written = most_probable(model.decoder.final_output(steps.query, context))
            measured[f"all weight on {name}: right"] = percent((written == target)[is_counted])
        # 2. The strings change places, but only in their contexts.
        written = most_probable(model.decoder.final_output(steps.query, steps.context.roll(1, 0)))
        other_symbol = target.roll(1, 0)
        measured["other context: its symbol"] = percent((written == other_symbol)[is_symbol])
    # 3. Random previous symbols.
    torch.manual_seed(0)
    noise_steps = in_parts(model, source, lengths, with_noise(tokens, 1, len(settings.alphabet)))
    is_right = most_probable(noise_steps.logits) == target
    is_aligned = noise_steps.scores.argmax(dim=-1) == positions
    measured["read random: right"] = percent(is_right[is_symbol])
    measured["read random: true column"] = percent(is_aligned[is_symbol])
    # 4. Doubled letters.
    is_wrong = most_probable(steps.logits) != target
    is_doubled = target == tokens
    measured["wrong at doubled letters"] = percent(is_wrong[is_symbol & is_doubled])
    measured["wrong elsewhere"] = percent(is_wrong[is_symbol & ~is_doubled])
    return measured


def read_word(model: Seq2Seq, settings: Settings, test: str) -> Decoded:
    """Let the decoder read a word's true previous symbols, but run one of `substitute`'s tests.

    It is run a third of the way through. In "copyright", reversed, the decoder has written g there.
    "swap" makes it read y, "near" the i that it must write; "none" leaves it undisturbed.
    """
    word = word_that_fits("copyright", settings)
    source, lengths = tokens_of(word, settings)
    target = make_targets(source, lengths, settings.task)
    target = target[:, target[0] != PAD]
    tokens, step = previous_tokens(target), len(word) // 3
    if test == "swap":
        tokens[:, step] = source[:, step]
    elif test == "near":
        tokens[:, step] = target[:, step]
    steps = four_steps(model, source, lengths, tokens)
    return as_decoded(word, most_probable(steps.logits), steps.weights, settings)


def measure_alignment(settings: Settings) -> dict:
    """Train, and ask when the picture is true and why.

    See `evaluate`, `substitute` and `intervene`. During training, at CHECKPOINTS, it measures
    the share of strings that look at the true column, one column right, and that follow a swap.
    """
    model, probe = build_model(settings), probe_strings(settings)
    alphabet_size = len(settings.alphabet)
    on_the_way = {}
    for step, _, _ in train(model, settings):
        if step in CHECKPOINTS or step == settings.steps:
            found = substitute(model, probe, alphabet_size)
            follows = found["swap: goes to the symbol"] + found["swap: goes next to it"]
            on_the_way |= {
                f"true column at step {step}": found["read true: true column"],
                f"one column right at step {step}": found["read true: one column right"],
                f"follows at step {step}": follows,
            }
    exact_match, shares = evaluate(model, *evaluation_strings(settings), settings.task)
    return {
        "exact match": exact_match,
        **{f"off by {k:+d}" if k else "alignment": share for k, share in shares.items()},
        "off by one": shares[1] > shares[0],
        **substitute(model, probe, alphabet_size),
        **intervene(model, settings),
        **on_the_way,
        **{f"word, {test}": read_word(model, settings, test) for test in ("none", "swap", "near")},
    }


def how_often_predicted(runs_of: dict[str, list[dict]], rule: str) -> str:
    """Say how often a rule of `substitute` came out right, and in which rows it did not."""
    wrong = {
        row: sum(one_run[rule] != one_run[f"{rule}, predicted"] for one_run in runs)
        for row, runs in runs_of.items()
    }
    num_runs = sum(len(runs) for runs in runs_of.values())
    misses = ", ".join(f"{row} {count}" for row, count in wrong.items() if count)
    right = num_runs - sum(wrong.values())
    return f"{rule}: predicted in {right} of {num_runs} runs (wrong: {misses or 'none'})"


def draw_tests(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw how three models read a word: undisturbed, in the swap test and in the near test."""
    figure = Figure(figsize=(8, 8.8), dpi=150, layout="constrained")
    rows = ("no noise", "small embeddings", "the default")
    for part, row in zip(figure.subfigures(3, 1), rows, strict=True):
        part.suptitle(row, size=10, weight="bold")
        panels = part.subplots(1, 3)
        first_run = runs_of[row][0]
        word, positions = first_run["word, none"].word, first_run["word, none"].positions
        step = len(word) // 3
        written = word[positions[step - 1]]
        titles = {
            "none": "undisturbed",
            "swap": f"swap: it reads {word[step]}, not {written}",
            "near": f"near: it reads {word[positions[step]]}, not {written}",
        }
        for axes, (test, title) in zip(panels, titles.items(), strict=True):
            image = draw_matrix(axes, first_run[f"word, {test}"], readable=12)
            axes.set_title(title, size=9, parse_math=False)
            if test != "none":
                axes.set_ylabel("")
                style = {"edgecolor": "tab:red", "linewidth": 2}
                axes.axhspan(step - 0.5, step + 0.5, fill=False, **style)
            if row != rows[-1]:
                axes.set_xlabel("")
        part.colorbar(image, ax=panels, label="weight")
    return figure


def draw_parts(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw the position part as bars, the content part stacked on it, and their sum as a dash.

    Thin lines are the sums of single seeds, a ring marks the true column.
    """
    figure = Figure(figsize=(8, 3.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(IN_PARTS), sharey=True)
    columns = np.arange(-2, 4)
    for axes, row in zip(panels, IN_PARTS, strict=True):
        parts = {}
        for name in ("position", "content"):
            offsets = [series(one_run, f"{name} part at ") for one_run in runs_of[row]]
            parts[name] = np.array([[numbers[k] for k in columns] for numbers in offsets])
        position = np.median(parts["position"], axis=0)
        content = np.median(parts["content"], axis=0)
        axes.bar(columns, position, color=BLUE, label="position: where it believes it is")
        label = "content: what the symbol just read adds"
        axes.bar(columns, content, bottom=position, color=ORANGE, width=0.5, label=label)
        axes.plot(columns, sum(parts.values()).T, color="black", linewidth=0.4, alpha=0.5)
        style = {"color": "black", "markersize": 13, "markeredgewidth": 2}
        axes.plot(columns, position + content, "_", **style, label="their sum")
        axes.plot(0, -1.5, "o", markeredgecolor="tab:red", markerfacecolor="none", markersize=7)
        axes.axhline(0, color="0.4", linewidth=0.8)
        # The largest content part in numbers, since a small or negative one is hard to see.
        largest = round(content[np.abs(content).argmax()], 1) + 0.0
        text = {"size": 10, "weight": "bold", "ha": "center", "color": "#8A5A00"}
        axes.text(0.5, 0.03, f"content {largest:+.1f}", transform=axes.transAxes, **text)
        axes.set_xticks(columns, [f"{k:+d}" if k else "0" for k in columns], size=9)
        axes.set_title(row, size=9)
        axes.margins(y=0.2)
    panels[0].set_ylabel("score (nats)")
    panels[1].set_xlabel("columns to the right of the true one (ring)", x=1.03)  # in the middle
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def draw_during_training(runs_of: dict[str, list[dict]]) -> Figure:
    """Draw how often two models look at two columns and follow a swap, by training step."""
    figure = Figure(figsize=(8, 3.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    lines = {
        "true column": (BLUE, "on the true column"),
        "one column right": (PINK, "one column right"),
        "follows": (ORANGE, "follows a swapped-in symbol"),
    }
    for axes, row in zip(panels, ("noise 0.2", "the default"), strict=True):
        for name, (colour, label) in lines.items():
            curves = [series(one_run, f"{name} at step ") for one_run in runs_of[row]]
            steps, shares = list(curves[0]), np.array([list(curve.values()) for curve in curves])
            axes.plot(steps, shares.T, color=colour, linewidth=0.5, alpha=0.5)
            axes.plot(steps, np.median(shares, axis=0), color=colour, linewidth=2.5, label=label)
        axes.set(title=row, ylim=(-4, 104), xlabel="training step")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("strings (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


IN_PARTS = ("no noise", "noise 0.2", "small embeddings", "the default")
# A forward encoder, gates and embeddings that start as PyTorch starts them, and no noise.
PLAIN = {"encoder": "forward", "gates": "usual", "embedding_std": 1.0, "noise": 0.0}
ALIGNMENT = Experiment(
    rows={
        "no noise": PLAIN,
        "noise 0.2": PLAIN | {"noise": 0.2},
        "noise 0.5": PLAIN | {"noise": 0.5},
        "noise 1": PLAIN | {"noise": 1.0},
        "small embeddings": PLAIN | {"embedding_std": 0.2},
        "small embeddings, noise 0.2": PLAIN | {"embedding_std": 0.2, "noise": 0.2},
        "copying": PLAIN | {"task": "copy"},
        "additive score": PLAIN | {"attention": "additive"},
        "forgetful gates": PLAIN | {"gates": "forgetful"},
        "bidirectional encoder": PLAIN | {"encoder": "bidirectional"},
        "location score": PLAIN | {"attention": "location"},
        "location score, copying": PLAIN | {"attention": "location", "task": "copy"},
        "the default": {},
    },
    measure=measure_alignment,
    figures={
        "pytorch_alignment.png": draw_tests,
        "pytorch_alignment_scores.png": draw_parts,
        "pytorch_alignment_training.png": draw_during_training,
    },
    columns=(
        *("exact match", "alignment", "off by +1", "swap: goes to the symbol"),
        *("swap: goes next to it", "near: goes to the symbol", "near: leaves the true column"),
        *("off by one", "follows a swap"),
    ),
    num_seeds=10,
)
EXPERIMENTS = {"bottleneck": BOTTLENECK, "history": HISTORY, "alignment": ALIGNMENT}


# --- Command line ---------------------------------------------------------------------------------


def save(write_to: Callable[[Path], None], path: Path) -> None:
    """Write a file to `path`; an older one is replaced only when the new one is finished."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        unfinished = Path(folder) / path.name
        write_to(unfinished)
        unfinished.replace(path)
    print(f"{'table' if path.suffix == '.csv' else 'figure'}: {path}", flush=True)


def limited(kind: type, at_least: float, at_most: float) -> Callable[[str], float]:
    """Return a function that argparse can call to read a number within limits."""

    def read(text: str) -> float:
        number = kind(text)
        if not at_least <= number <= at_most:
            raise argparse.ArgumentTypeError(f"{text} is not between {at_least:,} and {at_most:,}")
        return number

    read.__name__ = "whole number" if kind is int else "number"  # argparse says: invalid number
    return read


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: a flag for each field of Settings, and four more.

    What it returns holds only the flags that were given.
    """
    parser = argparse.ArgumentParser(
        prog=Path(__file__).name,
        description="Train a GRU encoder and an attention decoder to reverse strings.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for field in dataclasses.fields(Settings):
        options = dict(field.metadata)
        options["help"] = f"{options.pop('meaning')} (default: {field.default})"
        if "at_least" in options:
            limits = options.pop("at_least"), options.pop("at_most")
            options["type"] = limited(type(field.default), *limits)
            options["metavar"] = "NUMBER"
        parser.add_argument(f"--{field.name.replace('_', '-')}", **options)
    word = "the word to draw (default: attention, if it fits)"
    parser.add_argument("--sequence", metavar="TEXT", help=word)
    compare = "compare models instead: print a table, write every run as CSV, draw figures"
    parser.add_argument("--experiment", choices=EXPERIMENTS, help=compare)
    seeds = "seeds for each row of an experiment (default: 10; bottleneck: 5)"
    parser.add_argument("--runs", type=limited(int, 1, 1000), metavar="NUMBER", help=seeds)
    where = "where the figures go (default: assets/ beside the script)"
    parser.add_argument("--assets", type=Path, metavar="DIR", help=where)
    return parser


def checked_settings(parser: argparse.ArgumentParser, given: dict[str, object]) -> Settings:
    """Return the settings that the flags ask for; what does not fit together ends the process."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    settings = Settings(**{name: value for name, value in given.items() if name in fields})
    symbols = settings.alphabet
    if settings.min_length > settings.max_length:
        parser.error(f"argument --min-length: {settings.min_length} is more than --max-length")
    if settings.hidden_size % 2:
        parser.error(f"argument --hidden-size: {settings.hidden_size} is not even")
    if len(symbols) < 2 or len(set(symbols)) < len(symbols) or not symbols.isprintable():
        parser.error("argument --alphabet: it needs at least 2 printable symbols, all different")
    if any(symbol.isspace() for symbol in symbols):
        parser.error("argument --alphabet: a space cannot be a symbol")
    try:
        torch.zeros(1, device=settings.device).tolist()
    except Exception as error:  # each kind of device that is missing has an exception of its own
        parser.error(f"argument --device: {str(error).partition(chr(10))[0]}")
    if "experiment" in given:
        for name in ("sequence", *settings_that_differ(EXPERIMENTS[given["experiment"]])):
            if name in given:
                parser.error(f"argument --{name.replace('_', '-')}: the experiment sets it")
        if given["experiment"] == "alignment" and settings.max_length < 8:
            parser.error("argument --max-length: the experiment alignment needs 8 or more")
        if given["experiment"] == "alignment" and not len(probe_strings(settings).source):
            parser.error("argument --alphabet: the experiment alignment needs more symbols")
    elif "runs" in given:
        parser.error("argument --runs: it works only with --experiment")
    return settings


def main(argv: list[str] | None = None) -> None:
    """Run the script with the command line `argv`."""
    # Check everything before anything is trained or written.
    parser = make_parser()
    given = vars(parser.parse_args(argv))
    settings = checked_settings(parser, given)
    word = given.get("sequence", word_that_fits("attention", settings))
    if not word or not set(word) <= set(settings.alphabet):
        parser.error(f"argument --sequence: {word!a} is empty or has symbols outside --alphabet")
    if settings.attention == "location" and len(word) > settings.max_length:
        reason = "with --attention location no word can be longer than --max-length"
        parser.error(f"argument --sequence: {reason}")
    folder = given.get("assets", Path(__file__).resolve().parent / "assets")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        parser.error(f"argument --assets: {error}")

    # Run. The matrices are small: a second thread would mostly wait for the first.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with matplotlib.style.context("default"):  # whatever a matplotlibrc says
            if "experiment" in given:
                name = given["experiment"]
                num_seeds = given.get("runs", EXPERIMENTS[name].num_seeds)
                run_experiment(name, settings, num_seeds, folder)
            else:
                run(settings, word, folder)
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: error: {error}; a smaller learning rate may help\n")
    finally:
        torch.set_num_threads(num_threads)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that know only ASCII
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
