from random_feedback import RandomFeedback, Settings

from hil.conformance import check_learner


def test_the_learner_keeps_its_contract():
    check_learner(lambda net, classes, rng, model: RandomFeedback.build(net, Settings(), classes, rng, model))
