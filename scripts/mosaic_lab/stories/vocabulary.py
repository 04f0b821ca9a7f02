"""Words of the stories: names, families, things with their properties, animals with what they can do."""

from types import SimpleNamespace as Facts

GIRLS = (
    "Lily Mia Anna Sara Lucy Emma Zoe Ella Amy Nora Ruby Clara Molly Jane Alice Sophie Kate Leah Maya Nina "
    "Polly Tina Wendy Bella Cora Dora Eva Fiona Gina Hannah Ida Julia Kira Lena Mary Olga Paula Rita Sally "
    "Tara Vera Yuki Abby Beth Carla Elsa Freya Heidi Ivy Judy Layla Mila Nadia Priya Rosa Stella Tilly "
    "Willa Zara Aisha"
).split()
BOYS = (
    "Tom Ben Max Sam Tim Jack Leo Noah Finn Adam Luke Owen Peter Oscar Henry David Eric Hugo Ivan Jacob "
    "Kevin Liam Martin Nathan Oliver Paul Ravi Simon Theo Victor Walter Zack Aaron Billy Carl Daniel Eddie "
    "Frank Gabe Harry Isaac Joey Kai Logan Milo Nico Omar Pablo Rory Samir Toby Umar Vince Andy Bobby "
    "Dylan Emil Jamal Arthur"
).split()
GIRL_ANIMALS = "Bibi Coco Dotty Fluffy Kiki Lulu Mimi Nutty Pippa Snowy Tutu Zuzu Minty Fifi".split()
BOY_ANIMALS = "Bongo Chip Dash Fuzzy Momo Nibble Pip Rocco Rusty Spike Tuck Ziggy Bumble Bruno".split()
PET_NAMES = "Button Pebble Biscuit Pepper Cricket Pumpkin Muffin Pickle Thimble Acorn".split()

ADULTS = {
    "mother": (("mom", "mother", "mommy"), "female"),
    "father": (("dad", "father", "daddy"), "male"),
    "grandmother": (("grandma", "grandmother", "granny"), "female"),
    "grandfather": (("grandpa", "grandfather"), "male"),
}

TRAITS = (
    "little",
    "young",
    "cheerful",
    "curious",
    "happy",
    "clever",
    "lively",
    "friendly",
    "jolly",
    "playful",
    "bright",
)
SHY = ("shy", "quiet", "gentle", "timid")
KIND = ("kind", "sweet", "gentle", "thoughtful")
PROUD = ("proud", "boastful", "vain")
GREEDY = ("greedy", "selfish", "fat")

NUMBERS = tuple(
    Facts(most=most, one_less=one_less, two_less=two_less)
    for most, one_less, two_less in (
        ("three", "two", "one"),
        ("four", "three", "two"),
        ("five", "four", "three"),
        ("six", "five", "four"),
        ("seven", "six", "five"),
    )
)

COLORS = ("red", "blue", "green", "yellow", "orange", "purple", "white")
TREASURES = {
    "kite": COLORS,
    "doll": ("pretty", "tiny", "new"),
    "drum": ("red", "blue", "big", "loud"),
    "train": ("wooden", "red", "blue", "toy"),
    "robot": ("silver", "toy", "blue"),
    "boat": ("toy", "red", "wooden", "white"),
    "teddy bear": ("brown", "big", "soft", "white"),
    "puzzle": ("big", "animal", "new"),
    "scooter": COLORS,
    "puppet": ("funny", "wooden", "green"),
    "trumpet": ("golden", "shiny", "toy"),
    "rocket": ("silver", "toy", "red"),
    "telescope": ("small", "shiny", "black"),
    "paint box": ("new", "big", "wooden"),
}
KEEPSAKES = {
    "ring": ("golden", "silver", "shiny"),
    "watch": ("silver", "old", "golden"),
    "purse": ("red", "green", "small", "black"),
    "necklace": ("white", "golden", "blue"),
    "key": ("old", "silver", "tiny"),
    "book": ("thick", "blue", "old", "red"),
    "hat": ("white", "green", "purple", "yellow"),
    "mitten": ("woolly", "red", "striped"),
    "umbrella": ("yellow", "orange", "striped", "pink"),
    "whistle": ("silver", "wooden", "red"),
}
SNACKS = (
    "cookies apples plums cherries muffins pancakes buns peaches candies strawberries bananas oranges "
    "carrots crackers"
).split()

SKILLS = {
    "climb": Facts(can="climb trees", did="climbed up the trunk, one paw after the other"),
    "fly": Facts(can="fly", did="spread its wings and flew up"),
    "swim": Facts(can="swim", did="jumped into the water and swam out"),
    "dig": Facts(can="dig", did="dug and dug until the hole was wide"),
    "lift": Facts(can="lift heavy things", did="lifted the log as if it were a feather"),
}


def _wild(kind: str, skill: str, food: str, *traits: str) -> Facts:
    return Facts(kind=kind, skill=skill, food=food, traits=traits, gender="neuter")


