"""Statements about the task, the model, training, decoding and metrics, each checked by value."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import scratch, seq2seq, small
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

PAD, SOS, EOS = seq2seq.PAD, seq2seq.SOS, seq2seq.EOS
Batch = tuple[Tensor, Tensor]  # strings and their lengths


@pytest.fixture
def model() -> nn.Module:
    """Return a small untrained model."""
    return seq2seq.build_model(small())


@pytest.fixture(params=["dot", "additive", "location", "none"])
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    """Return a small untrained model of each kind of attention in turn."""
    return seq2seq.build_model(small(attention=request.param))


@pytest.fixture
def batch() -> Batch:
    """Return 7 strings of 1 to 9 symbols, the longest and the shortest length among them."""
    source, lengths = seq2seq.sample_sources(7, 6, 1, 9, torch.Generator().manual_seed(4))
    assert lengths.min() < lengths.max() == source.size(1)
    return source, lengths


# The task


def test_sources_are_random_strings_with_uniform_lengths_and_padding_after() -> None:
    generator = torch.Generator().manual_seed(0)
    source, lengths = seq2seq.sample_sources(6000, 6, 2, 5, generator)
    symbols = source[source != PAD] - seq2seq.FIRST_SYMBOL
    assert torch.equal(source != PAD, torch.arange(5) < lengths[:, None])
    np.testing.assert_allclose(lengths.bincount() / 6000, [0, 0, *[1 / 4] * 4], atol=0.02)
    np.testing.assert_allclose(symbols.bincount() / len(symbols), [1 / 6] * 6, atol=0.02)


@pytest.mark.parametrize(("task", "way"), [("reverse", -1), ("copy", 1), ("every other", 2)])
def test_targets_are_the_string_in_the_tasks_order_then_eos_then_pad(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, task: str, way: int
) -> None:
    monkeypatch.setitem(seq2seq.TASKS, "every other", lambda length, t: 2 * t)
    source, lengths = batch
    expected = [
        [*row[:length][::way], EOS]
        for row, length in zip(source.tolist(), lengths.tolist(), strict=True)
    ]
    expected = [row + [PAD] * (10 - len(row)) for row in expected]
    assert seq2seq.make_targets(source, lengths, task).tolist() == expected


def test_a_task_is_added_by_a_line_and_is_learnt_measured_and_probed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(seq2seq.TASKS, "every other", lambda length, t: 2 * t)
    settings = seq2seq.Settings(task="every other", max_length=9, steps=150)
    model = seq2seq.build_model(settings)
    list(seq2seq.train(model, settings))
    strings = seq2seq.evaluation_strings(settings)
    exact_match, shares = seq2seq.evaluate(model, *strings, settings.task)
    assert exact_match > 95 and shares[0] > 95
    found = seq2seq.substitute(model, seq2seq.probe_strings(settings), 26)
    assert found["read true: true column"] > 90 and found["position part at +0"] > 5
    word = seq2seq.read_word(model, settings, "none")
    assert word.positions == [0, 2, 4, 6, 8]
    assert word.labels == [*"cprgt", "EOS"], "it ends where the task does"


# The encoder


@pytest.mark.parametrize("is_bidirectional", [True, False])
def test_the_encoder_is_pytorchs_gru_on_packed_strings(
    batch: Batch, is_bidirectional: bool
) -> None:
    source, lengths = batch
    torch.manual_seed(0)
    encoder = seq2seq.EncoderRNN(nn.Embedding(9, 5), 8, is_bidirectional)
    size = 4 if is_bidirectional else 8
    packed_gru = nn.GRU(5, size, batch_first=True, bidirectional=is_bidirectional)
    weights = encoder.forward_gru.state_dict()
    if is_bidirectional:
        backward = encoder.backward_gru.state_dict()
        weights |= {f"{name}_reverse": weight for name, weight in backward.items()}
    packed_gru.load_state_dict(weights)
    packed = nn.utils.rnn.pack_padded_sequence(
        encoder.embedding(source), lengths, batch_first=True, enforce_sorted=False
    )
    expected, final = packed_gru(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    keys, last = encoder(source, lengths)
    torch.testing.assert_close(keys[source != PAD], expected[source != PAD])
    torch.testing.assert_close(last, torch.cat([*final], dim=-1)[None])
    for b, length in enumerate(lengths.tolist()):
        alone, last_alone = encoder(source[b : b + 1, :length], lengths[b : b + 1])
        torch.testing.assert_close(keys[b, :length], alone[0])
        torch.testing.assert_close(last[:, b], last_alone[:, 0])


@pytest.mark.parametrize("direction", ["bidirectional", "forward"])
def test_forgetful_gates_lower_the_update_gates_bias_by_2_and_nothing_else(direction: str) -> None:
    usual = seq2seq.build_model(small(encoder=direction, gates="usual")).state_dict()
    forgetful = seq2seq.build_model(small(encoder=direction, gates="forgetful")).state_dict()
    changed = {name: forgetful[name] - usual[name] for name in usual}
    num_changed = sum(bool((change != 0).any()) for change in changed.values())
    assert num_changed == (2 if direction == "bidirectional" else 1)
    for part in ("forward", "backward")[:num_changed]:
        # All is zero but the change: h' = (1 - z) tanh(0) + z h, where z = sigmoid(-2).
        prefix = f"encoder.{part}_gru."
        weights = {n.removeprefix(prefix): c for n, c in changed.items() if n.startswith(prefix)}
        gru = nn.GRU(5, weights["weight_hh_l0"].size(1), batch_first=True)
        gru.load_state_dict(weights)
        states, _ = gru(torch.ones(1, 1, 5), torch.ones(1, 1, gru.hidden_size))
        torch.testing.assert_close(states, torch.full_like(states, 1 / (1 + math.e**2)))


# Attention and the decoder


def test_the_scores_are_the_papers_pair_by_pair() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    additive = seq2seq.AdditiveScore(4)
    location = seq2seq.build_model(small(attention="location", hidden_size=4)).decoder.score
    assert location(query, torch.zeros(2, 20, 4)).shape == (2, 3, 9), "a row for each position"
    W_q, W_k, v = (weight.detach() for weight in additive.parameters())
    dot_scores, additive_scores = seq2seq.dot_score(query, keys), additive(query, keys)
    location_scores = location(query, torch.full_like(keys, torch.nan))
    for b, t, s in np.ndindex(2, 3, 5):
        h_t, h_s = query[b, t], keys[b, s]
        assert dot_scores[b, t, s].item() == pytest.approx(sum(h_t * h_s).item(), abs=1e-5)
        expected = (v[0] * torch.tanh(W_q @ h_t + W_k @ h_s)).sum().item()
        assert additive_scores[b, t, s].item() == pytest.approx(expected, abs=1e-5)
        expected = (location.W.weight[s] * h_t).sum().item()
        assert location_scores[b, t, s].item() == pytest.approx(expected, abs=1e-5)


def test_attending_is_what_a_loop_does() -> None:
    torch.manual_seed(0)
    scores, keys, lengths = torch.randn(2, 3, 5), torch.randn(2, 5, 4), (5, 2)
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    context, weights = seq2seq.attend(scores, keys, mask)
    for b, t in np.ndindex(2, 3):
        exps = [math.exp(score) for score in scores[b, t, : lengths[b]]]
        expected = torch.tensor([exp / sum(exps) for exp in exps])
        torch.testing.assert_close(weights[b, t, : lengths[b]], expected)
        torch.testing.assert_close(context[b, t], expected @ keys[b, : lengths[b]])
    assert (weights[1, :, 2:] == 0).all()


def test_the_decoder_attends_as_numpy_does(model: nn.Module, batch: Batch) -> None:
    source, lengths = batch
    keys, hidden = model.encoder(source, lengths)
    tokens, decoder = seq2seq.make_targets(source, lengths, "reverse"), model.decoder
    logits, _, weights = decoder(tokens, hidden, keys, source != PAD)
    query, keys = decoder.gru(decoder.embedding(tokens), hidden)[0].detach(), keys.detach()
    context, expected = scratch.dot_product_attention(
        *map(np.asarray, (query, keys, source != PAD))
    )
    np.testing.assert_allclose(weights.detach(), expected, atol=1e-6)
    (W_c, b_c), (W_s, b_s) = (
        [np.asarray(parameter.detach()) for parameter in layer.parameters()]
        for layer in (decoder.W_c, decoder.W_s)
    )
    attentional = np.tanh(np.concatenate([context, query], axis=-1) @ W_c.T + b_c)
    np.testing.assert_allclose(logits.detach(), attentional @ W_s.T + b_s, atol=1e-5)
    steps = seq2seq.four_steps(model, source, lengths, tokens)
    torch.testing.assert_close(steps.logits, logits)
    torch.testing.assert_close(steps.weights, weights)
    np.testing.assert_allclose(steps.context, context, atol=1e-5)
    torch.testing.assert_close(steps.scores, query @ keys.mT)


def test_padding_gets_no_weight(any_model: nn.Module, batch: Batch) -> None:
    source, lengths = batch
    _, weights = seq2seq.greedy_decode(any_model, source, lengths, max_steps=5)
    if any_model.decoder.score is None:
        assert weights is None
        return
    is_padding = (source == PAD)[:, None].expand_as(weights)
    assert (weights[is_padding] == 0).all() and (weights[~is_padding] > 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:2]))


def test_one_call_equals_step_by_step_and_a_string_is_the_same_in_any_batch(
    any_model: nn.Module, batch: Batch
) -> None:
    source, lengths = batch
    tokens = seq2seq.make_targets(source, lengths, "reverse")
    logits, weights = any_model(source, lengths, tokens)
    keys, hidden = any_model.encoder(source, lengths)
    for t in range(tokens.size(1)):
        step, hidden, row = any_model.decoder(tokens[:, t : t + 1], hidden, keys, source != PAD)
        torch.testing.assert_close(step[:, 0], logits[:, t])
        assert row is weights is None or torch.allclose(row[:, 0], weights[:, t], atol=1e-6)
    for b, length in enumerate(lengths.tolist()):
        alone, _ = any_model(source[b : b + 1, :length], lengths[b : b + 1], tokens[b : b + 1])
        torch.testing.assert_close(logits[b], alone[0])


def test_what_was_found_does_not_enter_the_state_and_without_attention_nothing_is_found(
    any_model: nn.Module,
) -> None:
    torch.manual_seed(0)
    keys = torch.randn(2, 5, 8, requires_grad=True)
    start = torch.randn(1, 2, 8, requires_grad=True)
    tokens, mask = torch.randint(3, 9, (2, 3)), torch.ones(2, 5, dtype=torch.bool)
    logits, state, _ = any_model.decoder(tokens, start, keys, mask)
    to_state = torch.autograd.grad(state.sum(), (keys, start), retain_graph=True, allow_unused=True)
    assert to_state[0] is None and (to_state[1] != 0).all()
    to_keys, to_start = torch.autograd.grad(logits.square().sum(), (keys, start), allow_unused=True)
    assert (to_start != 0).all()
    assert to_keys is None if any_model.decoder.score is None else (to_keys != 0).all()


# Training


def test_the_learning_rate_rises_for_a_fifth_and_falls_to_zero() -> None:
    rates = [seq2seq.learning_rate(step, 100, 0.4) for step in range(1, 101)]
    expected = np.interp(np.arange(100) + 0.5, [0, 20, 100], [0, 0.4, 0])
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    np.testing.assert_allclose([rates[0], rates[-1]], [0.4 / 40, 0.4 / 160], rtol=1e-9)


def observed(model: nn.Module, settings: object) -> tuple[list[tuple], list[tuple]]:
    """Train the model; return what `train` yields, and what the model reads at each step."""
    read = []
    hook = model.register_forward_hook(lambda _, inputs, __: read.append(inputs))
    told = list(seq2seq.train(model, settings))
    hook.remove()
    return told, read


@pytest.mark.parametrize("task", ["reverse", "copy"])
def test_training_is_adam_on_the_clipped_gradients_of_the_cross_entropy_per_symbol(
    task: str,
) -> None:
    settings = small(task=task, noise=0.0, steps=10)
    model, reference = seq2seq.build_model(settings), seq2seq.build_model(settings)
    told, read = observed(model, settings)
    optimizer = torch.optim.Adam(reference.parameters())
    for t, (source, lengths, tokens) in enumerate(read):
        terms = []
        for b, length in enumerate(lengths.tolist()):
            symbols = source[b, :length].tolist()[:: -1 if task == "reverse" else 1]
            assert tokens[b, : length + 1].tolist() == [SOS, *symbols]
            logits, _ = reference(
                source[b : b + 1, :length], lengths[b : b + 1], torch.tensor([[SOS, *symbols]])
            )
            log_p = logits[0].log_softmax(dim=-1)
            terms += [-log_p[i, token] for i, token in enumerate([*symbols, EOS])]
        loss = sum(terms) / len(terms)
        assert told[t][:2] == (t + 1, pytest.approx(loss.item(), rel=1e-4))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1)
        optimizer.param_groups[0]["lr"] = 0.03 * np.interp(t + 0.5, [0, 2, 10], [0, 1, 0]).item()
        optimizer.step()
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-4, rtol=1e-3)
    assert [step for step, _, _ in told] == list(range(1, 11))
    seconds = [0.0, *(seconds for _, _, seconds in told)]
    assert seconds == sorted(set(seconds)) and (source == PAD).any()


def test_long_gradients_are_cut_to_length_1(model: nn.Module) -> None:
    with torch.no_grad():
        model.decoder.W_s.weight *= 100
    next(seq2seq.train(model, small()))
    gradients = [parameter.grad for parameter in model.parameters()]
    assert nn.utils.get_total_norm(gradients).item() == pytest.approx(1, abs=1e-3)


def test_the_seed_draws_weights_and_strings_and_the_evaluation_has_its_own() -> None:
    runs, weights = {}, {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1), ("last", 2**32 - 1)):
        model = seq2seq.build_model(small(seed=seed))
        weights[name] = model.decoder.W_s.weight.detach().clone()
        told, read = observed(model, small(seed=seed))
        runs[name] = [loss for _, loss, _ in told], read[0][0].tolist()
    assert runs["first"] == runs["again"] and torch.equal(weights["first"], weights["again"])
    for name in ("other", "last"):
        assert runs["first"][1] != runs[name][1] and not torch.equal(
            weights["first"], weights[name]
        )
    evaluated, again = (seq2seq.evaluation_strings(small(seed=seed))[0] for seed in (0, 1))
    assert torch.equal(evaluated, again) and len(evaluated) == 2000
    assert all(evaluated[:4].tolist() != strings for _, strings in runs.values())


def test_every_setting_arrives_in_training() -> None:
    def losses(**changes: object) -> list[float]:
        settings = small(**{"steps": 3, **changes})
        return [loss for _, loss, _ in seq2seq.train(seq2seq.build_model(settings), settings)]

    changes = {"task": "copy", "alphabet": "abcd", "min_length": 2, "max_length": 8}
    changes |= {"encoder": "forward", "gates": "usual", "attention": "additive", "hidden_size": 6}
    changes |= {"embedding_size": 4, "embedding_std": 1.0, "batch_size": 5, "lr": 0.01}
    changes |= {"teacher_forcing": 0.5, "noise": 0.9, "seed": 1, "steps": 4}
    names = {field.name for field in dataclasses.fields(seq2seq.Settings)}
    assert {*changes, "device"} == names
    base = losses()
    assert all(losses(**{name: value}) != base for name, value in changes.items())
    weight = seq2seq.build_model(seq2seq.Settings(embedding_std=3)).encoder.embedding.weight
    assert weight.std().item() == pytest.approx(3, rel=0.1)


def test_with_teacher_forcing_a_step_reads_the_true_previous_symbol(
    any_model: nn.Module, batch: Batch
) -> None:
    target = seq2seq.make_targets(*batch, "reverse")
    shifted = torch.cat([torch.full((7, 1), SOS), target[:, :-1]], dim=1)
    expected, _ = any_model(*batch, shifted)
    for ratio in (1, math.nextafter(1, 0)):  # in one call, and one by one
        logits = seq2seq.training_logits(any_model, *batch, target, ratio)
        torch.testing.assert_close(logits, expected)


def test_without_teacher_forcing_training_reads_what_greedy_decoding_writes(
    any_model: nn.Module, batch: Batch
) -> None:
    with torch.no_grad():  # an untrained model that would write PAD and SOS, if it could
        any_model.decoder.W_s.bias[:EOS] += 10
    target = seq2seq.make_targets(*batch, "reverse")
    logits = seq2seq.training_logits(any_model, *batch, target, teacher_forcing=0)
    tokens, _ = seq2seq.greedy_decode(any_model, *batch, max_steps=target.size(1))
    own = EOS + logits[..., EOS:].argmax(dim=-1)[:, : tokens.size(1)]
    assert torch.equal(own[tokens != PAD], tokens[tokens != PAD])
    blind = seq2seq.training_logits(any_model, *batch, target.flip(0), teacher_forcing=0)
    torch.testing.assert_close(blind, logits)


@pytest.mark.parametrize("ratio", [1, 0.5, 0])
def test_a_step_reads_the_true_symbol_its_own_or_noise_in_the_given_shares(
    model: nn.Module, ratio: float
) -> None:
    torch.manual_seed(0)
    source, lengths = seq2seq.sample_sources(2000, 6, 6, 6, torch.Generator().manual_seed(0))
    target, read = seq2seq.make_targets(source, lengths, "reverse"), []
    with torch.no_grad():
        model.decoder.W_s.bias[EOS] = -1e9  # the model writes nothing but symbols
    model.decoder.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    logits = seq2seq.training_logits(model, source, lengths, target, ratio, noise=0.3)
    tokens, true = torch.cat(read, dim=1), target[:, :-1]
    own = EOS + logits[..., EOS:].argmax(dim=-1)[:, :-1]
    assert (tokens[:, 0] == SOS).all()
    tokens, differ = tokens[:, 1:], own != true
    for read_by_right, share in ((true, ratio), (own, 1 - ratio)):
        found = (tokens == read_by_right)[differ].float().mean().item()
        assert found == pytest.approx(0.7 * share + 0.3 / 6, abs=0.03)


def test_noise_replaces_symbols_only() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([[PAD, SOS, EOS, 3]] * 2000)
    noisy = seq2seq.with_noise(tokens, 1.0, alphabet_size=9)
    assert torch.equal(noisy[:, :3], tokens[:, :3])
    np.testing.assert_allclose(noisy[:, 3].bincount() / 2000, [0] * 3 + [1 / 9] * 9, atol=0.03)
    assert torch.equal(seq2seq.with_noise(tokens, 0.0, alphabet_size=9), tokens)


@pytest.mark.parametrize(("steps", "lr"), [(5, 1e38), (1, 1e39)])
def test_training_that_diverges_stops_and_names_the_step(steps: int, lr: float) -> None:
    settings = small(steps=steps, lr=lr)
    with pytest.raises(FloatingPointError, match=rf"step \d of {steps}"):
        list(seq2seq.train(seq2seq.build_model(settings), settings))


def test_large_embeddings_are_no_divergence() -> None:
    settings = seq2seq.Settings(steps=2, embedding_std=60, embedding_size=1024)
    assert len(list(seq2seq.train(seq2seq.build_model(settings), settings))) == 2


def test_nothing_has_double_precision_which_some_devices_lack(batch: Batch) -> None:
    class SinglePrecision(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            result = func(*args, **(kwargs or {}))
            for part in result if isinstance(result, tuple | list) else [result]:
                assert not isinstance(part, Tensor) or part.dtype != torch.float64, func
            return result

    settings = small(teacher_forcing=0.5)
    with SinglePrecision():
        model = seq2seq.build_model(settings)
        list(seq2seq.train(model, settings))
        seq2seq.evaluate(model, *batch, "reverse")
        decoded = seq2seq.decode_word(model, "fade", settings)
        seq2seq.four_steps_as_text(model, decoded, settings)
        seq2seq.measure_alignment(settings)


# Decoding and metrics


class Scripted(nn.Module):
    """A decoder that writes given tokens, (B, T), and looks at given positions, (B, T)."""

    score = "scripted"

    def __init__(self, tokens: list[list[int]], positions: list[list[int]]) -> None:
        super().__init__()
        self.tokens, self.positions, self.t = torch.tensor(tokens), torch.tensor(positions), 0

    def forward(
        self, tokens: Tensor, hidden: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, state and weights of one step."""
        now, self.t = slice(self.t, self.t + 1), self.t + 1
        logits = nn.functional.one_hot(self.tokens[:, now], 9).float()
        weights = nn.functional.one_hot(self.positions[:, now], keys.size(1)).float()
        return logits, hidden, weights


