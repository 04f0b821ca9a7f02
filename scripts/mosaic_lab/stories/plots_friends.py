"""Plots about brothers, sisters and friends; `stories.plots_journeys` explains the marks."""

from mosaic_lab.stories.roles import Fork, Plot, adult, child, one_of
from mosaic_lab.stories.vocabulary import KIND, SHY, Facts

TOYS_AND_REPAIRS = (
    Facts(
        toy="teddy bear",
        trait="brown",
        broke="one arm came off",
        tool="a needle and thread",
        fix="sewed the arm on",
    ),
    Facts(
        toy="puppet",
        trait="wooden",
        broke="the hat came off",
        tool="a drop of glue",
        fix="stuck the hat on again",
    ),
    Facts(
        toy="train",
        trait="wooden",
        broke="a wheel fell off",
        tool="a small hammer",
        fix="put the wheel back in its place",
    ),
    Facts(
        toy="kite",
        trait="yellow",
        broke="the paper got a big hole",
        tool="paper and glue",
        fix="covered the hole",
    ),
    Facts(
        toy="doll",
        trait="pretty",
        broke="the dress was torn",
        tool="a needle and thread",
        fix="sewed the dress",
    ),
    Facts(
        toy="castle",
        trait="little",
        broke="the tower broke in two",
        tool="a tube of glue",
        fix="glued the tower together",
    ),
    Facts(
        toy="rocking horse",
        trait="gray",
        broke="the tail came off",
        tool="some string",
        fix="tied the tail on again",
    ),
)

BROKEN_TOY = Plot(
    "broken toy",
    roles={
        "hero": child(),
        "sibling": child(unlike="hero"),
        "elder": adult("grandmother", "grandfather", "mother", "father"),
        "row": one_of(TOYS_AND_REPAIRS),
        "tie": lambda rng, cast: "brother" if cast["sibling"].gender == "male" else "sister",
        "turn": one_of(("an hour", "ten minutes", "one day", "five minutes")),
    },
    beats=(
        (
            "<intro> {hero.he} had a {tie} named {sibling}. They shared one {row.trait} {row.toy}.",
            "{hero} and {sibling} were brother and sister. Their {elder} had given them a {row.trait} "
            "{row.toy} for both of them.",
        ),
        (
            '<day>, {hero} was playing with the {row.toy} when {sibling} came in. "It is my turn now," '
            'said {sibling}. "No, I just started!" said {hero}.',
            '"Give me the {row.toy}!" {sibling} said one [day|morning]. "You had it all morning." {hero} '
            "did not want to stop playing.",
        ),
        (
            "{sibling} pulled on one side, and {hero} pulled on the other side. Then there was a strange "
            "noise, and {row.broke}.",
            "They both pulled as hard as they could. [Suddenly|All of a sudden], {row.broke}. It became "
            "very quiet in the room.",
        ),
        (
            '"You broke it!" [cried|shouted] {hero}. "No, you did!" [cried|shouted] {sibling}. Then they '
            "looked at the poor {row.toy}, and both [began|started] to cry.",
            '{sibling} let go of the {row.toy}. <sad> "Now nobody can play with it," {hero} said.',
        ),
        (
            'Their {elder} heard the noise and came in. "Bring me {row.tool}," said their {elder}. {hero} '
            "and {sibling} [ran|hurried|rushed] to get what was needed.",
            '"Can you mend it?" they asked their {elder}. "Maybe, if you help me," said their {elder}. '
            "{sibling} went to find {row.tool}.",
        ),
        (
            "{hero} held the {row.toy}, and {sibling} helped. With {row.tool}, their {elder} {row.fix}. It "
            "was almost as good as new.",
            "Their {elder} showed them what to do. They {row.fix}, all three of them together.",
        ),
        (
            '"What will you do next time?" asked their {elder}. "We will take turns," said {hero}. '
            '"{sibling} can have the {row.toy} for {turn}, and then I can have it for {turn}."',
            '"You can go first, {sibling}," said {hero}. "Only for {turn}," said {sibling}. "Then it will '
            'be your turn."',
        ),
        (
            "And they never fought about the {row.toy} again.",
            "You could still see where the {row.toy} had been broken. It helped them to remember.",
            "Sometimes they still wanted it at the same time. Then they thought of that day and laughed.",
        ),
    ),
)

