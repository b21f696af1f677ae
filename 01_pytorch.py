"""A GRU encoder and an attention decoder learn to reverse strings, in PyTorch.

Reversal is a small task that shows attention at work: the last source symbol is written first, the
first one last, so the weights of a decoder that looks at the right positions form an anti-diagonal.
Read the file from top to bottom, alongside the README. The lesson ends at a divider in the middle.

    python 01_pytorch.py                           trains, reports, draws three figures
    python 01_pytorch.py --sequence hello          the same, with pictures of another word
    python 01_pytorch.py --experiment alignment    asks when such a picture can be trusted

Shapes: B strings, S source positions, T decoder steps, H numbers in a state, V different tokens.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
import torch
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# --- Task and settings ----------------------------------------------------------------------------

# A task turns the lengths of strings, (B, 1), and the positions t of output symbols, (T,), into the
# source positions that these symbols come from, all counted from 0. The output is as long as the
# string, or ends where these positions leave it. To add a task, add a line.
TASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reverse": lambda length, t: length - 1 - t,
    "copy": lambda length, t: t,
}

PAD, SOS, EOS = 0, 1, 2  # padding, start of sequence, end of sequence
FIRST_SYMBOL = 3  # the alphabet's first symbol is token 3, its second is token 4, and so on


def setting(default: object, meaning: str, low: float = 0, high: float = math.inf) -> object:
    """Describe a setting: its default, its meaning and, if it is a number, its bounds."""
    return dataclasses.field(default=default, metadata={"help": meaning, "bounds": (low, high)})


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a model and its training. Each is a flag, too: max_length is --max-length."""

    task: str = setting("reverse", "what to do with a string")
    alphabet: str = setting("abcdefghijklmnopqrstuvwxyz", "the symbols that strings are made of")
    min_length: int = setting(1, "symbols in the shortest string", 1)
    max_length: int = setting(16, "symbols in the longest string", 1, 512)
    encoder: str = setting("bidirectional", "how the source is read")
    attention: str = setting("dot", "how the decoder scores the keys")
    hidden_size: int = setting(64, "numbers in a state", 1)
    embedding_size: int = setting(16, "numbers in an embedding", 1)
    steps: int = setting(400, "training steps", 1)
    batch_size: int = setting(64, "strings in a training step", 1)
    lr: float = setting(0.03, "peak learning rate")
    teacher_forcing: float = setting(1.0, "chance of reading the true symbol in training", 0, 1)
    noise: float = setting(0.2, "chance of reading a random symbol instead, in training", 0, 1)
    seed: int = setting(0, "fixes all random numbers of a training run", 0, 2**32 - 1)
    device: str = setting("cpu", "the device that PyTorch runs on: cpu, cuda, mps")


def sample_sources(settings: Settings, count: int, generator: torch.Generator) -> Tensor:
    """Sample `count` strings of uniformly distributed length, padded with PAD: tokens (B, S)."""
    shortest, longest = settings.min_length, settings.max_length
    lengths = torch.randint(shortest, longest + 1, (count, 1), generator=generator)
    shape = (count, int(lengths.max()))
    end = FIRST_SYMBOL + len(settings.alphabet)
    source = torch.randint(FIRST_SYMBOL, end, shape, generator=generator)
    is_padding = torch.arange(shape[1]) >= lengths
    return source.masked_fill(is_padding, PAD).to(settings.device)


def lengths_of(source: Tensor) -> Tensor:
    """Count the symbols of each string: (B, S) -> (B, 1)."""
    return (source != PAD).sum(dim=1, keepdim=True)


def source_positions(source: Tensor, task: str) -> Tensor:
    """Return the source position of each output symbol, then -1: (B, S) -> (B, S + 1)."""
    lengths = lengths_of(source)
    t = torch.arange(source.size(1) + 1, device=source.device)
    positions = TASKS[task](lengths, t).expand(len(source), -1)
    is_inside = (positions >= 0) & (positions < lengths) & (t < lengths)
    return positions.masked_fill(~is_inside, -1)  # "abc" reversed, padded to 4: 2, 1, 0, -1, -1


def make_targets(source: Tensor, task: str) -> Tensor:
    """Return what the decoder must write: the symbols, EOS, then PAD. (B, S) -> (B, S + 1)."""
    positions = source_positions(source, task)
    symbols = source.gather(1, positions.clamp(min=0)).masked_fill(positions < 0, PAD)
    return symbols.scatter(1, lengths_of(symbols), EOS)  # "abc", padded to 4: c, b, a, EOS, PAD


# --- The encoder ----------------------------------------------------------------------------------

ENCODERS = {"bidirectional": 2, "forward": 1}  # the number of GRUs


