"""Cards of the data sets: sizes, classes, sources, and the SHA-256 of the uncompressed bytes of every file.

A sum is of the uncompressed bytes, so that any mirror, gzip level or unpacked copy will do.

Sources: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (1998); Y. LeCun, C. Cortes, C. Burges, The MNIST
database of handwritten digits (1998); H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747 (2017); A. Krizhevsky, Learning
Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hil.errors import ConfigError, nearest

DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, slots=True)
class Card:
    """The description of a data set, before it is read.

    Args:
        layout: how its files are written.
        peak: the value of a full pixel.
        sums: SHA-256 of the uncompressed bytes, by file name.
        mirrors: addresses of folders, or of the archive.
        examples: of the training files, validation included; `validation` of them are set aside.
        archive: that holds all files; "": each is to be had alone.
        folder: in which the archive puts them.
        pickles: names of other forms of the set, which are not read.
    """

    name: str
    title: str
    layout: Literal["csv", "idx", "cifar", "cifar100"]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    examples: int
    validation: int
    test: int
    source: str
    sums: Mapping[str, str]
    mirrors: tuple[str, ...] = ()
    peak: int = 255
    archive: str = ""
    folder: str = ""
    pickles: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """A line for a list of data sets."""
        size = "x".join(str(n) for n in self.shape if n > 1)
        origin = "shipped" if self.layout == "csv" else "from a folder, or downloaded once"
        counts = f"{self.examples - self.validation:,} train, {self.validation:,} validation, {self.test:,} test"
        return f"{self.title}, {size}, {len(self.classes)} classes: {counts} ({origin})"


_MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CIFAR_FILES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR100_ARCHIVE = "cifar-100-binary.tar.gz"
CIFAR100_NAMES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
    forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
    sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
    wolf woman worm
"""  # the fine labels, in the order of their numbers

DIGITS = Card(
    name="digits",
    title="Optical digits (UCI)",
    layout="csv",
    shape=(1, 8, 8),
    classes=DIGIT_NAMES,
    examples=1_617,
    validation=180,
    test=180,
    source=(
        "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998), "
        "doi:10.24432/C50P49, CC BY 4.0; the 1,797 images of its test set, as scikit-learn ships them"
    ),
    sums={"digits.csv": "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"},
    peak=16,
)
MNIST = Card(
    name="mnist",
    title="MNIST handwritten digits",
    layout="idx",
    shape=(1, 28, 28),
    classes=DIGIT_NAMES,
    examples=60_000,
    validation=5_000,
    test=10_000,
    source="Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits (1998)",
    sums=dict(
        zip(
            _MNIST_FILES,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            strict=True,
        )
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
)
FASHION_MNIST = Card(
    name="fashion-mnist",
    title="Fashion-MNIST clothing",
    layout="idx",
    shape=(1, 28, 28),
    classes=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    examples=60_000,
    validation=5_000,
    test=10_000,
    source="H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747 (2017)",
    sums=dict(
        zip(
            _MNIST_FILES,
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
            strict=True,
        )
    ),
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
)
CIFAR10 = Card(
    name="cifar10",
    title="CIFAR-10 photographs",
    layout="cifar",
    shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    examples=50_000,
    validation=5_000,
    test=10_000,
    source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto (2009)",
    sums=dict(
        zip(
            _CIFAR_FILES,
            (
                "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            ),
            strict=True,
        )
    ),
    mirrors=(f"https://www.cs.toronto.edu/~kriz/{CIFAR_ARCHIVE}",),
    archive=CIFAR_ARCHIVE,
    folder="cifar-10-batches-bin",
    pickles=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
)
CIFAR100 = Card(
    name="cifar100",
    title="CIFAR-100 photographs",
    layout="cifar100",
    shape=(3, 32, 32),
    classes=tuple(CIFAR100_NAMES.split()),
    examples=50_000,
    validation=5_000,
    test=10_000,
    source="A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto (2009)",
    sums={  # as the package torchvision of Ruby checks them, whose sums of CIFAR-10 are those above
        "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    },
    mirrors=(f"https://www.cs.toronto.edu/~kriz/{CIFAR100_ARCHIVE}",),
    archive=CIFAR100_ARCHIVE,
    folder="cifar-100-binary",
    pickles=("cifar-100-python", "cifar-100-python.tar.gz"),
)
CARDS = (DIGITS, MNIST, FASHION_MNIST, CIFAR10, CIFAR100)
NAMES = tuple(card.name for card in CARDS)


def describe(name: str) -> Card:
    """The card of a data set.

    Raises:
        ConfigError: no such data set.
    """
    for card in CARDS:
        if card.name == name:
            return card
    hint = nearest(name, NAMES)
    raise ConfigError(
        "no such data set",
        where="[data] use",
        got=repr(name),
        allowed=", ".join(NAMES),
        todo=f'did you mean "{hint}"?' if hint else "choose one of these",
    )
