"""Sentences with which the grammar's stories take up what a prompt asks for.

Besides the marks of `stories.grammar` and the roles of a story there are {verb}, such as "jump" or "carry
stones"; {thing}, such as "a red kite" or "an old king"; {foe}, an animal; and {moral}. The sentences fit any
hero and any time, and nobody in them is a he or a she but the hero.
"""

# After the hero is introduced.
LIKED_TO_VERB = (
    "{hero} [loved|liked] to {verb}.",
    "{hero} liked to {verb}, and {hero.he} was [very|really] good at it.",
    "Nobody liked to {verb} more than {hero}.",
    "When nobody was looking, {hero} liked to {verb}.",
    "{hero} had just learned how to {verb}, and {hero.he} was [very|so] proud of it.",
    "More than anything else, {hero} wanted to {verb}.",
    "If you asked {hero} what was the best thing to do, {hero.he} said that it was to {verb}.",
    "{hero} had never tried to {verb}, but {hero.he} wanted to learn it [soon|one day].",
)
LIKED_TO_VERB_WITH_SOMEBODY = (
    "{hero} liked to {verb} with {thing}.",
    "{hero} knew {thing}, and sometimes they met to {verb}.",
    "It was {thing} that had shown {hero} how to {verb}.",
)
KNEW_SOMEBODY = (
    "Not far away lived {thing}, and {hero} [waved|said hello] whenever they met.",
    "{hero} sometimes met {thing}, and then they talked [for a while|about the weather].",
    "Once, {hero} had made friends with {thing}.",
    "{hero} knew {thing}, and they often had lunch together.",
    "Everybody there knew {thing}, and so did {hero}.",
)
KNEW_SOMETHING = (
    "Not far away, there was {thing}, and {hero} often stopped to look at it.",
    "{hero} had once seen {thing}, and {hero.he} still thought about it.",
    '{hero} sometimes passed {thing}, and every time {hero.he} said, "How [nice|funny|strange]!"',
    "There was {thing} that {hero} [liked|loved] to look at.",
    "If you asked {hero} what {hero.he} had seen that [day|week], {hero.he} told you about {thing}.",
)
# For what one does not see every day: a shy spoon.
IMAGINED = (
    "{hero} had a picture book about {thing}, and {hero.he} knew every page of it.",
    "{hero} had once drawn {thing}, and {hero.he} had kept the picture.",
    "{hero}'s favorite song was about {thing}.",
    "{hero} knew a [funny|long|silly] rhyme about {thing}.",
    "At night, {hero} sometimes dreamed about {thing}.",
    "In {hero}'s favorite story, there was {thing}.",
    "{hero} had once thought up a game, and in that game there was {thing}.",
)

# Near the end.
AT_LAST_VERB = (
    "After all that, {hero} only wanted to {verb}.",
    "And then there was still time to {verb}.",
    '"Now I would like to {verb}," said {hero}.',
    "{hero} wondered what to do next, and then {hero.he} knew. It was time to {verb}.",
    "[Before long|A little later], {hero} went out to {verb}, and {hero.he} felt fine.",
)
MET_SOMEBODY = (
    "A few days later, {hero} told it all to {thing}, and they talked about it for a long time.",
    'The next week, {hero} met {thing}. "I have heard about you!" said {hero}\'s new friend.',
    "And who had seen it all from far away? It was {thing}.",
)
MET_SOMETHING = (
    "A few days later, {hero} saw {thing} and thought of all that had happened.",
    "A week later, {hero} walked past {thing} and smiled.",
    "And whenever {hero} saw {thing}, {hero.he} remembered it all.",
)
IMAGINED_LATER = (
    "The next night, {hero} dreamed of {thing}.",
    "To remember it all, {hero} made a picture, and in the middle of it was {thing}.",
    "Later, {hero} made up a song about it. There was even {thing} in the song.",
    "Years later, when {hero} told this story, there was also {thing} in it.",
)

# For a word that the grammar does not know.
MENTIONED = (
    '{hero} had learned a new word and said it again and again. It was "{word}."',
    'On a wall, somebody had written one word in big letters, and {hero} could read it. It was "{word}."',
    '{hero} could spell a hard word. It was "{word}."',
    'There was one word that {hero} liked more than all the others. It was "{word}."',
)