class EncoderRNN(nn.Module):
    """One or two GRUs that give each source position s a state h_s.

    If there are two, each has a state half as long; one reads forwards, one backwards, and h_s is
    both states side by side (Bahdanau et al. 2015, section 3.2).
    """

    def __init__(self, settings: Settings, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        num_grus = ENCODERS[settings.encoder]
        size = settings.hidden_size // num_grus
        self.gru = nn.GRU(
            settings.embedding_size, size, batch_first=True, bidirectional=num_grus == 2
        )

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens (B, S).

        Returns keys (B, S, H), which are zero at PAD, and the last state (1, B, H).
        """
        # Packed strings are read without their PAD, so the backward GRU starts at the last symbol.
        # They need not be sorted by length.
        lengths = lengths_of(source).flatten().cpu()
        packed = pack_padded_sequence(
            self.embedding(source), lengths, batch_first=True, enforce_sorted=False
        )
        states, last_states = self.gru(packed)  # last_states (GRUs, B, H / GRUs)
        keys, _ = pad_packed_sequence(states, batch_first=True, total_length=source.size(1))
        # The last state of each GRU, side by side. (The backward one ends at the first symbol.)
        last_state = torch.cat(list(last_states), dim=-1)
        return keys, last_state[None]


# --- Attention and the decoder --------------------------------------------------------------------


def dot_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score by dot products (Luong et al. 2015, section 3.1): (B, T, H), (B, S, H) -> (B, T, S)."""
    return query @ keys.transpose(1, 2)  # score(h_t, h_s) = h_t . h_s


class AdditiveScore(nn.Module):
    """Score with a small network (Bahdanau et al. 2015, appendix A.1.2, whose query is s_{i-1})."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.W_q = nn.Linear(hidden_size, hidden_size, bias=False)
        self.W_k = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Score every key for every query: (B, T, H), (B, S, H) -> (B, T, S)."""
        sums = self.W_q(query)[:, :, None] + self.W_k(keys)[:, None]  # each pair: (B, T, S, H)
        return self.v(torch.tanh(sums)).squeeze(-1)  # score(h_t, h_s) = v . tanh(W_q h_t + W_k h_s)


def uniform_score(query: Tensor, keys: Tensor) -> Tensor:
    """Score all keys alike, so that the context is their mean: a control that chooses nothing."""
    return query.new_zeros(len(query), query.size(1), keys.size(1))


Score = Callable[[Tensor, Tensor], Tensor]  # (query, keys) -> scores

# Each entry makes a score function, given the size of a state. To add a score, add a line.
SCORES: dict[str, Callable[[int], Score | None]] = {
    "dot": lambda hidden_size: dot_score,
    "additive": AdditiveScore,
    "uniform": lambda hidden_size: uniform_score,
    "none": lambda hidden_size: None,
}
CHOOSES_NOTHING = ("uniform", "none")  # with these, no position has the largest weight


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


class AttnDecoderRNN(nn.Module):
    """A GRU decoder that looks back at the keys before it writes each symbol (Luong et al. 2015).

    Without attention, weights and context are zero, and the source is known only through the first
    state, which is the encoder's last one (Sutskever et al. 2014).
    """

    def __init__(self, settings: Settings, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.score = SCORES[settings.attention](settings.hidden_size)
        self.gru = nn.GRU(settings.embedding_size, settings.hidden_size, batch_first=True)
        self.W_c = nn.Linear(2 * settings.hidden_size, settings.hidden_size)
        self.W_s = nn.Linear(settings.hidden_size, embedding.num_embeddings)

    def forward(
        self, tokens: Tensor, state: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Read T previous tokens and predict, after each, the one that follows.

        The context goes to the output and not into the GRU, so h_t depends on the first state and
        the tokens, not on what was found: one GRU call gives the queries of all T decoder steps.
        Where the decoder reads its own output, T is 1. Shapes: tokens (B, T), state (1, B, H), keys
        (B, S, H), mask (B, S). Returns (logits (B, T, V), state after the last token (1, B, H),
        weights (B, T, S)).
        """
        query, state = self.gru(self.embedding(tokens), state)  # h_t             (B, T, H)
        if self.score is None:
            context = torch.zeros_like(query)
            weights = query.new_zeros(len(query), query.size(1), keys.size(1))
        else:
            context, weights = attend(self.score, query, keys, mask)
        found_and_asked = torch.cat([context, query], dim=-1)  # [c_t ; h_t]      (B, T, 2H)
        # p(y_t) = softmax(W_s tanh(W_c [c_t ; h_t])), Luong et al. 2015, equations 5 and 6, but
        # with biases. In training, the softmax is part of the loss.
        attentional = torch.tanh(self.W_c(found_and_asked))  #                    (B, T, H)
        logits = self.W_s(attentional)  #                                         (B, T, V)
        return logits, state, weights


class Seq2Seq(nn.Module):
    """An encoder and a decoder, their parameters drawn with the settings' seed."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        torch.manual_seed(settings.seed)  # parameters come from PyTorch's global generator
        embedding = nn.Embedding(FIRST_SYMBOL + len(settings.alphabet), settings.embedding_size)
        self.encoder = EncoderRNN(settings, embedding)
        self.decoder = AttnDecoderRNN(settings, embedding)
        self.to(settings.device)

    def forward(self, source: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode source (B, S), then let the decoder read T previous tokens, whoever wrote them."""
        keys, last_state = self.encoder(source)
        return self.decoder(tokens, last_state, keys, mask=source != PAD)


# --- Training -------------------------------------------------------------------------------------


def with_noise(tokens: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Replace some symbols with random ones; PAD, SOS and EOS stay. (B, T) -> (B, T).

    When trained, the decoder will read its own guesses, which may be wrong. With noise, it cannot
    safely rely on what it reads to find its place. Compare Xie et al. 2017, arXiv:1703.02573.
    """
    is_replaced = torch.rand(tokens.shape, generator=generator) < settings.noise
    end = FIRST_SYMBOL + len(settings.alphabet)
    random_symbols = torch.randint(FIRST_SYMBOL, end, tokens.shape, generator=generator)
    is_replaced = is_replaced.to(tokens.device) & (tokens >= FIRST_SYMBOL)
    return torch.where(is_replaced, random_symbols.to(tokens.device), tokens)


def most_probable(logits: Tensor) -> Tensor:
    """Return the most probable token, PAD and SOS excluded: (B, T, V) -> (B, T)."""
    return EOS + logits[..., EOS:].argmax(dim=-1)


def training_logits(
    model: Seq2Seq, source: Tensor, target: Tensor, settings: Settings, generator: torch.Generator
) -> Tensor:
    """Return the logits for every decoder step of `target`: (B, S), (B, T) -> (B, T, V)."""
    # Full teacher forcing (Williams and Zipser 1989): apart from noise, the decoder reads the true
    # previous symbols, SOS c b a when writing c b a EOS. They are known beforehand, so one call
    # handles all steps.
    true_previous = F.pad(target[:, :-1], (1, 0), value=SOS)
    if settings.teacher_forcing == 1:
        logits, _, _ = model(source, with_noise(true_previous, settings, generator))
        return logits

    # Otherwise the decoder goes step by step and reads, at random, the true previous symbol or the
    # one that it has just written. (Compare S. Bengio et al. 2015, arXiv:1506.03099.)
    keys, state = model.encoder(source)
    written = true_previous[:, :1]  # SOS
    all_logits = []
    for true_token in true_previous.split(1, dim=1):  # (B, 1)
        is_forced = torch.rand(len(source), 1, generator=generator) < settings.teacher_forcing
        token = torch.where(is_forced.to(source.device), true_token, written)
        token = with_noise(token, settings, generator)
        logits, state, _ = model.decoder(token, state, keys, mask=source != PAD)
        written = most_probable(logits)
        all_logits.append(logits)
    return torch.cat(all_logits, dim=1)


def train(model: Seq2Seq, settings: Settings) -> Iterator[tuple[int, float, float]]:
    """Train the model; after each training step yield (step, loss, seconds of training so far).

    The caller may look at the model in between, which does not count as training time. Losses are
    in nats per symbol. Raises FloatingPointError when a loss or a parameter is no longer finite.
    """
    # Strings and noise have generators of their own: models with the same seed see the same
    # strings, whatever else is drawn. (Neither seed is that of the parameters.)
    strings = torch.Generator().manual_seed(2**32 - 1 - settings.seed)
    noise = torch.Generator().manual_seed((settings.seed + 2**31) % 2**32)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)  # fused: all at once, so faster
    seconds = 0.0
    for step in range(1, settings.steps + 1):
        start = time.perf_counter()
        # 1. A batch of freshly drawn strings, and what the decoder should write.
        source = sample_sources(settings, settings.batch_size, strings)
        target = make_targets(source, settings.task)
        # 2. The prediction for every decoder step.
        logits = training_logits(model, source, target, settings, noise)
        # 3. The loss: cross-entropy per symbol; EOS included, PAD not. It never sees a position:
        # where to look is learnt because each step of attention can be differentiated.
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
        # 4. The gradient, scaled down if its norm exceeds 1, since it can be very large in a
        # recurrent network.
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1)
        # 5. The update. The learning rate rises linearly to its peak over the first fifth of
        # training, then falls linearly towards zero, as is usual.
        progress = (step - 0.5) / settings.steps  # the middle of the step, so that no rate is zero
        rise, fall = progress / 0.2, (1 - progress) / 0.8
        optimizer.param_groups[0]["lr"] = settings.lr * min(rise, fall)
        optimizer.step()
        if not all(tensor.isfinite().all() for tensor in (loss, *model.parameters())):
            raise FloatingPointError(f"training diverged at step {step} of {settings.steps}")
        seconds += time.perf_counter() - start
        yield step, loss.item(), seconds


# --- Decoding and metrics -------------------------------------------------------------------------


@torch.no_grad()
def greedy_decode(model: Seq2Seq, source: Tensor, max_steps: int) -> tuple[Tensor, Tensor]:
    """Write the most probable symbol at each decoder step until every string has its EOS.

    Stop after at most `max_steps` decoder steps. After its EOS a string gets PAD. Shapes:
    source (B, S) -> (tokens (B, T), weights (B, T, S)).
    """
    keys, state = model.encoder(source)
    token = torch.full_like(source[:, :1], SOS)
    all_tokens, all_weights = [], []
    for _ in range(max_steps):
        is_finished = (token == EOS) | (token == PAD)
        if is_finished.all():
            break
        logits, state, weights = model.decoder(token, state, keys, mask=source != PAD)
        token = most_probable(logits).masked_fill(is_finished, PAD)
        all_tokens.append(token)
        all_weights.append(weights)
    return torch.cat(all_tokens, dim=1), torch.cat(all_weights, dim=1)


def evaluation_strings(settings: Settings, count: int = 2000) -> Tensor:
    """Sample the evaluation strings, (B, S), the same for every seed."""
    return sample_sources(settings, count, torch.Generator().manual_seed(987654321))


def percent(hits: Tensor) -> float:
    """Return the percentage of True values; nan if there are no values at all."""
    return 100 * hits.double().mean().item()


def evaluate(model: Seq2Seq, source: Tensor, settings: Settings) -> dict[str, float]:
    """Decode strings (B, S), and return percentages and a number of letters, by name.

    Is the answer right? Exact match: strings that are right as a whole, including EOS. Is the
    picture right? Alignment: output symbols whose largest weight lies where the correct symbol
    comes from; "one column left" and "one column right": those with their largest weight beside it.
    These three are percentages of `letters`: the symbols written, right or wrong, up to the length
    of the right answer, without EOS. If attention chooses nothing, no letters are counted.
    """
    target = make_targets(source, settings.task)
    tokens, weights = greedy_decode(model, source, max_steps=target.size(1))
    num_steps = tokens.size(1)  # fewer than target.size(1) if every string ends early
    positions = source_positions(source, settings.task)[:, :num_steps]
    has_choice = settings.attention not in CHOOSES_NOTHING
    is_counted = (tokens > EOS) & (positions >= 0) & has_choice
    shift = (weights.argmax(dim=-1) - positions)[is_counted]
    return {
        "exact match": percent((tokens == target[:, :num_steps]).all(dim=1)),
        "letters": len(shift),
        "alignment": percent(shift == 0),
        "one column left": percent(shift == -1),
        "one column right": percent(shift == 1),
    }


# --- The run: what happens when you start the script ----------------------------------------------


class Decoded(NamedTuple):
    """What a model made of one word, and where it looked, in T decoder steps."""

    word: str  # S symbols
    read: list[str]  # T items: SOS, then symbols
    written: list[str]  # T items, each a symbol or EOS
    weights: np.ndarray  # (T, S)
    positions: list[int]  # the source position from which each output symbol should come

    @property
    def output(self) -> str:
        """What was written before the first EOS."""
        return "".join(itertools.takewhile(lambda symbol: symbol != "EOS", self.written))


@torch.no_grad()
def decode_word(model: Seq2Seq, word: str, settings: Settings, read: str | None = None) -> Decoded:
    """Decode one word while the decoder reads what it writes itself, or `read`, if given."""
    names = ["PAD", "SOS", "EOS", *settings.alphabet]
    source = torch.tensor([[names.index(symbol) for symbol in word]], device=settings.device)
    if read is None:
        # Twice the length is enough to show that a model does not stop.
        tokens, weights = greedy_decode(model, source, max_steps=2 * len(word) + 1)
    else:
        given = [SOS, *(names.index(symbol) for symbol in read)]
        logits, _, weights = model(source, torch.tensor([given], device=settings.device))
        tokens = most_probable(logits)
    written = [names[token] for token in tokens[0].tolist()]
    reading = ["SOS", *(written[:-1] if read is None else read)]
    positions = source_positions(source, settings.task)[0]
    positions = positions[positions >= 0].tolist()
    return Decoded(word, reading, written, weights[0].cpu().numpy(), positions)


def run(settings: Settings, word: str, read: str | None, folder: Path) -> bool:
    """Train one model, report, and draw its figures. Returns whether all of them were written."""
    # Train, and look now and then at what the model makes of one word.
    model = Seq2Seq(settings)
    watched = np.linspace(1, settings.steps, 17).astype(int)
    losses, snapshots = [], {}
    for step, loss, seconds in train(model, settings):
        losses.append(loss)
        if step in watched:
            snapshots[step] = decode_word(model, word, settings)
            progress = f"step {step} of {settings.steps}  loss {loss:.4f}"
            print(f"{progress}  {word} -> {snapshots[step].output}", flush=True)

    # Report what the trained model does with this word, and with many.
    own = snapshots[settings.steps]
    if read is not None:
        given = decode_word(model, word, settings, read)
        print(f"reads {read}, writes {given.output}")
    source = evaluation_strings(settings)
    metrics = evaluate(model, source, settings)
    num_right = round(metrics["exact match"] / 100 * len(source))
    print(f"exact match: {metrics['exact match']:.2f}% ({num_right} of {len(source)} strings)")
    if metrics["letters"]:
        left, right = metrics["one column left"], metrics["one column right"]
        beside = f"one column left {left:.2f}%, right {right:.2f}%"
        print(f"alignment: {metrics['alignment']:.2f}% of {metrics['letters']} letters ({beside})")
    print(f"training time: {seconds:.1f} s")

    # Draw. Without attention there are no weights to show.
    if settings.attention == "none":
        return save(draw_loss(losses, {}).savefig, folder / "pytorch_seq2seq_loss.png")
    shown = watched[[0, 2, 4, 16]]  # the first step, an eighth, a quarter and all of training
    curve = draw_loss(losses, {step: snapshots[step] for step in shown})
    matrix = draw_attention({word: own}) if read is None else draw_readings({word: (own, given)})
    is_saved = save(curve.savefig, folder / "pytorch_seq2seq_loss.png")
    is_saved &= save(matrix.savefig, folder / "pytorch_attention_matrix.png")
    is_saved &= save(lambda path: animate_decoding(own, path), folder / "pytorch_decoding.gif")
    return is_saved


# ==================================================================================================
# THE LESSON ENDS HERE. You have seen the model, its training and its evaluation.
# Below are the pictures, the experiments that test what the lesson claims, and the command line.
# ==================================================================================================

# --- Pictures -------------------------------------------------------------------------------------

ORANGE, BLUE, GREY = "#E69F00", "#0072B2", "0.45"
READABLE = 24  # with more symbols than that, an axis has no letters and a matrix no marks
RING = "ring: where the correct symbol comes from"
SQUARE = "square: where the undisturbed model looked after reading the same symbol"


def shorten(text: str) -> str:
    """Cut a text to fit beside a picture; an ellipsis shows that it was cut."""
    return text if len(text) <= READABLE else text[: READABLE - 1] + "…"


def draw_marks(axes: Axes, marker: str, columns: Sequence[int], rows: Sequence[int]) -> None:
    """Draw rings ("o") or squares ("s") onto a matrix, unless it is too large for letters."""
    if len(axes.get_xticks()) and len(axes.get_yticks()):
        for colour, width in (("white", 3), ("tab:red", 1.3)):
            style = {"markeredgecolor": colour, "markeredgewidth": width, "markersize": 7}
            axes.plot(columns, rows, marker, markerfacecolor="none", **style)


def draw_matrix(axes: Axes, decoded: Decoded, labels: list[str]) -> None:
    """Draw attention weights: a row for each label, a column for each source symbol.

    A ring marks the source position from which the correct symbol comes, so that one can see when a
    picture is one column off.
    """
    labels = labels or ["EOS"]  # which is all that was written
    axes.imshow(decoded.weights[: len(labels)], cmap="viridis", vmin=0, vmax=1, aspect="auto")
    axes.set(xlabel="source symbol", ylabel="symbol written", autoscale_on=False)
    axes.set(xticks=[], yticks=[])
    if len(decoded.word) <= READABLE:
        axes.set_xticks(range(len(decoded.word)), list(decoded.word), parse_math=False)
    if len(decoded.written) <= READABLE + 1:  # the last is EOS
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
    rings = decoded.positions[: len(labels)]
    draw_marks(axes, "o", rings, range(len(rings)))


def draw_attention(words: dict[str, Decoded]) -> Figure:
    """Draw attention matrices side by side, each under its title."""
    figure = Figure(figsize=(min(8, 2 + 3 * len(words)), 4.5), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(words), squeeze=False)[0]
    for axes, (title, decoded) in zip(panels, words.items(), strict=True):
        draw_matrix(axes, decoded, list(decoded.output))
        axes.set_title(shorten(title), size=10, parse_math=False)
    for axes in panels[1:]:
        axes.set_ylabel("")  # it stands beside the first
    if axes.lines:
        figure.suptitle(RING, size=10)
    figure.colorbar(axes.images[0], ax=figure.axes, label="attention weight")
    return figure


def draw_readings(pairs: dict[str, tuple[Decoded, Decoded]]) -> Figure:
    """Draw where models look, first reading their own output, then a given text.

    In the second matrix of a pair there are no rings. Squares mark where the model looked in the
    first one after it had read the same symbol.
    """
    figure = Figure(figsize=(8, 8), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(pairs)).T if len(pairs) > 1 else [figure.subplots(1, 2)]
    for (first, second), (name, (own, given)) in zip(panels, pairs.items(), strict=True):
        for axes, decoded in ((first, own), (second, given._replace(positions=[]))):
            steps = zip(decoded.read, decoded.written, strict=True)
            draw_matrix(axes, decoded, [f"{read} → {written}" for read, written in steps])
            reading = shorten("".join(decoded.read[1:]))
            axes.set_title(f"{name}\nreads {reading}", size=10, parse_math=False)
            axes.set_ylabel("")
        columns = own.weights.argmax(axis=1)
        is_same = np.array(given.read)[:, None] == np.array(own.read)
        has_largest = np.ptp(own.weights, axis=1) > 0  # not so if attention is uniform
        rows, earlier = np.nonzero(is_same & has_largest)
        draw_marks(second, "s", columns[earlier], rows)
    figure.supylabel("symbol read → symbol written", size=10)
    if second.lines:
        figure.suptitle(f"{RING}\n{SQUARE}", size=10)
    figure.colorbar(second.images[0], ax=figure.axes, label="attention weight", aspect=40)
    return figure


def animate_decoding(own: Decoded, path: Path) -> None:
    """Animate decoding in at most 16 frames of a second each, the last held for three."""
    symbols = list(own.output)
    last = max(1, len(symbols))
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    draw_matrix(right, own, symbols)
    figure.colorbar(right.images[0], ax=right, label="attention weight")
    bars = left.bar(range(len(own.word)), own.weights[0], color=ORANGE)
    left.set(xlabel="source symbol", ylabel="attention weight", title="\n", ylim=(0, 1))
    # The layout is fixed once, for the whole matrix, which has the widest labels.
    figure.draw_without_rendering()
    figure.set_layout_engine(None)
    writer = PillowWriter(fps=1)
    with writer.saving(figure, path, dpi=100):
        ends = np.linspace(1, last, min(16, last)).astype(int)
        for end in [*ends, last, last]:
            right.clear()
            draw_matrix(right, own, symbols[:end])
            right.set_ylim(last - 0.5, -0.5)
            for bar, weight in zip(bars, own.weights[end - 1], strict=True):
                bar.set_height(weight)
            lines = f"source  {shorten(own.word)}\nwritten {shorten(own.output[:end])}"
            left.set_title(lines, loc="left", size=12, family="monospace", parse_math=False)
            writer.grab_frame()


def draw_loss(losses: list[float], snapshots: dict[int, Decoded]) -> Figure:
    """Draw the loss of every training step, and above it a word's matrices at up to four steps."""
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    letters = "ABCD"[: len(snapshots)]
    mosaic = [list(letters), ["loss"] * len(letters)] if snapshots else [["loss"]]
    panels = figure.subplot_mosaic(mosaic)
    axes = panels.pop("loss")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=1, color=BLUE)
    axes.set(xlabel="training step", ylabel="loss (nats per symbol)")
    axes.set(xlim=(0, 1.05 * len(losses)), ylim=(0, 1.1 * max(losses)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    for (letter, panel), (step, snapshot) in zip(panels.items(), snapshots.items(), strict=True):
        # A letter on the curve, and the matrix above it, with as many rows as the word needs.
        axes.plot(step, losses[step - 1], "o", color="black", clip_on=False)
        axes.annotate(f" {letter}", (step, losses[step - 1]), size=11, va="bottom")
        draw_matrix(panel, snapshot._replace(positions=[]), list(snapshot.output))
        panel.set(xticks=[], yticks=[], ylabel="", ylim=(len(snapshot.word) - 0.5, -0.5))
        panel.set_title(f"{letter}: step {step}", size=10)
        output = f"writes\n{shorten(snapshot.output)}"
        panel.set_xlabel(output, size=9, family="monospace", parse_math=False)
    if snapshots:
        figure.colorbar(panel.images[0], ax=list(panels.values()), label="weight", ticks=[0, 1])
    return figure


# --- Experiments ----------------------------------------------------------------------------------


class Experiment(NamedTuple):
    """A question, put to several models, each trained with several seeds."""

    models: dict[str, dict[str, object]]  # the name of a model, and the settings that it changes
    columns: tuple[str, ...]  # what the printed table shows
    figures: dict[str, Callable[[list[dict]], Figure]]  # what draws each, given all runs


def different_symbols(settings: Settings, count: int, length: int) -> Tensor:
    """Sample strings in which no symbol occurs twice: (B, S), S at most the alphabet's length."""
    generator = torch.Generator().manual_seed(1)
    orders = torch.rand(count, len(settings.alphabet), generator=generator).argsort(dim=1)
    return (FIRST_SYMBOL + orders[:, :length]).to(settings.device)


@torch.no_grad()
def one_letter_too_many(model: Seq2Seq, settings: Settings) -> dict[str, float]:
    """Let the decoder read one symbol too many, and see where it looks afterwards.

    A decoder that counts looks where it did in the same row without the extra symbol; one that
    listens (or falls one column behind) looks where it did after the same symbol. Returns, for each
    of the two, the percentage of later rows that fit; the last two rows, where EOS may be written,
    are left out. No symbol occurs twice, and the string lacks the extra one.
    """
    length = min(settings.max_length, len(settings.alphabet) - 1)
    symbols = different_symbols(settings, 200, length + 1)
    source, extra = symbols[:, :length], symbols[:, length:]
    reading = F.pad(make_targets(source, settings.task)[:, :-1], (1, 0), value=SOS)
    _, _, weights = model(source, reading)
    before = weights.argmax(dim=-1)  # the column of the largest weight in each row: (B, length + 1)
    counts, listens = [], []
    places = () if settings.attention in CHOOSES_NOTHING else range(1, length - 1)
    for place in places:
        disturbed = torch.cat([reading[:, :place], extra, reading[:, place:]], dim=1)
        _, _, weights = model(source, disturbed)
        after = weights.argmax(dim=-1)[:, place + 1 : length]
        counts += (after == before[:, place + 1 : length]).flatten().tolist()
        listens += (after == before[:, place : length - 1]).flatten().tolist()
    return {"counts": percent(torch.tensor(counts)), "listens": percent(torch.tensor(listens))}


@torch.no_grad()
def right_if_eos_is_held_back(model: Seq2Seq, source: Tensor, settings: Settings) -> float:
    """Return the percentage of strings whose symbols are all right if EOS may come only after them.

    These are the strings for which, after every beginning of the right answer, the most probable
    symbol other than EOS is the next one.
    """
    answer = make_targets(source, settings.task)[:, :-1]  # no PAD, so this cuts EOS off
    logits, _, _ = model(source, F.pad(answer, (1, 0), value=SOS))
    symbols = FIRST_SYMBOL + logits[:, :-1, FIRST_SYMBOL:].argmax(dim=-1)
    return percent((symbols == answer).all(dim=1))


def measure(model: Seq2Seq, settings: Settings) -> dict[str, float]:
    """Train a model; return every number that an experiment may report, by name.

    Until nine in ten of 200 strings are right, they are decoded every 10 steps; this is not timed.
    Each length is also tested alone, up to a quarter beyond the longest in training.
    """
    source = evaluation_strings(settings)
    steps_to_90 = seconds_to_90 = math.inf
    for step, loss, seconds in train(model, settings):
        if step <= 20:
            early_loss = loss
        if step % 10 == 0 and steps_to_90 == math.inf:
            metrics = evaluate(model, source[:200], settings)
            if metrics["exact match"] >= 90:
                steps_to_90, seconds_to_90 = step, seconds

    numbers = {
        "loss at step 20": early_loss,
        "ms per step": 1000 * seconds / settings.steps,
        "steps to 90%": steps_to_90,
        "seconds to 90%": seconds_to_90,
        **evaluate(model, source, settings),
        **one_letter_too_many(model, settings),
    }
    right_at = {}
    for length in range(settings.min_length, settings.max_length * 5 // 4 + 1):
        fixed = dataclasses.replace(settings, min_length=length, max_length=length)
        metrics = evaluate(model, evaluation_strings(fixed, 500), settings)
        right_at[length] = numbers[f"right at {length} random letters"] = metrics["exact match"]
    nine_in_ten = itertools.takewhile(lambda length: right_at[length] >= 90, right_at)
    numbers["90% right up to length"] = max(nine_in_ten, default=0)
    # Beyond the trained lengths: does a model still look as it did? Does it only stop too early?
    longer = one_letter_too_many(model, dataclasses.replace(settings, max_length=20))
    numbers |= {f"{name} at 20 letters": percentage for name, percentage in longer.items()}
    strings = different_symbols(settings, 500, 20)
    numbers["right at 20 different letters"] = evaluate(model, strings, settings)["exact match"]
    numbers["right if EOS is held back"] = right_if_eos_is_held_back(model, strings, settings)
    return {name: round(number, 4) for name, number in numbers.items()}


def cell(values: list[float]) -> str:
    """Return the median and the range of some runs, as 5.4 (4.5-6.9)."""
    numbers = float(np.median(values)), min(values), max(values)
    middle, low, high = (f"{number:.1f}".removesuffix(".0") for number in numbers)
    return middle if low == high else f"{middle} ({low}-{high})"


def markdown_table(runs: list[dict], columns: tuple[str, ...]) -> str:
    """Return a line for each model, with the median and the range of each column over its runs."""
    table = [f"| model | {' | '.join(columns)} |", f"|---{'|--:' * len(columns)}|"]
    for model in dict.fromkeys(run["model"] for run in runs):
        cells = [cell([run[name] for run in runs if run["model"] == model]) for name in columns]
        table.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(table)


def write_csv(runs: list[dict], path: Path) -> None:
    """Write a line for each run: its model, its settings and its numbers, but no pictures."""
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [name for name in runs[0] if "picture" not in name]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)


def run_experiment(name: str, seeds: range, device: str, folder: Path) -> bool:
    """Train all models of an experiment with all seeds; write the runs and any figure.

    Returns whether all files were written. Stops early if the runs cannot be written.
    """
    experiment = EXPERIMENTS[name]
    jobs = [(seed, model_name) for seed in seeds for model_name in experiment.models]
    runs = []
    for seed, model_name in jobs:
        settings = Settings(**experiment.models[model_name], seed=seed, device=device)
        model = Seq2Seq(settings)
        numbers = measure(model, settings)
        long_word = decode_word(model, LONG_WORD, settings)
        readings = [decode_word(model, WORD, settings, read) for read in (None, READING)]
        pictures = {"pictures": readings, "long picture": long_word}
        measured = {**numbers, "writes": long_word.output, **pictures}
        runs.append({"model": model_name, **dataclasses.asdict(settings), **measured})
        result = f"{model_name}, seed {seed}, {numbers['exact match']:.2f}% right"
        print(f"{len(runs)} of {len(jobs)}: {result}", flush=True)
        # All runs so far are written each time, so that Ctrl-C loses no finished run.
        is_saved = save(lambda path: write_csv(runs, path), folder / f"pytorch_{name}.csv")
        if not is_saved:
            break
    print(f"\n{markdown_table(runs, experiment.columns)}\n")
    if is_saved:
        for title, draw in experiment.figures.items():
            is_saved &= save(draw(runs).savefig, folder / f"pytorch_{title}.png")
    return is_saved


def draw_bottleneck(runs: list[dict]) -> Figure:
    """Draw the percentage of right strings at each source length: a median line for each model."""
    figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    longest = Settings.max_length
    lengths = range(1, longest * 5 // 4 + 1)
    styles = {
        "dot attention": {"color": ORANGE, "linewidth": 4},
        "uniform attention": {"color": GREY, "linewidth": 2, "linestyle": "--"},
    }
    for model in EXPERIMENTS["bottleneck"].models:
        own = [run for run in runs if run["model"] == model]
        curve = [np.median([run[f"right at {n} random letters"] for run in own]) for n in lengths]
        steps = own[0]["steps"]
        if model in styles:
            axes.plot(lengths, curve, label=f"{model}, {steps} steps", **styles[model])
        else:
            # The number of training steps stands where the line falls through 40%.
            axes.plot(lengths, curve, color=BLUE)
            length = np.interp(-40, -np.array(curve), lengths)
            axes.text(length, 40, f" {steps}", color=BLUE, size=10, va="center")
    axes.plot([], [], color=BLUE, label="no attention (steps beside the line)")
    axes.axvspan(longest + 0.5, lengths[-1] + 0.5, color="0.9", zorder=0)
    axes.text(lengths[-1], 97, "never trained on", rotation=90, ha="center", va="top", size=9)
    axes.set(xlim=(0.5, lengths[-1] + 0.5), ylim=(-3, 105))
    axes.set(xlabel="source length (symbols)", ylabel="strings right (%)", xticks=lengths)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=9)
    return figure


WORD, READING = "copyright", "thgdirypoc"  # the word, and its reverse with one letter too many
LONG_WORD = "abcdefghijklmnopqrst"  # four letters longer than any string in training
ONE_VECTOR = {"noise": 0.0, "attention": "none"}
EXPERIMENTS = {
    # Is one vector too small? Only attention and training steps differ.
    "bottleneck": Experiment(
        models={
            "no attention, 200 steps": {**ONE_VECTOR, "steps": 200},
            "no attention, 400 steps": {**ONE_VECTOR, "steps": 400},
            "no attention, 800 steps": {**ONE_VECTOR, "steps": 800},
            "no attention, 1600 steps": {**ONE_VECTOR, "steps": 1600},
            "no attention, 3200 steps": {**ONE_VECTOR, "steps": 3200},
            "uniform attention": {**ONE_VECTOR, "attention": "uniform"},
            "dot attention": {**ONE_VECTOR, "attention": "dot"},
        },
        columns=("90% right up to length", "exact match"),
        figures={"bottleneck": draw_bottleneck},
    ),
    # What do the dot score and teacher forcing save? Each of the other two differs from the default
    # by one flag.
    "speed": Experiment(
        models={
            "default": {},
            "additive score": {"attention": "additive"},
            "no teacher forcing": {"teacher_forcing": 0.0},
        },
        columns=("ms per step", "steps to 90%", "seconds to 90%", "exact match"),
        figures={},
    ),
    # When can you trust the picture? Each later model differs by one more flag.
    "alignment": Experiment(
        models={
            "default": {},
            "default, no noise": {"noise": 0.0},
            "plain": {"encoder": "forward", "noise": 0.0},
        },
        columns=(
            "exact match",
            "alignment",
            "one column right",
            "listens",
            "counts",
            "right at 20 random letters",
            "right at 20 different letters",
            "right if EOS is held back",
        ),
        # The first three runs are those of the first seed.
        figures={
            "alignment": lambda runs: draw_readings({x["model"]: x["pictures"] for x in runs[:3]}),
            "twenty_letters": lambda runs: draw_attention(
                {run["model"]: run["long picture"] for run in runs[:3]}
            ),
        },
    ),
}


# --- Command line ---------------------------------------------------------------------------------

CHOICES = {"task": TASKS, "encoder": ENCODERS, "attention": SCORES}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line: a flag for each field of Settings, and five more."""
    about = "Train a GRU encoder and an attention decoder on strings."
    parser = argparse.ArgumentParser(Path(__file__).name, description=about, allow_abbrev=False)
    add = parser.add_argument
    for field in dataclasses.fields(Settings):
        add(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            choices=CHOICES.get(field.name),
            default=field.default,
            help=f"{field.metadata['help']} (default: {field.default})",
        )
    add("--sequence", metavar="TEXT", help='the word to draw (default: "attention", if it fits)')
    add("--read", metavar="TEXT", help="what the trained decoder reads instead of what it writes")
    add("--experiment", choices=EXPERIMENTS, help="repeat a comparison from the README")
    add("--runs", type=int, default=5, help="seeds per experiment, from --seed on (default: 5)")
    assets = Path(__file__).resolve().parent / "assets"
    where = "folder to write to (default: assets/ beside the script)"
    add("--assets", type=Path, default=assets, help=where)
    return parser


def refuse_bad_values(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the process with argparse's error if a flag has a value that cannot work."""

    def check(flag: str, is_fine: bool, problem: str) -> None:
        if not is_fine:
            parser.error(f"argument --{flag.replace('_', '-')}: {problem}")

    for field in dataclasses.fields(Settings):
        value, (low, high) = getattr(args, field.name), field.metadata["bounds"]
        bounds = f"{low} or more, and finite" if high == math.inf else f"between {low} and {high}"
        is_fine = isinstance(value, str) or (low <= value <= high and value != math.inf)
        check(field.name, is_fine, f"must be {bounds}")
        fits = args.experiment is None or field.name in ("seed", "device")
        check(field.name, fits or value == field.default, "cannot be combined with --experiment")
    check("min_length", args.min_length <= args.max_length, "must not exceed --max-length")
    is_fine = args.hidden_size % ENCODERS[args.encoder] == 0
    check("hidden_size", is_fine, "must be even: each direction of the encoder gets half")
    symbols = args.alphabet
    is_fine = len(set(symbols)) == len(symbols) > 1 and symbols.isprintable() and " " not in symbols
    check("alphabet", is_fine, "must be 2 or more printable symbols, all different, none a space")
    for flag, text in (("sequence", args.sequence), ("read", args.read)):
        if text is not None:
            check(flag, args.experiment is None, "cannot be combined with --experiment")
            check(flag, 1 <= len(text) <= 512, "must have 1 to 512 symbols")
            unknown = "".join(sorted(set(text) - set(symbols)))
            check(flag, not unknown, f"has symbols outside --alphabet: {unknown}")
    check("runs", args.runs == 5 or args.experiment is not None, "needs --experiment")
    is_fine = args.experiment is None or 1 <= args.runs <= 2**32 - args.seed
    check("runs", is_fine, "must be 1 or more, with all seeds below 2**32")
    try:
        torch.zeros(1, device=args.device).tolist()
    except Exception as error:  # each kind of missing device raises an exception of its own
        check("device", False, str(error).splitlines()[0].partition(". ")[0])


def save(write: Callable[[Path], None], path: Path) -> bool:
    """Write a file, replacing an older one only with a finished one; return whether this worked."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            unfinished = Path(folder) / path.name
            write(unfinished)
            unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or error
        print(f"{Path(__file__).name}: error: {path}: {reason}", file=sys.stderr)
        return False
    return True


def main(argv: list[str] | None = None) -> None:
    """Run the script with the command line `argv`."""
    # Check everything before anything is trained or written.
    parser = make_parser()
    args = parser.parse_args(argv)
    refuse_bad_values(parser, args)
    settings = Settings(**{name: getattr(args, name) for name in Settings.__annotations__})
    try:
        args.assets.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.assets).close()
    except OSError as error:
        parser.error(f"argument --assets: {error}")

    # Run. The matrices are small: a second thread would mostly wait for the first.
    torch.set_num_threads(1)
    symbols, longest = settings.alphabet, settings.max_length
    word = "attention"
    fits = set(word) <= set(symbols) and settings.min_length <= len(word) <= longest
    word = args.sequence or (word if fits else (symbols * longest)[:longest])
    seeds = range(args.seed, args.seed + args.runs)
    try:
        with matplotlib.style.context("default"):  # whatever a matplotlibrc says
            if args.experiment is None:
                is_saved = run(settings, word, args.read, args.assets)
            else:
                is_saved = run_experiment(args.experiment, seeds, args.device, args.assets)
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: error: {error}; a smaller --lr may help\n")
    if not is_saved:
        parser.exit(1)
    print(f"written to {args.assets}")


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that know only ASCII
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