WILD_ANIMALS = (
    _wild("squirrel", "climb", "nuts", "brown", "quick", "little"),
    _wild("monkey", "climb", "bananas", "funny", "small", "brown"),
    _wild("cat", "climb", "cheese", "gray", "black", "fluffy"),
    _wild("raccoon", "climb", "popcorn", "small", "sleepy", "young"),
    _wild("crow", "fly", "corn", "black", "big", "clever"),
    _wild("robin", "fly", "raisins", "small", "singing", "cheerful"),
    _wild("pigeon", "fly", "peas", "gray", "fat", "friendly"),
    _wild("parrot", "fly", "grapes", "green", "colorful", "noisy"),
    _wild("duck", "swim", "bread", "white", "little", "brown"),
    _wild("turtle", "swim", "strawberries", "old", "green", "slow"),
    _wild("otter", "swim", "crackers", "playful", "young", "wet"),
    _wild("swan", "swim", "oats", "white", "beautiful", "big"),
    _wild("dog", "dig", "sausages", "spotted", "big", "friendly"),
    _wild("rabbit", "dig", "carrots", "white", "small", "fluffy"),
    _wild("mole", "dig", "plums", "tiny", "old", "sleepy"),
    _wild("badger", "dig", "mushrooms", "striped", "busy", "gray"),
    _wild("bear", "lift", "honey cakes", "big", "brown", "gentle"),
    _wild("horse", "lift", "apples", "strong", "white", "tall"),
    _wild("elephant", "lift", "peanuts", "huge", "gray", "kind"),
    _wild("moose", "lift", "pears", "huge", "old", "strong"),
)

# Each trap says what the wind or the slope does, why a child cannot undo it, and which skills can.
TRAPS = (
    Facts(
        skills=("climb", "fly"),
        hint="can climb or fly",
        place="a meadow with one tall tree",
        event="a strong wind blew the {toy} into the branches of the tall tree",
        where="up in the tree",
        attempt="jumped as high as {hero.he} could, but the branches were too far up",
        toys={
            "kite": COLORS,
            "balloon": COLORS,
            "hat": ("straw", "yellow", "striped"),
            "paper plane": COLORS,
            "scarf": ("silk", "yellow", "striped"),
            "ribbon": ("pink", "long", "blue"),
        },
    ),
    Facts(
        skills=("swim",),
        hint="can swim",
        place="a green bank beside a deep pond",
        event="the {toy} slipped out of {hero.his} hands and landed far out in the pond",
        where="out in the pond",
        attempt="reached out with a stick, but the stick was too short",
        toys={
            "ball": COLORS,
            "boat": ("wooden", "toy", "paper"),
            "rubber duck": ("yellow", "blue"),
            "hoop": COLORS,
            "doll": ("wooden", "tiny"),
            "raft": ("toy", "wooden"),
        },
    ),
    Facts(
        skills=("dig",),
        hint="likes to dig",
        place="a sandy hill full of holes",
        event="the {toy} rolled away and dropped into a deep, narrow hole",
        where="down in the hole",
        attempt="put one arm into the hole, but it was much too deep",
        toys={
            "marble": ("glass", "green", "blue", "shiny"),
            "ball": ("tiny", "rubber", "red"),
            "top": ("wooden", "striped", "golden"),
            "coin": ("golden", "lucky", "shiny"),
            "bell": ("silver", "tiny", "round"),
        },
    ),
    Facts(
        skills=("lift",),
        hint="is big and strong",
        place="an old path through the forest",
        event="the {toy} rolled off the path, and a heavy log slid down on top of it",
        where="under the log",
        attempt="pushed and pulled with all {hero.his} strength, but the log did not move",
        toys={
            "ball": COLORS,
            "truck": ("toy", "yellow", "red", "green"),
            "car": ("toy", "blue", "silver"),
            "wagon": ("wooden", "little", "red"),
            "hoop": ("golden", "wooden", "blue"),
        },
    ),
)


def _boss(kind: str, gender: str, do: str, did: str) -> Facts:
    return Facts(kind=kind, gender=gender, traits=("busy", "old", "friendly"), do=do, did=did)


BOSSES = (
    _boss("baker", "male", "sweep the floor of the bakery", "swept the floor of the bakery"),
    _boss("farmer", "male", "feed the chickens", "fed the chickens"),
    _boss("gardener", "female", "water the flowers", "watered the flowers"),
    _boss("shoemaker", "male", "polish the shoes", "polished the shoes"),
    _boss("librarian", "female", "put the books back on the shelves", "put the books back on the shelves"),
    _boss("postman", "male", "carry the letters", "carried the letters from door to door"),
    _boss("painter", "female", "wash the brushes", "washed the brushes"),
    _boss("fisherman", "male", "fold the nets", "folded the nets"),
    _boss("shepherd", "female", "brush the sheep", "brushed the sheep"),
    _boss("cook", "female", "peel the potatoes", "peeled the potatoes"),
)

