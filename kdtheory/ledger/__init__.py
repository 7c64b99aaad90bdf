"""Claims, the evidence for them, and the verdicts that the evidence computes."""

from kdtheory.ledger import exact, experiments, interval, numeric, symbolic
from kdtheory.ledger.claim import REGISTRY, Claim, Definition, RegistrationError, Registry, claim, definition
from kdtheory.ledger.evidence import GENERAL, INSTANCE, SCALAR, Evidence
from kdtheory.ledger.proofs import Anchor, proof
from kdtheory.ledger.runner import ClaimResult, run
from kdtheory.ledger.verdict import Verdict, decide

__all__ = [
    "GENERAL",
    "INSTANCE",
    "REGISTRY",
    "SCALAR",
    "Anchor",
    "Claim",
    "ClaimResult",
    "Definition",
    "Evidence",
    "RegistrationError",
    "Registry",
    "Verdict",
    "claim",
    "decide",
    "definition",
    "exact",
    "experiments",
    "interval",
    "numeric",
    "proof",
    "run",
    "symbolic",
]