ODD_THINGS = (
    Facts(
        thing="scarf",
        look="a scarf that was longer than a bed",
        joke="Is that a scarf or a snake",
        crisis="a kitten fell into a dry well and could not get out",
        use="let one end of the scarf down into the well. The kitten held on with its claws, and up it came",
    ),
    Facts(
        thing="umbrella",
        look="a huge umbrella, although the sun was shining",
        joke="Are you waiting for the rain",
        crisis="black clouds came during the school picnic, and it [began|started] to pour",
        use="opened the umbrella. It was so big that all the children fit under it",
    ),
    Facts(
        thing="whistle",
        look="a tin whistle on a string",
        joke="Are you a policeman",
        crisis="the class got lost in thick fog on a walk",
        use="blew the whistle three times. The teacher heard it and found them in the fog",
    ),
    Facts(
        thing="boots",
        look="rubber boots that came up to the knees",
        joke="Are you a fisherman",
        crisis="the class rabbit jumped into the muddy ditch behind the school and got stuck",
        use="walked right through the mud in those boots and carried the rabbit out",
    ),
    Facts(
        thing="string",
        look="a big ball of string in a paper bag",
        joke="Do you eat string for lunch",
        crisis="the rope of the swing broke, and everybody was sad",
        use="wound the string around and around until it was as strong as a rope. The swing worked again",
    ),
    Facts(
        thing="lamp",
        look="a little lamp on a hat",
        joke="Do you think that it is night",
        crisis="all the lights in the school went out, and the little ones [began|started] to cry",
        use="turned on the lamp and led everybody down the dark stairs",
    ),
)

ODD_THING = Plot(
    "odd thing",
    roles={
        "hero": child(traits=SHY),
        "friend": child(traits=KIND, unlike="hero"),
        "row": one_of(ODD_THINGS),
        "end": one_of(("friend", "gift")),
    },
    beats=(
        (
            "{hero} was new at school. {hero.he} was {hero.a} and did not say much. Every day, {hero.he} "
            "came with {row.look}.",
            "A new {hero.kind} came to the school. {hero.his} name was {hero}, and {hero.he} had {row.look}.",
            "It was the first day of school for {hero}, {hero.a}. {hero.he} had brought {row.look}.",
        ),
        (
            '"{row.joke}?" one of the boys asked, and all the others laughed. {hero} looked at the ground.',
            'The other children pointed at {hero.him}. "{row.joke}?" they shouted. {hero} turned red.',
        ),
        (
            'Only {friend} did not laugh. {friend.he} sat down next to {hero}. "I like your {row.thing}," '
            "{friend.he} said.",
            'But {friend} came over and [smiled|grinned|nodded]. "Do not listen to them," said {friend}. '
            '"May I see your {row.thing}?" {hero} smiled back.',
        ),
        (
            "[A few days later|Not long after|One week later], {row.crisis}. Nobody knew what to do.",
            'Then, one day, {row.crisis}. "Help!" the children cried.',
        ),
        (
            '"Wait," said {hero}. {hero.he} {row.use}.',
            '{friend} looked at {hero}, and {hero} nodded. "I can help," said {hero}. Then {hero.he} '
            "{row.use}.",
        ),
        (
            '"Hooray for {hero}!" [cried|shouted] {friend}, and this time nobody laughed. "We are sorry," '
            "said the others.",
            'For a moment, everybody was quiet. Then all the children cheered. "{hero}, you are great," '
            "they said.",
        ),
        Fork(
            "end",
            {
                "friend": (
                    (
                        "From then on, {hero} was not the new {hero.kind} any more. But {friend} was "
                        "always {hero.his} best friend, because {friend} had been nice from the start.",
                        "Now everybody wanted to sit beside {hero}. {hero.he} sat down next to {friend}.",
                    ),
                ),
                "gift": (
                    (
                        "The next [day|morning], something funny happened. All the children came to school "
                        "with [strange|odd] things of their own. {hero} and {friend} laughed until their "
                        "tummies hurt.",
                        "It is good to be a little different. You never know when it will help somebody.",
                    ),
                ),
            },
        ),
    ),
)

