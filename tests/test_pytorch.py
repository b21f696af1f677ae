"""Statements about the task, the model, training, decoding and the metrics, each checked by value."""

import math

import numpy as np
import pytest
import torch
from conftest import SMALL, scratch, seq2seq
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]  # strings and their lengths


SETTINGS = seq2seq.Settings(**SMALL)


@pytest.fixture
def model() -> nn.Module:
    """Return a small untrained model."""
    return seq2seq.build_model(SETTINGS)


@pytest.fixture(params=["dot", "additive", "none"])
def any_model(request: pytest.FixtureRequest) -> nn.Module:
    """Return a small untrained model of each kind of attention in turn."""
    return seq2seq.build_model(SETTINGS._replace(attention=request.param))


@pytest.fixture
def batch() -> Batch:
    """Return 7 strings of 1 to 9 symbols, the longest and the shortest length among them."""
    source, lengths = seq2seq.sample_sources(7, SETTINGS, torch.Generator().manual_seed(4))
    assert lengths.min() < lengths.max() == source.size(1)
    return source, lengths


# The task


def test_sources_are_random_strings_with_uniform_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    source, lengths = seq2seq.sample_sources(
        6000, SETTINGS._replace(min_length=2, max_length=5), generator
    )
    symbols = source[source != seq2seq.PAD] - seq2seq.FIRST_SYMBOL
    assert torch.equal((source != seq2seq.PAD).sum(dim=1), lengths)
    np.testing.assert_allclose(lengths.bincount()[2:] / 6000, 1 / 4, atol=0.02)
    np.testing.assert_allclose(symbols.bincount() / len(symbols), 1 / 6, atol=0.02)


@pytest.mark.parametrize(("task", "way"), [("reverse", -1), ("copy", 1)])
def test_targets_are_the_strings_reversed_or_copied_then_eos_then_pad(
    batch: Batch, task: str, way: int
) -> None:
    source, lengths = batch
    expected = [
        [*row[:length][::way], seq2seq.EOS, *[seq2seq.PAD] * (source.size(1) - length)]
        for row, length in zip(source.tolist(), lengths.tolist(), strict=True)
    ]
    assert seq2seq.make_targets(source, lengths, task).tolist() == expected
    assert seq2seq.make_targets(source.to("meta"), lengths, task).device.type == "meta", (
        "made where the source is"
    )


# The encoder


