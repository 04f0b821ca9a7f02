"""Plots with wishes that come true, noises in the night and things that are swapped.

`stories.plots_journeys` explains the marks.
"""

from mosaic_lab.stories.roles import Drawer, Fork, Plot, adult, child, one_of, stranger, with_article
from mosaic_lab.stories.vocabulary import TREASURES, Facts

GRANTERS = (
    Facts(
        kind="fish",
        gender="neuter",
        traits=("golden", "silver"),
        found="{hero} caught {granter.a} in the river",
    ),
    Facts(
        kind="fairy",
        gender="female",
        traits=("tiny", "shining"),
        found="{hero} freed {granter.a} from a spider's web",
    ),
    Facts(
        kind="wizard",
        gender="male",
        traits=("old", "sleepy"),
        found="{hero} carried a bag of wood for {granter.a}",
    ),
    Facts(
        kind="frog",
        gender="neuter",
        traits=("green", "talking"),
        found="{hero} helped {granter.a} across the road",
    ),
    Facts(
        kind="star",
        gender="neuter",
        traits=("little", "bright"),
        found="{hero} found {granter.a} that had fallen into the garden",
    ),
)
WISHES = (
    Facts(
        wish="that it would rain candy",
        true="Candy fell from the sky, more and more of it",
        good="{hero} opened {hero.his} mouth and laughed. It was sweet and sticky",
        bad="the candy lay as high as the windows, and nobody could open the door",
    ),
    Facts(
        wish="that {hero.his} toys could talk",
        true="All the toys sat up and [began|started] to talk",
        good="{hero} asked them a hundred questions, and they knew the funniest stories",
        bad="the toys talked day and night, all at once, and {hero} could not sleep",
    ),
    Facts(
        wish="to be as tall as a house",
        true="{hero} grew and grew until {hero.his} head was above the roof",
        good="{hero.he} could see the whole town and touch the tops of the trees",
        bad="{hero.he} could not fit through the door, and nobody could hug {hero.him}",
    ),
    Facts(
        wish="to be as small as a mouse",
        true="{hero} shrank and shrank until {hero.he} could sit in a cup",
        good="{hero.he} slid down a spoon and slept in a matchbox",
        bad="a big cat looked at {hero} with hungry eyes, and nobody heard {hero.him} shout",
    ),
    Facts(
        wish="that every day would be {hero.his} birthday",
        true="There was a cake on the table, and the next day there was another one",
        good="{hero} got presents and blew out the candles again and again",
        bad="nobody wanted to sing any more, and {hero} was tired of cake",
    ),
    Facts(
        wish="that it would never be night",
        true="The sun stayed up in the sky",
        good="{hero} played outside for hours and hours, and nobody sent {hero.him} to bed",
        bad="everybody was tired and cross, and {hero} missed the moon and the stars",
    ),
    Facts(
        wish="that everything would be pink",
        true="The house turned pink, and so did the street, the trees and the cat",
        good="{hero} ran around and looked at all the pink things",
        bad="{hero} could not find anything, because the ball, the grass and the sky all looked the same",
    ),
)

MAGIC_WISH = Plot(
    "magic wish",
    roles={
        "hero": child(),
        "parent": adult(),
        "granter": stranger(GRANTERS),
        "found": lambda rng, cast: cast["granter"].facts.found,
        "row": one_of(WISHES),
        "end": one_of(("undo", "gift")),
    },
    beats=(
        (
            "<intro> <day>, {found}.",
            "<intro> {hero.he} was always ready to help. <day>, {found}.",
        ),
        (
            '"You have been kind to me," said {granter}. "Make two wishes, and they will come true. But '
            'think well!"',
            '"Thank you," said {granter}. "I can do magic, and I will give you two wishes." {hero} could '
            "[hardly|not] believe it.",
        ),
        (
            "Without thinking for long, {hero} wished {row.wish}.",
            '{hero} closed {hero.his} eyes and wished {row.wish}. "As you like," said {granter}.',
        ),
        (
            "At once, it came true. {row.true}. {row.good}.",
            "There was a flash of light. {row.true}. {row.good}. It was wonderful.",
        ),
        (
            "But after a while, it was not so much fun any more. Now {row.bad}.",
            "But the fun did not last. [Soon|Before long,] {row.bad}. <sad>",
        ),
        Fork(
            "end",
            {
                "undo": (
                    (
                        '"I still have one wish," said {hero}. "I wish that everything was as it was '
                        'before." And so it was.',
                        '{hero} had one wish left. "Please make everything the way it was," {hero.he} '
                        "said. {granter} smiled, and it was done.",
                    ),
                    (
                        "{hero} hugged {hero.his} {parent}. The old days had been good after all.",
                        "That evening, {hero} sat beside {hero.his} {parent} and ate plain bread. It "
                        "tasted wonderful.",
                    ),
                ),
                "gift": (
                    (
                        '{hero} [ran|hurried|rushed] to {granter}. "I do not want this wish any more," '
                        '{hero.he} said. "Take it back, and keep the second one for yourself."',
                    ),
                    (
                        '"Nobody has ever given me a wish," said {granter}, and wished for a friend. So '
                        "{hero} and {granter} became friends.",
                        '{granter} was surprised. "Then I wish that we could be friends," said {granter}. '
                        "That wish came true without any magic.",
                    ),
                ),
            },
        ),
        (
            "[After that|From then on|From that day on], {hero} was careful with wishes.",
            "{hero} never told anybody about it, except for {hero.his} {parent}.",
            "Think before you wish!",
        ),
    ),
)

