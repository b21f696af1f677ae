"""Statements about the task, the model, training, decoding and the metrics, each checked by value."""

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SYMBOLS, EMBEDDING, HIDDEN = 6, 5, 8


@pytest.fixture
def model(seq2seq: ModuleType) -> nn.ModuleList:
    """Return a small untrained encoder and decoder."""
    torch.manual_seed(0)
    return seq2seq.build_model(SYMBOLS, EMBEDDING, HIDDEN)


@pytest.fixture(params=["dot", "additive", "none"])
def any_model(seq2seq: ModuleType, request: pytest.FixtureRequest) -> nn.ModuleList:
    """Return a small untrained encoder and decoder, of each kind of attention in turn."""
    torch.manual_seed(0)
    return seq2seq.build_model(SYMBOLS, EMBEDDING, HIDDEN, request.param)


@pytest.fixture
def batch(seq2seq: ModuleType) -> tuple[Tensor, Tensor]:
    """Return 7 strings of 1 to 9 symbols, the longest and the shortest length among them."""
    source, lengths = seq2seq.sample_sources(7, SYMBOLS, 1, 9, torch.Generator().manual_seed(4))
    assert lengths.min() < lengths.max() == source.size(1)
    return source, lengths


# The task


def test_sources_are_random_strings_with_uniform_lengths(seq2seq: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    source, lengths = seq2seq.sample_sources(6000, SYMBOLS, 2, 5, generator)
    symbols = source[source != seq2seq.PAD] - seq2seq.SPECIALS
    assert torch.equal((source != seq2seq.PAD).sum(dim=1), lengths)
    np.testing.assert_allclose(lengths.bincount()[2:] / 6000, 1 / 4, atol=0.02)
    np.testing.assert_allclose(symbols.bincount() / len(symbols), 1 / SYMBOLS, atol=0.02)
    again, _ = seq2seq.sample_sources(6000, SYMBOLS, 2, 5, generator)
    assert source.shape != again.shape or not torch.equal(source, again), "new strings for every batch"


def test_targets_are_the_reversed_strings_then_eos_then_pad(seq2seq: ModuleType, batch: tuple[Tensor, Tensor]) -> None:
    source, lengths = batch
    expected = [
        [*row[:length][::-1], seq2seq.EOS, *[seq2seq.PAD] * (source.size(1) - length)]
        for row, length in zip(source.tolist(), lengths.tolist(), strict=True)
    ]
    assert seq2seq.reversed_targets(source, lengths).tolist() == expected


# The encoder


def test_the_encoder_hands_over_the_state_of_the_last_real_symbol(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    encoder, _ = model
    outputs, state = encoder(source, lengths)
    half = HIDDEN // 2
    for b, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(state[0, b, :half], outputs[b, length - 1, :half])
        torch.testing.assert_close(state[0, b, half:], outputs[b, 0, half:])
        assert (outputs[b, length:] == 0).all()


def test_the_encoder_equals_a_gru_without_padding(model: nn.ModuleList, batch: tuple[Tensor, Tensor]) -> None:
    source, lengths = batch
    encoder, _ = model
    outputs, state = encoder(source, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone, final = encoder.gru(encoder.embedding(source[b : b + 1, :length]))
        torch.testing.assert_close(outputs[b, :length], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(state[0, b], final.flatten(), atol=1e-5, rtol=0)


def test_an_encoder_state_starts_out_as_its_own_symbol(seq2seq: ModuleType) -> None:
    torch.manual_seed(0)
    encoder, _ = seq2seq.build_model(SYMBOLS, 16, 64)
    source = torch.randint(seq2seq.SPECIALS, seq2seq.SPECIALS + SYMBOLS, (100, 9))
    other = source.clone()
    other[:, 4] = seq2seq.SPECIALS + (other[:, 4] - seq2seq.SPECIALS + 1) % SYMBOLS
    lengths = torch.full((100,), 9)
    change = (encoder(source, lengths)[0] - encoder(other, lengths)[0]).norm(dim=-1).mean(dim=0)
    assert change[4] > 4 * max(change[3], change[5])


# Attention and the decoder


def test_the_decoder_attends_as_numpy_does(
    scratch: ModuleType, seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    encoder, decoder = model
    keys, hidden = encoder(source, lengths)
    mask = source != seq2seq.PAD
    tokens = seq2seq.reversed_targets(source, lengths)
    logits, _, weights = decoder(tokens, hidden, keys, mask)
    query, _ = decoder.gru(decoder.embedding(tokens), hidden)
    query, keys = query.detach().numpy(), keys.detach().numpy()
    context, expected = scratch.dot_product_attention(query, keys, mask.numpy())
    np.testing.assert_allclose(weights.detach(), expected, atol=1e-6)
    W_c, b_c = (p.detach().numpy() for p in decoder.combine.parameters())
    W_s, b_s = (p.detach().numpy() for p in decoder.output.parameters())
    attentional = np.tanh(np.concatenate([context, query], axis=-1) @ W_c.T + b_c)
    np.testing.assert_allclose(logits.detach(), attentional @ W_s.T + b_s, atol=1e-5)


def test_the_additive_score_is_the_papers_pair_by_pair(seq2seq: ModuleType) -> None:
    torch.manual_seed(0)
    score = seq2seq.AdditiveScore(4)
    query, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    W_q, W_k, v = (weight.detach().numpy() for weight in score.parameters())
    scores = score(query, keys).detach()
    assert scores.shape == (2, 3, 5)
    for b in range(2):
        for t in range(3):
            for s in range(5):
                expected = v[0] @ np.tanh(W_q @ query[b, t].numpy() + W_k @ keys[b, s].numpy())
                assert scores[b, t, s].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("attention", ["dot", "additive", "none"])
def test_only_attention_opens_a_path_from_the_encoder_outputs_to_the_logits(
    seq2seq: ModuleType, attention: str
) -> None:
    torch.manual_seed(0)
    _, decoder = seq2seq.build_model(SYMBOLS, EMBEDDING, HIDDEN, attention)
    keys, hidden = torch.randn(2, 5, HIDDEN, requires_grad=True), torch.randn(1, 2, HIDDEN, requires_grad=True)
    logits, _, _ = decoder(torch.full((2, 3), seq2seq.SOS), hidden, keys, torch.ones(2, 5, dtype=torch.bool))
    to_keys, to_hidden = torch.autograd.grad(logits.square().sum(), (keys, hidden), allow_unused=True)
    assert (to_hidden != 0).all()
    assert to_keys is None if attention == "none" else (to_keys != 0).all()


def test_the_kinds_of_attention_differ_in_the_score_alone(seq2seq: ModuleType) -> None:
    shapes = {}
    for attention in seq2seq.ATTENTION:
        model = seq2seq.build_model(SYMBOLS, EMBEDDING, HIDDEN, attention)
        shapes[attention] = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    additive = {name: shape for name, shape in shapes["additive"].items() if ".score." not in name}
    assert additive == shapes["dot"]
    assert {name for name in shapes["none"] if shapes["none"][name] != shapes["dot"][name]} == {"1.combine.weight"}


def test_padding_gets_no_weight(seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]) -> None:
    source, lengths = batch
    _, weights = seq2seq.greedy_decode(model, source, lengths, max_steps=5)
    padding = (source == seq2seq.PAD)[:, None].expand_as(weights)
    assert padding.any() and (weights[padding] == 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:2]))


def test_a_string_gives_the_same_alone_and_in_any_batch(
    seq2seq: ModuleType, any_model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    target = seq2seq.reversed_targets(source, lengths)
    together = seq2seq.training_logits(any_model, source, lengths, target, 1)
    for b, length in enumerate(lengths.tolist()):
        one = slice(b, b + 1)
        alone = seq2seq.training_logits(
            any_model,
            source[one, :length],
            lengths[one],
            target[one, : length + 1],
            1,
        )
        torch.testing.assert_close(together[b, : length + 1], alone[0], atol=1e-5, rtol=0)


def test_one_call_equals_step_by_step(
    seq2seq: ModuleType, any_model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    encoder, decoder = any_model
    keys, hidden = encoder(source, lengths)
    mask = source != seq2seq.PAD
    tokens = seq2seq.reversed_targets(source, lengths)
    logits, final, weights = decoder(tokens, hidden, keys, mask)
    for t in range(tokens.size(1)):
        step_logits, hidden, step_weights = decoder(tokens[:, t : t + 1], hidden, keys, mask)
        torch.testing.assert_close(step_logits[:, 0], logits[:, t], atol=1e-5, rtol=0)
        if weights is not None:
            torch.testing.assert_close(step_weights[:, 0], weights[:, t], atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden, final, atol=1e-5, rtol=0)


# Training


def test_with_teacher_forcing_a_step_reads_the_true_previous_symbol(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    target = seq2seq.reversed_targets(source, lengths)
    logits = seq2seq.training_logits(model, source, lengths, target, 1)
    other = target.clone()
    other[:, 3] = seq2seq.SPECIALS + (other[:, 3] + 1) % SYMBOLS
    changed = seq2seq.training_logits(model, source, lengths, other, 1)
    torch.testing.assert_close(changed[:, :4], logits[:, :4])
    assert ((changed[:, 4] - logits[:, 4]).abs().amax(dim=-1) > 1e-4).all()


def test_without_teacher_forcing_training_reads_what_greedy_decoding_wrote(
    seq2seq: ModuleType, any_model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    target = seq2seq.reversed_targets(source, lengths)
    logits = seq2seq.training_logits(any_model, source, lengths, target, 0)
    own = logits.argmax(dim=-1)[:, :-1]
    encoder, decoder = any_model
    keys, hidden = encoder(source, lengths)
    previous = torch.cat([torch.full((len(source), 1), seq2seq.SOS), own], dim=1)
    torch.testing.assert_close(logits, decoder(previous, hidden, keys, source != seq2seq.PAD)[0], atol=1e-5, rtol=0)
    unrelated = seq2seq.training_logits(any_model, source, lengths, target.flip(0), 0)
    torch.testing.assert_close(logits, unrelated)  # the target is never looked at


def test_a_ratio_just_below_one_takes_the_steps_one_by_one_and_agrees(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    target = seq2seq.reversed_targets(source, lengths)
    one_call = seq2seq.training_logits(model, source, lengths, target, 1)
    stepwise = seq2seq.training_logits(model, source, lengths, target, math.nextafter(1, 0))
    torch.testing.assert_close(stepwise, one_call, atol=1e-5, rtol=0)


def test_half_teacher_forcing_draws_each_step_of_each_string(
    seq2seq: ModuleType, model: nn.ModuleList, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, lengths = seq2seq.sample_sources(400, SYMBOLS, 6, 6, torch.Generator().manual_seed(0))
    target = seq2seq.reversed_targets(source, lengths)
    _, decoder = model
    read: list[Tensor] = []
    decoder.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    logits = seq2seq.training_logits(model, source, lengths, target, 0.5)
    inputs, own, true = torch.cat(read, dim=1)[:, 1:], logits.argmax(dim=-1)[:, :-1], target[:, :-1]
    assert ((inputs == own) | (inputs == true)).all()
    forced = (inputs == true)[own != true].double()
    assert forced.mean().item() == pytest.approx(0.5, abs=0.05)
    for t in range(6):  # within a step, some strings read the true symbol and some their own
        assert (inputs == true)[:, t][own[:, t] != true[:, t]].double().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("ratio", [1, 0])
def test_noise_replaces_its_share_of_the_symbols_that_the_decoder_reads(
    seq2seq: ModuleType, model: nn.ModuleList, ratio: float
) -> None:
    source, lengths = seq2seq.sample_sources(400, SYMBOLS, 6, 6, torch.Generator().manual_seed(0))
    target = seq2seq.reversed_targets(source, lengths)
    with torch.no_grad():
        model[1].output.bias[: seq2seq.SPECIALS] = -1e9  # the model writes nothing but symbols
    read: list[Tensor] = []
    model[1].register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    logits = seq2seq.training_logits(model, source, lengths, target, ratio, 0.5)
    inputs = torch.cat(read, dim=1)
    previous = target[:, :-1] if ratio else logits.argmax(dim=-1)[:, :-1]
    assert (inputs[:, 0] == seq2seq.SOS).all()
    symbols = inputs[:, 1:]
    assert (symbols != previous).double().mean().item() == pytest.approx(0.5 * (1 - 1 / SYMBOLS), abs=0.03)
    random = symbols[symbols != previous] - seq2seq.SPECIALS
    assert random.min() == 0 and random.max() == SYMBOLS - 1


def test_training_adds_the_noise_and_decoding_does_not(
    seq2seq: ModuleType, model: nn.ModuleList, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    with_noise = seq2seq.with_noise
    spied = lambda tokens, share, vocabulary: shares.append(share) or with_noise(tokens, share, vocabulary)  # noqa: E731
    monkeypatch.setattr(seq2seq, "with_noise", spied)
    batch = seq2seq.sample_sources(4, SYMBOLS, 3, 3, torch.Generator().manual_seed(0))
    next(seq2seq.train(model, lambda: batch, 1, 1e-3, 1))
    assert shares == [seq2seq.NOISE] and 0 < seq2seq.NOISE < 0.5
    seq2seq.greedy_decode(model, *batch, max_steps=4)
    assert len(shares) == 1


def test_noise_leaves_the_tokens_alone_that_are_no_symbols(seq2seq: ModuleType) -> None:
    tokens = torch.tensor([[seq2seq.PAD, seq2seq.SOS, seq2seq.EOS]]).repeat(50, 1)
    assert torch.equal(seq2seq.with_noise(tokens, 1.0, seq2seq.SPECIALS + SYMBOLS), tokens)


def test_the_loss_ignores_padding(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seq2seq, "NOISE", 0.0)
    source, lengths = batch
    target = seq2seq.reversed_targets(source, lengths)
    logits = seq2seq.training_logits(model, source, lengths, target, 1)
    terms = [
        -logits[b, t].log_softmax(-1)[target[b, t]].item()
        for b, length in enumerate(lengths.tolist())
        for t in range(length + 1)
    ]
    steps = seq2seq.train(model, lambda: batch, 1, 1e-3, 1)
    assert next(steps) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_few_steps_of_training_lower_the_loss_and_reach_every_parameter(
    seq2seq: ModuleType, any_model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    losses = list(seq2seq.train(any_model, lambda: batch, 150, 3e-2, 1))
    assert losses[-1] < losses[0] / 2
    for name, weight in any_model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and (weight.grad != 0).any(), name


def test_long_gradients_are_cut_to_length_1(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    with torch.no_grad():
        model[1].output.weight *= 100
    next(seq2seq.train(model, lambda: batch, 1, 1e-3, 1))
    length = torch.cat([weight.grad.flatten() for weight in model.parameters()]).norm()
    assert length.item() == pytest.approx(1, abs=1e-3)


def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    steps = seq2seq.train(model, lambda: batch, 5, 1e-3, 1)
    next(steps)
    with torch.no_grad():
        model[1].output.bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"loss nan, .* at step 2 of 5"):
        next(steps)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_training_takes_as_many_steps_as_asked(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor], steps: int
) -> None:
    assert len(list(seq2seq.train(model, lambda: batch, steps, 1e-3, 1))) == steps


@pytest.mark.parametrize("directions", [1, 2])
def test_a_one_directional_encoder_learns_to_look_one_column_beside_the_symbol(
    seq2seq: ModuleType, directions: int
) -> None:
    torch.manual_seed(0)
    model = seq2seq.build_model(10, 16, 64)
    if directions == 1:  # and with PyTorch's own initialisation, as most who write this model have it
        encoder, _ = model
        encoder.gru = nn.GRU(16, 64, batch_first=True)
        nn.init.normal_(encoder.embedding.weight)
    generator = torch.Generator().manual_seed(0)
    list(seq2seq.train(model, lambda: seq2seq.sample_sources(64, 10, 16, 16, generator), 200, 3e-2, 1))
    source, lengths = seq2seq.sample_sources(200, 10, 16, 16, generator)
    tokens, weights = seq2seq.greedy_decode(model, source, lengths, max_steps=17)
    peak = weights[:, :16].argmax(dim=-1)
    true = 15 - torch.arange(16)
    assert (tokens[:, :16] == source.flip(1)).double().mean() > 0.98, "both learn to reverse"
    if directions == 1:
        assert (peak == true + 1).double().mean() > 0.75
    else:
        assert (peak == true).double().mean() > 0.98


# Greedy decoding and the metrics


class Scripted(nn.Module):
    """A decoder that writes given tokens, whatever it reads, and attends to one given position at each step."""

    def __init__(self, tokens: Tensor, positions: Tensor, vocabulary: int) -> None:
        """`tokens` (B, T) are written, `positions` (B, T) are attended."""
        super().__init__()
        self.tokens, self.positions, self.vocabulary, self.t = tokens, positions, vocabulary, 0

    def forward(self, tokens: Tensor, hidden: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, state and weights of one step."""
        t, self.t = self.t, self.t + 1
        logits = nn.functional.one_hot(self.tokens[:, t : t + 1], self.vocabulary).float()
        return logits, hidden, nn.functional.one_hot(self.positions[:, t : t + 1], keys.size(1)).float()


def test_greedy_decoding_stops_when_every_string_has_its_eos(seq2seq: ModuleType, model: nn.ModuleList) -> None:
    eos, pad = seq2seq.EOS, seq2seq.PAD
    written = torch.tensor([[5, eos, 6, 6, 6], [3, 4, 5, eos, 6]])
    scripted = nn.ModuleList([model[0], Scripted(written, torch.zeros_like(written), 9)])
    tokens, weights = seq2seq.greedy_decode(scripted, torch.tensor([[3, 3], [4, 4]]), torch.tensor([2, 2]), 5)
    assert tokens.tolist() == [[5, eos, pad, pad], [3, 4, 5, eos]]
    assert weights.shape == (2, 4, 2)


def test_greedy_decoding_stops_at_its_bound(seq2seq: ModuleType, model: nn.ModuleList) -> None:
    with torch.no_grad():
        model[1].output.bias[seq2seq.EOS] = -1e9
    tokens, weights = seq2seq.greedy_decode(model, torch.tensor([[3, 4]]), torch.tensor([2]), max_steps=11)
    assert tokens.shape == (1, 11) and (tokens > seq2seq.EOS).all()
    assert weights.shape == (1, 11, 2)


def test_greedy_decoding_follows_the_most_probable_symbol(
    seq2seq: ModuleType, model: nn.ModuleList, batch: tuple[Tensor, Tensor]
) -> None:
    source, lengths = batch
    tokens, weights = seq2seq.greedy_decode(model, source, lengths, max_steps=6)
    encoder, decoder = model
    keys, hidden = encoder(source, lengths)
    previous = torch.cat([torch.full((len(source), 1), seq2seq.SOS), tokens[:, :-1]], dim=1)
    logits, _, expected = decoder(previous, hidden, keys, source != seq2seq.PAD)
    best = logits[:, :, seq2seq.EOS :].argmax(dim=-1) + seq2seq.EOS
    real = tokens != seq2seq.PAD
    assert torch.equal(tokens[real], best[real])
    torch.testing.assert_close(weights[real], expected[real])


def test_alignment_is_counted_right_on_a_matrix_made_by_hand(seq2seq: ModuleType) -> None:
    eos, pad = seq2seq.EOS, seq2seq.PAD
    tokens = torch.tensor([[7, 8, 9, eos], [7, eos, pad, pad], [5, 5, 5, 5]])
    weights = torch.tensor(
        [
            [[0.1, 0.2, 0.7], [0.0, 0.9, 0.1], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]],  # right, right, one column off
            [[0.8, 0.2, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]],  # length 2: one column off
            [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]],  # length 1: right, then too long
        ]
    )
    aligned, written = seq2seq.count_aligned(tokens, weights, torch.tensor([3, 2, 1]))
    assert aligned.tolist() == [2, 0, 1]
    assert written.tolist() == [3, 1, 4]


def test_exact_match_wants_every_symbol_and_eos(seq2seq: ModuleType, model: nn.ModuleList) -> None:
    eos, pad = seq2seq.EOS, seq2seq.PAD
    source = torch.tensor([[3, 4, pad], [3, 4, pad], [3, 4, pad], [3, 4, 5]])
    written = torch.tensor([[4, 3, eos, 6], [4, 4, eos, 6], [4, 3, 6, eos], [5, 4, 3, 6]])
    positions = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [2, 1, 0, 0]])
    scripted = nn.ModuleList([model[0], Scripted(written, positions, 9)])
    evaluation = seq2seq.evaluate(scripted, source, torch.tensor([2, 2, 2, 3]))
    assert evaluation.exact.tolist() == [True, False, False, False]  # wrong symbol, EOS too late, no EOS
    assert evaluation.exact_match() == 25
    assert evaluation.aligned.tolist() == [2, 1, 2, 3]
    assert evaluation.written.tolist() == [2, 2, 3, 4]
    assert evaluation.alignment() == pytest.approx(100 * 8 / 11)


def test_evaluation_keeps_the_order_of_its_strings(seq2seq: ModuleType, model: nn.ModuleList) -> None:
    source, lengths = seq2seq.sample_sources(600, 2, 1, 4, torch.Generator().manual_seed(0))
    list(seq2seq.train(model, lambda: (source[:64], lengths[:64]), 60, 3e-2, 1))
    evaluation = seq2seq.evaluate(model, source, lengths)
    assert 0 < evaluation.exact.sum() < 600
    for i in (*range(10), *range(590, 600)):
        alone = seq2seq.evaluate(model, source[i : i + 1], lengths[i : i + 1])
        assert [field[0].item() for field in alone] == [field[i].item() for field in evaluation]


def test_the_same_seed_gives_the_same_run(seq2seq: ModuleType) -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = seq2seq.build_model(SYMBOLS, EMBEDDING, HIDDEN)
        generator = torch.Generator().manual_seed(seed)
        sample = lambda generator=generator: seq2seq.sample_sources(8, SYMBOLS, 1, 5, generator)  # noqa: E731
        runs.append(list(seq2seq.train(model, sample, 5, 1e-2, 0.5)))
    assert runs[0] == runs[1] != runs[2]


# Figures


def test_the_attention_figure_shows_the_weights_with_symbols_on_both_axes(seq2seq: ModuleType) -> None:
    weights = np.eye(4, 3)[::-1]
    axes, _ = seq2seq.draw_attention("a$b", ["b", "$", "a", "EOS"], weights).axes
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "$", "b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "$", "a", "EOS"]
    assert axes.get_ylim() == (3.5, -0.5), "the first output symbol is at the top"
    assert axes.lines[0].get_xydata().tolist() == [[2, 0], [1, 1], [0, 2]]


def test_the_loss_figure_is_logarithmic_and_shows_every_step(seq2seq: ModuleType) -> None:
    losses = [10.0 ** (-t / 50) for t in range(200)]
    axes = seq2seq.draw_loss(losses).axes[0]
    assert axes.get_yscale() == "log"
    raw, smooth = axes.lines
    np.testing.assert_array_equal(raw.get_ydata(), losses)
    assert raw.get_alpha() < 1 and raw.get_linewidth() < smooth.get_linewidth()
    np.testing.assert_allclose(smooth.get_ydata()[0], np.mean(losses[:5]))
    assert smooth.get_xdata()[0] == 5 and smooth.get_xdata()[-1] == 200


# The history of attention, measured


@pytest.fixture
def results(seq2seq: ModuleType) -> list:
    """Return made-up results of the four models of the history."""
    exact, none = torch.tensor([True, True, False, True]), (None, None)
    counts = (torch.tensor([1, 2, 0, 3]), torch.tensor([2, 2, 2, 4]))
    return [
        seq2seq.Result(
            name,
            parameters=1000 + i,
            losses=[3.0 / (i + 1) ** t for t in range(80)],
            milliseconds=1.25 + i,
            passed=None if i == 0 else 20 * i,
            evaluation=seq2seq.Evaluation(torch.tensor([1, 2, 3, 4]), exact, *(none if i == 0 else counts)),
            by_length={1: 100.0, 4: 50.0 + i, 6: 0.0},
        )
        for i, (name, _, _) in enumerate(seq2seq.HISTORY)
    ]


def test_the_table_has_a_row_for_each_model_with_the_numbers_of_its_evaluation(
    seq2seq: ModuleType, results: list
) -> None:
    head, ruler, *rows = seq2seq.comparison_table(results, max_length=4).splitlines()
    assert len({line.count("|") for line in (head, ruler, *rows)}) == 1
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == [name for name, _, _ in seq2seq.HISTORY]
    assert cells[0][1:] == ["1,000", "1.2", "never", "75.00 %", "50.0 %", "none"]
    assert cells[2][1:] == ["1,002", "3.2", "40", "75.00 %", "52.0 %", "60.00 %"]


def test_the_comparison_figure_marks_the_lengths_that_were_never_trained(seq2seq: ModuleType, results: list) -> None:
    left, right = seq2seq.draw_comparison(results, max_length=4).axes
    assert len(left.lines) == 4 and left.get_yscale() == "log"
    by_length = {line.get_label(): line.get_ydata()[1] for line in right.lines}
    assert by_length == {result.name: result.by_length[4] for result in results[:3]}
    assert right.patches[0].get_x() == 4.5
    assert right.texts[0].get_text() == "never trained"
