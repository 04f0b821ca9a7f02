"""Plots with animals in them; `stories.plots_journeys` explains the marks."""

from mosaic_lab.stories.roles import Fork, Plot, adult, child, named_animal, one_of
from mosaic_lab.stories.vocabulary import GREEDY, NUMBERS, PET_NAMES, PROUD, Facts

LURES = (
    Facts(lure="a blue butterfly", chase="followed it over the hills", gone="flew away"),
    Facts(lure="a rolling nut", chase="ran after it down the slope", gone="rolled into a crack"),
    Facts(lure="a jumping frog", chase="hopped behind it through the grass", gone="jumped into a pond"),
    Facts(lure="a feather in the wind", chase="chased it between the trees", gone="sailed up into the sky"),
    Facts(lure="a funny beetle", chase="crawled after it under the bushes", gone="hid below a stone"),
)
ADVICE = (
    Facts(
        says="follow the stream, because it runs past our home",
        sees="heard water. It was the stream! {hero} walked along it, around one bend and then around "
        "another",
    ),
    Facts(
        says="look for the tallest tree, because we live below it",
        sees="climbed on a rock and looked around. Far away stood a tree that was taller than all the "
        "others. {hero} walked straight to it",
    ),
    Facts(
        says="stay where you are and sing our song, and I will find you",
        sees="sat down and sang the song, first softly and then loudly. And somebody sang back",
    ),
    Facts(
        says="walk toward the hill with two tops, because our home is at its foot",
        sees="looked over the bushes. There was the hill with two tops! {hero} walked and walked until it "
        "was near",
    ),
    Facts(
        says="ask the old owl, because it knows every path",
        sees="called for the old owl. It came without a sound and flew from branch to branch to show the "
        "path home",
    ),
)

LOST_CUB = Plot(
    "lost cub",
    roles={
        "hero": named_animal(("fox", "bear cub", "rabbit", "deer", "hedgehog", "mouse", "raccoon", "badger")),
        "parent": adult("mother", "father", "grandmother", "grandfather"),
        "other": named_animal(
            ("snail", "duck", "worm", "goose", "lizard"), traits=("busy", "sleepy", "grumpy"), unlike="hero"
        ),
        "lure": one_of(LURES),
        "advice": one_of(ADVICE),
    },
    beats=(
        (
            "Once upon a time, {hero.a} named {hero} lived in the forest with {hero.his} {parent}.",
            "Deep in the forest lived {hero.a} called {hero}. {hero.he} lived with {hero.his} {parent} in "
            "a cozy little home.",
        ),
        (
            'Every morning, {hero.his} {parent} told {hero.him}, "If you ever get lost, {advice.says}." '
            '"Yes, yes," said {hero}.',
            '"Remember one thing," {hero.his} {parent} often said. "If you are lost, {advice.says}." '
            "{hero} hardly listened.",
        ),
        (
            "<day>, {hero} saw {lure.lure} and {lure.chase}. But then it {lure.gone}, and {hero} was alone.",
            "<day>, {lure.lure} came by. {hero} {lure.chase}. In the end, it {lure.gone}. Now {hero} "
            "looked around and did not know the place.",
        ),
        (
            'It was getting dark. "Where is my home?" {hero} asked {other}, {other.a}. "I have no idea," '
            'said {other}. "I have never left this place."',
            '{hero} met {other.a} named {other}. "Can you tell me the way home?" asked {hero}. "I only '
            'know the way to my own bed," said {other}, and went there.',
        ),
        (
            "{hero} was [scared|frightened|afraid]. A cold wind blew, and all the trees looked the same.",
            "{hero} sat down under a bush and cried. It [began|started] to rain.",
        ),
        (
            "Then {hero} remembered what {hero.his} {parent} always said. {hero.he} {advice.sees}.",
            '"What did my {parent} tell me every day?" {hero} thought. Now it came back to {hero.him}. '
            "{hero.he} {advice.sees}.",
        ),
        (
            "And there was {hero.his} {parent}! They hugged each other for a long time.",
            "[Soon|Before long,] {hero} was back with {hero.his} {parent}, who had been looking for "
            "{hero.him} all day.",
        ),
        (
            '"You were right, {parent.call}," said {hero}. "From now on, I will listen to you."',
            "After supper, {hero} fell asleep at once. {hero.he} dreamed of {lure.lure}, but in the dream, "
            "{hero.he} did not run after it.",
            "The next [day|morning], when {hero.his} {parent} gave {hero.him} the same advice, {hero} "
            "listened to every word.",
        ),
    ),
)

