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


def equivalent(of, fans, count=None, tests=TESTS):
    """Return the laws that so many weights of a known class are not sure to be told from."""
    count = count or fans[0] * fans[1]
    return {one.names for one in known(fans) if not _told(one.law, of.law, count, tests)}


def _told(law, truth, count, tests):
    if type(law) is type(truth) is iso.Orthogonal:
        return abs(law.gain / truth.gain - 1) > TINY
    if isinstance(law, (iso.Orthogonal, iso.Constant)) or isinstance(
        truth, (iso.Orthogonal, iso.Constant)
    ):
        return law != truth
    return apart.told_apart(law, truth, count, rate=FALSE_ALARM / tests)


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


# --- weights that are made of smaller ones --------------------------------------------------------

# a kernel of 65,536 weights that are repeated, and a matrix of which so many are left
KERNEL, MATRIX = (128, 32, 4, 4), (512, 144)
ZEROS = 52  # in each column
BESIDE = 3  # tests of sparse weights: how many zeros beyond, in which rows, beside which others
LAWS = ("he_normal", "xavier_uniform", "lecun_truncated", "mxnet: Uniform(), every Gluon layer")
PARTS = ("ICNR CRD", "ICNR DCR", "sparse out_in", "sparse in_out")


def of_parts(part, name, generator):
    """Return a weight made of a smaller one of a law, its fans, and what `identify` should find."""
    word, _, how = part.partition(" ")
    fans = (512, 2048) if word == "ICNR" else MATRIX[::-1]
    (of,) = (one for one in known(fans) if name in one.names)
    if word == "ICNR":
        core = draw(of.law, generator, KERNEL)
        repeated = np.repeat(core, 4, axis=0) if how == "CRD" else np.concatenate([core] * 4)
        return repeated, (512, 8192), f"ICNR, scale 2, {how}", equivalent(of, fans, core.size)
    w = draw(of.law, generator, MATRIX)
    rows = np.argsort(generator.random(MATRIX), axis=0)[:ZEROS]
    np.put_along_axis(w, rows, 0, axis=0)
    left = (MATRIX[0] - ZEROS) * MATRIX[1]
    words = f"sparse, {ZEROS} of {MATRIX[0]} zeros (0.102) in each column, {how}"
    wanted = equivalent(of, fans, left, TESTS + BESIDE)
    return w if how == "out_in" else w.T, fans, words, wanted


def cases_of_parts(part, name, count, seed):
    """Return whether the true law is in the set, and whether that is as computed, of each case."""
    found = []
    for k in range(count):
        generator = np.random.default_rng([seed, k])
        weights, (fan_in, fan_out), words, wanted = of_parts(part, name, generator)
        one = iso.identify(weights.astype(np.float32), fan_in=fan_in, fan_out=fan_out)
        names = {candidate.names for candidate in one.candidates}
        exact = {tuple(f"{words}, of {of}" for of in of_class) for of_class in wanted}
        found.append((f"{words}, of {name}" in one.names, names == exact))
    return found


def gates(count, side, generator):
    """Return so many orthogonal matrices above each other."""
    return np.concatenate([_haar(generator, *side) for _ in range(count)])


def chrono(longest, units, generator, order="ifgo"):
    forget = np.log(generator.uniform(1, longest - 1, units))
    blocks = {"f": forget, "i": -forget, "g": 0 * forget, "o": 0 * forget}
    return np.concatenate([blocks[gate] for gate in order])
