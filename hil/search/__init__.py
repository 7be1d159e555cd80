"""Search of the feedback that a node learns best with, or of the settings of an experiment and its bench.

    generator --suggest--> points --Space--> recipes --Job (seed, epochs)--> evaluator --Outcome--> archive --ingest--> (again)
       genetic.py              genome.py (a feedback)                        evaluator.py pool.py      archive.py
       random_and_cma.py       operating_point.py (settings)                 cluster.py, on a trainer:
       gest.py (of others)                                                   batched_trainer.py plain_trainer.py

    racing.py      who of a chunk is stopped early
    loop.py        the loop that drives it: `for point in search(...)`
    stages.py      what follows the generations: halving, confirmation on fresh seeds, the bench
    budget.py      what a bench may spend
    history.py     the run folder; what stands in it is the whole state, so a resume replays it
    artefact.py    the found feedback as a file

A point says the value of each dimension. A recipe is what it means: a feedback and a learning rate, or settings. A job is a
recipe to be trained with a seed for some epochs. Chance comes from (seed, generation, stream); nothing depends on who evaluates
what, when, or on how many there are.
"""