FAST = ("hare", "fox", "horse", "deer", "rabbit")
SLOW = ("turtle", "snail", "mole", "hedgehog", "duck")
STOPS = (
    Facts(stop="lay down in the sun and fell asleep", clue="loved to sleep", wake="woke up"),
    Facts(stop="saw a bush full of berries and [began|started] to eat", clue="loved to eat", wake="was full"),
    Facts(
        stop="looked into a puddle to see how fine a face was in it", clue="loved mirrors", wake="looked up"
    ),
    Facts(stop="stopped to tell the birds about the race", clue="loved to talk", wake="was done talking"),
)

RACE = Plot(
    "race",
    roles={
        "fast": named_animal(FAST, traits=PROUD),
        "hero": named_animal(SLOW, traits=("slow", "patient", "quiet", "modest"), unlike="fast"),
        "stop": one_of(STOPS),
        "goal": one_of(("the old bridge", "the big rock", "the apple tree", "the end of the lake")),
        "end": one_of(("win", "help", "lose")),
    },
    beats=(
        (
            "Once upon a time, there was {fast.a} named {fast}. {fast.he} {stop.clue}, but most of all, "
            "{fast.he} loved to win.",
            "{fast} was {fast.a} who {stop.clue}. {fast.he} told everybody how fast {fast.he} could run.",
        ),
        (
            '<day>, {fast} met {hero}, {hero.a}. "You are so slow that it makes me laugh," said {fast}. "I '
            'can run to {goal} before you take ten steps."',
            'In the same meadow lived {hero.a} named {hero}. "You will never be as fast as I am," {fast} '
            'told {hero.him}. "I could beat you in my sleep!"',
        ),
        (
            '"Then let us have a race," said {hero}. "The first one at {goal} wins." {fast} laughed so '
            "hard that {fast.he} fell over.",
            '"Let us see," {hero} said. "We can race to {goal}." All the animals came to watch.',
        ),
        (
            "They started, and {fast} was gone like the wind. {hero} took one step after the other and did "
            "not stop.",
            '"Ready, steady, go!" cried the crow. {fast} ran ahead. {hero} was soon far behind, but '
            "{hero.he} kept going.",
        ),
        Fork(
            "end",
            {
                "win": (
                    (
                        "{fast} looked back and could not see {hero} anywhere. So {fast.he} {stop.stop}.",
                        "Halfway to {goal}, {fast} thought that there was plenty of time. {fast.he} "
                        "{stop.stop}.",
                    ),
                    (
                        "When {fast} {stop.wake}, {hero} was almost at {goal}. {fast} ran as never before, "
                        "but it was too late. {hero} had won!",
                        "Meanwhile, {hero} came closer and closer to {goal}. {fast} {stop.wake} just in "
                        "time to hear the animals cheer for {hero}.",
                    ),
                    (
                        '"You are fast, {fast}," said {hero}, "but you have to keep going."',
                        "{fast} was very quiet that evening, and {fast.he} never laughed at {hero} again.",
                    ),
                ),
                "help": (
                    (
                        "But {fast} did not look at the path. {fast.he} fell into a hole and hurt a leg.",
                        "Near {goal}, {fast} jumped over a fence without looking, and landed in a thorny "
                        "bush. {fast.he} was stuck.",
                    ),
                    (
                        'Much later, {hero} came by. {goal} was very near. "You can win now," said {fast}. '
                        "But {hero} stopped and helped {fast} out.",
                        'When {hero} came to the place, {hero.he} heard {fast} crying. "The race can '
                        'wait," said {hero}. Slowly and carefully, {hero.he} got {fast} out.',
                    ),
                    (
                        'Then they walked to {goal} side by side. "We both won," said {hero}. "No," said '
                        '{fast}, "you won. You are a true friend."',
                        "They reached {goal} together, and nobody asked who was first. {fast} never "
                        "boasted again.",
                    ),
                ),
                "lose": (
                    (
                        "{fast} won the race, of course. {fast.he} waited at {goal} and looked around for "
                        "somebody to cheer.",
                        'It took {fast} only a minute to get to {goal}. "I am the best!" {fast.he} shouted.',
                    ),
                    (
                        "But nobody was there. All the animals were walking beside {hero}. They were "
                        "singing and telling jokes.",
                        "But the animals had not come to {goal}. They had stayed with {hero}, who knew "
                        "such good stories.",
                    ),
                    (
                        '{fast} felt lonely. {fast.he} walked back to {hero}. "May I walk with you?" '
                        '{fast.he} asked. "Of course," said {hero}.',
                        "{fast} had won the race, but {hero} had won all the friends.",
                    ),
                ),
            },
        ),
    ),
)

