"""Statements about the task, the model, training, decoding and metrics, each checked by value."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from lesson import OTHER, looking_at, losses_of, scratch, seq2seq, small
from torch import Tensor, nn
from torch.nn import functional as F

PAD, SOS, EOS = seq2seq.PAD, seq2seq.SOS, seq2seq.EOS


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    model = seq2seq.Seq2Seq(seq2seq.Settings())
    list(seq2seq.train(model, seq2seq.Settings()))
    return model


@pytest.fixture
def model() -> nn.Module:
    return seq2seq.Seq2Seq(small())


@pytest.fixture(params=seq2seq.SCORES)
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    return seq2seq.Seq2Seq(small(attention=request.param))


@pytest.fixture
def source() -> Tensor:
    """Return 7 strings, one of 9 symbols among them."""
    return seq2seq.sample_sources(small(), 7, torch.Generator().manual_seed(4))


def alone(source: Tensor) -> list[Tensor]:
    """Return each string without its padding: (1, length)."""
    return [row[row != PAD][None] for row in source]


# The task


def test_sources_are_random_strings_with_uniform_lengths_and_padding_after() -> None:
    generator = torch.Generator().manual_seed(0)
    source = seq2seq.sample_sources(small(min_length=2, max_length=5), 6000, generator)
    symbols, lengths = source[source != PAD] - seq2seq.FIRST_SYMBOL, (source != PAD).sum(dim=1)
    assert torch.equal(source != PAD, torch.arange(5) < lengths[:, None])
    np.testing.assert_allclose(lengths.bincount() / 6000, [0, 0, *[1 / 4] * 4], atol=0.02)
    np.testing.assert_allclose(symbols.bincount() / len(symbols), [1 / 6] * 6, atol=0.02)


ORDERS = {
    "reverse": lambda length, t: length - t - 1,
    "copy": lambda length, t: t,
    "every other": lambda length, t: 2 * t,
    "swap pairs": lambda length, t: t ^ 1,  # 1, 0, 3, 2, ..., as far as the string goes
    "echo": lambda length, t: 0 * t,  # no more symbols than the string has
}


@pytest.mark.parametrize("task", ORDERS)
def test_targets_are_the_string_in_the_tasks_order_then_eos_then_pad(
    source: Tensor, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    if task not in seq2seq.TASKS:
        monkeypatch.setitem(seq2seq.TASKS, task, ORDERS[task])
    positions = seq2seq.source_positions(source, task).tolist()
    targets = seq2seq.make_targets(source, task).tolist()
    for row, places, target in zip(alone(source), positions, targets, strict=True):
        n = row.size(1)
        order = (ORDERS[task](n, t) for t in range(n))
        order = [*itertools.takewhile(lambda s, n=n: s < n, order)]
        assert places == order + [-1] * (10 - len(order))
        expected = [row[0, s].item() for s in order] + [EOS]
        assert target == expected + [PAD] * (10 - len(expected))


# The encoder


@pytest.mark.parametrize("encoder", seq2seq.ENCODERS)
def test_the_encoder_reads_a_string_from_end_to_end_whatever_pads_it(
    source: Tensor, encoder: str
) -> None:
    ours = seq2seq.Seq2Seq(small(encoder=encoder)).encoder
    source = F.pad(source, (0, 2), value=PAD)
    keys, last = ours(source)
    assert keys.shape == (*source.shape, 8) and not keys[source == PAD].any()
    half = 4 if encoder == "bidirectional" else 8
    for row, states, final in zip(alone(source), keys, last[0], strict=True):
        n = row.size(1)
        expected, _ = ours.gru(ours.embedding(row))
        torch.testing.assert_close(states[:n], expected[0])
        # One GRU ends at the last symbol; the other, if there is one, at the first.
        assert final[:half].equal(states[n - 1, :half]) and final[half:].equal(states[0, half:])
        # What a state knows: another last symbol changes the first state, if it is read backwards.
        row[0, -1] = 3 + (row[0, -1] - 2) % 6
        changed, _ = ours(row)
        is_changed = [not changed[0, s].allclose(states[s]) for s in (0, n - 1)]
        assert is_changed == [encoder == "bidirectional" or n == 1, True]


# Attention and the decoder


def test_scores_are_the_papers_formulas() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    additive = seq2seq.AdditiveScore(8)
    W_q, W_k, v = additive.W_q.weight, additive.W_k.weight, additive.v.weight[0]
    for b, t, s in np.ndindex(2, 3, 5):
        q, k = query[b, t], keys[b, s]
        torch.testing.assert_close(seq2seq.dot_score(query, keys)[b, t, s], (q * k).sum())
        expected = v @ torch.tanh(W_q @ q + W_k @ k)
        torch.testing.assert_close(additive(query, keys)[b, t, s], expected)
    assert (seq2seq.uniform_score(query, keys) == torch.zeros(2, 3, 5)).all()


def test_attention_is_that_of_the_other_script_and_pytorchs_and_padding_gets_exactly_0() -> None:
    torch.manual_seed(0)
    query, keys = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    context, weights = seq2seq.attend(seq2seq.dot_score, query, keys, mask)
    expected = F.scaled_dot_product_attention(query, keys, keys, attn_mask=mask[:, None], scale=1.0)
    torch.testing.assert_close(context, expected)
    arrays = query[1].numpy(), keys[1].numpy(), mask[1].numpy()
    _, expected = scratch.dot_product_attention(*arrays)
    np.testing.assert_allclose(weights[1], expected, rtol=1e-4, atol=1e-5)
    assert (weights[1, :, 2:] == 0).all()
    _, weights = seq2seq.attend(seq2seq.uniform_score, query, keys, mask)
    assert weights[:, 0].tolist() == [pytest.approx([0.2] * 5), [0.5, 0.5, 0, 0, 0]]


@pytest.mark.parametrize("attention", ["dot", "none"])
def test_a_decoder_step_is_gru_attention_tanh_and_a_linear_layer(attention: str) -> None:
    torch.manual_seed(0)
    tokens, state, keys = torch.tensor([[4]]), torch.randn(1, 1, 8), torch.randn(1, 5, 8)
    decoder = seq2seq.Seq2Seq(small(attention=attention)).decoder
    logits, new_state, weights = decoder(tokens, state, keys, torch.ones(1, 5) > 0)
    _, query = decoder.gru(decoder.embedding.weight[4].view(1, 1, 5), state)
    alpha = (keys[0] @ query[0, 0]).softmax(dim=0) * (attention == "dot")
    found_and_asked = torch.cat([alpha @ keys[0], query[0, 0]])
    W_c, W_s = decoder.W_c, decoder.W_s
    expected = W_s.weight @ torch.tanh(W_c.weight @ found_and_asked + W_c.bias) + W_s.bias
    torch.testing.assert_close(logits[0, 0], expected)
    torch.testing.assert_close(weights[0, 0], alpha)
    assert torch.equal(new_state, query), "what was found does not enter the state"


def test_many_steps_and_strings_at_once_are_as_one_by_one(
    any_model: nn.Module, source: Tensor
) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(EOS, 9, (7, 4))
    all_logits, last_state, all_weights = any_model(source, tokens)
    assert (source == PAD).any()
    for b, string in enumerate(alone(source)):
        keys, state = any_model.encoder(string)
        for t in range(4):
            now = tokens[b : b + 1, t : t + 1]
            logits, state, weights = any_model.decoder(now, state, keys, string != PAD)
            torch.testing.assert_close(logits[0, 0], all_logits[b, t])
            padded = F.pad(weights[0, 0], (0, 9 - string.size(1)))
            torch.testing.assert_close(padded, all_weights[b, t])
        torch.testing.assert_close(state[:, 0], last_state[:, b])


# Training


def observed(settings: object) -> tuple[nn.Module, list[tuple], list[tuple]]:
    """Train a model; return it, what `train` yields, and what the model reads at each step."""
    model, read = seq2seq.Seq2Seq(settings), []
    hook = model.register_forward_hook(lambda _, inputs, __: read.append(inputs))
    told = list(seq2seq.train(model, settings))
    hook.remove()
    return model, told, read


@pytest.mark.parametrize("task", seq2seq.TASKS)
def test_training_is_adam_on_the_clipped_gradients_of_the_cross_entropy_per_symbol(
    task: str,
) -> None:
    settings = small(task=task, noise=0.0, lr=0.3, steps=10, seed=1)
    model, told, read = observed(settings)
    reference = seq2seq.Seq2Seq(settings)
    optimizer, norms = torch.optim.Adam(reference.parameters()), []
    for t, (source, tokens) in enumerate(read):
        terms = []
        targets = seq2seq.make_targets(source, task)
        for b, string in enumerate(alone(source)):
            symbols = [token for token in targets[b].tolist() if token > EOS]
            assert tokens[b, : len(symbols) + 1].tolist() == [SOS, *symbols]
            log_p = reference(string, torch.tensor([[SOS, *symbols]]))[0][0].log_softmax(-1)
            terms += [-log_p[i, token] for i, token in enumerate([*symbols, EOS])]
        loss = sum(terms) / len(terms)
        assert told[t][:2] == (t + 1, pytest.approx(loss.item(), rel=1e-4))
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(reference.parameters(), 1))
        optimizer.param_groups[0]["lr"] = 0.3 * np.interp(t + 0.5, [0, 2, 10], [0, 1, 0]).item()
        optimizer.step()
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-4, rtol=1e-3)
    seconds = [0.0, *(seconds for _, _, seconds in told)]
    assert seconds == sorted(set(seconds)) and (source == PAD).any() and max(norms) > 1


def test_the_seed_draws_weights_and_strings_and_the_evaluation_has_its_own() -> None:
    drawn = {}
    for seed in (0, 1, 2**32 - 1):
        weight = seq2seq.Seq2Seq(small(seed=seed)).decoder.W_s.weight.tolist()
        drawn[seed] = weight, *(source.tolist() for source, _ in observed(small(seed=seed))[2])
    for seed in (1, 2**32 - 1):
        assert all(a != b for a, b in zip(drawn[0], drawn[seed], strict=True))
    evaluated, again = (seq2seq.evaluation_strings(small(seed=seed)) for seed in (0, 1))
    assert torch.equal(evaluated, again) and len(evaluated) == 2000
    assert all(evaluated[:4].tolist() != strings for _, strings, _ in drawn.values())


@pytest.mark.parametrize("changes", [{}, {"noise": 0.0}, {"teacher_forcing": 0.5}])
def test_what_a_model_learns_depends_on_its_settings_alone(changes: dict) -> None:
    settings, other = small(**changes, steps=4), small(**changes, steps=4, seed=1)
    alone, other_alone = losses_of(settings), losses_of(other)
    assert alone == losses_of(settings) != other_alone
    # Two models, made one after the other and trained side by side.
    models = seq2seq.Seq2Seq(settings), seq2seq.Seq2Seq(other)
    pairs = zip(seq2seq.train(models[0], settings), seq2seq.train(models[1], other), strict=True)
    losses = [(first[1], second[1]) for first, second in pairs]
    assert losses == list(zip(alone, other_alone, strict=True))


def test_every_setting_arrives_in_training() -> None:
    names = {field.name for field in dataclasses.fields(seq2seq.Settings)}
    assert {*OTHER, "device"} == names
    base = losses_of(small(steps=3))
    for name, value in OTHER.items():
        assert losses_of(small(**{"steps": 3, name: value})) != base, name


def test_without_teacher_forcing_training_reads_what_greedy_decoding_writes(
    any_model: nn.Module, source: Tensor
) -> None:
    with torch.no_grad():  # an untrained model that would write PAD and SOS, if it could
        any_model.decoder.W_s.bias[:EOS] += 10
    target, settings = seq2seq.make_targets(source, "reverse"), small(teacher_forcing=0, noise=0.0)
    logits = seq2seq.training_logits(any_model, source, target, settings, torch.Generator())
    tokens, _ = seq2seq.greedy_decode(any_model, source, max_steps=target.size(1))
    own = EOS + logits[..., EOS:].argmax(dim=-1)[:, : tokens.size(1)]
    assert torch.equal(own[tokens != PAD], tokens[tokens != PAD])
    blind = target.flip(0)
    blind = seq2seq.training_logits(any_model, source, blind, settings, torch.Generator())
    torch.testing.assert_close(blind, logits)


@pytest.mark.parametrize("ratio", [1, 0.5, 0])
def test_a_step_reads_the_true_symbol_its_own_or_noise_as_often_as_it_should(
    model: nn.Module, ratio: float
) -> None:
    settings, read = small(min_length=6, max_length=6, teacher_forcing=ratio, noise=0.3), []
    source = seq2seq.evaluation_strings(settings)
    target = seq2seq.make_targets(source, "reverse")
    with torch.no_grad():
        model.decoder.W_s.bias[EOS] = -1e9  # the model writes nothing but symbols
    model.decoder.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    logits = seq2seq.training_logits(model, source, target, settings, torch.Generator())
    tokens, true = torch.cat(read, dim=1), target[:, :-1]
    own = EOS + logits[..., EOS:].argmax(dim=-1)[:, :-1]
    assert (tokens[:, 0] == SOS).all()
    tokens, differ = tokens[:, 1:], own != true
    for read_by_right, expected in ((true, ratio), (own, 1 - ratio)):
        found = (tokens == read_by_right)[differ].float().mean().item()
        assert found == pytest.approx(0.7 * expected + 0.3 / 6, abs=0.03)


# Decoding and metrics


def script(model: nn.Module, tokens: list[list[int]], columns: list[list[int]]) -> None:
    """Let the decoder write given tokens, (B, T), and look at given columns, (B, T)."""
    steps = (torch.tensor(some).split(1, dim=1) for some in (tokens, columns))
    steps = zip(*steps, strict=True)

    def forward(_: Tensor, state: Tensor, keys: Tensor, mask: Tensor) -> tuple:
        return looking_at(*next(steps), keys.size(1))

    model.decoder.forward = forward


@pytest.mark.parametrize(("max_steps", "num_steps"), [(5, 4), (4, 4), (3, 3)])
def test_greedy_decoding_ends_with_the_last_eos_or_at_its_bound(
    model: nn.Module, max_steps: int, num_steps: int
) -> None:
    script(model, [[5, EOS, 6, 6, 6], [3, 4, 5, EOS, 6]], [[0, 1, 0, 1, 0]] * 2)
    tokens, weights = seq2seq.greedy_decode(model, torch.tensor([[3, 3], [4, 4]]), max_steps)
    expected = torch.tensor([[5, EOS, PAD, PAD], [3, 4, 5, EOS]])[:, :num_steps]
    assert torch.equal(tokens, expected) and weights.shape == (2, num_steps, 2)
    assert weights[0].argmax(dim=-1).tolist() == [0, 1, 0, 1][:num_steps]


def test_exact_match_wants_every_symbol_and_eos_and_alignment_the_true_column(
    model: nn.Module,
) -> None:
    source = torch.tensor([[3, 4, PAD], [3, 4, PAD], [3, 4, PAD], [3, 4, 5]])
    # Right; wrong; EOS late; EOS missing.
    written = [[4, 3, EOS, 6], [4, 4, EOS, 6], [4, 3, 6, EOS], [5, 4, 3, 6]]
    script(model, written, [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 2, 0]])
    found = seq2seq.evaluate(model, source, small())
    # Of the 9 symbols with a position: true 1, 0 | 1, 0 | 1, 0 | 2, 1, 0.
    names = "exact match", "letters", "alignment", "one column left", "one column right"
    expected = 25, 9, 100 * 4 / 9, 100 / 9, 100 * 2 / 9
    assert found == pytest.approx(dict(zip(names, expected, strict=True)))
    script(model, [[3, 4, EOS]] * 4, [[1, 0, 0]] * 4)
    found = seq2seq.evaluate(model, source, small(task="copy"))
    assert found == dict(zip(names, (75, 8, 0, 50, 50), strict=True))
    script(model, [[EOS]] * 4, [[0]] * 4)
    found = seq2seq.evaluate(model, source, small())
    assert found["exact match"] == found["letters"] == 0 and math.isnan(found["alignment"])


def test_a_word_is_written_as_the_decoder_says_and_eos_ends_it() -> None:
    settings = small(alphabet="xyzw")
    model = seq2seq.Seq2Seq(settings)
    with torch.no_grad():
        model.decoder.W_s.bias.copy_(9 * torch.eye(7)[3 + 2])  # always the third symbol
    decoded = seq2seq.decode_word(model, "xy", settings)
    assert decoded.written == list("zzzzz"), "twice the length, and one"
    assert decoded.read == ["SOS", *"zzzz"] and decoded.output == "zzzzz"
    assert decoded.positions == [1, 0] and decoded.weights.shape == (5, 2)
    decoded = seq2seq.decode_word(model, "xy", settings, "wxw")
    assert (decoded.read, decoded.written) == (["SOS", *"wxw"], list("zzzz"))
    with torch.no_grad():
        model.decoder.W_s.bias[EOS] = 99
    decoded = seq2seq.decode_word(model, "xy", settings)
    assert (decoded.read, decoded.written, decoded.output) == (["SOS"], ["EOS"], "")


# The default model


def test_the_default_model_reverses_and_looks_at_the_true_column(trained: nn.Module) -> None:
    settings = seq2seq.Settings()
    found = seq2seq.evaluate(trained, seq2seq.evaluation_strings(settings), settings)
    assert found["exact match"] >= 99.9 and found["alignment"] >= 99.9
    decoded = seq2seq.decode_word(trained, "mississippi", settings)
    assert decoded.output == "ippississim" and decoded.written == [*"ippississim", "EOS"]
    assert decoded.read == ["SOS", *"ippississim"]
    assert decoded.weights[:11].argmax(axis=1).tolist() == decoded.positions == [*range(11)][::-1]


def test_the_default_model_counts_its_steps_whatever_it_reads(trained: nn.Module) -> None:
    settings = seq2seq.Settings()
    found = seq2seq.one_letter_too_many(trained, settings)
    assert found["listens"] < 1 and found["counts"] > 99
    decoded = seq2seq.decode_word(trained, "copyright", settings, "thgdirypoc")
    assert decoded.output == "thgirypoc", "what is read is wrong from the fourth letter on"
    assert decoded.weights.argmax(axis=1).tolist()[:9] == decoded.positions


def test_of_twenty_letters_the_default_looks_for_the_later_ones_where_fewer_would_have_them(
    trained: nn.Module,
) -> None:
    source = seq2seq.different_symbols(seq2seq.Settings(), 200, 20)
    answer = F.pad(source.flip(1), (1, 0), value=seq2seq.SOS)
    _, _, weights = trained(source, answer)
    shift = weights.argmax(dim=-1)[:, :16] - (19 - torch.arange(16))
    assert (shift[:, :4] == 0).float().mean() > 0.95
    assert (shift[:, 8:] != 0).float().mean() > 0.15 and (shift <= 0).float().mean() > 0.95


@pytest.mark.parametrize("changes", [{"encoder": "bidirectional"}, {"task": "copy"}], ids=str)
def test_plain_listens_and_looks_at_the_true_column_if_its_state_has_read_the_same_letter(
    changes: dict,
) -> None:
    plain = seq2seq.EXPERIMENTS["alignment"].models["plain"]
    settings = seq2seq.Settings(**{**plain, **changes, "steps": 150})
    model = seq2seq.Seq2Seq(settings)
    for _ in seq2seq.train(model, settings):
        pass
    found = seq2seq.evaluate(model, seq2seq.evaluation_strings(settings, 500), settings)
    assert found["alignment"] > 85
    assert seq2seq.one_letter_too_many(model, settings)["listens"] > 85
