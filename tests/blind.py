"""Blind cases of `identify`: weights of each known law, and the set that they should give."""

import numpy as np

import isometry as iso
from isometry.common.statistics import apart
from isometry.common.statistics.identify import FALSE_ALARM, TESTS
from isometry.common.statistics.known import classes

FANS = ((512, 128), (256, 256))  # 65,536 weights each; equal fans make LeCun's law Xavier's
TINY = 1e-3  # relative difference of gains that float32 cannot show in W W^T


def known(fans):
    return classes(*fans)[0]


def draw(law, generator, shape):
    if isinstance(law, iso.Orthogonal):
        return law.gain * _haar(generator, *shape)
    if isinstance(law, iso.Constant):
        return np.full(shape, law.value)
    if isinstance(law, iso.Normal):
        return generator.normal(law.mean, law.std, shape)
    if isinstance(law, iso.Uniform):
        return generator.uniform(law.low, law.high, shape)
    z = generator.standard_normal(shape)
    while np.any(outside := np.abs(z) > 2):
        z[outside] = generator.standard_normal(np.count_nonzero(outside))
    return law.mean + law.std * z


def _haar(generator, m, n):
    q, r = np.linalg.qr(generator.standard_normal((max(m, n), min(m, n))))
    q = q * np.sign(np.diagonal(r))
    return q if m >= n else q.T


def equivalent(of, fans):
    """Return the laws that so many weights of a known class are not sure to be told from."""
    return {one.names for one in known(fans) if not _told(one.law, of.law, fans[0] * fans[1])}


def _told(law, truth, count):
    if type(law) is type(truth) is iso.Orthogonal:
        return abs(law.gain / truth.gain - 1) > TINY
    if isinstance(law, (iso.Orthogonal, iso.Constant)) or isinstance(
        truth, (iso.Orthogonal, iso.Constant)
    ):
        return law != truth
    return apart.told_apart(law, truth, count, rate=FALSE_ALARM / TESTS)


def relative(law, truth):
    """Return the relative difference of the standard deviations, 0 for laws that have none."""
    if isinstance(law, iso.Orthogonal):
        return abs(law.gain / truth.gain - 1)
    if isinstance(law, iso.Constant):
        return 0.0
    return abs((law.moments[1] / truth.moments[1]) ** 0.5 - 1)


def cases(of, fans, count, seed):
    """Return whether the true law is in the set, and whether that is as computed, of each case."""
    wanted = equivalent(of, fans)
    found = []
    for k in range(count):
        generator = np.random.default_rng([seed, k])
        weights = draw(of.law, generator, fans).astype(np.float32)
        one = iso.identify(weights, fan_in=fans[0], fan_out=fans[1])
        names = {candidate.names for candidate in one.candidates}
        for candidate in one.candidates:
            assert relative(candidate.law, of.law) < one.detects or candidate.names == of.names
        found.append((of.names in names, names == wanted))
    return found