@pytest.mark.parametrize("direction", ["bidirectional", "forward"])
def test_padding_does_not_reach_the_encoders_outputs_or_its_last_state(
    batch: Batch, direction: str
) -> None:
    source, lengths = batch
    encoder = seq2seq.build_model(SETTINGS._replace(encoder=direction)).encoder
    outputs, last = encoder(source, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone, final = encoder.gru(encoder.embedding(source[b : b + 1, :length]))
        torch.testing.assert_close(outputs[b, :length], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(last[0, b], final.flatten(), atol=1e-5, rtol=0)
        assert (outputs[b, length:] == 0).all()


def test_forgetful_gates_make_a_state_mostly_its_own_symbol() -> None:
    shares = {}
    for gates in ("forgetful", "usual"):
        encoder = seq2seq.build_model(seq2seq.Settings(gates=gates)).encoder
        source, lengths = (
            torch.randint(3, 29, (100, 9), generator=torch.Generator().manual_seed(0)),
            torch.full((100,), 9),
        )
        other = source.clone()
        other[:, 4] = 3 + (other[:, 4] - 2) % 26
        change = (encoder(source, lengths)[0] - encoder(other, lengths)[0]).norm(dim=-1).mean(dim=0)
        shares[gates] = (max(change[3], change[5]) / change[4]).item()
    assert shares["forgetful"] < 0.25 < shares["usual"]


# Attention and the decoder


def test_the_decoder_attends_as_numpy_does(model: nn.Module, batch: Batch) -> None:
    source, lengths = batch
    keys, hidden = model.encoder(source, lengths)
    tokens, decoder = seq2seq.make_targets(source, lengths, "reverse"), model.decoder
    logits, _, weights = decoder(tokens, hidden, keys, source != seq2seq.PAD)
    query = decoder.gru(decoder.embedding(tokens), hidden)[0].detach().numpy()
    context, expected = scratch.dot_product_attention(
        query, keys.detach().numpy(), (source != seq2seq.PAD).numpy()
    )
    np.testing.assert_allclose(weights.detach(), expected, atol=1e-6)
    (W_c, b_c), (W_s, b_s) = (
        [p.detach().numpy() for p in layer.parameters()] for layer in (decoder.W_c, decoder.W_s)
    )
    attentional = np.tanh(np.concatenate([context, query], axis=-1) @ W_c.T + b_c)
    np.testing.assert_allclose(logits.detach(), attentional @ W_s.T + b_s, atol=1e-5)


def test_the_additive_score_is_the_papers_pair_by_pair() -> None:
    torch.manual_seed(0)
    score, query, keys = seq2seq.AdditiveScore(4), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    W_q, W_k, v = (weight.detach().numpy() for weight in score.parameters())
    scores = score(query, keys).detach()
    for b, t, s in np.ndindex(2, 3, 5):
        expected = v[0] @ np.tanh(W_q @ query[b, t].numpy() + W_k @ keys[b, s].numpy())
        assert scores[b, t, s].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("attention", ["dot", "additive", "none"])
def test_only_attention_opens_a_path_from_the_encoders_outputs(attention: str) -> None:
    decoder = seq2seq.build_model(SETTINGS._replace(attention=attention)).decoder
    keys, hidden = (
        torch.randn(2, 5, 8, requires_grad=True),
        torch.randn(1, 2, 8, requires_grad=True),
    )
    logits, _, _ = decoder(
        torch.full((2, 3), seq2seq.SOS), hidden, keys, torch.ones(2, 5, dtype=torch.bool)
    )
    to_keys, to_hidden = torch.autograd.grad(
        logits.square().sum(), (keys, hidden), allow_unused=True
    )
    assert (to_hidden != 0).all()
    assert to_keys is None if attention == "none" else (to_keys != 0).all()


def test_dot_and_additive_start_alike_but_for_the_score() -> None:
    dot, additive = (
        seq2seq.build_model(SETTINGS._replace(attention=attention)).state_dict()
        for attention in ("dot", "additive")
    )
    assert set(additive) - set(dot) == {
        f"decoder.score.{name}.weight" for name in ("W_q", "W_k", "v")
    }
    assert all(torch.equal(dot[name], additive[name]) for name in dot)


def test_padding_gets_no_weight(model: nn.Module, batch: Batch) -> None:
    source, lengths = batch
    _, weights = seq2seq.greedy_decode(model, source, lengths, max_steps=5)
    padding = (source == seq2seq.PAD)[:, None].expand_as(weights)
    assert padding.any() and (weights[padding] == 0).all() and (weights[~padding] > 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:2]))


def test_a_string_gives_the_same_alone_and_in_any_batch(any_model: nn.Module, batch: Batch) -> None:
    source, lengths = batch
    tokens = seq2seq.previous_tokens(seq2seq.make_targets(source, lengths, "reverse"))
    together, _ = any_model(source, lengths, tokens)
    for b, length in enumerate(lengths.tolist()):
        alone, _ = any_model(
            source[b : b + 1, :length], lengths[b : b + 1], tokens[b : b + 1, : length + 1]
        )
        torch.testing.assert_close(together[b, : length + 1], alone[0], atol=1e-5, rtol=0)


def test_one_call_equals_step_by_step(any_model: nn.Module, batch: Batch) -> None:
    source, lengths = batch
    tokens = seq2seq.make_targets(source, lengths, "reverse")
    logits, weights = any_model(source, lengths, tokens)
    keys, hidden = any_model.encoder(source, lengths)
    for t in range(tokens.size(1)):
        step, hidden, row = any_model.decoder(
            tokens[:, t : t + 1], hidden, keys, source != seq2seq.PAD
        )
        torch.testing.assert_close(step[:, 0], logits[:, t], atol=1e-5, rtol=0)
        assert row is weights is None or torch.allclose(row[:, 0], weights[:, t], atol=1e-5)


