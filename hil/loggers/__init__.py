"""Loggers: a run, told to csv, TensorBoard, MLflow, or Weights & Biases, as [log] of an experiment says.

One logger a file, each through its own package, which is installed by an extra of the same name and imported only if asked for.
"""
