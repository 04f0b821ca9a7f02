"""Plots in which somebody loses, wants, finds or dares something.

`{hero}` and `{hero.he}` are a role and its forms, `[a|b]` is one of the two, `<glad>` is one of
PHRASES["glad"]; see `stories.grammar`.
"""

from mosaic_lab.stories.roles import Fork, Plot, adult, child, fact_of, item, named_animal, one_of, stranger
from mosaic_lab.stories.vocabulary import BOSSES, KEEPSAKES, SKILLS, TRAPS, TREASURES, WILD_ANIMALS, Facts

STUCK_TOY = Plot(
    "stuck toy",
    roles={
        "hero": child(),
        "parent": adult("mother", "father", "grandmother", "grandfather"),
        "trap": one_of(TRAPS),
        "toy": item("trap.toys"),
        "helper": stranger(WILD_ANIMALS, lambda animal, cast: animal.skill in cast["trap"].skills),
        "wrong": stranger(WILD_ANIMALS, lambda animal, cast: animal.skill not in cast["trap"].skills),
        "food": fact_of("helper", "food"),
        "asks_twice": one_of(("yes", "no")),
        "skill": lambda rng, cast: SKILLS[cast["helper"].facts.skill],
    },
    beats=(
        (
            "<start> {hero} had {toy.a} and took it everywhere.",
            "<start> Of all {hero.his} toys, {hero} liked {hero.his} {toy.full} the most.",
            "<start> For {hero.his} birthday, {hero} had been given {toy.a}, and {hero.he} loved it.",
        ),
        (
            "<day>, {hero} went out to play. {hero.his} {parent} packed some {food} for {hero.him}. "
            "[Soon|Before long,] {hero} came to {trap.place}.",
            '<day>, {hero.his} {parent} said, "I packed some {food} for you. Have fun outside!" {hero} put '
            "the {food} in a bag and walked to {trap.place}.",
            "<day>, {hero} put some {food} in {hero.his} pocket and walked to {trap.place}. {hero.he} "
            "wanted to play there until dinner.",
        ),
        (
            '{hero} was [having a lot of fun|playing happily] when {trap.event}. "Oh no!" {hero} cried. '
            '"My {toy} is {trap.where}!"',
            '[All at once|Suddenly], {trap.event}. "My {toy}!" [cried|shouted] {hero}. "It is {trap.where}!"',
            "But then {trap.event}. There it was, {trap.where}, and {hero} could not get it.",
        ),
        (
            "{hero} {trap.attempt}. <sad>",
            "First {hero.he} {trap.attempt}. Then {hero.he} tried again, but it was no use.",
        ),
        Fork(
            "asks_twice",
            {
                "yes": (
                    (
                        '{wrong.a} came by. "Can you help me?" asked {hero}. "I am sorry," said {wrong}. '
                        '"You need somebody who {trap.hint}."',
                        '[Just then|At that moment], {wrong.a} stopped to look. "I wish I could help," '
                        'said {wrong}, "but this is too hard for me. Ask somebody who {trap.hint}."',
                        '{hero} asked {wrong.a} for help. {wrong} looked and looked. "Not me," it said. '
                        '"Find somebody who {trap.hint}."',
                    ),
                ),
                "no": (),
            },
        ),
        (
            '[Soon|Before long,] {helper.a} came along. "Why are you so sad?" it asked. {hero} told '
            '{helper} what had happened. "I can {skill.can}," said {helper}. "Wait here!"',
            'A moment later, {hero} saw {helper.a}. "Please, can you get my {toy} for me?" {hero.he} '
            'asked. "Of course," said {helper}. "I can {skill.can} better than anybody."',
        ),
        (
            "{helper} {skill.did}. Then it brought the {toy} back to {hero}. <thanks>",
            "{helper} {skill.did}. In no time, the {toy} was safe in {hero}'s hands. <glad>",
        ),
        (
            '{hero} wanted to give something back. {hero.he} took out the {food}. "How did you know that I '
            'love {food}?" asked {helper}. They sat down and ate together.',
            '"Do you like {food}?" asked {hero}. {helper} did, and together they ate all the {food}.',
        ),
        (
            "[After that|From then on|From that day on], {hero} and {helper} were friends.",
            "[After that|From then on|From that day on], {hero} often came back with the {toy}, and "
            "{hero.he} always brought {food} for {hero.his} new friend.",
            "On the way home, {hero} held the {toy} very tight and told everybody about the {helper.trait} "
            "{helper.kind}.",
        ),
    ),
)