# Training


def test_with_teacher_forcing_a_step_reads_the_true_previous_symbol(
    model: nn.Module, batch: Batch
) -> None:
    target = seq2seq.make_targets(*batch, "reverse")
    assert torch.equal(seq2seq.previous_tokens(target)[:, 1:], target[:, :-1])
    assert (seq2seq.previous_tokens(target)[:, 0] == seq2seq.SOS).all()
    expected, _ = model(*batch, seq2seq.previous_tokens(target))
    for ratio in (1, math.nextafter(1, 0)):  # in one call, and one by one
        logits = seq2seq.training_logits(
            model, *batch, target, SETTINGS._replace(teacher_forcing=ratio, noise=0)
        )
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_without_teacher_forcing_training_reads_what_greedy_decoding_writes(
    any_model: nn.Module, batch: Batch
) -> None:
    with torch.no_grad():  # an untrained model that would write PAD and SOS, if it could
        any_model.decoder.W_s.bias[: seq2seq.EOS] += 10
    target = seq2seq.make_targets(*batch, "reverse")
    settings = SETTINGS._replace(teacher_forcing=0, noise=0)
    logits = seq2seq.training_logits(any_model, *batch, target, settings)
    tokens, _ = seq2seq.greedy_decode(any_model, *batch, max_steps=target.size(1))
    own = seq2seq.most_probable(logits)[:, : tokens.size(1)]
    assert torch.equal(own[tokens != seq2seq.PAD], tokens[tokens != seq2seq.PAD])
    torch.testing.assert_close(
        seq2seq.training_logits(any_model, *batch, target.flip(0), settings), logits
    )


@pytest.mark.parametrize("ratio", [1, 0.5, 0])
def test_a_step_reads_the_true_symbol_its_own_or_noise_in_the_given_shares(
    model: nn.Module, ratio: float
) -> None:
    source, lengths = seq2seq.sample_sources(
        2000, SETTINGS._replace(min_length=6, max_length=6), torch.Generator()
    )
    target, read = seq2seq.make_targets(source, lengths, "reverse"), []
    with torch.no_grad():
        model.decoder.W_s.bias[seq2seq.EOS] = -1e9  # the model writes nothing but symbols
    model.decoder.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    settings = SETTINGS._replace(teacher_forcing=ratio, noise=0.3)
    logits = seq2seq.training_logits(model, source, lengths, target, settings)
    tokens, own, true = (
        torch.cat(read, dim=1)[:, 1:],
        seq2seq.most_probable(logits)[:, :-1],
        target[:, :-1],
    )
    differ = own != true
    share = {
        "true": (tokens == true)[differ].double().mean(),
        "own": (tokens == own)[differ].double().mean(),
    }
    assert share["true"] == pytest.approx(0.7 * ratio + 0.3 / 6, abs=0.03)
    assert share["own"] == pytest.approx(0.7 * (1 - ratio) + 0.3 / 6, abs=0.03)
    noise = tokens[(tokens != true) & (tokens != own)] - seq2seq.FIRST_SYMBOL
    np.testing.assert_allclose(noise.bincount() / len(noise), 1 / 6, atol=0.05)
    specials = torch.tensor([[seq2seq.PAD, seq2seq.SOS, seq2seq.EOS]] * 50)
    assert torch.equal(seq2seq.with_noise(specials, 1.0, 9), specials)


