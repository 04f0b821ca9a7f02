"""Plots about rules, sharing and quarrels; `stories.plots_journeys` explains the marks."""

from mosaic_lab.stories.roles import Fork, Plot, adult, child, named_animal, one_of
from mosaic_lab.stories.vocabulary import KIND, NUMBERS, SNACKS, Facts

RULES = (
    Facts(
        rule="Do not play ball in the house",
        deed="threw the ball up to the ceiling. It came down on the big blue vase, and the vase broke",
        proof="the ball behind {hero}'s back",
        seen="the ball behind your back",
        fix="swept up the pieces and glued the vase together again",
    ),
    Facts(
        rule="Do not eat the cookies before dinner",
        deed="ate one cookie, and then another one, until the jar was empty",
        proof="the crumbs on {hero}'s chin",
        seen="the crumbs on your chin",
        fix="baked new cookies for the jar",
    ),
    Facts(
        rule="Do not paint on the walls",
        deed="dipped a finger into the paint and made a big red sun on the wall",
        proof="the red paint on {hero}'s fingers",
        seen="the red paint on your fingers",
        fix="washed the wall until it was white again",
    ),
    Facts(
        rule="Do not touch the birthday cake",
        deed="put a finger into the cream. The plate slipped, and the cake fell on the floor",
        proof="the cream on {hero}'s nose",
        seen="the cream on your nose",
        fix="cleaned the floor and made another cake",
    ),
    Facts(
        rule="Do not pick the flowers in the garden",
        deed="picked a red flower, and a blue one, until all the flowers were gone",
        proof="the flowers in {hero}'s fist",
        seen="the flowers in your fist",
        fix="planted new flowers in the garden",
    ),
    Facts(
        rule="Do not open the box on the shelf",
        deed="climbed on a chair and opened the box. It was full of beads, and they all fell out and "
        "rolled away",
        proof="the bead in {hero}'s hair",
        seen="the bead in your hair",
        fix="looked for the beads until every one was back in the box",
    ),
    Facts(
        rule="Do not put your hands in the fish tank",
        deed="reached into the tank to pet a fish. The tank tipped over, and water ran all over the rug",
        proof="{hero}'s wet sleeves",
        seen="your wet sleeves",
        fix="dried the rug and gave the fish fresh water",
    ),
)

BROKEN_RULE = Plot(
    "broken rule",
    roles={
        "hero": child(traits=("little", "curious", "lively", "naughty", "young")),
        "parent": adult("mother", "father", "grandmother", "grandfather"),
        "pet": named_animal(("cat", "dog", "parrot"), traits=("fat", "sleepy", "black", "old")),
        "row": one_of(RULES),
        "choice": one_of(("truth", "lie")),
    },
    beats=(
        (
            "<intro> {hero.he} had {pet.a} named {pet}.",
            "<intro> {hero.his} best friend was {pet.a} called {pet}.",
        ),
        (
            '<day>, {hero.his} {parent} had to go out for a moment. "{row.rule}," said {hero.his} '
            '{parent}. "I promise," said {hero}.',
            '"{row.rule}," {hero.his} {parent} always said. <day>, {hero} and {pet} were alone in the room.',
        ),
        (
            "But {hero} soon forgot about it. {hero.he} {row.deed}.",
            "{hero} thought about it for a minute. Just this once, {hero.he} thought. So {hero.he} "
            "{row.deed}.",
        ),
        (
            'Then {hero} heard steps. {hero.his} {parent} came in. "What happened here?"',
            '[Just then|At that moment] the door opened. "Oh dear!" said {hero.his} {parent}. "Who did '
            'this?"',
        ),
        Fork(
            "choice",
            {
                "truth": (
                    (
                        '{hero} wanted to say that it was {pet}. But that would be a lie. "I did it," '
                        '{hero.he} said. "I am very sorry."',
                        '{hero} looked at the floor. "It was me, {parent.call}," {hero.he} said softly. "I '
                        'broke the rule."',
                    ),
                    (
                        '{hero.his} {parent} was quiet [for a while|for a moment]. "I am not happy about '
                        'this," {parent.he} said. "But I am glad that you told me the truth."',
                        '"It is not easy to say that," said {hero.his} {parent}. "Thank you for being '
                        'honest."',
                    ),
                    (
                        "Together, they {row.fix}. And {hero} remembered the rule.",
                        "Then they {row.fix}. {pet} watched them and yawned.",
                    ),
                ),
                "lie": (
                    (
                        '"{pet} did it!" said {hero} quickly. {pet} looked up in surprise.',
                        '"It was not me," said {hero}. "It was {pet}. Bad {pet.kind}!"',
                    ),
                    (
                        'But {hero.his} {parent} saw {row.proof}. "Is that so?" {parent.he} asked. '
                        "{hero}'s face grew hot.",
                        '{hero.his} {parent} looked at {hero} for a long time. "And what about '
                        '{row.seen}?" {parent.he} asked.',
                    ),
                    (
                        '{hero} [began|started] to cry. "I did it, and I lied," {hero.he} said. "Sorry, '
                        '{parent.call}. Sorry, {pet}."',
                        'There was nothing left to say. "I am sorry," {hero} whispered. "I will never lie '
                        'about {pet} again."',
                    ),
                    (
                        "All by {hero.himself}, {hero} {row.fix}. It took the whole day, and there was no "
                        "story at bedtime.",
                        "{hero} {row.fix}, and {hero.he} gave {pet} the best bit of {hero.his} dinner. "
                        "{hero.he} had learned that a lie makes a bad thing worse.",
                    ),
                ),
            },
        ),
    ),
)

