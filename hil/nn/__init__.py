"""A device as a layer of any torch program: hil.nn.Physical, and hil.nn.DirectFeedback for the rules that need the error.

A folder of composition, as hil/build/: it takes a Device, an open bench or a Twin, as hil.dense does.
"""

from hil.nn.direct_feedback import DirectFeedback
from hil.nn.physical import Physical

__all__ = ["DirectFeedback", "Physical"]