NOISES = (
    Facts(
        noise="Scratch, scratch",
        where="at the door",
        source="a wet kitten that wanted to come in",
        end="They dried the kitten with a towel and gave it warm milk",
    ),
    Facts(
        noise="Tap, tap, tap",
        where="at the window",
        source="a branch of the apple tree that knocked on the glass",
        end="The tree had only been dancing in the wind",
    ),
    Facts(
        noise="Drip, drop",
        where="in the bathroom",
        source="the tap, which nobody had turned off",
        end="They turned it off, and the house was quiet",
    ),
    Facts(
        noise="Bump, bump",
        where="on the stairs",
        source="their {elder}, who was carrying a heavy box without a light",
        end="They helped with the box, and all three of them laughed",
    ),
    Facts(
        noise="Rustle, rustle",
        where="in the kitchen",
        source="a hungry mouse that sat in a bag of nuts",
        end="They let the mouse keep one nut and carried it into the garden",
    ),
    Facts(
        noise="Hoo, hoo",
        where="on the roof",
        source="a young owl that was calling for its mother",
        end="Then the mother owl came, and the two owls flew away together",
    ),
    Facts(
        noise="Squeak, squeak",
        where="in the hall",
        source="the old door, which moved in the wind",
        end="They put a drop of oil on the door, and it stopped",
    ),
    Facts(
        noise="Snort, snort",
        where="under the table",
        source="the dog, who was snoring",
        end="The dog opened one eye and went back to sleep",
    ),
)

NOISE = Plot(
    "noise",
    roles={
        "hero": child(),
        "sibling": child(unlike="hero"),
        "elder": adult("grandmother", "grandfather", "mother", "father"),
        "tie": lambda rng, cast: "brother" if cast["sibling"].gender == "male" else "sister",
        "row": one_of(NOISES),
        "monster": one_of(("a monster", "a ghost", "a robber", "a dragon", "a giant", "a witch")),
        "tool": one_of(("pillow", "wooden spoon", "umbrella", "broom", "teddy bear", "slipper")),
        "a_tool": lambda rng, cast: with_article(cast["tool"]),
    },
    beats=(
        (
            "<intro> {hero} shared a room with {hero.his} {tie} {sibling}. One night, {hero.he} woke up.",
            "It was a dark night. {hero} and {hero.his} {tie} {sibling} lay in bed, but they could not "
            "sleep.",
            "One night, {hero} woke up and heard something. {hero.his} {tie} {sibling} was awake too.",
        ),
        (
            '{row.noise}! Something was moving {row.where}. "What was that?" whispered {hero}.',
            '{row.noise}. There it was again, {row.where}! "Did you hear that?" asked {hero}.',
        ),
        (
            '"It must be {monster}," said {sibling}, and pulled the blanket over {sibling.his} head.',
            '"I think it is {monster}," {sibling} whispered. "It wants to eat us!"',
        ),
        (
            '"There is no such thing," said {hero}. But {hero.his} voice was shaking. {hero.he} took '
            "{a_tool} and the lamp.",
            '{hero} was frightened too, but {hero.he} wanted to know. "Come with me," {hero.he} said. '
            "{sibling} took the lamp, and {hero} took {a_tool}.",
        ),
        (
            "Hand in hand, they crept closer. {row.noise}! It was louder now.",
            "They tiptoed through the dark, one step, and then another. {row.noise}! They stopped and held "
            "their breath.",
        ),
        (
            "{sibling} closed {sibling.his} eyes. {hero} held up the light. And what did {hero.he} see? It "
            "was not {monster}. It was {row.source}!",
            '"One, two, three!" said {hero}, and held up the light. There was no sign of {monster}. It was '
            "only {row.source}.",
        ),
        (
            "{row.end}.",
            '{row.end}. "And you wanted to fight with {a_tool}!" said {sibling}.',
        ),
        (
            '"So that was your monster," {hero} said with a smile. Then they slept until the sun came up.',
            "Back in bed, {hero} put the {tool} beside the pillow, just in case. But nothing else happened "
            "that night.",
            'After that night, {sibling} was not so afraid of noises. "First we look," {sibling.he} always '
            'said, "and then we can be scared."',
        ),
    ),
)