SHARING = Plot(
    "sharing",
    roles={
        "hero": child(),
        "friend": child(unlike="hero"),
        "parent": adult("mother", "father", "grandmother", "grandfather"),
        "snack": one_of(SNACKS),
        "count": one_of(NUMBERS),
        "mishap": one_of(
            (
                Facts(
                    event="it [began|started] to rain, and {hero} had no umbrella",
                    help="held {friend.his} umbrella over both of them",
                ),
                Facts(
                    event="{hero} fell and hurt {hero.his} knee",
                    help="tied a clean cloth around it and helped {hero.him} home",
                ),
                Facts(
                    event="the wind took {hero}'s hat and blew it over the fence",
                    help="climbed over the fence and brought the hat back",
                ),
                Facts(
                    event="one of {hero}'s shoes got stuck in the mud",
                    help="pulled and pulled until the shoe came out",
                ),
                Facts(
                    event="a big goose chased {hero} around the pond",
                    help="clapped {friend.his} hands and scared the goose away",
                ),
            )
        ),
        "choice": one_of(("share", "refuse")),
    },
    beats=(
        (
            "<intro> <day>, {hero.his} {parent} gave {hero.him} {count.most} {snack} for the walk to the "
            "park.",
            "<intro> {hero.he} loved {snack}. <day>, {hero.he} had {count.most} {snack} in {hero.his} bag.",
        ),
        (
            "In the park, {hero} met {friend}, who had nothing to eat. {friend} looked at the {snack}. "
            '"May I have one, please?" {friend.he} asked.',
            '{hero} sat down on a bench next to {hero.his} friend {friend}. "I am so hungry," said '
            '{friend}. "Could you give me one of your {snack}?"',
        ),
        Fork(
            "choice",
            {
                "share": (
                    (
                        '"Yes," said {hero}, and gave {friend} one. Now {hero} had {count.one_less} left. '
                        "A small boy looked hungry too, so {hero} gave him one as well. That left "
                        "{count.two_less}.",
                        "{hero} gave one to {friend} and kept {count.one_less}. Then a bird hopped up to "
                        "them and looked so sad that {hero} gave it one, too. That left only "
                        "{count.two_less} in the bag.",
                    ),
                    (
                        '"You will have none left," said {friend}. "That is fine," said {hero}. "They '
                        'taste better when we eat them together."',
                        "They ate the rest together, and {friend} told a funny story. <glad>",
                    ),
                    (
                        'On the way back, {mishap.event}. {friend} {mishap.help}. "You shared with me," '
                        '{friend.he} said, "so now I help you."',
                        "Later, {mishap.event}. But {hero} was not alone. {friend} {mishap.help}.",
                    ),
                    (
                        'When {hero} came home, {hero.his} {parent} asked, "Did you eat all {count.most} '
                        '{snack}?" "No," said {hero}, "but I found a friend."',
                        "They were good friends from then on, and they shared everything.",
                    ),
                ),
                "refuse": (
                    (
                        '"No," said {hero}. "I have {count.most}, and I want to eat all {count.most}." '
                        "{friend} went away without a word.",
                        '{hero} held the bag tight. "They are all mine," {hero.he} said. {friend} walked '
                        "away.",
                    ),
                    (
                        "{hero} ate one, and then another one. But eating alone was not much fun.",
                        "{hero} ate the {count.most} {snack} so fast that {hero.his} tummy [began|started] "
                        "to hurt.",
                    ),
                    (
                        "On the way back, {mishap.event}. There was nobody to help. Then {friend} came "
                        "around the corner. {friend.he} {mishap.help}.",
                    ),
                    (
                        '"Why did you help me?" asked {hero}. "I was so mean to you." {friend} '
                        '[smiled|grinned|nodded]. "Because you needed it," {friend.he} said. The next '
                        "[day|morning], {hero} brought {count.most} new {snack} and gave them all to "
                        "{friend}.",
                        '{hero} was ashamed. "I should have shared my {snack} with you," {hero.he} said. '
                        '"Tomorrow I will bring some for you." And {hero.he} kept that promise.',
                    ),
                ),
            },
        ),
    ),
)

