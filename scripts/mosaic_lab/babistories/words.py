"""Words to ask for in a story: verbs, nouns and adjectives that small children know, in groups that fit."""

# All of them can stand alone after "to".
VERBS_ALONE = (
    "argue bake balance bathe beg blink blow boast bounce bow brag camp cheer chat chatter chew clap "
    "clean climb complain cook cough count crawl cry cuddle dance dig dive doze draw dream drift drink drive "
    "drum eat exercise explore fight fish float fly garden gallop gaze giggle glide growl grumble guess hide "
    "hike hop howl hum hurry hunt imagine joke jog juggle jump kneel knit laugh learn leap limp listen "
    "march mumble nap nod paddle paint peek play pray practice pretend promise race read rest rhyme ride "
    "roar roll row run rush sail scream sew share shake shiver shout sing sit skate ski skip slide sleep "
    "smile sneak sneeze sniff snore snuggle speak spell spin splash squeak stand stare stretch stroll "
    "study stumble surf sway swim swing talk tap think tiptoe travel tremble trick tumble twirl type "
    "wait wade wake walk wander wave weave whisper whistle wiggle win wink wish wobble wonder work worry "
    "wrestle write yawn yell zoom"
).split()
# These need something to do it to or with.
VERBS_WITH_OBJECT = {
    "admire": "clouds",
    "arrange": "flowers",
    "borrow": "books",
    "bring": "presents",
    "brush": "ponies",
    "build": "sand castles",
    "buy": "stickers",
    "carry": "stones",
    "carve": "little boats",
    "catch": "raindrops",
    "chase": "leaves",
    "collect": "buttons",
    "color": "pictures",
    "cut": "paper stars",
    "decorate": "windows",
    "discover": "secret places",
    "dry": "apples",
    "dust": "shelves",
    "enjoy": "quiet days",
    "feed": "birds",
    "fetch": "sticks",
    "fill": "jars",
    "find": "shells",
    "fix": "toys",
    "fold": "paper hats",
    "follow": "ants",
    "gather": "acorns",
    "give": "presents",
    "grow": "beans",
    "help": "others",
    "hug": "trees",
    "invent": "games",
    "invite": "friends",
    "kick": "pebbles",
    "lift": "buckets",
    "love": "surprises",
    "make": "paper boats",
    "measure": "sticks",
    "mix": "colors",
    "notice": "small things",
    "open": "letters",
    "pack": "bags",
    "peel": "oranges",
    "pick": "berries",
    "plant": "trees",
    "polish": "spoons",
    "pour": "lemonade",
    "protect": "snails",
    "pull": "wagons",
    "push": "carts",
    "rake": "leaves",
    "rescue": "beetles",
    "save": "coins",
    "scatter": "seeds",
    "send": "letters",
    "solve": "puzzles",
    "sort": "buttons",
    "squeeze": "lemons",
    "stir": "soup",
    "taste": "jam",
    "tell": "jokes",
    "throw": "snowballs",
    "tie": "knots",
    "touch": "soft things",
    "visit": "friends",
    "wash": "dishes",
    "watch": "fireflies",
    "water": "flowers",
    "wear": "funny hats",
    "wipe": "windows",
    "wrap": "presents",
}
# Somebody: people and animals.
BEINGS = tuple(
    "actor ant artist astronaut baby baker bat bear beaver bee beetle bird boy bug bull bunny butcher "
    "butterfly camel captain cat caterpillar chicken clown cow cowboy crab cricket crocodile deer dentist "
    "doctor dog dolphin donkey dragon driver duck duckling eagle elephant elf fairy farmer fish firefighter "
    "flamingo fox frog gardener ghost giant giraffe girl goat goose gorilla grasshopper guard hamster hen "
    "hippo horse insect jellyfish judge kangaroo kid king kitten knight ladybug lamb lion lizard lobster "
    "mermaid mole monkey monster moose mouse neighbor nurse octopus ostrich otter owl ox painter "
    "panda parrot peacock penguin pig pigeon pilot pirate pony prince princess puppy queen rabbit raccoon "
    "rat robin robot rooster sailor scientist seal shark sheep shepherd singer skunk snail snake snowman "
    "soldier spider squirrel stranger swan teacher tiger toad turkey turtle vet waiter walrus whale witch "
    "wizard wolf worm zebra".split()
)
# Something that a child can see, draw and wish for.
THINGS = tuple(
    "acorn airplane album anchor apple apron arrow axe bag ball balloon banana band barn basket bath beach "
    "bed bell belt bench bicycle blanket block boat bone book boot bottle bow bowl box branch brick bridge "
    "broom brush bucket bus bush button cabin cage cake camera candle cane cap car card carpet carrot cart "
    "castle cave chain chair chest church circus clock cloud coat coin comb cookie couch cradle crayon crown "
    "cup cupboard curtain cushion desk dish doll door drawer dress drum egg envelope eraser fan farm feather "
    "fence field flag flower flute fork forest fountain garden gate gift glove guitar hammer handle hat "
    "helmet hill hole hook hoop house island jacket jar jug kettle key kite kitchen ladder lake lamp lantern "
    "leaf lemon letter library log magnet map marble market mask mat meadow medal mirror mitten mountain mug "
    "nail napkin necklace needle nest net notebook nut oar orange oven paintbrush palace pan parcel park "
    "path peach pear pebble pen pencil piano picture pie pillow pipe pizza plane plate plum pocket pond pool "
    "pot potato present pumpkin puppet purse puzzle quilt rainbow ribbon ring river road rock rocket roof "
    "room root rope rose rug sandwich saw scarf school seed shelf shell ship shirt shoe shop shovel sign "
    "sink skirt sled slide sock sofa spoon stage stairway stamp star statue stick stone store stove straw "
    "stream street suitcase sweater swing sword table tail teapot telephone tent ticket toothbrush tower "
    "town toy tractor train tray treasure tree trumpet trunk tub tunnel umbrella vase village violin wagon "
    "wall wand watch waterfall well wheel whistle window yard zoo".split()
)
# Fits whatever has a body.
ADJECTIVES_FOR_ALL = tuple(
    "amazing beautiful big black blue bright brown clean colorful cute dirty dusty enormous famous fancy "
    "fine funny giant golden gray great green heavy huge large light little long lost lovely "
    "lucky magical muddy narrow neat new nice noisy odd old orange ordinary perfect pink plain "
    "precious pretty purple quiet rare red scary shiny short silver simple small smelly smooth "
    "soft special splendid spotted sticky strange striped strong tall tiny ugly warm wet white wide "
    "wild wonderful yellow".split()
)
# Fits things only.
ADJECTIVES_FOR_THINGS = tuple(
    "broken comfortable cozy crooked dark deep delicate empty expensive flat fresh full glass hollow icy "
    "loose modern open paper pointed rainbow-colored round rough rusty secret sharp square steep "
    "straight sunny thick thin torn valuable wooden woolen".split()
)
# Fits somebody only.
ADJECTIVES_FOR_BEINGS = tuple(
    "fast fat lonely quick slow weak young adventurous afraid alert angry anxious bold bossy brave busy calm "
    "careful careless charming cheerful clever clumsy confused cranky cruel curious eager elderly excited "
    "fearful fierce foolish forgetful friendly frightened furious generous gentle gifted gloomy graceful "
    "grateful greedy grumpy happy hardworking harmless helpful helpless hopeful humble hungry impatient "
    "impolite intelligent jealous jolly joyful kind lazy lively loving loyal mean mighty mischievous "
    "miserable modest naughty nervous obedient patient peaceful playful pleasant polite poor popular "
    "powerful proud rude sad selfish sensible serious shy silly skinny sleepy sly smart spoiled stubborn "
    "surprised sweet talented thankful thirsty thoughtful tired tough troubled upset weary "
    "wicked wise worried".split()
)

VERBS = (*VERBS_ALONE, *VERBS_WITH_OBJECT)
NOUNS = (*BEINGS, *THINGS)
ADJECTIVES = (*ADJECTIVES_FOR_ALL, *ADJECTIVES_FOR_THINGS, *ADJECTIVES_FOR_BEINGS)