@pytest.mark.parametrize(("max_steps", "num_steps"), [(5, 4), (4, 4), (3, 3)])
def test_greedy_decoding_ends_with_the_last_eos_or_at_its_bound(
    model: nn.Module, max_steps: int, num_steps: int
) -> None:
    model.decoder = Scripted([[5, EOS, 6, 6, 6], [3, 4, 5, EOS, 6]], [[0, 1, 0, 1, 0]] * 2)
    strings = torch.tensor([[3, 3], [4, 4]]), torch.tensor([2, 2])
    tokens, weights = seq2seq.greedy_decode(model, *strings, max_steps)
    expected = torch.tensor([[5, EOS, PAD, PAD], [3, 4, 5, EOS]])[:, :num_steps]
    assert torch.equal(tokens, expected) and weights.shape == (2, num_steps, 2)
    assert weights[0].argmax(dim=-1).tolist() == [0, 1, 0, 1][:num_steps]


def test_greedy_decoding_reads_what_it_wrote_and_nothing_else(
    any_model: nn.Module, batch: Batch
) -> None:
    tokens, weights = seq2seq.greedy_decode(any_model, *batch, max_steps=6)
    read = torch.cat([torch.full((7, 1), SOS), tokens[:, :-1]], dim=1)
    logits, expected = any_model(*batch, read)
    is_real = tokens != PAD
    assert torch.equal(tokens[is_real], (EOS + logits[..., EOS:].argmax(dim=-1))[is_real])
    assert weights is expected is None or torch.allclose(weights[is_real], expected[is_real])


