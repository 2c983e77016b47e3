"""The concepts of the starter model: which emoji are pictured, in what order, under which names.

Names come from the CLDR annotations (Debian: unicode-cldr-core), groups from emoji-test.txt
(Debian: unicode-data), everyday names from aliases.txt beside this file.
"""

import re
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ANNOTATIONS = Path("/usr/share/unicode/cldr/common/annotations/en.xml")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")

# Never in the training pictures: what an adapter is to be taught.
HELD_OUT = ("robot", "octopus", "unicorn", "teapot", "snail")

# Subgroups of emoji-test.txt and how soon their members come: with spread 1 they are dealt out
# evenly over the whole order, with 2 the first half of the order gets only every other one of
# them. A subgroup not named here (flags, hands, signs, letters, ...) is left out.
SPREAD = {
    1.0: """animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug
            plant-flower plant-other food-fruit food-vegetable food-prepared food-sweet
            transport-ground transport-water transport-air sky-weather place-building
            place-geographic sport musical-instrument heart drink""",
    1.5: """face-smiling face-hat face-glasses face-costume cat-face monkey-face food-asian
            food-marine dishware event game clothing tool light-video computer phone household
            place-other place-religious award-medal music hotel arts-crafts science lock""",
    2.0: """face-affection face-tongue face-sleepy face-unwell face-negative face-concerned
            face-neutral-skeptical face-hand book-paper writing time person-fantasy person
            other-object medical place-map body-parts""",
    3.0: """person-role person-sport person-activity person-resting person-symbol emotion
            sound money mail office""",
}

# In a kept subgroup, but a sign, a letter, a clock's hour or hard to tell from its neighbour.
UNWANTED = re.compile(
    r".*(o'clock|-thirty| suit|gibbous|quarter moon$|waxing|waning| without wheel|chart |yen|euro"
    r"|pound|speaker|oncoming|bus stop|motorway|stop sign|zzz|hundred points|anger|speech bubble"
    r"|love hotel|pregnant|breast|with arrow|mahjong|joker|envelope with|not done|globe with"
    r"|map of japan|with slash|low battery|busts|national park|identification|placard"
    r"|(out|in)box tray|lowered flag|construction$|hole$|ear with|with flash|asia-|europe-"
    r"|elevator|speaking head|e-mail|locked with|mechanical|tilted right| balloon$|incoming)")


@dataclass(frozen=True)
class Concept:
    emoji: str  # without variation selectors
    name: str  # the cleaned CLDR name
    subgroup: str
    alias: str = ""  # an everyday name, for some

    @property
    def label(self):
        return self.alias or self.name

    @property
    def file_name(self):
        return re.sub(r"[^a-z0-9]+", "-", self.name).strip("-")


def clean_name(text):
    """Lower case, ASCII, without colons: what somebody would type."""
    text = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    return " ".join(text.encode("ascii", "ignore").decode().replace(":", " ").split())


def read_lines(name):
    return (HERE / name).read_text(encoding="utf-8").splitlines()


def read_aliases():
    return dict(line.split(": ") for line in read_lines("aliases.txt"))


def read_emoji():
    """Every named emoji of one code point, as (emoji, subgroup), in the order of emoji-test.txt."""
    subgroup = ""
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("# subgroup:"):
            subgroup = line.split(":")[1].strip().replace(" & ", "-")
        elif "; fully-qualified" in line:
            emoji = "".join(chr(int(code, 16)) for code in line.split(";")[0].split())
            emoji = emoji.replace("\ufe0f", "")
            if len(emoji) == 1:  # longer ones: skin tones, families, flags, keycaps
                yield emoji, subgroup


def all_concepts(early):
    """Returns (concepts in teaching order, the held-out ones).

    The ones that prompts.txt names come first, then the other everyday ones (those with an alias
    or named in early), then the rest; each part is mixed from all subgroups, so that any first N
    are a varied set.
    """
    for file, package in ((ANNOTATIONS, "unicode-cldr-core"), (EMOJI_TEST, "unicode-data")):
        if not file.exists():
            sys.exit(f"{file} is missing: apt-get install {package}")
    names = {node.get("cp"): clean_name(node.text)
             for node in ElementTree.parse(ANNOTATIONS).iter("annotation")
             if node.get("type") == "tts"}
    spread = {subgroup: factor for factor, subgroups in SPREAD.items()
              for subgroup in subgroups.split()}
    aliases = read_aliases()
    prompts, early = set(read_lines("prompts.txt")), {*early, *aliases}
    members, held_out = {}, []
    for emoji, subgroup in read_emoji():
        name = names.get(emoji, "")
        concept = Concept(emoji, name, subgroup, aliases.get(name, ""))
        if name in HELD_OUT:
            held_out.append(concept)
        elif name and subgroup in spread and not UNWANTED.match(name):
            members.setdefault(subgroup, []).append(concept)
    ranked = []
    for subgroup, concepts in members.items():
        for place, concept in enumerate(concepts):
            rank = (place + 0.5) / len(concepts) * spread[subgroup]
            ranked.append((prompts.isdisjoint((concept.name, concept.alias)),
                           concept.name not in early, rank, concept.emoji, concept))
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])], held_out
