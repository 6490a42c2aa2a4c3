"""Every loss of codec training against what it must do on signals whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from duologue_align.codec.balancer import GradientBalancer  # noqa: E402
from duologue_align.codec.discriminators import (  # noqa: E402
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from duologue_align.codec.phones import UNKNOWN, phone_loss  # noqa: E402
from duologue_align.codec.spectral import MelSpectrogram, MultiScaleMel, MultiScalePhase, MultiScaleStft  # noqa: E402

RATE_HZ = 24_000


def tone(frequency_hz: float, level: float = 0.3, samples: int = 4800) -> torch.Tensor:
    return (level * torch.sin(2 * torch.pi * frequency_hz * torch.arange(samples) / RATE_HZ))[None]


def test_mel_puts_a_tone_into_the_band_around_it() -> None:
    bands = 40
    mel = MelSpectrogram(RATE_HZ, 1024, 256, bands)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE_HZ / 2 / 700), bands + 2) / 2595) - 1)
    for number in (10, 20, 35):
        loudest = int(mel(tone(float(edges[number + 1])))[0].mean(dim=1).argmax())
        assert loudest == number


def test_a_tone_has_its_amplitude_in_the_spectrum() -> None:
    spectrum = MelSpectrogram(RATE_HZ, 1024, 256, 40).magnitudes(tone(1500.0, level=0.3))
    # A Hann window halves the peak of 2 / size times the transform.
    assert float(spectrum[0, 64, 5]) == pytest.approx(0.15, rel=0.01)


def test_bands_without_a_bin_are_left_out() -> None:
    assert MelSpectrogram(RATE_HZ, 128, 32, 80).bands.shape[0] < 80
    assert bool((MelSpectrogram(RATE_HZ, 128, 32, 80).bands.sum(dim=1) > 0.999).all())


@pytest.mark.parametrize(
    "loss", [MultiScaleMel(RATE_HZ, (512, 128), (40, 10)), MultiScaleStft((512, 128))], ids=["mel", "stft"]
)
def test_spectral_losses_are_zero_for_equal_and_grow_with_distance(loss: torch.nn.Module) -> None:
    target = tone(440.0)
    assert float(loss(target, target)) == 0.0
    near, far = float(loss(target * 0.9, target)), float(loss(target * 0.3, target))
    assert 0 < near < far
    assert float(loss(-target, target)) < 1e-4, "the sign of a waveform is not heard"


def test_mel_of_a_tenfold_level_is_one_decade() -> None:
    loss = MultiScaleMel(RATE_HZ, (512,), (20,))
    noise = torch.randn(1, 4800, generator=torch.Generator().manual_seed(0))
    assert float(loss(noise * 0.1, noise)) == pytest.approx(1.0, rel=1e-3)


def test_spectral_losses_of_silence_have_finite_gradients() -> None:
    phases = MultiScalePhase(RATE_HZ, (512,), top_hz=4000.0, power=0.7)
    for loss in (MultiScaleMel(RATE_HZ, (512,), (20,)), MultiScaleStft((512,)), phases):
        output = torch.zeros(2, 4800, requires_grad=True)
        loss(output, torch.zeros(2, 4800)).backward()
        assert bool(torch.isfinite(output.grad).all())


def test_the_distance_of_phases_is_that_of_compressed_spectra() -> None:
    rng = np.random.default_rng(0)
    output, target = (0.2 * rng.standard_normal((2, 4800)) for _ in range(2))
    window, hop, bins, power = 512, 128, 86, 0.7
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)

    def compressed(pcm: np.ndarray) -> np.ndarray:
        padded = np.pad(pcm, ((0, 0), (window // 2, window // 2)), mode="reflect")
        begins = range(0, padded.shape[1] - window + 1, hop)
        spectra = np.stack([np.fft.rfft(hann * padded[:, begin : begin + window])[:, :bins] for begin in begins])
        spectra = spectra * 2 / window
        return spectra / np.abs(spectra) * np.abs(spectra) ** power

    ours, theirs = compressed(output), compressed(target)
    expected = np.mean(np.abs(ours - theirs) ** 2) / (np.mean(np.abs(theirs) ** 2) + 2e-4)
    loss = MultiScalePhase(RATE_HZ, (window,), top_hz=4000.0, power=power)
    found = float(loss(*(torch.from_numpy(pcm.astype(np.float32)) for pcm in (output, target))))
    assert found == pytest.approx(expected, rel=1e-4)


def test_phases_count_below_their_highest_frequency_only() -> None:
    loss = MultiScalePhase(RATE_HZ, (1024, 256), top_hz=4000.0, power=0.5)
    low, high = tone(500.0), tone(9000.0)
    assert float(loss(low, low)) == 0.0
    assert float(loss(torch.zeros_like(low), low)) == pytest.approx(1.0, abs=0.1)
    assert float(loss(-low, low)) == pytest.approx(4.0, abs=0.3)
    assert float(loss(low - high, low + high)) < 0.1


def test_hinge_losses_at_known_logits() -> None:
    def judged(value: float) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
        return [(torch.full((2, 3), value), [torch.full((2, 3), value)])]

    assert float(discriminator_loss(judged(0.0), judged(0.0))) == 2.0
    assert float(discriminator_loss(judged(1.5), judged(-2.0))) == 0.0
    assert float(discriminator_loss(judged(-1.0), judged(1.0))) == 4.0
    assert float(adversarial_loss(judged(-1.0))) == 2.0
    assert float(adversarial_loss(judged(3.0))) == 0.0
    assert float(feature_loss(judged(2.0), judged(2.0))) == 0.0
    assert float(feature_loss(judged(2.0), judged(1.0))) == 0.5


def test_discriminators_learn_to_tell_noise_from_tones() -> None:
    torch.manual_seed(0)
    judges = Discriminators((256,), 4, (2, 3), 4)
    optimiser = torch.optim.Adam(judges.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    real = torch.cat([tone(hz, samples=1600) for hz in (200.0, 310.0, 450.0, 700.0)])
    losses = []
    for _ in range(30):
        fake = 0.2 * torch.randn(4, 1600, generator=generator)
        loss = discriminator_loss(judges(real), judges(fake))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2.0, abs=0.3)
    assert losses[-1] < 0.5


def test_balancer_gives_each_loss_its_share_whatever_its_scale() -> None:
    output = torch.randn(3, 1, 100, generator=torch.Generator().manual_seed(0), requires_grad=True)
    first, second = output[..., :50].sum() * 1000, output[..., 50:].square().mean() * 0.01
    balancer = GradientBalancer({"first": 3.0, "second": 1.0, "unused": 1.0})
    gradient, norms = balancer.gradient({"first": first, "second": second, "unweighted": first}, output)
    parts = gradient[..., :50].flatten(1).norm(dim=1), gradient[..., 50:].flatten(1).norm(dim=1)
    assert float(parts[0].mean()) == pytest.approx(0.75, rel=1e-4)
    assert float(parts[1].mean()) == pytest.approx(0.25, rel=1e-4)
    assert set(norms) == {"first", "second"}


def test_balancer_goes_on_from_its_state() -> None:
    def loss(scale: float) -> torch.Tensor:
        gradient, _ = balancer.gradient({"only": output.sum() * scale}, output)
        return gradient

    output = torch.zeros(1, 1, 4, requires_grad=True)
    balancer = GradientBalancer({"only": 1.0}, decay=0.5)
    loss(1.0)
    saved = balancer.state_dict()
    expected = loss(10.0)
    balancer = GradientBalancer({"only": 1.0}, decay=0.5)
    balancer.load_state_dict(saved)
    assert torch.equal(loss(10.0), expected)
    assert float(expected.norm()) > 1.0, "a sudden rise passes through: the scale is a moving average"


def test_phone_loss_counts_known_slots_only() -> None:
    labels = torch.tensor([[[1, 0], [UNKNOWN, 2]]])
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, 0, 0, 1] = logits[0, 0, 1, 0] = logits[0, 1, 1, 0] = 50.0
    loss, right, voiced = phone_loss(logits, labels)
    assert float(right) == pytest.approx(2 / 3)
    assert float(voiced) == pytest.approx(1 / 2)
    assert float(loss) == pytest.approx(50 / 3, rel=1e-3)
    nothing = phone_loss(logits, torch.full((1, 2, 2), UNKNOWN))
    assert [float(value) for value in nothing] == [0.0, 0.0, 0.0]
