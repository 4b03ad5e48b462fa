"""The emoji packs: getting them, naming their drawings by code points, rendering."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image

SIZE = 64
PACKS = {"noto": "1.2.9", "noto-v1": "1.2.5", "fluent-emoji": "1.2.7", "fluent-emoji-flat": "1.2.6", "fxemoji": "1.2.2"}
VENDORS = tuple(PACKS)
DEFAULT_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}  # what the pack format assumes
# Names of the first Noto set that the later one renamed (its other names are noto's names or aliases).
RENAMED = {"direct-hit": "1f3af", "dizzy-face": "1f635", "exclamation-mark": "2757", "question-mark": "2753"}
# Firefox OS icons whose own names are no help, or mislead, with noto's name for what the drawing shows.
_FXEMOJI_PAIRS = """
2hearts=two-hearts acorn=chestnut americasglobe=globe-showing-americas anger=anger-symbol anguish=anguished-face
anticlockwiseupwardsanddownwardsarrows=counterclockwise-arrows-button aok=ok-hand
arrowrightwardsdownwards=right-arrow-curving-down arrowrightwardsupwards=right-arrow-curving-up
asiaaustraliaglobe=globe-showing-asia-australia backwithleftwardsarrow=back-arrow
ballottboxwithballott=ballot-box-with-ballot banknotedollar=dollar-banknote banknoteeuro=euro-banknote
banknotepound=pound-banknote banknoteyen=yen-banknote beachumbrella=beach-with-umbrella
bellcancellation=bell-with-slash blackdownpointingdoublearrow=fast-down-button blackleftpointingarrow=reverse-button
blackleftpointingdoublearrow=fast-reverse-button blackquestionmark=red-question-mark
blackrightpointingarrow=play-button blackrightpointingdoublearrow=fast-forward-button
blackskullcrossbones=skull-and-crossbones blackuppointingdoublearrow=fast-up-button blonde=person-blond-hair
bolt=high-voltage bookmarktab=bookmark-tabs boot=womans-boot bow=ribbon bride=person-with-veil bunny=rabbit-face
bunny-ears=people-with-bunny-ears bunnyside=rabbit cat=cat-face catside=cat cellphone=mobile-phone
chartdownwardstrend=chart-decreasing chartupwardstrend=chart-increasing
chartupwardstrendyen=chart-increasing-with-yen chilipepper=hot-pepper
cjkunifiedideograph-a=japanese-reserved-button cjkunifiedideograph-b=japanese-open-for-business-button
cjkunifiedideograph-c=japanese-prohibited-button cjkunifiedideograph-d=japanese-vacancy-button
cjkunifiedideograph-e=japanese-passing-grade-button cjkunifiedideograph-f=japanese-no-vacancy-button
cjkunifiedideograph-g=japanese-not-free-of-charge-button cjkunifiedideograph-h=japanese-monthly-amount-button
cjkunifiedideograph-i=japanese-free-of-charge-button cjkunifiedideograph-j=japanese-application-button
cjkunifiedideograph-k=japanese-discount-button clap=clapping-hands
clockwisedownupcircledarrows=clockwise-vertical-arrows clockwiserightwardsleftwardscirclearrows=repeat-button
clockwiserightwardsleftwardscirclearrowsone=repeat-single-button
closedmailboxlowered=closed-mailbox-with-lowered-flag closedmailboxraised=closed-mailbox-with-raised-flag
coldsweat=anxious-face-with-sweat confetti=confetti-ball construct=construction-worker
construction=building-construction contact=bust-in-silhouette contact2=busts-in-silhouette
controlknob=control-knobs cop=police-officer couple=couple-with-heart couplekiss=kiss dash=dashing-away
devilhorns=smiling-face-with-horns diamondshapewithdotinside=diamond-with-a-dot
dissapointedrelief=sad-but-relieved-face dog=dog-face dogside=dog doubleexclaimationmark=double-exclamation-mark
down=backhand-index-pointing-down downpointingsmallredtrisngle=downwards-button dragonhead=dragon-face
dragonside=dragon eightspokedasterix=eight-spoked-asterisk endwithleftwardsarrow=end-arrow
envelopedownarrowabove=envelope-with-arrow europeafricaglobe=globe-showing-europe-africa evergreen=evergreen-tree
exclaimationquestionmark=exclamation-question-mark fallingleaf=fallen-leaf fishcakeswirl=fish-cake-with-swirl
fistedhand=oncoming-fist flexbicep=flexed-biceps floppydisk2=floppy-disk forkknife=fork-and-knife-with-plate
foxcrying=crying-cat foxgrin=grinning-cat-with-smiling-eyes foxheart=smiling-cat-with-heart-eyes
foxkissing=kissing-cat foxpouting=pouting-cat foxsmiling=grinning-cat foxtearofjoy=cat-with-tears-of-joy
foxweary=weary-cat foxwry=cat-with-wry-smile frontfacingchick=front-facing-baby-chick frown=person-frowning
frownmouth=frowning-face-with-open-mouth gem=gem-stone girlgirl=women-holding-hands
girlguy=woman-and-man-holding-hands gma=old-woman gpa=old-man grin=grinning-face
grineyes=beaming-face-with-smiling-eyes grinsquint=grinning-squinting-face grinsweat=grinning-face-with-sweat
grintears=face-with-tears-of-joy grinwide=grinning-face-with-big-eyes grinwideeyes=grinning-face-with-smiling-eyes
guapimao=person-with-skullcap guyguy=men-holding-hands halo=smiling-face-with-halo hampster=hamster
hand=raised-hand handheldvideocamera=video-camera hands=open-hands handup=person-raising-hand
headmassage=person-getting-massage heartarrow=heart-with-arrow hearteyes=smiling-face-with-heart-eyes
heartgreen=green-heart heartpurple=purple-heart heartribbon=heart-with-ribbon heartyellow=yellow-heart
heavyexclaimationmarksymbol=red-exclamation-mark heavylatincross=latin-cross heavymultiplicationsymbol=multiply
heels=high-heeled-shoe high5=raising-hands highbrightness=bright-button highspeedtrainbulletnose=bullet-train
hourglassflowingsand=hourglass-not-done index=index-pointing-up japaneseangrymask=goblin kiss=kissing-face
kissclosedeyes=kissing-face-with-closed-eyes kisseyes=kissing-face-with-smiling-eyes kissing=face-blowing-a-kiss
leaffluttering=leaf-fluttering-in-wind left=backhand-index-pointing-left
leftmagnifyingglass=magnifying-glass-tilted-left leftwritinghand=writing-hand leopardside=leopard
lockandkey=locked-with-key lowbrightness=dim-button lowerleftpen=pen mahjong=mahjong-red-dragon
makeupbag=clutch-bag manltepiececlock=mantelpiece-clock mansshirt=t-shirt medicalmask=face-with-medical-mask
mensrunner=running-shoe mensshoe=mans-shoe meridianglobe=globe-with-meridians monkeyhear=hear-no-evil-monkey
monkeysee=see-no-evil-monkey monkeyspeak=speak-no-evil-monkey mouse=mouse-face mouseside=mouse
negativesquaredlatincaptiala=a-button-blood-type negativesquaredlatincaptialb=b-button-blood-type
negativesquaredlatincaptialo=o-button-blood-type nogesture=person-gesturing-no nomouth=face-without-mouth
nooneunder18symbol=no-one-under-eighteen notebookdecorativecover=notebook-with-decorative-cover
okgesture=person-gesturing-ok oldpersonalcomputer=laptop onarrowleftright=on-exclamation-arrow
openmailboxlowered=open-mailbox-with-lowered-flag openmailboxraised=open-mailbox-with-raised-flag
openmouth=face-with-open-mouth outbox=outbox-tray perservere=persevering-face
phonerightarrowleft=mobile-phone-with-arrow pig=pig-face pigside=pig pigsnout=pig-nose pinkwallet=purse
poo=pile-of-poo potablewatersystem=potable-water pout=person-pouting pouting=enraged-face pray=folded-hands
present=wrapped-gift racecar=racing-car raincloud=cloud-with-rain raisedhandpartfingers=vulcan-salute
raisedhandsfingerssplayed=hand-with-fingers-splayed reminder=reminder-ribbon reversehandmiddlefinger=middle-finger
right=backhand-index-pointing-right rightmagnifyingglass=magnifying-glass-tilted-right saggitarius=sagittarius
sandals=womans-sandal screamfear=face-screaming-in-fear silhouetteohjapan=map-of-japan
sixpointedstarwithdot=dotted-six-pointed-star sleuthspy=detective smallfrown=slightly-frowning-face
smallsmile=slightly-smiling-face smileeyes=smiling-face-with-smiling-eyes smiletongue=face-savoring-food
smirk=smirking-face snowcloud=cloud-with-snow snowmountains=snow-capped-mountain soonwithrightarrow=soon-arrow
speaker3soundwaves=speaker-high-volume speakercancellation=muted-speaker speakeronesoundwave=speaker-medium-volume
speechbubble=speech-balloon spurtingwhale=spouting-whale squaredup=up-exclamation-button star=glowing-star
stormcloud=cloud-with-lightning studiomic=studio-microphone sunglasses=smiling-face-with-sunglasses
sunraincloud=sun-behind-rain-cloud sunrays=sun sweat=downcast-face-with-sweat sweatsplash=sweat-droplets
telephonereceiver2=telephone-receiver ten=keycap-10 tennisball=tennis thoughtbaloon=thought-balloon tie=necktie
tiger=tiger-face tigerside=tiger tongueout=face-with-tongue tongueoutwink=winking-face-with-tongue
tongueoutwink2=squinting-face-with-tongue topwithupwardsarrow=top-arrow toykotower=tokyo-tower
triumph=face-with-steam-from-nose turban=person-wearing-turban umbrella=closed-umbrella
up=backhand-index-pointing-up uppointingsmallredtrisngle=upwards-button videocasette=videocassette
waitress=person-tipping-hand waningbibbousmoon=waning-gibbous-moon wave=water-wave waving=waving-hand
whiteexclaimationmark=white-exclamation-mark whitesunsmallcloud=sun-behind-small-cloud wiredkeyboard=keyboard
womansshirt=womans-clothes
"""
FXEMOJI_RENAMED = dict(pair.split("=") for pair in _FXEMOJI_PAIRS.split())
# Firefox OS icons whose names match an emoji that the drawing does not show: a piano, a monitor, a program's window.
FXEMOJI_OTHER = {"keyboard", "personalcomputer", "window"}
HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

Picture = npt.NDArray[np.uint8]


def fetch_packs(source: Path | None, work: Path) -> Path:
    """Unpack the pinned packs into ``work/<vendor>``, from ``source`` or else from the npm registry."""
    for vendor, version in PACKS.items():
        stem = f"iconify-json-{vendor}-{version}"
        if source is not None and (source / stem / "package").is_dir():
            (work / vendor).symlink_to((source / stem / "package").resolve())
            continue
        if source is None:
            spec = f"@iconify-json/{vendor}@{version}"
            subprocess.run(["npm", "pack", "--silent", spec], cwd=work, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open((source or work) / f"{stem}.tgz") as archive:
            archive.extractall(work / f"{vendor}.tmp", filter="data")
        (work / f"{vendor}.tmp" / "package").rename(work / vendor)
    return work


@cache
def load(packs: Path, vendor: str, part: str) -> dict[str, Any]:
    """One JSON file of a pack: icons, chars (code point -> name) or metadata."""
    content: dict[str, Any] = json.loads((packs / vendor / f"{part}.json").read_text(encoding="utf-8"))
    return content


def codes_of(packs: Path, vendor: str) -> dict[str, str]:
    """Code points -> icon name: names differ between the sets, code points do not."""
    icons = {name for name, icon in load(packs, vendor, "icons")["icons"].items() if not icon.get("hidden")}
    if vendor == "fxemoji":
        return _fxemoji_codes(packs, icons)
    if vendor == "noto-v1":
        return {code: name for name, code in _noto_v1_names(packs).items() if name in icons}
    chars = load(packs, "fluent-emoji-flat" if vendor == "fluent-emoji" else vendor, "chars")
    return {code: name for code, name in chars.items() if name in icons}


def _names(packs: Path) -> dict[str, str]:
    """Icon name -> code points, by fluent's names, noto's aliases and noto's names (the later ones win)."""
    flat = {name: code for code, name in load(packs, "fluent-emoji-flat", "chars").items()}
    noto = {name: code for code, name in load(packs, "noto", "chars").items()}
    aliases = load(packs, "noto", "icons").get("aliases", {}).items()
    by_alias = {name: noto[alias["parent"]] for name, alias in aliases if alias["parent"] in noto}
    return {**flat, **by_alias, **noto}


