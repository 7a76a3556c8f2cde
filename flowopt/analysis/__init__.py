"""What follows from a flow, or from a flow and a scheme, before anything is run."""

from flowopt.analysis.certify import Certificate, certify
from flowopt.analysis.modified import ModifiedEquation, modified_equation
from flowopt.analysis.stability import Stability, stability

__all__ = [
    "Certificate",
    "ModifiedEquation",
    "Stability",
    "certify",
    "modified_equation",
    "stability",
]