SWAPS = (
    "a blue marble|a ball of string|a bag of cherries|a wooden spoon|a jar of jam|a woolly cap|a bunch of "
    "flowers|a box of crayons|a loaf of bread|a paper crown|an old bell|a feather|a bar of soap|a big "
    "shell|an apple pie"
).split("|")


def _noun(role: str) -> Drawer:
    """ "the marble" for the role that holds "a blue marble"."""
    return lambda rng, cast: "the " + cast[role].split(" ", 1)[1]


SWAPPING = Plot(
    "swapping",
    roles={
        "hero": child(),
        "first": one_of(SWAPS),
        "second": one_of(SWAPS, lambda thing, cast: thing != cast["first"]),
        "third": one_of(SWAPS, lambda thing, cast: thing not in (cast["first"], cast["second"])),
        "prize": one_of(sorted(TREASURES)),
        "the_first": _noun("first"),
        "the_second": _noun("second"),
        "the_third": _noun("third"),
        "one": child(),
        "two": child(),
        "three": child(unlike="hero"),
        "end": one_of(("prize", "kind", "circle")),
    },
    beats=(
        (
            "<intro> {hero.he} had no money, but {hero.he} had {first}. What {hero.he} really wanted was a "
            "{prize}.",
            "<intro> <day>, {hero} went out with {first} under {hero.his} arm. {hero.he} wanted to swap it "
            "for a {prize}.",
        ),
        (
            '{hero} met {one}, who had {second}. "I need {first}," said {one}. "Will you swap?" {hero} '
            "said yes. {one} took {the_first}, and {hero} took {the_second}.",
            'First {hero} came to {one}\'s house. "I have been looking for {first}!" said {one}. "I can '
            'give you {second}." So {hero} gave {one} {the_first} and went on with {the_second}.',
        ),
        (
            'Down the street, {two} was sitting on a wall with {third}. "I would like {the_second}," said '
            "{two}. {hero} thought about it and swapped {the_second} for {the_third}.",
            'Next, {hero} met {two}, who looked at {the_second} and said, "That is just what I need. I can '
            'give you {third}." Now {hero} had {the_third}.',
        ),
        (
            'Then {hero} saw {three}. And {three} had a {prize}! "Would you give me the {prize} for '
            '{the_third}?" asked {hero}.',
            '{three} was playing with a {prize} at the corner. {hero} held up {the_third}. "Do you want to '
            'swap?" {hero.he} asked.',
        ),
        Fork(
            "end",
            {
                "prize": (
                    (
                        '"Yes, please!" said {three}. "I do not play with the {prize} any more."',
                        '{three} looked at {the_third} and nodded. "My grandma would like that," '
                        "{three.he} said, and gave the {prize} to {hero}.",
                    ),
                    (
                        "{hero} carried the {prize} home. {hero.he} had started with {first}. And now "
                        "everybody had what they wanted: {one} had {the_first}, {two} had {the_second}, "
                        "and {three} had {the_third}.",
                        "<glad> It had all begun with {first}!",
                    ),
                ),
                "kind": (
                    (
                        '"No," said {three}. "The {prize} was a present, so I cannot give it away. But we '
                        'can play with it together."',
                        '{three} shook {three.his} head. "I love my {prize}," said {three}. "But you can '
                        'use it too, whenever you like."',
                    ),
                    (
                        "So they played until it was dark. Before {hero} went home, {hero.he} gave {three} "
                        "{the_third} as a present.",
                        "That was even better. {hero} kept {the_third}, and {hero.he} had a new friend who "
                        "had a {prize}.",
                    ),
                ),
                "circle": (
                    (
                        '"I am sorry," said {three}. "I would only swap it for {first}." Oh no! {hero} had '
                        "given {the_first} to {one}.",
                        '"I have no use for {the_third}," said {three}. "But if you had {first}, I would '
                        'swap at once." {hero} groaned. {one} had {the_first} now!',
                    ),
                    (
                        '{hero} ran back to {one}. "Could I have {the_first} again?" {hero.he} asked. '
                        "{one} laughed and gave it back for {the_third}. And so {hero} got the {prize} in "
                        "the end.",
                        "{hero} [walked|went] home with {the_third}. {hero.he} had no {prize}, but "
                        "{hero.he} had met three nice children, and that was something.",
                    ),
                ),
            },
        ),
    ),
)

WONDERS = (MAGIC_WISH, NOISE, SWAPPING)
