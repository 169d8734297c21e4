#!/usr/bin/env bash
# Guess: a grey PNG that holds class indices in 2 or 4 bits, as small masks are written, is read as those indices.
# Is: the decoder stretches them to a byte: index 3 of 4 bits is 51, index 1 of 2 bits is 85, and mode, info and size say nothing of it. The same
# indices behind a palette, or in 8 bits, come as they are; 1 bit comes as True. Of 16 bits, which are not stretched down, all is kept.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile pillow==13.0.0 numpy==2.4.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import io, struct, zlib

import numpy as np
import PIL
from PIL import Image

print("pillow", PIL.__version__)

def png(values, bits, palette):
    """A PNG of one row: RFC 2083, without a filter."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = sum(value << bits * (len(values) - 1 - place) for place, value in enumerate(values))
    length = len(values) * bits
    packed = (row << -length % 8).to_bytes(-(-length // 8), "big")
    colours = chunk(b"PLTE", bytes(3 * 2 ** min(bits, 8))) if palette else b""
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 3 if palette else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")

for palette in (False, True):
    for bits, values in ((1, [0, 1, 1]), (2, [0, 1, 2, 3]), (4, [0, 1, 3, 15]), (8, [0, 1, 3, 255]), (16, [0, 1, 300])):
        if palette and bits == 16:
            continue
        image = Image.open(io.BytesIO(png(values, bits, palette)))
        read = np.asarray(image).ravel().astype(int).tolist()
        print(f"{'palette' if palette else 'grey'}, {bits} bits, mode {image.mode}, told {sorted(image.info)}: {values} is read as {read}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
pillow 13.0.0
grey, 1 bits, mode 1, told []: [0, 1, 1] is read as [0, 1, 1]
grey, 2 bits, mode L, told []: [0, 1, 2, 3] is read as [0, 85, 170, 255]
grey, 4 bits, mode L, told []: [0, 1, 3, 15] is read as [0, 17, 51, 255]
grey, 8 bits, mode L, told []: [0, 1, 3, 255] is read as [0, 1, 3, 255]
grey, 16 bits, mode I;16, told []: [0, 1, 300] is read as [0, 1, 300]
palette, 1 bits, mode P, told []: [0, 1, 1] is read as [0, 1, 1]
palette, 2 bits, mode P, told []: [0, 1, 2, 3] is read as [0, 1, 2, 3]
palette, 4 bits, mode P, told []: [0, 1, 3, 15] is read as [0, 1, 3, 15]
palette, 8 bits, mode P, told []: [0, 1, 3, 255] is read as [0, 1, 3, 255]
SEEN
