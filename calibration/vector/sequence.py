"""The steps of a node of K levels and L readings, whatever it is: rest -> settling -> inputs -> repeats.

They say whether readings belong to their levels, and which channel does nothing. What the node is, as a mesh, other procedures
find: [calibration] procedures of its bench file names them.
"""

from __future__ import annotations

from calibration.sequence import Procedure
from calibration.vector.inputs import INPUTS, inputs
from calibration.vector.repeats import REPEATS, repeats
from calibration.vector.rest import REST, rest
from calibration.vector.settling import SETTLING, settling


def vector() -> tuple[Procedure, ...]:
    """Return the procedures in the order in which they are done."""
    return (
        Procedure(REST, rest),
        Procedure(SETTLING, settling, (REST,)),
        Procedure(INPUTS, inputs, (REST, SETTLING)),
        Procedure(REPEATS, repeats, (REST, SETTLING, INPUTS)),
    )