COMFORTS = (
    Facts(
        wish="see the sea",
        trouble="the sea was too far away",
        make="filled a box with sand, shells and blue paper",
        name="a sea in a box",
    ),
    Facts(
        wish="look at the stars",
        trouble="clouds covered the sky",
        make="cut stars out of gold paper and hung them on strings",
        name="a sky full of stars",
    ),
    Facts(
        wish="hear a band",
        trouble="the band had left the town",
        make="made a drum from a pot and a flute from a straw",
        name="a band of one",
    ),
    Facts(
        wish="smell fresh flowers",
        trouble="it was winter and no flowers grew",
        make="folded ten flowers out of paper and put a drop of perfume on each",
        name="a winter garden",
    ),
    Facts(
        wish="go to the circus",
        trouble="the circus did not open until summer",
        make="put on a red nose and learned to juggle three apples",
        name="a circus",
    ),
    Facts(
        wish="play in the snow",
        trouble="it was the middle of summer",
        make="tore white paper into a thousand little pieces and filled a bag with them",
        name="summer snow",
    ),
)

SICK_FRIEND = Plot(
    "sick friend",
    roles={
        "hero": child(traits=KIND),
        "friend": child(unlike="hero"),
        "row": one_of(COMFORTS),
        "count": one_of(("two", "three", "five")),
    },
    beats=(
        (
            "<intro> {hero.his} best friend was {friend}. One [Monday|Tuesday|Wednesday|Thursday|Friday], "
            "{friend} did not come to school.",
            "{hero} and {friend} played together every day after school. But one day, {friend} was not "
            "there.",
        ),
        (
            "{hero} knocked on {friend}'s door. \"{friend} is sick and must stay in bed for {count} "
            "weeks,\" said {friend}'s mother, and let {hero.him} in.",
            "{hero} went to {friend}'s house. {friend} was in bed with a red nose. \"I have to lie here "
            'for {count} weeks," {friend.he} said.',
        ),
        (
            '"What do you want most of all?" asked {hero}. "I want to {row.wish}," said {friend}. "But I '
            'cannot go out."',
            '"I am so bored," {friend} told {hero}. "If only I could {row.wish}!"',
        ),
        (
            "{hero} wanted to make that wish come true. But {row.trouble}. {hero} thought about it all the "
            "way home.",
            "All night, {hero} thought about it. {friend} could not get up, and besides, {row.trouble}. "
            "What could {hero.he} do?",
        ),
        (
            "Then {hero.he} had [an|a good|a wonderful] idea. {hero.he} {row.make}.",
            "The next [day|morning], {hero} knew what to do. {hero.he} {row.make}. It took {hero.him} "
            "{count} hours.",
        ),
        (
            '"Close your eyes," {hero} said to {friend}. Then {hero.he} said, "Now you can open them! It '
            'is {row.name}!"',
            '"You cannot go out," {hero} said to {friend}, "so I brought you {row.name}."',
        ),
        (
            '{friend} laughed [for the first time in days|out loud]. "I wanted to {row.wish}," {friend.he} '
            'said, "and you made it come true."',
            '{friend} sat up in bed, and {friend.his} eyes shone. "That is the nicest thing anybody has '
            'done for me," said {friend}.',
        ),
        (
            "After {count} weeks, {friend} was well again. But {friend.he} never forgot what {hero} had "
            "done for {friend.him}.",
            "{count} weeks later, {friend} ran out of the house, and the two friends played until the sun "
            "went down.",
            "[Soon|Before long,] {friend} felt better. A good friend is sometimes the best medicine.",
        ),
    ),
)

FRIENDS = (BROKEN_TOY, ODD_THING, SICK_FRIEND)
