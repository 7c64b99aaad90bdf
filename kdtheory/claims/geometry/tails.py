"""Theorem 13 of chapter 04: how much a long tail weighs in each divergence and in W1."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from kdtheory.claims.geometry import distances as d
from kdtheory.claims.oracles import exact_js, exact_kl, exact_line_w1, exact_tv, optimal_transport
from kdtheory.ledger import Anchor, Evidence, Verdict, claim, exact

_PROOF = Anchor("04_geometry#tails", sha256="00ec8aee1f2fc636")
_P = ["9/10", "9/100", "1/100"]
_EXCHANGED = ["9/10", "1/100", "9/100"]


def _divergences(p: d.Array, q: d.Array, cost: d.Array) -> d.Array:
    """Forward and reverse KL, JS, TV, squared Hellinger, χ², and W1."""
    chi2 = float(((p - q) ** 2 / q).sum())
    rest = (d.kl(p, q), d.kl(q, p), d.js(p, q), d.tv(p, q), 1 - d.affinity(p, q), chi2)
    return np.array([*rest, optimal_transport(p, q, cost).value])


def _binary(x: float, y: float) -> float:
    return d.kl(np.array([x, 1 - x]), np.array([y, 1 - y]))


def _weight_is_off(power: float) -> d.Fails:
    """Equal heads: everything is ε times its value between the tails. Different heads and masses: KL's chain rule."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        head, tail = int(rng.integers(1, 4)), int(rng.integers(2, 4))
        e, other = rng.uniform(0.01, 0.5, size=2)
        heads = [d.law(rng, head, zeros=False) for _ in range(2)]
        tails = [d.law(rng, tail, zeros=False) for _ in range(2)]
        cost = d.metric(rng, head + tail)
        p, q = (np.concatenate([(1 - e) * heads[0], e * one]) for one in tails)
        between = _divergences(tails[0], tails[1], cost[head:, head:])
        scale = np.maximum(1.0, between)
        same_head = float((np.abs(_divergences(p, q, cost) - e**power * between) / scale).max())
        r = np.concatenate([(1 - other) * heads[1], other * tails[1]])
        chain = _binary(e, other) + (1 - e) * d.kl(*heads) + e**power * d.kl(*tails)
        return max(same_head, abs(d.kl(p, r) - chain)), d.point(p, q, head=head)

    return violation


def _attempt_weight(power: float = 1.0) -> Evidence:
    return d.attempt(
        _weight_is_off(power),
        "with one head, FKL, RKL, JS, TV, H², χ² and W1 are ε times their value between the tails; chain rule of KL",
        draws=100,
        tolerance=1e-8,
        oracle=f"scipy.special; {d.HIGHS}",
        because=d.SOLVER,
    )


@claim(
    "geometry.tail-weight",
    statement=r"p_H = q_H,\ p(T) = q(T) = \varepsilon:\quad D(p, q) = \varepsilon\, D(p_T, q_T) \text{ for every}"
    r"\text{ f-divergence and } W_1",
    source="kdtheory, Theorem 13",
    expected=Verdict.PROVED,
    domain="0 < ε < 1, conditional distributions on head and tail; metric cost",
    uses=("geometry.kantorovich-rubinstein",),
    proof=_PROOF,
)
def tail_weight() -> list[Evidence]:
    """The head drops out of an f-divergence, and W1 is a norm of q - p."""
    tenth = sp.Rational(1, 10)
    tails = (["9/10", "1/10"], ["1/10", "9/10"])
    return [
        exact.check(exact_kl(_P, _EXCHANGED), "==", tenth * exact_kl(*tails), says="(.9, .09, .01), exchanged: KL"),
        exact.check(exact_js(_P, _EXCHANGED), "==", tenth * exact_js(*tails), says="the same: JS"),
        exact.check(
            exact_line_w1([0, 1, 2], _P, _EXCHANGED),
            "==",
            tenth * exact_line_w1([1, 2], *tails),
            says="the same: W1 at 0, 1, 2",
        ),
        _attempt_weight(),
    ]


@tail_weight.control
def _() -> Evidence:
    """ε² in place of ε must not pass."""
    return _attempt_weight(2.0)


def _missed(exponent: float) -> d.Fails:
    """A tail that is reversed, permuted, flattened or shrunk: by how much is KL below 2 TV^exponent."""

    def violation(rng: np.random.Generator) -> tuple[float, dict[str, Any]]:
        size = int(rng.integers(4, 2000))
        p = np.arange(1, size + 1) ** -rng.uniform(0.8, 2.5)
        p /= p.sum()
        head = int(rng.integers(1, size - 2))
        tail = p[head:]
        changes = (tail[::-1], rng.permutation(tail), np.full(tail.size, tail.mean()), tail * rng.uniform(0.01, 2))
        q = np.concatenate([p[:head], changes[int(rng.integers(4))]])
        q /= q.sum()
        bound = 2 * d.tv(p, q) ** exponent
        return bound - min(d.kl(p, q), d.kl(q, p)), {"V": size, "head": head}

    return violation


def _attempt_missed(exponent: float = 2.0) -> Evidence:
    return d.attempt(_missed(exponent), f"changes of Zipf tails have KL ≥ 2 TV^{exponent:g} in both directions")


@claim(
    "geometry.long-tails",
    statement=r"\text{for long-tailed multinomials KL and reverse KL do not capture significant differences}",
    source="zhao2024week8, own ideas, extension and Figure 3",
    expected=Verdict.CORRECTED,
    rows=("S0-24",),
    domain=r"right: KL \ge 2 TV^2 \text{ in both directions; a tail of mass } \varepsilon \text{ is weighted by }"
    r"\varepsilon \text{ in KL as in TV, JS and } W_1, \text{ and only KL is unbounded there}",
    uses=("geometry.tail-weight", "geometry.pinsker"),
    proof=_PROOF,
)
def long_tails() -> list[Evidence]:
    """(.9, .09, .01) with its tail exchanged: both KL exceed TV and W1; with its last token dropped KL is infinite."""
    kl, w1 = exact_kl(_P, _EXCHANGED), exact_line_w1([0, "1/2", 1], _P, _EXCHANGED)
    says = "(.9, .09, .01), tail exchanged"
    return [
        exact.check(kl, "<=", exact_tv(_P, _EXCHANGED), role="refutes as written", says=f"{says}: KL ≤ TV"),
        exact.check(exact_kl(_EXCHANGED, _P), "<=", w1, role="refutes as written", says=f"{says}: RKL ≤ W1, diam 1"),
        exact.check(exact_kl(_P, ["10/11", "1/11", 0]), "==", sp.oo, says="last tail token dropped: KL"),
        _attempt_missed(),
        _attempt_weight(),
    ]


@long_tails.control
def _() -> Evidence:
    """KL ≥ 2 TV must not pass."""
    return _attempt_missed(1.0)