DIALOGUES = (
    '"What did you like best?" asked a little bird. "All of it," said {hero}.',
    '"Will you tell me about it?" asked the moon. "Tomorrow," said {hero}. "Now I am too tired."',
    '"What a story!" somebody said. "And all of it is true," said {hero}.',
    '"Are you [tired|sleepy]?" asked the stars. "Only a little," said {hero}. "Good night," said the stars.',
)

# A hint, and what comes of it.
FORESHADOWING = (
    (
        "High up in an old tree, a branch creaked, but nobody looked up.",
        "The next day, the branch that had creaked came down with a crash, just where {hero} had been a "
        "moment before. So that was what the old tree had wanted to say!",
    ),
    (
        "Far away, dark clouds [were coming up|stood over the hills], but who thinks of clouds while the sun "
        "shines?",
        "One evening, the dark clouds were there at last. Thunder rolled, and rain drummed on the roof. "
        "{hero} was glad to be at home.",
    ),
    (
        '"Something is going to come back to you," an old toad had told {hero}, but {hero.he} did not know '
        "what it meant.",
        "A few days later, a [red|blue] button lay in front of {hero}'s door. {hero} had lost it long ago! "
        "The old toad had been right. Something had come back.",
    ),
    (
        "{hero} did not see the tiny hole in {hero.his} bag.",
        "In the end, {hero} looked into {hero.his} bag and found the tiny hole. All {hero.his} lucky stones "
        "had dropped out, one after the other.",
    ),
    (
        "All the time, somebody was watching {hero} from behind a bush, very quietly.",
        "Only now did {hero} find out who had been watching from behind the bush. It was a shy little "
        "[kitten|lamb|puppy] that wanted to be friends.",
    ),
    (
        "There was a strange smell in the air, and {hero} wondered what it was.",
        "At last, {hero} found out about the strange smell. Somebody around the corner had made [cinnamon "
        "buns|plum jam|ginger cookies], and there was enough for everybody.",
    ),
    (
        "Somewhere, a bell rang three times, and {hero} wondered why.",
        "Now {hero} also learned why the bell had rung three times. A circus had come, and it was looking "
        "for somebody like {hero.him}.",
    ),
    (
        "There was something that {hero} had forgotten, but {hero.he} did not know it yet.",
        "Then {hero} remembered what {hero.he} had forgotten. It was to close the window! A sparrow had come "
        "in and was asleep on {hero.his} bed.",
    ),
)

FOES = ("goat", "magpie", "donkey", "rooster", "turkey", "weasel")
FOE_TRAITS = ("rude", "grumpy", "loud", "stubborn")
# How it begins, and how it ends.
CONFLICTS = (
    (
        'There was only one thing that {hero} did not like. It was {foe.a} that lived nearby. "This path is '
        'mine!" it always shouted. "No, it belongs to everybody!" {hero} always said, and then they argued '
        "until both of them were tired.",
        'And {foe}? The next time they met, it shouted as before. But {hero} said, "Let us stop. You take '
        'the left side of the path, and I take the right side." {foe} nodded, and they never argued again.',
    ),
    (
        '{hero} had an enemy. {foe.a} had once eaten {hero.his} breakfast. "Say that you are sorry!" {hero} '
        'had cried. "Never!" {foe} had said. They had not spoken since.',
        'One day, {foe} stood in front of {hero}. "I ate your breakfast, and that was wrong," it said. "I '
        'was angry for much too long," said {hero}. They shared some bread, and the fight was over.',
    ),
    (
        'Every morning, {hero} and {foe.a} [fought|quarreled] about who was first at the well. "I was here '
        'before you!" {foe} always said. "No, you were not!" {hero} always cried, and neither of them would '
        "give in.",
        'The next time, {foe} stepped back from the well. "After you," it said. "No, after you," said '
        "{hero}. Then both of them had to laugh, and that was the end of the fight.",
    ),
    (
        '{foe.a} always made fun of {hero}. "You cannot do anything right!" it said. "That is not true!" '
        "cried {hero}. They never met without a fight.",
        '{foe} had heard about everything. "I was wrong about you," it said to {hero}. "And I was too loud," '
        "said {hero}. So they made peace.",
    ),
)
UNSOLVED = (
    "And {foe}? It [still|only] laughed at {hero}, and they went on fighting.",
    "But {foe} was as [mean|rude] as ever, and it did not want to make peace with {hero}.",
)

