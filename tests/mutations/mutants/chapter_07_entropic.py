"""Formulas of the entropic solver: iteration, kernels, functionals, bounds."""

from tests.mutations.mutants.kinds import transport

_VALUES, _GRADIENTS, _SOLVER = "sinkhorn_values", "sinkhorn_gradients", "sinkhorn_solver"
_FORMULAS = "transport_formulas"

SCALING = (
    transport(
        "half a sweep with K for its transpose",
        "entropic/scaling",
        "log_sums(self.log_p + self.phi, transpose=True).add_",
        "log_sums(self.log_p + self.phi).add_",
        _VALUES,
    ),
    transport(
        "gain of a relaxed step, sign of its exponential",
        "entropic/scaling",
        "back - ahead).sum(",
        "back + ahead).sum(",
        _SOLVER,
    ),
    transport("safeguard the wrong way round", "entropic/scaling", "safe = gain >= 0.5", "safe = gain <= 0.5", _SOLVER),
    transport(
        "safeguard that no step passes", "entropic/scaling", "* (2 - omega) * plain", "* (2 + omega) * plain", _SOLVER
    ),
    transport(
        "best factor of relaxation", "entropic/scaling", "(1 + (1 - plain).sqrt())", "(1 + (1 + plain).sqrt())", _SOLVER
    ),
    transport(
        "gain of a short step",
        "entropic/scaling",
        "torch.expm1((omega - 1) * step))",
        "torch.expm1(omega * step))",
        _SOLVER,
    ),
    transport(
        "relaxation grows where the rate is lost",
        "entropic/scaling",
        "1 + _SHRINK * (omega - 1)",
        "1 + (omega - 1) / _SHRINK",
        _FORMULAS,
    ),
    transport("rate of plain sweeps", "entropic/scaling", "(omega**2 * rate)", "(omega**3 * rate)", _FORMULAS),
    transport(
        "error without the columns",
        "entropic/scaling",
        "misfit + self.columns",
        "misfit",
        _SOLVER,
        _FORMULAS,
    ),
    transport("whole steps for the self-problem", "entropic/scaling", "phi + 0.5 * step", "phi + step", _VALUES),
    transport(
        "convergence claimed unseen",
        "entropic/scaling",
        "out.converged = out.error <= tol",
        "out.converged = out.error < torch.inf",
        _SOLVER,
    ),
    transport(
        "ε-scaling upside down", "entropic/problem", "state.psi * (before / at)", "state.psi * (at / before)", _FORMULAS
    ),
)
KERNELS = (
    transport(
        "mean cost of a column without K",
        "entropic/kernels",
        "weight[:, at] @ K.mul_(C)\n",
        "weight[:, at] @ C\n",
        _VALUES,
    ),
    transport(
        "mean cost of a row without K", "entropic/kernels", "weight @ K.mul_(C).T", "weight @ C.T", _GRADIENTS, _SOLVER
    ),
    transport(
        "log-sum-exp's kernel, sign", "entropic/kernels", "- C / self.epsilon, C", "+ C / self.epsilon, C", _SOLVER
    ),
    transport("streamed kernel, sign", "entropic/kernels", "C.div_(-self.epsilon)", "C.div_(self.epsilon)", _SOLVER),
    transport(
        "repaired plan's columns summed as rows",
        "entropic/kernels",
        "mass / self._sums(weight, transpose=True)",
        "mass / self._sums(weight, transpose=False)",
        _SOLVER,
    ),
    transport(
        "repaired plan moves for nothing",
        "entropic/kernels",
        "(scaled @ K.mul_(C).T)",
        "(scaled @ K.mul_(0).T)",
        _SOLVER,
    ),
    transport("float32 beyond its range", "entropic/kernels", "torch.float32: 60.0", "torch.float32: 1e9", _SOLVER),
    transport(
        "costs of one's own, transposed",
        "entropic/kernels",
        "matrix.transpose(1, 2) if transpose else matrix",
        "matrix if transpose else matrix.transpose(1, 2)",
        _SOLVER,
        _FORMULAS,
    ),
)
FUNCTIONALS = (
    transport(
        "teacher's potential, sign",
        "entropic/problem",
        "return self.kernel.epsilon * self.state.phi",
        "return -self.kernel.epsilon * self.state.phi",
        _VALUES,
    ),
    transport(
        "student's potential without ε",
        "entropic/problem",
        "return self.kernel.epsilon * self.state.psi",
        "return self.state.psi",
        _VALUES,
    ),
    transport(
        "entropies added",
        "entropic/functionals",
        "total + solved.kernel.epsilon * neg",
        "total - solved.kernel.epsilon * neg",
        _VALUES,
    ),
    transport(
        "entropic slope without ε",
        "entropic/functionals",
        "own + epsilon * log for own",
        "own + log for own",
        _GRADIENTS,
    ),
    transport(
        "sharp slope without ε",
        "entropic/functionals",
        "solved.g - epsilon * g_epsilon",
        "solved.g - g_epsilon",
        _GRADIENTS,
    ),
    transport(
        "∂g/∂ε, sign of the eliminated side",
        "entropic/functionals",
        "s - over_columns(r), solved",
        "s + over_columns(r), solved",
        _GRADIENTS,
    ),
    transport("divergence without ½", "entropic/evaluate", "pq - 0.5 * pp - 0.5 * qq", "pq - pp - qq", _VALUES),
    transport(
        "divergence's slope without ½",
        "entropic/evaluate",
        "(0.5 * (part.f + part.g)",
        "((part.f + part.g)",
        _GRADIENTS,
    ),
    transport(
        "supply and demand exchanged",
        "entropic/evaluate",
        "supply, demand = (-difference).relu(), difference.relu()",
        "supply, demand = difference.relu(), (-difference).relu()",
        _GRADIENTS,
    ),
    transport(
        "mass moved forgotten", "entropic/evaluate", "return self.mass * functionals", "return functionals", _VALUES
    ),
    transport(
        "slope where supply grows, sign",
        "entropic/evaluate",
        "torch.where(sign < 0, -own.p,",
        "torch.where(sign < 0, own.p,",
        _GRADIENTS,
    ),
    transport(
        "gradient of the loss in the teacher",
        "entropic/losses",
        "found.slopes().q.to(",
        "found.slopes().p.to(",
        "sinkhorn_loss",
    ),
)
BOUNDS = (
    transport("missing mass moves for nothing", "entropic/bounds", " + missing * cost.diameter)", ")", _SOLVER),
    transport(
        "heavy rows kept, light ones filled",
        "entropic/bounds",
        "torch.where(taken > p",
        "torch.where(taken < p",
        _FORMULAS,
    ),
    transport(
        "lower bound without c-transform",
        "entropic/bounds",
        "f = _least(cost, g)",
        "f = found.solved.f.double()",
        _SOLVER,
    ),
    transport(
        "one potential for both sides without a metric", "entropic/bounds", "-f if cost.is_metric else g", "-f", _SOLVER
    ),
    transport(
        "upper bound without the mass moved",
        "entropic/bounds",
        "return found.mass * ((kept",
        "return ((kept",
        _FORMULAS,
    ),
)

ENTROPIC = (*SCALING, *KERNELS, *FUNCTIONALS, *BOUNDS)
