"""Templates of the response calibration: moved, widened and smoothed as the Gaussians that they are."""

import numpy as np
import pytest
from scipy.special import erf

from pidflow.adapt.response.templates import SMOOTHING, Axis, Templates

AXIS = Axis(-5.0, 5.0, 200)


def gaussian(mean, width):
    """Return the share of a Gaussian in each bin."""
    edges = AXIS.low + AXIS.step * np.arange(AXIS.bins + 1)
    return np.diff(0.5 * erf((edges - mean) / (np.sqrt(2.0) * width)))


def filled(n=200_000, mean=0.4, width=0.5, kept=1.0 - SMOOTHING**2):
    """Return the template of evenly spread quantiles of a Gaussian, shortened as its kernel wants."""
    from scipy.stats import norm

    quantiles = norm.ppf((np.arange(n) + 0.5) / n)
    coordinate = mean + np.sqrt(kept) * width * quantiles
    return Templates.fill(AXIS, (1, 1), np.zeros(n, np.intp), coordinate, np.ones(n), np.full(n, width), kept)


def moments(density):
    x, density = AXIS.centres, density[0, 0] - density[0, 0].min()
    mean = (x * density).sum() / density.sum()
    return mean, np.sqrt(((x - mean) ** 2 * density).sum() / density.sum())


def density(templates, offset=0.0, scale2=1.0, relative=False, **more):
    return templates.densities(np.array([offset]), np.array([scale2]), relative=relative, **more)


@pytest.mark.parametrize(("offset", "scale2"), [(0.0, 1.0), (0.37, 1.0), (-0.8, 2.5), (0.613, 4.0)])
def test_template_is_moved_and_widened_as_the_gaussian_it_is(offset, scale2):
    (found,) = density(filled(), offset, scale2)
    expected = 0.997 * gaussian(0.4 + offset, 0.5 * np.sqrt(scale2)) + 0.003 / AXIS.bins
    np.testing.assert_allclose(found[0, 0], expected, atol=0.004 * expected.max())


def test_template_keeps_variance_when_smoothed_and_narrows():
    mean, width = moments(density(filled())[0])
    assert mean == pytest.approx(0.4, abs=1e-3) and width == pytest.approx(0.5, rel=0.01)
    narrow = density(filled(kept=(1.0 - SMOOTHING**2) * 0.5), scale2=0.5)[0]
    assert moments(narrow)[1] == pytest.approx(0.5 * np.sqrt(0.5), rel=0.01)


def test_template_does_not_come_in_again_on_the_other_side():
    (found,) = density(filled(), offset=6.0)
    assert found[0, 0, : AXIS.bins // 2].max() < 0.004 / AXIS.bins


def test_template_is_widened_as_a_signal_with_gaussian_noise():
    """Noise that is Gaussian in the signal lowers the mean of its logarithm and gives it a tail on the lower side."""
    rng = np.random.default_rng(1)
    coordinate = rng.normal(0.4, 0.2, 400_000) + np.log(np.maximum(1.0 + rng.normal(0.0, 0.2, 400_000), 0.01))
    edges = AXIS.low + AXIS.step * np.arange(AXIS.bins + 1)
    expected = np.histogram(coordinate, edges)[0] / len(coordinate)
    found = density(filled(width=0.2), scale2=2.0, relative=True)[0][0, 0]
    np.testing.assert_allclose(found, 0.997 * expected + 0.003 / AXIS.bins, atol=0.03 * expected.max())
    assert moments(found[None, None])[0] == pytest.approx(coordinate.mean(), abs=0.002)


def test_template_without_tracks_is_flat():
    none = np.empty(0)
    templates = Templates.fill(AXIS, (1, 1), np.empty(0, np.intp), none, none, none, 1.0 - SMOOTHING**2)
    for relative in (False, True):
        for found in density(templates, 0.3, 1.5, relative=relative, derivatives=True):
            assert np.isfinite(found).all() and np.ptp(found) < 1e-12


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("scale2", [1.0, 1.8])
def test_derivatives_are_those_of_finite_differences(scale2, relative):
    templates, h = filled(width=0.25 if relative else 0.5), 1e-4
    if relative and scale2 == 1.0:
        # only above 1 is the mean lowered: aside of that edge
        scale2 = 1.01
    _, by_offset, by_scale = density(templates, 0.2, scale2, relative, derivatives=True)
    for found, high, low in (
        (by_offset, (0.2 + h, scale2), (0.2 - h, scale2)),
        (by_scale, (0.2, scale2 + h), (0.2, scale2 - h)),
    ):
        expected = (density(templates, *high, relative)[0] - density(templates, *low, relative)[0]) / (2.0 * h)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max() + 1e-9)


def test_derivative_shows_the_way_out_where_data_is_narrower_than_the_template_can_be():
    """A fit starts there when the resolution of data is better; without a slope it could not go on."""
    by_scale = density(filled(), 0.2, 0.5, derivatives=True)[2]
    assert np.abs(by_scale).max() > 0.01 * density(filled(), 0.2, 0.5)[0].max()