STORES = (
    Facts(food="nuts", where="in a hollow tree", kinds=("squirrel", "mouse")),
    Facts(food="apples", where="behind a big stone", kinds=("badger", "hedgehog")),
    Facts(food="berries", where="in a cave", kinds=("bear cub", "fox")),
    Facts(food="beans", where="under the old barn", kinds=("rat", "mouse")),
    Facts(food="carrots", where="in a hole below the hedge", kinds=("rabbit", "mole")),
)

GREEDY_ANIMAL = Plot(
    "greedy animal",
    roles={
        "store": one_of(STORES),
        "hero": lambda rng, cast: named_animal(cast["store"].kinds, traits=GREEDY)(rng, cast),
        "other": named_animal(
            ("sparrow", "frog", "beetle", "robin", "shrew"), traits=("thin", "poor"), unlike="hero"
        ),
        "count": one_of(NUMBERS),
        "end": one_of(("stuck", "thieves", "rain")),
    },
    beats=(
        (
            "Once upon a time, there was {hero.a} named {hero}. All summer, {hero.he} gathered "
            "{store.food} and hid them {store.where}.",
            "{hero} was {hero.a} who had a secret. {store.where}, {hero.he} kept more {store.food} than "
            "anybody could eat.",
        ),
        (
            'When winter came, {other.a} named {other} knocked at the door. "My {count.most} children are '
            'hungry," said {other}. "Could you give us some {store.food}?"',
            'One [cold|gray|snowy|windy] day, {hero} met {other.a} called {other}. "We have nothing to '
            'eat," said {other}, "and I have {count.most} little ones. Could you spare a few {store.food}?"',
        ),
        (
            '"No!" said {hero}. "They are all mine. Go and find your own {store.food}." {other} went away '
            "in the snow.",
            '"I worked for my {store.food}, so I will eat them myself," said {hero}, and shut the door.',
        ),
        Fork(
            "end",
            {
                "stuck": (
                    (
                        "{hero} was so afraid of losing the {store.food} that {hero.he} ate and ate. "
                        "{hero.he} grew as round as a ball. When {hero.he} wanted to go out, {hero.he} got "
                        "stuck in the door.",
                        "That night, {hero} ate {store.food} until nothing was left. In the morning, "
                        "{hero.he} was so fat that {hero.he} could not get out of the house.",
                    ),
                    (
                        "{hero} called for help. {other} heard it and came with all {count.most} children. "
                        'They pulled and pulled. Pop! {hero} was free. "Why did you help me?" asked '
                        '{hero}. "Because nobody should be stuck alone," said {other}.',
                    ),
                    (
                        "[After that|From then on|From that day on], {hero} shared everything that "
                        "{hero.he} had.",
                        "The next summer, {hero} gathered {store.food} again, and half of them were for "
                        "{other}.",
                    ),
                ),
                "thieves": (
                    (
                        "One night, the crows came. {hero} was asleep, and there was no friend to wake "
                        "{hero.him}. In the morning, all the {store.food} were gone.",
                        "While {hero} was out for a walk, somebody came and took all the {store.food}. The "
                        "neighbors had seen it, but none of them had said a word, because {hero} had never "
                        "been kind to them.",
                    ),
                    (
                        "Now {hero} was hungry too. {hero.he} sat in the cold and thought of {other}. But "
                        "it was too late to be kind.",
                        "That winter was long and hard for {hero}. If you do not share, you may end up "
                        "with nothing.",
                    ),
                ),
                "rain": (
                    (
                        "[A few days later|Not long after|One week later], the snow melted, and water ran "
                        "into the hiding place. {hero} had to flee. The water carried the {store.food} "
                        "away.",
                    ),
                    (
                        '{other} found {hero} wet and shaking. "Come with me," said {other}. In {other}\'s '
                        "little home, it was warm, and there was soup for everybody, even for {hero}.",
                    ),
                    (
                        '"You gave me your soup, and I gave you nothing," said {hero}. "I was wrong." '
                        "[After that|From then on|From that day on], {hero} was greedy no more.",
                        "{hero} looked at {other} and the {count.most} children. {hero.he} had lost the "
                        "{store.food}, but {hero.he} had found a family.",
                    ),
                ),
            },
        ),
    ),
)

