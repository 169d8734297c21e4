#!/usr/bin/env bash
# Guess: Pillow's resize is what training saw and what every other implementation is measured against; its pixels have been the same for years.
# Is: Pillow 13 goes over the height first where that is clearly less work, and the picture between the two passes, of whole codes from 0 to 255,
# is then another one: a portrait picture of 2:3 that is squeezed into a square gets other pixels than from Pillow 12 and before, by a dozen codes at
# sharp edges. They are those of two resizes by Pillow 12, the height first. Landscape pictures, enlarged ones and those that keep their shape are
# the same as before.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for pillow in 12.3.0 13.0.0; do
    python3 -m venv --without-pip "$work/$pillow"
    python3 -m pip --python "$work/$pillow/bin/python" install --quiet --no-compile numpy==2.4.6 "pillow==$pillow" 2>>"$work/log"
done
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 CI=true
cd "$work"
cat >resize.py <<'PYTHON'
import sys
import numpy as np, PIL
from PIL import Image

y, x = np.mgrid[:640, :427]
tiles = (((x // 5 + y // 3) % 2) * 200 + (x * y) % 53).astype(np.uint8)  # sharp edges everywhere, as of text or foliage
portrait = Image.fromarray(tiles)
pictures = {
    "portrait to a square": (portrait, (224, 224)),
    "landscape to a square": (portrait.rotate(90, expand=True), (224, 224)),
    "enlarged": (portrait, (800, 800)),
    "portrait, shorter side to 224": (portrait, (224, 336)),
}
answers = {}
for name, (picture, size) in pictures.items():
    for filter in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
        answers[f"{name}, {filter.name}"] = np.array(picture.resize(size, filter), int)
        height_first = picture.resize((picture.width, size[1]), filter).resize(size, filter)
        answers[f"height first: {name}, {filter.name}"] = np.array(height_first, int)
np.savez(PIL.__version__, **answers)
if sys.argv[1:]:
    old = np.load(sys.argv[1] + ".npz")
    print("pillow", sys.argv[1], "and", PIL.__version__)
    for name in (name for name in answers if "first" not in name):
        apart = np.abs(answers[name] - old[name])
        print(f"{name}: {(apart > 0).mean():.0%} of the pixels differ, by up to {apart.max()};",
            "the new ones are the old ones, height first:", np.array_equal(answers[name], old["height first: " + name]))
PYTHON
{ 12.3.0/bin/python resize.py && 13.0.0/bin/python resize.py 12.3.0; } >seen 2>>log || { tail -n 20 log >&2; exit 1; }
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
pillow 12.3.0 and 13.0.0
portrait to a square, BILINEAR: 17% of the pixels differ, by up to 1; the new ones are the old ones, height first: True
portrait to a square, BICUBIC: 23% of the pixels differ, by up to 10; the new ones are the old ones, height first: True
portrait to a square, LANCZOS: 31% of the pixels differ, by up to 18; the new ones are the old ones, height first: True
landscape to a square, BILINEAR: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
landscape to a square, BICUBIC: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
landscape to a square, LANCZOS: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
enlarged, BILINEAR: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
enlarged, BICUBIC: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
enlarged, LANCZOS: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
portrait, shorter side to 224, BILINEAR: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
portrait, shorter side to 224, BICUBIC: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
portrait, shorter side to 224, LANCZOS: 0% of the pixels differ, by up to 0; the new ones are the old ones, height first: False
SEEN
