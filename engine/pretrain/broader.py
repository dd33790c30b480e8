"""Everyday words for the classes of the training sets: a rose is a flower, an oboe an instrument.

The sets name the class alone; people also write the broader word. Twenty of these words are
CIFAR-100's own superclasses (Krizhevsky 2009).
"""

from __future__ import annotations

from collections.abc import Sequence

FLOWERS = "orchid, poppy, rose, sunflower, tulip"
TREES = "maple tree, oak tree, palm tree, pine tree, willow tree"
FRUIT = "apple, orange, pear, banana, lemon, pomegranate"
VEGETABLES = "bell pepper, sweet pepper, cauliflower"
SEA_ANIMALS = (
    "jellyfish, sea cucumber, sea slug, dugong, dolphin, whale, seal, crab, american lobster, spiny lobster, lobster, "
    "trilobite, brain coral"
)
FISH = "aquarium fish, flatfish, ray, shark, trout, goldfish"
REPTILES = "crocodile, dinosaur, lizard, snake, turtle, american alligator, boa constrictor"
INSECTS = (
    "bee, beetle, butterfly, caterpillar, cockroach, ladybug, fly, dragonfly, monarch, grasshopper, mantis, "
    "walking stick, sulphur butterfly"
)
BIRDS = "bird, king penguin, goose, albatross, black stork"
PETS = "cat, dog, hamster, rabbit, guinea pig, goldfish"
MAMMALS = (
    "horse, deer, otter, wolf, camel, mouse, chimpanzee, bear, skunk, elephant, raccoon, possum, tiger, shrew, fox, "
    "porcupine, cattle, lion, beaver, squirrel, leopard, kangaroo, hog, baboon, lesser panda, bison, koala, orangutan, "
    "ox, gazelle, arabian camel, cougar, brown bear, bighorn, african elephant"
)
PEOPLE = "baby, boy, girl, man, woman"
FURNITURE = "bed, chair, couch, table, wardrobe, desk, dining table, rocking chair, chest"

MEMBERS = {
    "flower": FLOWERS,
    "plant": f"{FLOWERS}, {TREES}",
    "tree": TREES,
    "fruit": FRUIT,
    "vegetable": VEGETABLES,
    "food": f"{FRUIT}, {VEGETABLES}, mushroom",
    "drink": "espresso, beer bottle, pop bottle",
    "coffee": "espresso",
    "animal": f"{SEA_ANIMALS}, {FISH}, {REPTILES}, {INSECTS}, {BIRDS}, {PETS}, {MAMMALS}, frog, snail, slug, worm, "
    "spider, scorpion, centipede, tailed frog, bullfrog, european fire salamander, tarantula, black widow",
    "pet": PETS,
    "fish": FISH,
    "sea animal": f"{SEA_ANIMALS}, {FISH}",
    "reptile": REPTILES,
    "insect": INSECTS,
    "bird": BIRDS,
    "person": PEOPLE,
    "child": "baby, boy, girl",
    "face": PEOPLE,
    "furniture": FURNITURE,
    "building": "house, castle, skyscraper, barn, water tower, beacon, thatch",
    "vehicle": "automobile, truck, bus, train, pickup truck, motorcycle, bicycle, tank, streetcar, tractor, "
    "sports car, limousine, convertible, moving van, police van, trolleybus, jinrikisha",
    "car": "automobile, police van",
    "plane": "airplane",
    "aircraft": "airplane",
    "boat": "ship, gondola, lifeboat",
    "phone": "telephone, pay-phone",
    "electronics": "television, telephone, keyboard, ipod, cd player, remote control, computer keyboard, cash machine",
    "machine": "lawn mower, sewing machine, tractor, space heater, parking meter, cash machine",
    "tool": "broom, plunger, nail, torch, drumstick, reel, syringe, lawn mower",
    "dish": "plate, bowl",
    "kitchenware": "plate, bowl, cup, can, frying pan, beaker, refrigerator",
    "container": "bottle, can, cup, barrel, bucket, beaker, chest, water jug",
    "clothes": "sock, apron, vestment, miniskirt, bow tie, sombrero, christmas stocking",
    "hat": "sombrero",
    "shoe": "sandal",
    "skirt": "miniskirt",
    "sweater": "cardigan",
    "coat": "fur coat",
    "dress": "kimono, academic gown",
    "bag": "backpack, punching bag",
    "toy": "teddy",
    "jewellery": "chain",
    "sports equipment": "volleyball, rugby ball, basketball, dumbbell, punching bag, snorkel",
    "landscape": "mountain, sea, plain, forest, alp, cliff, lakeside, seashore, road",
    "water": "sea, lakeside, seashore, fountain, coral reef",
    "sky": "cloud",
    "grass": "plain",
    "field": "plain",
    "street": "road",
}
"""Broader word -> captions of the classes it holds for."""

_BROADER: dict[str, list[str]] = {}
for _word, _members in MEMBERS.items():
    for _member in _members.split(", "):
        _BROADER.setdefault(_member, []).append(_word)


def broader(captions: Sequence[str]) -> list[str]:
    """Broader words that hold for an image with these captions, without those it has."""
    words = dict.fromkeys(word for caption in captions for word in _BROADER.get(caption, ()))
    return [word for word in words if word not in captions]
