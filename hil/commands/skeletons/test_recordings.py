import torch
from recordings import Recordings

import hil


def test_every_example_is_read_checked_and_split():
    data = hil.load(Recordings(count=60), standardise=True)  # a bad example is refused here, by its number
    assert data.classes == ("sine", "square", "triangle")
    assert [len(split.y) for split in (data.train, data.validation, data.test)] == [48, 6, 6]


def test_the_same_number_gives_the_same_example():
    recordings = Recordings()
    assert torch.equal(recordings[7][0], recordings[7][0])
