"""Plots in which a child bakes, grows or builds something; `stories.plots_journeys` explains the marks."""

from mosaic_lab.stories.roles import Fork, Plot, adult, child, one_of
from mosaic_lab.stories.vocabulary import INGREDIENTS, KIND, Facts

CAKE = Plot(
    "cake",
    roles={
        "hero": child(traits=KIND),
        "elder": adult("grandmother", "grandfather", "mother", "father"),
        "thing": one_of(INGREDIENTS),
        "wrong": one_of(INGREDIENTS, lambda row, cast: row.giver != cast["thing"].giver),
        "end": one_of(("party", "burnt", "dropped")),
    },
    beats=(
        (
            "<intro> On a walk, {hero.he} had found {thing.wants} and put it in {hero.his} basket.",
            "<intro> {hero.he} kept {thing.wants} in {hero.his} basket, but {hero.he} did not know yet "
            "what it was good for.",
        ),
        (
            "It was the birthday of {hero.his} {elder}, and {hero} wanted to bake a {thing.cake}. "
            "{hero.he} had flour, and {hero.he} had sugar, but {hero.he} could not find any {thing.need}.",
            "{hero} wanted to surprise {hero.his} {elder} with a birthday cake. {hero.his} {elder} liked "
            "{thing.cake} best of all. But there was one problem: {hero} had no {thing.need}.",
        ),
        (
            'First {hero} went to the {wrong.giver} {wrong.home}. "Do you have any {thing.need}?" '
            '{hero.he} asked. "No," said the {wrong.giver}, "I only have {wrong.need}."',
            '{hero} asked the {wrong.giver} {wrong.home}. The {wrong.giver} was sorry. "I have '
            '{wrong.need}, but I do not have any {thing.need}," it said.',
        ),
        (
            'Then {hero} went to the {thing.giver} {thing.home}. "I will give you {thing.need}," said the '
            '{thing.giver}, "if you bring me {thing.wants}."',
            '"Go to the {thing.giver} {thing.home}," it added. So {hero} did. "I have plenty of '
            '{thing.need}," said the {thing.giver}. "But what I really want is {thing.wants}."',
        ),
        (
            '{hero} laughed and looked into {hero.his} basket. "Here you are!" {hero.he} said. The '
            "{thing.giver} was [delighted|very pleased], and {hero} carried the {thing.need} home.",
            "That was easy! {hero} opened {hero.his} basket and gave the {thing.giver} what it wanted. In "
            "return, {hero.he} got all the {thing.need} that {hero.he} needed.",
        ),
        Fork(
            "end",
            {
                "party": (
                    (
                        "[In the evening|That evening], the {thing.cake} stood on the table with a candle "
                        'on top. "Happy birthday!" [cried|shouted] {hero}. {hero.his} {elder} had three '
                        "pieces.",
                        "{hero} mixed and stirred and baked. When {hero.his} {elder} came in, the whole "
                        'house smelled of {thing.cake}. "This is the best present of all," said {hero.his} '
                        "{elder}.",
                    ),
                ),
                "burnt": (
                    (
                        "{hero} put the cake in the oven and sat down to rest. But {hero.he} fell asleep, "
                        "and the cake turned black. <sad>",
                        "{hero} baked the cake, but {hero.he} forgot to look at the clock. Smoke came out "
                        "of the oven. The {thing.cake} was burnt!",
                    ),
                    (
                        '"Do not worry," said {hero.his} {elder}. "There are some {thing.need} left. Let '
                        'us bake a new one together." And that was even more fun.',
                        '{hero.his} {elder} cut off the black part and took a bite of the rest. "You made '
                        'it for me, so it is good," said {hero.his} {elder}, and gave {hero} a kiss.',
                    ),
                ),
                "dropped": (
                    (
                        "The cake came out of the oven, round and warm. But as {hero} carried it to the "
                        "table, {hero.he} tripped, and the {thing.cake} fell on the floor.",
                    ),
                    (
                        "Then there was a knock at the door. It was the {thing.giver}, and the "
                        "{wrong.giver} was there too. They had made a big pie for the party! {hero} and "
                        "{hero.his} {elder} asked them to come in.",
                        "{hero.his} {elder} did not mind. They put a candle in a piece of bread, sang a "
                        "song, and told stories until the moon came out.",
                    ),
                ),
            },
        ),
    ),
)