def _noto_v1_names(packs: Path) -> dict[str, str]:
    """Icon name -> code points for the first Noto set, whose pack has no code points."""
    return {**_names(packs), **RENAMED}


def _compact(name: str) -> str:
    """Letters and digits only: ``thumbs-up`` and THUMBS UP both become ``thumbsup``."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _fxemoji_codes(packs: Path, icons: set[str]) -> dict[str, str]:
    """Code points -> icon name for the Firefox OS set, whose pack has no code points.

    A drawing belongs to the emoji that FXEMOJI_RENAMED says, or else to the one with the same name, whether Unicode's,
    noto's or fluent's. "angry" may also be "angry face", "running" may be "person running".
    """
    noto = {name: code for code, name in load(packs, "noto", "chars").items()}
    known = {_compact(name): code for name, code in _names(packs).items()}
    single = (code for code in noto.values() if "-" not in code)
    known.update({_compact(unicodedata.name(chr(int(code, 16)), "")): code for code in single})
    for i, hour in enumerate(HOURS, start=1):
        known.update({f"clock{i}{end}": known[hour + end] for end in ("oclock", "thirty")})
    codes: dict[str, str] = {}
    for name in sorted(icons - FXEMOJI_OTHER - set(FXEMOJI_RENAMED)):
        stem = _compact(name)
        code = next((known[key] for key in (stem, f"{stem}face", f"person{stem}") if key in known), None)
        if code is not None:
            codes[code] = name
    return {**codes, **{noto[emoji]: name for name, emoji in FXEMOJI_RENAMED.items()}}


def render(pack: dict[str, Any], name: str) -> Picture:
    """RGB picture of an icon on white."""
    icon = pack["icons"][name]
    side = {key: icon.get(key, pack.get(key, default)) for key, default in DEFAULT_BOX.items()}
    box = f"{side['left']} {side['top']} {side['width']} {side['height']}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" viewBox="{box}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as image:
        return np.asarray(image.convert("RGB"))
