"""Feedback in place of the derivative: the function g and the matrices B, with their text form."""