WEATHER = (
    Facts(trouble="It did not rain for many days, and the ground was dry", fix="carried water from the well"),
    Facts(
        trouble="Hungry snails came and wanted to eat the leaves",
        fix="carried the snails to the far end of the field",
    ),
    Facts(
        trouble="The nights turned cold, and the leaves [began|started] to shiver",
        fix="wrapped a scarf around the plant",
    ),
    Facts(trouble="Tall weeds grew all around it and took the light away", fix="pulled out the weeds"),
)
PLANTS = (
    Facts(
        plant="sunflower",
        grew="A big yellow flower opened and looked over the fence",
        use="The birds ate its seeds",
    ),
    Facts(
        plant="pumpkin",
        grew="A round orange pumpkin lay in the garden",
        use="{hero} and {hero.his} {elder} made soup for the whole street",
    ),
    Facts(
        plant="strawberry",
        grew="Sweet red strawberries hung between the leaves",
        use="{hero} and {hero.his} {elder} ate them with cream",
    ),
    Facts(
        plant="tomato",
        grew="Fat red tomatoes shone in the sun",
        use="{hero} and {hero.his} {elder} put them on a pizza",
    ),
    Facts(
        plant="bean",
        grew="Long green beans climbed up to the roof",
        use="{hero} and {hero.his} {elder} cooked them for dinner",
    ),
    Facts(
        plant="melon",
        grew="A melon as big as a ball lay on the ground",
        use="It was enough for all the children",
    ),
    Facts(plant="rose", grew="A pink rose opened in the morning sun", use="Its smell filled the whole house"),
)

SEED = Plot(
    "seed",
    roles={
        "hero": child(),
        "elder": adult("grandmother", "grandfather"),
        "plant": one_of(PLANTS),
        "hoped": one_of(PLANTS, lambda row, cast: row.plant != cast["plant"].plant),
        "weather": one_of(WEATHER),
        "end": one_of(("hope", "twist")),
    },
    beats=(
        (
            '<intro> <day>, {hero.his} {elder} gave {hero.him} a tiny seed. "Put it in the ground and take '
            'care of it," said {hero.his} {elder}.',
            "<intro> {hero} had a small garden behind the house. <day>, {hero.he} found a seed in the "
            "pocket of {hero.his} {elder}'s old coat and planted it.",
        ),
        Fork(
            "end",
            {
                "hope": (
                    (
                        '"I think it is a {plant.plant} seed," said {hero}. "It is," said {hero.his} '
                        '{elder}. "But you have to wait."',
                        '"I hope it is a {plant.plant}!" said {hero}. {hero.His} {elder} smiled and said '
                        "nothing.",
                    ),
                ),
                "twist": (
                    (
                        '"I am sure that it is a {hoped.plant}," said {hero}. "Wait and see," said '
                        '{hero.his} {elder}. "Seeds like to surprise us."',
                        '{hero} told everybody that it would be a {hoped.plant}. "Are you sure?" asked '
                        '{hero.his} {elder}. "Yes!" said {hero}.',
                    ),
                ),
            },
        ),
        (
            '{hero} watered the seed every day, but nothing happened. "Is it sleeping?" {hero.he} asked. '
            "[At last|In the end|Finally], a little green leaf came out of the ground.",
            "A week went by. Every morning, {hero} ran into the garden to look. Then, one day, something "
            "small and green stood there.",
        ),
        (
            "But growing is not easy. {weather.trouble}. {hero} did not give up. Every evening, {hero.he} "
            "{weather.fix}.",
            'Then came a bad time. {weather.trouble}. "You will not die," {hero} told the plant. {hero.He} '
            "{weather.fix}, day after day.",
        ),
        (
            "The plant grew and grew. {plant.grew}.",
            "Summer came, and the plant was big and strong. One morning, there was a surprise. {plant.grew}.",
        ),
        Fork(
            "end",
            {
                "hope": (
                    (
                        '"It is a {plant.plant}, just as I hoped!" [cried|shouted] {hero}. {plant.use}.',
                        "<glad> It was just what {hero.he} had hoped for. {plant.use}.",
                    ),
                ),
                "twist": (
                    (
                        "It was not a {hoped.plant} at all! It was a {plant.plant}. {hero} [laughed and "
                        "laughed|had to laugh|laughed out loud]. {plant.use}.",
                        '"But that is no {hoped.plant}!" said {hero}. "No," said {hero.his} {elder}, "it '
                        'is a {plant.plant}. Do you like it?" {hero} liked it even better. {plant.use}.',
                    ),
                ),
            },
        ),
        (
            "In the end, {hero} kept one seed for the next year.",
            '"Good things take time," said {hero.his} {elder}.',
            "{hero} had learned that you must be patient and never give up.",
        ),
    ),
)


