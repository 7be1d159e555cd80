"""Search of the feedback that a node learns best with.

    strategy --ask--> genomes --Space--> recipes --Job (seed, epochs)--> evaluator --Outcome--> archive --tell--> strategy
       genetic.py       genome.py                                        here.py pool.py cluster.py      archive.py
       baselines.py     families.py                                        on a trainer: population.py, one_by_one.py

    racing.py      who of a chunk is stopped early
    loop.py        the generator that drives it: `for point in search(...)`
    stages.py      what follows the generations: halving, confirmation on fresh seeds, the bench
    history.py     the run folder; what stands in it is the whole state, so a resume replays it
    artefact.py    the found feedback as a file

A genome is numbers in [0, 1]. A recipe is what it means: a Feedback and a learning rate. A job is a recipe to be trained with a
seed for some epochs. Chance comes from (seed, generation, stream); nothing depends on who evaluates what, when, or on how many
there are.
"""