def test_exact_match_wants_every_symbol_and_eos_and_shifts_count_columns_from_the_true_one(
    model: nn.Module,
) -> None:
    source = torch.tensor([[3, 4, PAD], [3, 4, PAD], [3, 4, PAD], [3, 4, 5]])
    lengths = torch.tensor([2, 2, 2, 3])
    # Right; wrong; EOS late; EOS missing.
    written = [[4, 3, EOS, 6], [4, 4, EOS, 6], [4, 3, 6, EOS], [5, 4, 3, 6]]
    model.decoder = Scripted(written, [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 2, 0]])
    exact_match, shifts = seq2seq.evaluate(model, source, lengths, "reverse")
    assert exact_match == 25
    # Of the 9 symbols with a place: true 1, 0 | 1, 0 | 1, 0 | 2, 1, 0.
    expected = {-2: 1, -1: 1, 0: 4, 1: 2, 2: 1}
    assert shifts == pytest.approx({k: 100 * count / 9 for k, count in expected.items()})
    model.decoder = Scripted([[3, 4, EOS]] * 3 + [[3, 4, EOS]], [[1, 0, 0]] * 4)
    exact_match, shifts = seq2seq.evaluate(model, source, lengths, "copy")
    assert exact_match == 75 and shifts == {-2: 0, -1: 50, 0: 0, 1: 50, 2: 0}
    model.decoder = Scripted([[EOS]] * 4, [[0]] * 4)
    exact_match, shifts = seq2seq.evaluate(model, source, lengths, "reverse")
    assert exact_match == 0 and all(math.isnan(share) for share in shifts.values())
    without = seq2seq.build_model(small(attention="none"))
    assert seq2seq.evaluate(without, source, lengths, "reverse")[1] == {}