def test_the_loss_ignores_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS._replace(noise=0.0, steps=1, batch_size=7)
    model = seq2seq.build_model(settings)
    source, lengths = seq2seq.sample_sources(7, settings, torch.Generator().manual_seed(2**32 - 1))
    target = seq2seq.make_targets(source, lengths, "reverse")
    assert (target == seq2seq.PAD).any()
    logits, _ = model(source, lengths, seq2seq.previous_tokens(target))
    terms = [
        -logits[b, t].log_softmax(-1)[target[b, t]].item()
        for b, length in enumerate(lengths.tolist())
        for t in range(length + 1)
    ]
    assert next(seq2seq.train(model, settings)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_every_setting_arrives_in_training() -> None:
    def losses(**changes: object) -> list[float]:
        changed = SETTINGS._replace(**{"steps": 3, **changes})
        return list(seq2seq.train(seq2seq.build_model(changed), changed))

    base = losses()
    assert losses() == base, "the same seed gives the same losses"
    changes = {
        "task": "copy",
        "alphabet": "abcd",
        "min_length": 2,
        "max_length": 8,
        "encoder": "forward",
    }
    changes |= {
        "gates": "usual",
        "attention": "additive",
        "hidden_size": 6,
        "embedding_size": 4,
        "seed": 1,
    }
    changes |= {
        "embedding_std": 1.0,
        "batch_size": 5,
        "lr": 0.01,
        "teacher_forcing": 0.5,
        "noise": 0.9,
        "steps": 4,
    }
    assert {*changes, "device"} == set(SETTINGS._fields)
    for name, value in changes.items():
        assert losses(**{name: value}) != base, name
    assert len(losses(steps=4)) == 4


def test_weights_and_strings_have_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, sample = [], seq2seq.sample_sources

    def record(count: int, settings: tuple, generator: torch.Generator) -> Batch:
        seeds.append(generator.initial_seed())
        return sample(count, settings, generator)

    monkeypatch.setattr(seq2seq, "sample_sources", record)
    for seed in (0, 1, 2**32 - 1):
        list(
            seq2seq.train(
                seq2seq.build_model(SETTINGS._replace(seed=seed)), SETTINGS._replace(seed=seed)
            )
        )
        assert torch.initial_seed() == seed and seeds[-1] % 2**32 != seed
    seq2seq.evaluation_strings(SETTINGS)
    assert len({seed % 2**32 for seed in seeds}) == 4, (
        "training draws others for each seed, and the evaluation, too"
    )


def test_training_lowers_the_loss_and_reaches_every_parameter(any_model: nn.Module) -> None:
    losses = list(
        seq2seq.train(any_model, SETTINGS._replace(steps=150, max_length=3, batch_size=32))
    )
    assert losses[-1] < losses[0] / 2
    for name, weight in any_model.named_parameters():
        assert (weight.grad != 0).any(), name


def test_long_gradients_are_cut_to_length_1(model: nn.Module) -> None:
    with torch.no_grad():
        model.decoder.W_s.weight *= 100
    next(seq2seq.train(model, SETTINGS))
    assert nn.utils.get_total_norm(
        [weight.grad for weight in model.parameters()]
    ).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("steps", "lr"), [(5, 1e9), (1, 1e39)])
def test_training_that_diverges_stops_and_names_the_step(
    model: nn.Module, steps: int, lr: float
) -> None:
    with pytest.raises(FloatingPointError, match=f"at step 1 of {steps}"):
        list(seq2seq.train(model, SETTINGS._replace(steps=steps, lr=lr)))


def test_the_clock_stands_still_while_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(seq2seq.time, "perf_counter", lambda: now[0])

    def losses() -> object:
        for loss in (3.0, 2.0):
            now[0] += 1
            yield loss

    told = []
    for pair in seq2seq.timed(losses()):
        told.append(pair)
        now[0] += 10
    assert told == [(3.0, 1.0), (2.0, 2.0)]


# Greedy decoding and the metrics


