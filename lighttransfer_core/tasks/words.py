"""Our own words: filler sentences without a fact in them, and names made of an adjective and a noun.

No adjective is the end of another and no noun the beginning of another, so that no name is a part of another one.
"""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Iterator

FILLER = (
    "The river runs past the old mill. "
    "A lamp hangs over the door. "
    "Rain fell in the night and the road is wet. "
    "Two boats lie on the sand. "
    "The wind turns, and the day goes on."
)
"""Five sentences, in the place of RULER's noise."""

_FILLER_WORDS = FILLER.split()

_ADJECTIVES = (
    "amber ample azure blunt bold brave brief bright broad calm clever coarse copper cosmic crisp curious daring deep "
    "distant double drowsy eager early earnest elder empty faded faint famous fancy fierce final floral fluid foggy "
    "fond formal frank fresh frosty gentle giant gilded glad golden grand grave handy hasty hollow humble idle ivory "
    "jolly keen kindly lively lofty lonely loyal lucid lunar marble mellow merry mighty misty modest muted narrow "
    "nimble noble novel oaken patient placid plain polite proud quaint quiet rapid rustic sandy scarlet secret serene "
    "shallow silent silver simple slender smooth snowy solar solemn spare steady stern stout sturdy subtle sunny "
    "supple swift tender tidy timid tranquil upper velvet violet vivid warm wise wooden young"
)

_NOUNS = (
    "acorn almond anchor anvil apron arrow aspen badger balcony banjo barley basket beacon beaver blanket blossom "
    "bottle bramble bridge bucket button cabin camel candle canyon captain carpet castle cedar cellar chapel cherry "
    "chimney cliff clover cobbler comet compass copse coral cottage cradle crane cricket curtain dagger daisy dolphin "
    "donkey drawer drum eagle easel elbow ember engine falcon feather fennel ferry fiddle finch flagon flute forest "
    "fountain fox garden garlic ginger glacier glove goblet granite grove hammer harbor hazel hedge helmet heron "
    "hollyhock honey island jacket jasmine jigsaw kettle kitten ladder lagoon lantern lemon lighthouse lizard locket "
    "lumber magnet mallet maple meadow melon mirror mitten monsoon mountain mustard napkin nettle oatmeal ocean olive "
    "orchard otter oyster paddle pancake parcel parsley pebble pelican pencil pepper pigeon pillow pioneer plum pocket "
    "pottery prairie pulley pumpkin quarry quilt rabbit raft ribbon robin rocket saddle sailor salmon sandal satchel "
    "sparrow spindle squirrel stable statue steeple summit tailor teapot thicket thimble thunder timber trumpet tulip "
    "tunnel turnip turtle valley vessel village violin walnut walrus whistle willow window winter yarrow zipper"
)

ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())
MOST_NAMES = len(ADJECTIVES) * len(NOUNS)


def filler_words(number: int) -> str:
    """So many words of the filler sentences, a blank before each; "" for none."""
    return "".join(f" {_FILLER_WORDS[i % len(_FILLER_WORDS)]}" for i in range(number))


def names(rng: random.Random) -> Iterator[str]:
    """Names such as amber-harbor, without repeats, until all are used."""
    for pair in rng.sample(range(MOST_NAMES), MOST_NAMES):
        adjective, noun = divmod(pair, len(NOUNS))
        yield f"{ADJECTIVES[adjective]}-{NOUNS[noun]}"


def numbers(rng: random.Random, digits: int) -> Iterator[str]:
    """Numbers of so many digits, without repeats."""
    used: set[int] = set()
    while True:
        number = rng.randrange(10 ** (digits - 1), 10**digits)
        if number not in used:
            used.add(number)
            yield str(number)


def uuids(rng: random.Random) -> Iterator[str]:
    """Random identifiers of version 4."""
    while True:
        yield str(uuid.UUID(int=rng.getrandbits(128), version=4))


def letters(rng: random.Random, length: int, alphabet: str = string.ascii_uppercase) -> Iterator[str]:
    """Strings of random letters, without repeats and without the filler's words."""
    used = {word.strip(".,").lower() for word in _FILLER_WORDS}
    while True:
        word = "".join(rng.choices(alphabet, k=length))
        if word.lower() not in used:
            used.add(word.lower())
            yield word