TWISTS = (
    "But then something happened that nobody had expected. A little door opened in the ground, and out came "
    '[a tiny dragon|a toad with a crown|a golden mouse]. "I have listened to everything," it said, "and now '
    'I will tell it to my children." Then the door closed, and nobody ever found it again.',
    "Then, to {hero}'s surprise, somebody clapped. It had all been a play! {hero} took a bow, and the "
    "curtain fell.",
    "And then {hero} opened {hero.his} eyes and sat up. It had all been a dream! But beside {hero.him} lay a "
    "[white|blue|golden] feather that had not been there before.",
    'What came next, nobody had expected. A letter fell from the sky. "Dear {hero}," it said, "you have won '
    'a trip to the moon." And {hero} flew there the very next week.',
    "But nobody knew {hero}'s secret. {hero.he} could talk with the birds, and they had told {hero.him} "
    "everything before it happened!",
    "And now comes a surprise. Do you know who is telling you this story? It is I, the [spider|mouse|beetle] "
    "under the roof. I saw it all!",
    "But there was one more surprise. All of this had happened once before, on the same day, a year ago. "
    "{hero} was the only one who knew.",
)

MORAL_SENTENCES = (
    "So {hero} learned [a lesson|something important]: {moral}.",
    "And if you ask what {hero} learned, it is this: {moral}.",
    "Since then, {hero} has known that {moral}.",
    "It is true what people say: {moral}.",
)
MORALS = {
    "stuck toy": ("it is good to ask for help", "those who share soon have friends"),
    "saving up": ("good work is never lost", "what you have worked for is worth more"),
    "found thing": ("honest people sleep well", "you must give back what is not yours"),
    "brave": ("you can be afraid and still be brave", "a friend in need makes you strong"),
    "cake": (
        "a gift from the heart is always a good one",
        "when something goes wrong, you can still have fun",
    ),
    "seed": ("good things take time", "whoever waits and works is rewarded"),
    "building": ("if it falls down, you can build it better", "it pays to try again"),
    "broken rule": ("a lie makes everything worse", "it is best to tell the truth"),
    "sharing": ("things are more fun when you share them", "kindness comes back to you"),
    "quarrel": ("a friend is worth more than being right", "good friends take turns"),
    "broken toy": ("it is better to share than to fight", "when two pull, things break"),
    "odd thing": ("it is fine to be different", "you should not laugh at what you do not understand"),
    "sick friend": ("a good idea can be the best medicine", "true friends think of each other"),
    "lost cub": ("it is wise to listen to those who know more", "good advice is worth remembering"),
    "race": ("slow and steady is a good way to go", "boasting does not make you better"),
    "greedy animal": ("whoever wants everything ends up with nothing", "it is wise to share while you can"),
    "hurt animal": ("to love somebody can mean to let go", "a good deed is not forgotten"),
    "magic wish": ("you should be careful what you wish for", "the things you have may be the best ones"),
    "noise": ("most things are not as scary as they sound", "you should look before you are scared"),
    "swapping": ("what one does not need, another may love", "a fair trade makes everybody happy"),
}

BAD_ENDINGS = (
    "But it did not end well. The next day, {hero} slipped on a wet stone and hurt {hero.his} leg. {hero.he} "
    "had to stay in bed [all summer|for many weeks], and nobody came to visit. {hero} cried every night.",
    "But then a storm came. It tore the roof from {hero}'s home, and everything in it got wet and broke. "
    "{hero} never laughed again as before.",
    "But after that, {hero} began to boast and would not listen to anybody. In the end, all the others went "
    "away, and {hero} sat there alone and cried.",
    "But soon after, {hero} had to move far away. {hero.he} never saw {hero.his} old home or {hero.his} "
    "friends again, and {hero.he} was sad for a long, long time.",
    "But a week later, {hero} got lost in the fog. {hero.he} called and called, and nobody heard {hero.him}. "
    "It was a cold and sad night, and no good came after it.",
    "But from then on, everything went wrong. {hero} lost what {hero.he} loved most, caught a bad cold, and "
    "missed the big party. There was nothing left to be happy about.",
)

# After an opening that no story of the grammar has, whatever it is.
NEW_BEGINNINGS = (
    "but no, that is another story.",
    "that was how the story in the old book began, but the next page was missing.",
    "no, that is not how it began.",
    "so began the old song that everybody knew, but nobody knew how it went on.",
    "but that is too sad a story for today, so let us take another one.",
    "here the storyteller coughed, took a sip of tea and began once more.",
    "those were the first words in a letter, but the rain had washed away the rest.",
    "that was what the parrot said every morning, and nobody knew where it had heard that.",
    "so every story began in the village, until one day somebody told this one.",
    "but let us speak of somebody else.",
)