SAVING_UP = Plot(
    "saving up",
    roles={
        "hero": child(),
        "parent": adult(),
        "prize": item(TREASURES),
        "boss": stranger(BOSSES),
        "boss_do": fact_of("boss", "do"),
        "boss_did": fact_of("boss", "did"),
        "coins": one_of(("five", "six", "eight", "ten", "twelve")),
        "friend": child(unlike="hero"),
        "need": one_of(("bread", "milk", "medicine", "soup")),
        "end": one_of(("buy", "gone", "give")),
    },
    beats=(
        (
            "<start> {hero} wished for one thing only: {prize.a}. {hero.he} had seen it in the window of "
            "the toy shop.",
            "<start> One day after school, {hero.he} walked past the toy shop and saw {prize.a}. It was "
            "the best {prize} in the world!",
            "<start> Every day after school, {hero.he} stopped at the toy shop to look at {prize.a}.",
        ),
        (
            '"May I have the {prize}, please?" {hero} asked {hero.his} {parent}. "It costs {coins} coins," '
            'said {hero.his} {parent}. "You can work for it and save your money."',
            '{hero} told {hero.his} {parent} about it. "The {prize} costs {coins} coins," {hero.his} '
            '{parent} said. "If you work hard, you can buy it with your own money."',
        ),
        (
            'So {hero} went to see {boss}. "May I work for you?" {hero.he} asked. "Yes," said {boss}. "You '
            'may {boss_do}."',
            '{boss.a} lived next door. "I need somebody to {boss_do}," {boss} said to {hero}. "I can do '
            'that!" said {hero}.',
        ),
        (
            "Every day that week, {hero} {boss_did}. {hero.his} arms were tired, but {hero.he} did not "
            "stop. On Friday, {boss} gave {hero.him} {coins} coins.",
            "{hero} {boss_did} on Monday, and on Tuesday, and on all the other days. It was "
            "[hard|tiring|heavy] work. In the end, {boss} counted {coins} shiny coins into {hero.his} hand.",
        ),
        Fork(
            "end",
            {
                "buy": (
                    (
                        "{hero} [ran|hurried|rushed] to the toy shop as fast as {hero.he} could. The "
                        "{prize} was still in the window! {hero} put the {coins} coins on the table, and "
                        "the {prize} belonged to {hero.him}.",
                        "With the {coins} coins in {hero.his} pocket, {hero} hurried to the toy shop. "
                        "{hero.he} paid and carried the {prize.full} home in both arms.",
                    ),
                    (
                        '"Look!" {hero} called to {hero.his} {parent}. "I worked for it all by myself." '
                        "{hero.his} {parent} was [very|so] proud.",
                        "{hero} played with it until bedtime. It was [more fun|even better] because "
                        "{hero.he} had worked for it.",
                    ),
                ),
                "gone": (
                    (
                        "{hero} [ran|hurried|rushed] to the toy shop. But the window was empty! Somebody "
                        "else had bought the {prize}. <sad>",
                        '"I am sorry," said the man in the toy shop. "I sold the {prize} this morning." '
                        "{hero} [walked|went] home slowly with the {coins} coins in {hero.his} pocket.",
                    ),
                    (
                        "But who stood at the door? It was {boss}, with a big box. In the box was the "
                        '{prize.full}! "You worked so well that I wanted to thank you," said {boss}.',
                        "At home, a big box stood on the table. It was from {boss}. {hero} opened it, and "
                        'there was the {prize.full}! "For my best helper," said the card.',
                    ),
                    (
                        "<glad> With the coins, {hero.he} bought ice cream for {boss}, for {hero.his} "
                        "{parent} and for {hero.himself}.",
                        "<glad> {hero.he} kept the {coins} coins in a jar for another day.",
                    ),
                ),
                "give": (
                    (
                        "On the way to the toy shop, {hero} met {hero.his} friend {friend}, who was "
                        'crying. "I lost the money for the {need}," said {friend}. "Now we have none, and '
                        'my family needs it."',
                        "But near the toy shop, {hero} saw {friend}, a {friend.kind} from school. {friend} "
                        'looked very sad. "I had to buy {need} for my family," {friend} said, "but I lost '
                        'all the money."',
                    ),
                    (
                        "{hero} looked at the {prize} in the window. Then {hero.he} looked at {friend}. "
                        '{hero.he} put the {coins} coins into {friend}\'s hand. "Buy the {need}," '
                        "{hero.he} said.",
                        "{hero} thought about the {prize}. But {hero.he} also thought about {friend}. "
                        '"Take my coins," {hero.he} said. "You need the {need} more than I need a {prize}."',
                    ),
                    (
                        "A week later, {friend} knocked on the door. {friend.he} had made a {prize} out of "
                        'paper and glue. "It is for you," {friend} said. {hero} liked it more than the one '
                        "in the shop.",
                        "{hero} had no {prize}, but {hero.he} felt warm inside. And now {hero.he} had a "
                        "very good friend.",
                    ),
                ),
            },
        ),
    ),
)

