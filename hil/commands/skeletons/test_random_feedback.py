from random_feedback import RandomFeedback, Settings

from hil.conformance import check_learner


def test_the_learner_keeps_its_contract():
    check_learner(lambda net, task, rng, model: RandomFeedback.build(net, Settings(), task, rng, model))