# The default model


def test_the_default_model_reverses_and_looks_at_the_true_column(trained: nn.Module) -> None:
    settings = seq2seq.Settings()
    strings = seq2seq.evaluation_strings(settings)
    exact_match, shares = seq2seq.evaluate(trained, *strings, "reverse")
    assert exact_match >= 99.9 and shares[0] >= 99.9
    decoded = seq2seq.decode_word(trained, "mississippi", settings)
    assert decoded.output == "ippississim" and decoded.labels == [*"ippississim", "EOS"]
    assert decoded.weights.argmax(axis=1)[:-1].tolist() == decoded.positions == [*range(11)][::-1]


def test_the_default_model_counts_whatever_it_reads_and_uses_what_it_looks_at(
    trained: nn.Module,
) -> None:
    settings = seq2seq.Settings()
    found = seq2seq.substitute(trained, seq2seq.probe_strings(settings), 26)
    found |= seq2seq.intervene(trained, settings)
    for name in ("read true", "read lacking", "swap"):
        assert found[f"{name}: true column"] > 99, name
    assert found["near: leaves the true column"] < 1
    assert found["read random: right"] > 99 and found["read random: true column"] > 99
    assert found["all weight on true column: right"] > 99 and found["position part at +0"] > 5
    assert found["all weight on one column right: right"] < 20
    assert found["other context: its symbol"] > 99
    assert not found["off by one, predicted"] and not found["follows a swap"]