BUILDS = (
    Facts(
        thing="sand castle",
        where="on the beach",
        made="It had four towers and a flag made from a leaf",
        enemy="A big wave came and washed it away",
        advice="Build it farther from the water, with a wall around it",
        again="carried the sand up the beach and built a wall of stones",
        test="The next wave came. It stopped at the wall",
    ),
    Facts(
        thing="snowman",
        where="in the yard",
        made="It had a carrot nose and two black stones for eyes",
        enemy="The sun came out, and the snowman melted",
        advice="Build it in the shade, where the sun cannot find it",
        again="rolled new balls of snow behind the house, under the big tree",
        test="The sun shone all day. But in the shade, it stayed cold",
    ),
    Facts(
        thing="tent",
        where="on the lawn",
        made="It was made of two sheets and a rope",
        enemy="The wind blew it over the hedge",
        advice="Put heavy stones on the corners",
        again="hung up the sheets again and put a big stone on every corner",
        test="The wind blew as hard as it could. The tent did not move",
    ),
    Facts(
        thing="paper boat",
        where="beside the stream",
        made="It had a red sail and a name on its side",
        enemy="The paper got wet, and the boat sank",
        advice="Rub the paper with a candle, so that it stays dry",
        again="folded a new one and rubbed it with a candle",
        test="It sailed over the little waves. Not a drop came in",
    ),
    Facts(
        thing="tower of blocks",
        where="in the living room",
        made="It was as tall as a chair",
        enemy="The dog ran by and wagged its tail, and all the blocks came down",
        advice="Start with a wide bottom, in a corner",
        again="went to a corner and put ten blocks side by side before going up",
        test="The dog came back and wagged its tail. The tower shook a little, but it stood",
    ),
    Facts(
        thing="dam",
        where="in the brook",
        made="It was made of sticks and leaves",
        enemy="The water pushed, and the dam broke",
        advice="Put stones at the bottom and mud between the sticks",
        again="brought stones for the bottom and filled the cracks with mud",
        test="The water rose higher and higher. The dam held",
    ),
)

BUILDING = Plot(
    "building",
    roles={
        "hero": child(),
        "helper": adult("grandmother", "grandfather", "mother", "father"),
        "row": one_of(BUILDS),
        "friend": child(unlike="hero"),
        "end": one_of(("alone", "friend")),
    },
    beats=(
        (
            "<intro> <day>, {hero} built a {row.thing} {row.where}. {row.made}.",
            "<intro> {hero.he} loved to make things. <day>, {hero.he} made a {row.thing} {row.where}. "
            "{row.made}.",
        ),
        (
            '"This is the best {row.thing} ever," said {hero}. But then something bad happened. {row.enemy}.',
            "{hero} wanted to show it to {hero.his} {helper} and [ran|hurried|rushed] to get {helper.him}. "
            "But it was too late. {row.enemy}.",
        ),
        (
            "<sad>",
            '"All my work is gone!" [cried|shouted] {hero}.',
            '"I will never make a {row.thing} again," said {hero}.',
        ),
        Fork(
            "end",
            {
                "alone": (
                    (
                        '{hero.his} {helper} sat down beside {hero.him}. "Do you know what I would do?" '
                        '{helper.he} said. "{row.advice}."',
                        '"Why do you not try again?" asked {hero.his} {helper}. "{row.advice}. Then it '
                        'will be safe."',
                    ),
                    (
                        "{hero} dried {hero.his} tears. {hero.he} {row.again}. It took [a long time|many "
                        "hours|all afternoon].",
                        '"That is a good idea," said {hero}. So {hero.he} {row.again}.',
                    ),
                ),
                "friend": (
                    (
                        'A {friend.kind} named {friend} had seen it all. "That happened to me, too," said '
                        '{friend}. "I can tell you what to do. {row.advice}."',
                        '"Can I help you?" asked {friend}, {friend.a} from next door. "I know a trick. '
                        '{row.advice}."',
                    ),
                    (
                        "So {hero} and {friend} worked side by side. They {row.again}.",
                        "With two, it was more fun. They {row.again}, and they laughed a lot.",
                    ),
                ),
            },
        ),
        (
            '"Now we will see," said {hero}. {row.test}.',
            "[At last|In the end|Finally], the new {row.thing} was ready. {row.test}.",
        ),
        (
            '"Hooray!" [cried|shouted] {hero}. "It is even better than the first one!"',
            "<glad> The new {row.thing} was much better than the old one.",
        ),
        Fork(
            "end",
            {
                "alone": (
                    (
                        '"You did not give up," said {hero.his} {helper}. "That is how we learn."',
                        "{hero.his} {helper} took a picture of {hero} and the {row.thing}.",
                    ),
                ),
                "friend": (
                    (
                        "[After that|From then on|From that day on], {hero} and {friend} always built "
                        "things together.",
                        'Then {hero.his} {helper} called them in for [cake|soup|cocoa]. "Tomorrow we will '
                        'make another one," said {friend}.',
                    ),
                ),
            },
        ),
    ),
)

MAKING = (CAKE, SEED, BUILDING)