HURT = (
    Facts(
        kind="bird",
        hurt="had a broken wing",
        care="tied a little stick to the wing",
        home="into the sky",
        way="flew",
        gift="a blue feather",
    ),
    Facts(
        kind="hedgehog",
        hurt="had cut its foot on a piece of glass",
        care="washed the foot",
        home="under the hedge",
        way="crawled",
        gift="a red apple",
    ),
    Facts(
        kind="rabbit",
        hurt="had been caught in a wire",
        care="put cool cream on its leg",
        home="into the tall grass",
        way="hopped",
        gift="a fresh carrot",
    ),
    Facts(
        kind="squirrel",
        hurt="had fallen out of its nest",
        care="made a nest from an old sock",
        home="up the oak tree",
        way="ran",
        gift="a golden acorn",
    ),
    Facts(
        kind="frog",
        hurt="was too weak to jump",
        care="put it in a bowl with fresh water",
        home="into the pond",
        way="hopped",
        gift="a round pebble",
    ),
)

HURT_ANIMAL = Plot(
    "hurt animal",
    roles={
        "hero": child(),
        "parent": adult("mother", "father", "grandmother", "grandfather"),
        "row": one_of(HURT),
        "pet": one_of(PET_NAMES),
        "place": one_of(("beside the road", "under a bush", "behind the shed", "on the steps")),
        "weeks": one_of(("Two", "Three", "Four", "Five")),
    },
    beats=(
        (
            "<intro> <day>, {hero.he} found a little {row.kind} {place}. It {row.hurt}.",
            "<intro> {hero.he} had always wished for a pet. <day>, there was a small {row.kind} {place}. "
            "It {row.hurt}.",
        ),
        (
            '{hero} carried the {row.kind} home in {hero.his} hat. "Can we help it?" {hero.he} asked '
            '{hero.his} {parent}. "Yes," said {hero.his} {parent}, "but it is a wild animal. When it is '
            'well, you must let it go."',
            '"We can take care of it," said {hero.his} {parent}, "until it is well. Then it must go back '
            'to its own home." {hero} nodded.',
        ),
        (
            "They {row.care}. {hero} called the {row.kind} {pet} and sat beside it every day after school.",
            "{hero.his} {parent} showed {hero.him} what to do. Together, they {row.care}. {hero} gave the "
            "{row.kind} a name, and that name was {pet}.",
        ),
        (
            "[At first|In the beginning], {pet} was afraid. But soon it ate from {hero}'s hand, and {hero} "
            "did not want to think about the day when it would leave.",
            "Day by day, {pet} grew stronger. And day by day, {hero} loved it more.",
        ),
        (
            '{weeks} weeks later, {pet} was well. "Please, can I keep it?" asked {hero}. "Look at {pet}," '
            'said {hero.his} {parent}. "Where does it want to be?" {pet} was looking out of the window.',
            "{weeks} weeks went by. {pet} was strong again, and it [began|started] to look out of the "
            "window all day. {hero} knew what that meant.",
        ),
        (
            "So {hero} took {pet} outside. With tears in {hero.his} eyes, {hero.he} opened {hero.his} "
            "hands. {pet} {row.way} {row.home} and was gone.",
            '"Goodbye, {pet}," {hero} whispered. {pet} looked back once. Then it {row.way} {row.home}.',
        ),
        (
            "In spring, {hero} found {row.gift} on the window sill. {hero.he} knew who had left it there.",
            'One morning, {row.gift} lay in front of the door. "It is from {pet}!" {hero} said, and '
            "{hero.he} was right.",
            "{hero} missed {pet}. But sometimes, when {hero.he} was very quiet, a {row.kind} came close "
            "and was not afraid.",
        ),
    ),
)

ANIMALS = (LOST_CUB, RACE, GREEDY_ANIMAL, HURT_ANIMAL)
