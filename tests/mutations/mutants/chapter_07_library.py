"""Formulas of the transport library beyond the entropic solver."""

from tests.mutations.mutants.kinds import transport

CERTIFICATES = (
    transport(
        "feasibility not checked",
        "certificate",
        "if (f[i] + g[j]) * d > c * e:",
        "if c is None:",
        "certificate",
        "transport.basis-completion",
    ),
    transport(
        "dual value not compared",
        "certificate",
        "if not primal == dual == self.value",
        "if not primal == self.value",
        "certificate",
    ),
    transport(
        "primal value not compared",
        "certificate",
        "if not primal == dual == self.value",
        "if not dual == self.value",
        "certificate",
    ),
    transport("a plan that moves too little", "certificate", "if x != y), None)", "if x > y), None)", "certificate"),
    transport(
        "potentials beyond the support infeasible",
        "certificate",
        "f = [min(row[j] - x for",
        "f = [max(row[j] - x for",
        "certificate",
    ),
    transport(
        "reduced cost, sign",
        "integer_simplex",
        "if C[i][j] < w[i] + w[n + j]",
        "if C[i][j] > w[i] + w[n + j]",
        "certificate",
    ),
    transport("flow against the cycle", "integer_simplex", "flow[cell] -= step", "flow[cell] += step", "certificate"),
    transport("most of a cycle's flow leaves", "integer_simplex", "step = min(flow", "step = max(flow", "certificate"),
)
APPROXIMATIONS = (
    transport(
        "farthest kept token",
        "truncation",
        "cost.block(row, columns).argmin(0)",
        "cost.block(row, columns).argmax(0)",
        "topk",
    ),
    transport("farthest kept point", "truncation", "-1, k).argmin(-1).T", "-1, k).argmax(-1).T", "topk"),
    transport(
        "moves that cancel are free",
        "truncation",
        "difference[rows].abs() * distance",
        "difference[rows] * distance",
        "topk",
    ),
    transport("largest δ in place of |δ|", "truncation", "size = difference.abs()", "size = difference", "topk"),
    transport(
        "cells around what is near", "truncation", "int(self.radius.argmax())", "int(self.radius.argmin())", "topk"
    ),
    transport(
        "extended potential off the kept tokens",
        "topk",
        "(costs + g[:, None]).amin(0)",
        "(costs + g[:, None]).amax(0)",
        "transport_formulas",
    ),
    transport(
        "smaller of the two extended duals",
        "topk",
        "found[row] = torch.maximum(",
        "found[row] = torch.minimum(",
        "transport_formulas",
    ),
    transport("teacher's gradient for the student's", "topk", "((p, -g), (q, g))", "((p, g), (q, -g))", "topk"),
    transport(
        "projections not in order",
        "sliced",
        "difference.index_select(-1, order).cumsum_(-1)",
        "difference.cumsum(-1)",
        "sliced",
    ),
    transport(
        "directions not normalised",
        "sliced",
        "return vectors / vectors.norm(dim=1, keepdim=True)",
        "return vectors",
        "sliced",
    ),
    transport("mean of slices stretched too far", "sliced", "self.count**0.5 / torch", "self.count / torch", "sliced"),
    transport("potential of a projection, sign", "sliced", "total[rows] -= g", "total[rows] += g", "sliced"),
    transport(
        "distortion inverted",
        "tree_bounds",
        "ratio = above / below",
        "ratio = below / above",
        "tree_bounds",
        "transport.metric-sandwich",
    ),
    transport(
        "lower bound from the smaller quotient",
        "tree_bounds",
        "value / bounds.high if",
        "value / bounds.low if",
        "tree_bounds",
    ),
)
PUBLISHED = (
    transport(
        "SinKD's rows before its columns",
        "published/sinkd",
        "logsumexp(0, keepdim=True)\n        log_plan = log_plan - log_plan.logsumexp(1,",
        "logsumexp(1, keepdim=True)\n        log_plan = log_plan - log_plan.logsumexp(0,",
        "published",
        "transport.sinkd-batch",
    ),
    transport(
        "SinKD's temperature for the student only",
        "published/sinkd",
        "torch.softmax(teacher / own, -1)",
        "torch.softmax(teacher, -1)",
        "published",
    ),
    transport(
        "SinKD's shares by the student's samples",
        "published/sinkd",
        "* cost).sum(1)",
        "* cost).sum(0)",
        "transport_formulas",
    ),
    transport(
        "ULD without the teacher's order",
        "published/uld",
        "log_p.sort(dim=-1, descending=True).values",
        "log_p",
        "published",
        "transport.uld-sorted",
    ),
    transport(
        "ULD's gradient left in order",
        "published/uld",
        "torch.empty_like(gradient).scatter_(-1, order, gradient)",
        "gradient",
        "published",
    ),
    transport(
        "EMO's cost transposed",
        "published/emo",
        "return p @ rows if",
        "return p @ rows.T if",
        "published",
        "transport.emo-bound",
    ),
    transport(
        "EMO's cosine, sign",
        "published/emo",
        "keepdim=True) - (p @ rows)",
        "keepdim=True) + (p @ rows)",
        "published",
        "transport.emo-minimum",
    ),
    transport(
        "WKD's target without its weight",
        "published/wkd",
        "return -p * log_q.masked",
        "return -log_q.masked",
        "published",
        "transport.wkd-target",
    ),
    transport(
        "WKD's target moved with the others",
        "published/wkd",
        "(x.scatter(-1, target, -math.inf) for x in",
        "(x for x in",
        "published",
    ),
    transport(
        "WKD's cost without κ", "published/wkd", "-torch.expm1(-kappa * (1 - s)", "-torch.expm1(-(1 - s)", "published"
    ),
    transport(
        "alignment centred over classes",
        "published/wkd",
        "x - x.mean(1, keepdim=True)",
        "x - x.mean(0, keepdim=True)",
        "published",
        "transport.wkd-order",
    ),
    transport(
        "assistant's share given to the teacher",
        "published/assisted",
        "(1 - self.share) * super()",
        "self.share * super()",
        "published",
    ),
)
COSTS = (
    transport(
        "a dense cost permuted backwards",
        "costs",
        "Dense(self.block(order, order))",
        "Dense(self.block(*[torch.argsort(order)] * 2))",
        "costs",
    ),
    transport(
        "a line permuted backwards", "costs", "Line(self.x[order])", "Line(self.x[torch.argsort(order)])", "costs"
    ),
    transport("random metric of another scale", "arrays", "expected = 2 * math.exp(", "expected = math.exp(", "costs"),
    transport(
        "cosine of embeddings as they are",
        "costs",
        "self.points = self.points / length",
        "self.points = self.points * 1",
        "costs",
        "w1_values",
    ),
    transport("triangles checked against the sum", "axioms", 'p=float("inf"))', "p=1.0)", "costs"),
    transport("difference balanced the wrong way", "closed_forms", "top, -difference.sum(", "top, difference.sum("),
    transport(
        "difference balanced at the smallest token", "closed_forms", "torch.maximum(p, q)))", "-torch.maximum(p, q)))"
    ),
)
TRANSPORT_LIBRARY = (*CERTIFICATES, *APPROXIMATIONS, *PUBLISHED, *COSTS)