FOUND_THING = Plot(
    "found thing",
    roles={
        "hero": child(),
        "owner": stranger(
            (
                Facts(kind="old woman", gender="female", traits=("kind", "tired")),
                Facts(kind="old man", gender="male", traits=("sad", "tall")),
                Facts(kind="lady", gender="female", traits=("young", "tall")),
                Facts(kind="teacher", gender="female", traits=("friendly", "young")),
                Facts(kind="bus driver", gender="male", traits=("jolly", "tired")),
            ),
        ),
        "parent": adult(),
        "thing": item(KEEPSAKES),
        "place": one_of(
            ("in the park", "by the lake", "near the bus stop", "on the beach", "near the bridge")
        ),
        "hiding": one_of(("under a bench", "in the grass", "between two stones", "behind a bush")),
        "reward": one_of(
            ("a warm bun", "a story about the sea", "a ride on a pony", "a song", "a cup of cocoa")
        ),
        "choice": one_of(("honest", "keep")),
    },
    beats=(
        (
            "<intro> <day>, {hero} was walking {place} when something caught {hero.his} eye. {hiding} lay "
            "{thing.a}!",
            "<intro> {hero.he} liked to look for things {place}. <day>, {hero.he} found {thing.a} {hiding}.",
            "<intro> <day>, {hero} went for a walk {place}. {hiding}, {hero.he} saw {thing.a}.",
        ),
        (
            '"How pretty!" {hero} thought. "I wish it were mine." There was nobody around.',
            '{hero} picked it up. "Who lost this?" {hero.he} wondered. {hero.he} looked left and right, '
            "but saw nobody.",
        ),
        Fork(
            "choice",
            {
                "honest": (
                    (
                        '"Somebody must be [sad|looking for it]," {hero} said. "I have to find out whose '
                        '{thing} this is."',
                        "{hero} wanted to keep the {thing}. But {hero.he} knew that it was not right.",
                    ),
                    (
                        'First, {hero} asked a man with a dog. "No, that is not mine," said the man. Then '
                        '{hero.he} asked two girls on bikes. "It is not ours," they said.',
                        "{hero} asked a boy with a ball, but the boy said no. {hero} asked a mother with a "
                        "baby, but it was not hers.",
                    ),
                    (
                        '[At last|In the end|Finally], {hero} met {owner.a} who looked very worried. "I '
                        'lost my {thing}," said {owner}. "What does it look like?" asked {hero}. "It is '
                        '{thing.adjective}," said {owner}, "and I have had it for years."',
                        'Then {owner.a} came back along the path and looked at the ground. "Did you lose '
                        'something?" asked {hero}. "Yes," said {owner}, "my {thing}. It is '
                        '{thing.adjective}."',
                    ),
                    (
                        '"Then this is yours," said {hero}, and gave the {thing} back. {owner} was so '
                        "happy that {owner.he} gave {hero} {reward}.",
                        '{hero} held out the {thing.full}. "My {thing}!" [cried|shouted] {owner}. '
                        "{owner.He} thanked {hero} with {reward}.",
                    ),
                    (
                        "{hero} went home with empty pockets and a happy heart.",
                        '"You are an honest {hero.kind}," said {owner}. {hero} felt ten feet tall.',
                        'At home, {hero} told {hero.his} {parent} about it. "I am proud of you," said '
                        "{hero.his} {parent}.",
                    ),
                ),
                "keep": (
                    (
                        "So {hero} took the {thing} and ran home. {hero.he} hid it under the bed and told "
                        "nobody.",
                        '"Now it is mine," said {hero}. {hero.he} took the {thing} home and hid it in a '
                        "drawer.",
                    ),
                    (
                        "But that night, {hero} could not sleep. {hero.he} thought about the {thing}. "
                        "Somewhere, somebody was looking for it.",
                        "But at dinner, {hero} could not eat. {hero.his} tummy felt strange, as if "
                        "{hero.he} had swallowed a stone.",
                    ),
                    (
                        "The next [day|morning], {hero} saw {owner.a} who was looking for something "
                        '{place}. "I lost my {thing} here," said {owner}. "It was a present from my '
                        'mother." {hero} turned red.',
                        'In the morning, {hero} told {hero.his} {parent} everything. "It is not too late '
                        'to do the right thing," said {hero.his} {parent}. So they walked back and found '
                        "{owner.a} who was searching {place}.",
                    ),
                    (
                        '"I found it yesterday," {hero} said in a small voice, "and I kept it. I am '
                        'sorry." {hero.He} gave the {thing} to {owner}. "It was brave of you to tell me," '
                        "said {owner}.",
                        '{hero} held out the {thing.full}. "Please do not be angry with me," {hero.he} '
                        'said. {owner} was not angry at all. "Thank you for bringing it back," {owner.he} '
                        "said.",
                    ),
                    (
                        "That night, {hero} slept very well. {hero.he} never kept a thing that was not "
                        "{hero.his} own again.",
                        "The bad feeling was gone. {hero} had learned that it feels better to be honest.",
                    ),
                ),
            },
        ),
    ),
)


