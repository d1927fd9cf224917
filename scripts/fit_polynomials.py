#!/usr/bin/env python3
"""Fits the polynomials of kernels/src/math.rs and prints them as Rust constants.

Minimax in relative error by iteratively reweighted least squares (Lawson) on Chebyshev nodes, then rounding
to f32 one coefficient at a time, refitting the rest, so that the rounded polynomial is close to the best one.
Needs numpy and mpmath.
"""
import mpmath
import numpy as np

mpmath.mp.dps = 40


def nodes(low, high, n=2000):
    return (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def lawson(basis, target, scale, rounds=60):
    """Coefficients c minimising max |scale * (basis c - target)|."""
    weight = np.ones(len(target))
    best, best_error = None, np.inf
    for _ in range(rounds):
        w = np.sqrt(weight) * scale
        c = np.linalg.lstsq(basis * w[:, None], target * w, rcond=None)[0]
        error = np.abs(scale * (basis @ c - target))
        if error.max() < best_error:
            best, best_error = c, error.max()
        weight = weight * (error / error.max() + 1e-3)
        weight /= weight.sum()
    return best, best_error


def fit(x, f, degree, scale):
    """Degree-`degree` fit of f(x) weighted by scale, coefficients rounded to f32, highest power first."""
    powers = np.stack([x**k for k in range(degree + 1)], axis=1)
    fixed, free, target = {}, list(range(degree + 1)), f.copy()
    while free:
        c, error = lawson(powers[:, free], target, scale)
        k = free[0]
        fixed[k] = float(np.float32(c[0]))
        target = target - fixed[k] * powers[:, k]
        free = free[1:]
    error = np.abs(scale * (powers @ np.array([fixed[k] for k in range(degree + 1)]) - f)).max()
    return [fixed[k] for k in reversed(range(degree + 1))], error


def show(name, doc, coefficients, error):
    print(f"/// {doc} (fit error {error:.1e})")
    values = ", ".join(repr(np.float32(c)).replace("np.float32(", "").rstrip(")") for c in coefficients)
    print(f"const {name}: [f32; {len(coefficients)}] = [{values}];")


def mp(function, xs):
    return np.array([float(function(mpmath.mpf(float(x)))) for x in xs])


half_ln2 = float(mpmath.log(2) / 2) * 1.0005
r = nodes(-half_ln2, half_ln2, 801)
show("EXP", "(e^r - 1 - r) / r^2 on |r| <= ln(2)/2, in r",
     *fit(r, mp(lambda v: (mpmath.expm1(v) - v) / v**2 if v else mpmath.mpf(1) / 2, r), 4, r**2))

u = nodes(1e-9, 0.625**2, 800)
show("TANH", "(tanh(x) - x) / x^3 on |x| <= 0.625, in x^2",
     *fit(u, mp(lambda v: (mpmath.tanh(mpmath.sqrt(v)) / mpmath.sqrt(v) - 1) / v, u), 5, u))

u = nodes(1e-9, 1.0, 800)
show("ERF", "erf(x) / x - 1 on |x| <= 1, in x^2",
     *fit(u, mp(lambda v: mpmath.erf(mpmath.sqrt(v)) / mpmath.sqrt(v) - 1, u), 7, np.ones_like(u)))

C = 0.375
t = nodes(1 / (1 + C * 12), 1.0, 800)
z = (1 / t - 1) / C
erfcx = mp(lambda v: mpmath.exp(v * v) * mpmath.erfc(v), z)
show("ERFC", f"e^(z^2) erfc(z) / t with t = 1 / (1 + {C} z), z >= 0, in t", *fit(t, erfcx / t, 9, t / erfcx))