INGREDIENTS = (
    Facts(need="eggs", giver="hen", wants="a handful of corn", cake="sponge cake", home="in the yard"),
    Facts(need="milk", giver="cow", wants="a bunch of clover", cake="milk cake", home="in the field"),
    Facts(need="honey", giver="bee", wants="a sweet pink flower", cake="honey cake", home="near the hive"),
    Facts(need="nuts", giver="squirrel", wants="a shiny acorn", cake="nut cake", home="under the oak tree"),
    Facts(need="berries", giver="bird", wants="a bag of seeds", cake="berry cake", home="in the bushes"),
    Facts(
        need="carrots",
        giver="rabbit",
        wants="a crisp leaf of lettuce",
        cake="carrot cake",
        home="by the fence",
    ),
    Facts(
        need="coconuts", giver="monkey", wants="a ripe banana", cake="coconut cake", home="in the palm tree"
    ),
)

# For all plots whose hero is a child; "<glad>" in a plot stands for one of PHRASES["glad"].
PHRASES = {
    "intro": ("<start>", "<start> <detail>", "<start> <detail>"),
    "start": (
        "Once upon a time, there was {hero.a} [named|called] {hero}.",
        "Once there was {hero.a} [named|called] {hero}.",
        "There once was {hero.a} whose name was {hero}.",
        "{hero} was {hero.a} who lived <home>.",
        "{hero} was {hero.a}. {hero.he} lived <home>.",
        "Once upon a time, {hero.a} named {hero} lived <home>.",
        "<Home> lived {hero.a} named {hero}.",
    ),
    "detail": (
        "{hero.he} had [curly|long|short|straight] [brown|black|red|blond] hair and "
        "[blue|brown|green|dark] eyes.",
        "{hero.he} was [four|five|six|seven|eight] years old.",
        "{hero.he} always wore [a red cap|yellow socks|a green coat|blue shoes|a striped shirt|a warm "
        "sweater].",
        "{hero.his} favorite color was [red|blue|green|yellow|orange|purple|pink].",
        "{hero.he} liked to <indoors> and to <outdoors>.",
        "{hero.he} liked to <outdoors>, and on rainy days, {hero.he} liked to <indoors>.",
        "Everybody [in the street|at school] liked {hero}, because {hero.he} [told funny jokes|laughed so "
        "much|sang so well|had such good ideas|was a good friend].",
        "{hero.he} wanted to be [a pilot|a doctor|a baker|a sailor|a teacher|a singer|a painter] one day.",
    ),
    "indoors": (
        "draw [animals|ships|houses]",
        "sing",
        "read",
        "paint",
        "dance",
        "listen to stories",
        "do puzzles",
        "play the piano",
        "build with blocks",
        "play cards",
        "look at maps",
        "cut out paper stars",
    ),
    "outdoors": (
        "ride a bike",
        "watch the birds",
        "jump rope",
        "fly a kite",
        "collect [leaves|stones|feathers]",
        "feed the ducks",
        "chase butterflies",
        "play ball",
        "run in the wind",
        "hop on one leg",
    ),
    "home": (
        "in a [small|yellow|cozy] house near the woods",
        "in a [little|busy|quiet] town by the [sea|river]",
        "on a [small|big|sunny] farm",
        "at the end of a [long|quiet|narrow] street",
        "in a village [between two hills|beside a lake]",
        "next to [a school|a bakery|a big park|an old mill]",
        "on the top floor of a [tall|gray|narrow] house",
    ),
    "Home": (
        "In a [small|yellow|cozy] house near the woods",
        "In a [little|busy|quiet] town by the [sea|river]",
        "At the end of a [long|quiet|narrow] street",
        "In a village [between two hills|beside a lake]",
        "Next to [a school|a bakery|a big park|an old mill]",
        "On the top floor of a [tall|gray|narrow] house",
    ),
    "day": (
        "One day",
        "One [fine|quiet|lovely] [day|morning|afternoon]",
        "One [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday]",
        "On a [Monday|Wednesday|Friday|Saturday|Sunday] [morning|afternoon]",
        "Early one morning",
    ),
    "sad": (
        "{hero} was very sad.",
        "Tears [ran|rolled] down {hero.his} cheeks.",
        "{hero} felt like crying.",
        "{hero} hung {hero.his} head.",
        "{hero} sat down and [cried|sighed].",
        "{hero} did not know what to do.",
        "{hero}'s lip [began|started] to shake.",
        "A lump grew in {hero}'s throat.",
    ),
    "glad": (
        "{hero} was [so|very] happy.",
        "{hero} [jumped|danced] for joy.",
        "{hero} smiled from ear to ear.",
        "{hero} laughed and clapped {hero.his} hands.",
        "{hero} had never been so happy.",
        "{hero} felt as light as a feather.",
        "{hero} spun around and around and laughed.",
        "{hero}'s eyes shone like stars.",
    ),
    "thanks": (
        '"Thank you [so much|very much]!" [said {hero}|{hero} said].',
        '"Oh, thank you!" [cried {hero}|{hero} cried].',
        '"Thank you! You are so kind," [said {hero}|{hero} said].',
        '"I will never forget this," [said {hero}|{hero} said].',
    ),
}
