#!/usr/bin/env bash
# Guess: a detection whose box holds NaN, as an FP16 overflow leaves it, finds nothing, or the evaluation says so.
# Is: it is taken for the object. With NaN as x or y the overlap is 1.00, if the sides are the object's; with NaN as a side it is NaN, which
# the matching does not tell from a match: AP is 1.00, and a broken detector is a perfect one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile pycocotools==2.0.11 numpy==2.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import contextlib, io, math
from importlib.metadata import version

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print("pycocotools", version("pycocotools"))
TRUE = [10.0, 10.0, 40.0, 40.0]  # x, y, width, height

def precision(box):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1, "height": 100, "width": 100}],
            "categories": [{"id": 1, "name": "one"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": TRUE, "area": 1600.0, "iscrowd": 0}],
        }
        truth.createIndex()
        found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9}])
        judged = COCOeval(truth, found, "bbox")
        judged.evaluate(), judged.accumulate(), judged.summarize()
    return judged.stats[0]

for name, box in {
    "the object's own box": TRUE,
    "a box elsewhere": [60.0, 60.0, 30.0, 30.0],
    "x is NaN": [math.nan, 10.0, 40.0, 40.0],
    "y is NaN": [10.0, math.nan, 40.0, 40.0],
    "the width is NaN": [10.0, 10.0, math.nan, 40.0],
    "all four are NaN": [math.nan] * 4,
    "the width is infinite": [10.0, 10.0, math.inf, 40.0],
}.items():
    overlap = mask.iou(np.array([box]), np.array([TRUE]), [0])[0, 0]
    print(f"{name}: overlap {overlap:.2f}, AP {precision(box):.2f}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
pycocotools 2.0.11
the object's own box: overlap 1.00, AP 1.00
a box elsewhere: overlap 0.00, AP 0.00
x is NaN: overlap 1.00, AP 1.00
y is NaN: overlap 1.00, AP 1.00
the width is NaN: overlap nan, AP 1.00
all four are NaN: overlap nan, AP 1.00
the width is infinite: overlap 0.00, AP 0.00
SEEN
