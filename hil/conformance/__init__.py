"""Checks of contracts: call them in the tests of a new device, twin, learner or driver; no pytest is needed.

    check_device(make)  check_twin(make)  check_learner(make)  check_instrument(make)

Each makes fresh objects, tries them, and returns a Report; if anything failed it raises ContractError with the whole list,
the gravest first.
"""

from __future__ import annotations

from hil.conformance.devices import check_device
from hil.conformance.instruments import InstrumentUnderTest, Knob, check_instrument
from hil.conformance.learners import check_learner
from hil.conformance.report import Report
from hil.conformance.twins import check_twin

__all__ = ["InstrumentUnderTest", "Knob", "Report", "check_device", "check_instrument", "check_learner", "check_twin"]
