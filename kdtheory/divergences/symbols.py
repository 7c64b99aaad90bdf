"""The symbols every definition is written in: one token's teacher and student probability, and the parameters."""

import sympy as sp

p = sp.Symbol("p", positive=True)
q = sp.Symbol("q", positive=True)
m = sp.Symbol("m", positive=True)  # a mixture of p and q, where a definition has one
alpha = sp.Symbol("alpha", positive=True)
beta = sp.Symbol("beta", positive=True)
S = sp.Symbol("S", positive=True)  # a sum over tokens that a last step acts on (Rényi)