class Scripted(nn.Module):
    """A decoder that writes given tokens, (B, T), whatever it reads, and attends to given positions, (B, T)."""

    def __init__(
        self, tokens: list[list[int]], positions: list[list[int]], vocabulary: int = 9
    ) -> None:
        super().__init__()
        self.tokens, self.positions, self.vocabulary, self.t = (
            torch.tensor(tokens),
            torch.tensor(positions),
            vocabulary,
            0,
        )

    def forward(
        self, tokens: Tensor, hidden: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, state and weights of one step."""
        t, self.t = self.t, self.t + 1
        logits = nn.functional.one_hot(self.tokens[:, t : t + 1], self.vocabulary).float()
        return (
            logits,
            hidden,
            nn.functional.one_hot(self.positions[:, t : t + 1], keys.size(1)).float(),
        )


def test_greedy_decoding_ends_with_the_last_eos_or_at_its_bound(model: nn.Module) -> None:
    eos, pad = seq2seq.EOS, seq2seq.PAD
    written = [[5, eos, 6, 6, 6], [3, 4, 5, eos, 6]]
    model.decoder = Scripted(written, [[0] * 5] * 2)
    tokens, weights = seq2seq.greedy_decode(
        model, torch.tensor([[3, 3], [4, 4]]), torch.tensor([2, 2]), 5
    )
    assert tokens.tolist() == [[5, eos, pad, pad], [3, 4, 5, eos]] and weights.shape == (2, 4, 2)
    model.decoder = Scripted(written, [[0] * 5] * 2)
    tokens, weights = seq2seq.greedy_decode(
        model, torch.tensor([[3, 3], [4, 4]]), torch.tensor([2, 2]), 3
    )
    assert tokens.tolist() == [[5, eos, pad], [3, 4, 5]] and weights.shape == (2, 3, 2)


def test_greedy_decoding_reads_what_it_wrote_and_nothing_else(
    model: nn.Module, batch: Batch
) -> None:
    tokens, weights = seq2seq.greedy_decode(model, *batch, max_steps=6)
    logits, expected = model(*batch, seq2seq.previous_tokens(tokens))
    real = tokens != seq2seq.PAD
    assert torch.equal(tokens[real], seq2seq.most_probable(logits)[real])
    torch.testing.assert_close(weights[real], expected[real])


def test_exact_match_wants_every_symbol_and_eos_and_shifts_count_columns_from_the_true_one(
    model: nn.Module,
) -> None:
    eos, pad = seq2seq.EOS, seq2seq.PAD
    source, lengths = (
        torch.tensor([[3, 4, pad], [3, 4, pad], [3, 4, pad], [3, 4, 5]]),
        torch.tensor([2, 2, 2, 3]),
    )
    written = [
        [4, 3, eos, 6],
        [4, 4, eos, 6],
        [4, 3, 6, eos],
        [5, 4, 3, 6],
    ]  # right; wrong; EOS late; EOS missing
    model.decoder = Scripted(written, [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [0, 1, 2, 0]])
    exact_match, shifts = seq2seq.evaluate(model, source, lengths, "reverse")
    assert exact_match == 25
    assert shifts == pytest.approx([100 * n / 9 for n in (1, 1, 4, 2, 1)])
    model.decoder = Scripted(
        [[3, 4, eos, 6]] * 3 + [[3, 4, 5, eos]], [[1, 0, 0, 0]] * 3 + [[0, 1, 2, 0]]
    )
    exact_match, shifts = seq2seq.evaluate(model, source, lengths, "copy")
    assert exact_match == 100 and shifts == pytest.approx(
        [0, 100 * 3 / 9, 100 * 3 / 9, 100 * 3 / 9, 0]
    )


def test_a_string_is_decoded_right_exactly_if_each_step_is_right_after_true_ones(
    model: nn.Module,
) -> None:
    settings = SETTINGS._replace(alphabet="ab", max_length=4, steps=60, batch_size=32)
    model = seq2seq.build_model(settings)
    list(seq2seq.train(model, settings))
    source, lengths = seq2seq.evaluation_strings(settings)
    target = seq2seq.make_targets(source, lengths, "reverse")
    logits, _ = model(source, lengths, seq2seq.previous_tokens(target))
    right = ((seq2seq.most_probable(logits) == target) | (target == seq2seq.PAD)).all(dim=1)
    exact_match, _ = seq2seq.evaluate(model, source, lengths, "reverse")
    assert 5 < exact_match < 95 and exact_match == pytest.approx(100 * right.double().mean().item())


def test_the_default_model_learns_to_reverse_and_to_align(trained: nn.Module) -> None:
    settings = seq2seq.Settings()
    exact_match, shifts = seq2seq.evaluate(
        trained, *seq2seq.evaluation_strings(settings), "reverse"
    )
    assert exact_match >= 99 and shifts[2] >= 98
    written = seq2seq.write(trained, "mississippi", settings)
    assert (
        written.output == "ippississim"
        and written.weights.argmax(axis=1)[:11].tolist() == written.places
    )