ACTIVITIES = (
    Facts(go="go to the pool", want="swim", did="splashed in the pool"),
    Facts(go="fly a kite on the hill", want="feel the wind", did="flew a kite on the hill"),
    Facts(go="bake a pie", want="eat something sweet", did="baked a pie with apples"),
    Facts(go="build a fort in the garden", want="have a place to hide", did="built a fort out of old boxes"),
    Facts(go="look for shells on the beach", want="find a pink shell", did="looked for shells on the beach"),
    Facts(go="visit the zoo", want="see the lions", did="watched the lions at the zoo"),
    Facts(go="paint pictures", want="use the new brushes", did="painted big pictures"),
    Facts(go="ride bikes to the bridge", want="ride very fast", did="rode their bikes to the bridge"),
    Facts(go="read a book about pirates", want="hear about pirates", did="read a book about pirates"),
)

QUARREL = Plot(
    "quarrel",
    roles={
        "hero": child(),
        "friend": child(traits=KIND, unlike="hero"),
        "elder": adult("grandmother", "grandfather", "mother", "father"),
        "first": one_of(ACTIVITIES),
        "second": one_of(ACTIVITIES, lambda row, cast: row.go != cast["first"].go),
        "end": one_of(("turns", "alone", "third")),
        "day": one_of(("Saturday", "Sunday", "a holiday", "the first day of summer")),
    },
    beats=(
        (
            "{hero} and {friend} were best friends. They did everything together, but [one day|one "
            "morning|this time] they could not agree.",
            "Once upon a time, there were two friends, {hero} and {friend}. They lived next door to each "
            "other.",
            "{hero} was {hero.a}, and {friend} was {friend.a}. They were cousins, and they met every "
            "[week|summer].",
        ),
        (
            '"Let us {first.go}!" said {hero}. "I want to {first.want}." {friend} shook {friend.his} head. '
            '"I would rather {second.go}," {friend.he} said.',
            'It was {day}. {hero} wanted to {first.go}. But {friend} wanted to {second.go}. "I want to '
            '{second.want}," said {friend}.',
        ),
        (
            '"That is boring," said {hero}. "No, yours is boring!" said {friend}. They turned their backs '
            "on each other.",
            '"We always do what you want," said {friend}. "That is not true!" said {hero}. Both of them '
            "were angry.",
        ),
        Fork(
            "end",
            {
                "turns": (
                    (
                        '{hero}\'s {elder} heard them. "There is more than one day in a week," {elder.he} '
                        'said. "What can you do about that?"',
                    ),
                    (
                        '{friend} thought [for a while|for a moment]. "Today we can {first.go}," '
                        '{friend.he} said, "and tomorrow we can {second.go}."',
                        '"I know!" said {hero}. "Today we {first.go}, because I asked first. Tomorrow we '
                        '{second.go}."',
                    ),
                    (
                        "So that is what they did. First they {first.did}, and the next day they "
                        "{second.did}. Both days were wonderful.",
                        "That day, they {first.did}. The day after, they {second.did}. {hero} liked the "
                        "second day even better than the first one.",
                    ),
                ),
                "alone": (
                    (
                        "So {hero} went one way, and {friend} went the other way. But it was no fun to "
                        "play alone.",
                        "{friend} walked off to the left, and {hero} walked off to the right. {hero} tried "
                        "to be happy, but there was nobody to laugh with.",
                    ),
                    (
                        "{hero} turned around and ran back. Halfway, {hero.he} met {friend}, who was "
                        'running too. "I am sorry!" they said at the same time.',
                    ),
                    (
                        '"We can {second.go}," said {hero}. "No, we can {first.go}," said {friend}. They '
                        "laughed. In the end, they {second.did}, and they were friends again.",
                        'They hugged. "Now let us {second.go}, as you wished," said {hero}. So they '
                        "{second.did}, and it was a wonderful day.",
                    ),
                ),
                "third": (
                    (
                        "They were angry for so long that the sun [began|started] to go down. Now it was "
                        "too late for both.",
                        "They argued until the bell rang for dinner. Then there was no time left to do "
                        "anything.",
                    ),
                    (
                        '"How silly we are," said {friend}. "We have wasted the whole day," said {hero}. '
                        "They had to laugh.",
                        '<sad> "Next time, let us toss a coin," said {friend}. "That is a good idea," said '
                        "{hero}.",
                    ),
                    (
                        "They sat down on the steps and counted the stars. It was not what they had "
                        "planned, but it was nice.",
                        "The next [day|morning], they tossed a coin. {friend} won, so they {second.did}. "
                        "{hero} did not mind at all.",
                    ),
                ),
            },
        ),
    ),
)

LESSONS = (BROKEN_RULE, SHARING, QUARREL)