FEARS = (
    Facts(
        fear="the dark",
        sign="slept with a lamp beside the bed",
        crisis="ran into a dark cellar and did not come back",
        deed="walked down the stairs into the dark, one step at a time,",
        after="The dark was only dark",
    ),
    Facts(
        fear="high places",
        sign="never climbed the big slide",
        crisis="climbed onto the roof of the shed and could not get down",
        deed="climbed up the ladder and did not look down once",
        after="From up here, the world looked beautiful",
    ),
    Facts(
        fear="water",
        sign="never went into the pond with the others",
        crisis="fell into the pond and could not get out",
        deed="stepped into the cold water, which came up to {hero.his} knees,",
        after="The water was not so bad at all",
    ),
    Facts(
        fear="thunder",
        sign="hid under the bed when there was a storm",
        crisis="ran out into a storm and did not come back",
        deed="put on a raincoat and went out, although the thunder roared,",
        after="The thunder was loud, but it could not hurt anybody",
    ),
    Facts(
        fear="spiders",
        sign="would never go into the old barn",
        crisis="got stuck in the old barn, where big spiders lived",
        deed="marched into the barn, past a hundred spiders,",
        after="The spiders had been more afraid than {hero}",
    ),
)

BRAVE = Plot(
    "brave",
    roles={
        "hero": child(traits=("little", "shy", "quiet", "careful")),
        "friend": child(unlike="hero"),
        "pet": named_animal(("puppy", "kitten"), traits=("white", "tiny", "fluffy", "spotted")),
        "row": one_of(FEARS),
    },
    beats=(
        (
            "<intro> {hero} was afraid of {row.fear}. {hero.he} {row.sign}.",
            "<intro> There was only one thing that scared {hero.him}, and that was {row.fear}. {hero.he} "
            "{row.sign}.",
        ),
        (
            '{hero.his} friend {friend} was not afraid of {row.fear}. "You are a baby," {friend} said and '
            "laughed. That hurt {hero}.",
            '"Why are you so scared?" asked {hero.his} friend {friend}, and laughed. "I do not know," '
            '{hero} said. "I just am."',
        ),
        (
            "{friend} had {pet.a} named {pet}. <day>, {pet} {row.crisis}.",
            "<day>, {hero} and {friend} were playing with {friend}'s {pet.kind}, {pet}. [Suddenly|All of a "
            "sudden], {pet} {row.crisis}.",
        ),
        (
            '{friend} [began|started] to cry. "I hurt my foot this morning, and I cannot run," {friend.he} '
            'said. "Please help {pet}!"',
            '"My poor {pet}!" [cried|shouted] {friend}. {friend.His} legs were shaking. "Now I am the one '
            'who is scared," {friend} said.',
        ),
        (
            "{hero}'s heart beat like a drum. But {hero.he} could hear {pet} crying. {hero.he} {row.deed} "
            "and found the {pet.kind}.",
            '{hero} was [scared|frightened|afraid] too. "{pet} needs me," {hero.he} thought. {hero.he} '
            "took a deep breath. Then {hero.he} {row.deed} and picked up {pet}.",
        ),
        (
            '{row.after}. "Come, {pet}," {hero} said. "I will take you back to {friend}."',
            "{row.after}. {pet} licked {hero}'s chin, and {hero} had to laugh.",
        ),
        (
            '"You are the bravest {hero.kind} I know," said {friend}. "I am sorry that I laughed at you."',
            '{friend} hugged {pet} and then hugged {hero}. "I could not have done that," {friend} said.',
        ),
        (
            "That day, {hero} learned that being brave means doing something even when you are scared.",
            "{hero} was still a little bit afraid of {row.fear}. But now {hero.he} knew that {hero.he} "
            "could be brave.",
            "[After that|From then on|From that day on], {hero} was never afraid of {row.fear} again.",
        ),
    ),
)

JOURNEYS = (STUCK_TOY, SAVING_UP, FOUND_THING, BRAVE)
