#!/usr/bin/env bash
# Guess: palettising a pruned network keeps its zeros, or nearly: half of all weights have that value.
# Is: coremltools' uniform palette runs from the least to the greatest weight in equal steps and need not hold 0. With 4 bits and one weight of 7
# in the layer, every pruned weight becomes 0.326, a third of a standard deviation, all with the same sign; k-means moves them by 0.003.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv --without-pip "$work/env"
python3 -m pip --python "$work/env/bin/python" install --quiet --no-compile coremltools==9.0 numpy==2.3.5 scikit-learn==1.9.1 2>>"$work/log"
export HOME=$work TMPDIR=$work OMP_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 CI=true
cd "$work"
env/bin/python - >seen 2>>log <<'PYTHON' || { tail -n 20 log >&2; exit 1; }
import coremltools as ct, coremltools.optimize.coreml as cto, numpy as np
from coremltools.converters.mil import Builder as mb

weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
weights[:32] = 0
weights[40, 5] = 7

@mb.program(input_specs=[mb.TensorSpec(shape=(1, 64))])
def layer(x):
    return mb.linear(x=x, weight=weights, bias=np.zeros(64, np.float32))

package = ct.convert(layer, minimum_deployment_target=ct.target.iOS17)
print("coremltools", ct.__version__)
for mode in ("uniform", "kmeans"):
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(mode=mode, nbits=4))
    small = cto.palettize_weights(package, config)
    steps = small._mil_program.functions["main"].operations
    found = next(o for o in steps if o.op_type == "constexpr_lut_to_dense").materialized_val_inference().astype(np.float64)
    zeros, sums = np.unique(found[:32].round(3)), abs(found[:32].sum(1)).max()
    print(f"{mode}, 4 bits: the {(weights == 0).sum()} zeros became {zeros}, a row's sum of 64 is off by {sums:.2f}")
PYTHON
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
coremltools 9.0
uniform, 4 bits: the 2048 zeros became [0.326], a row's sum of 64 is off by 20.84
kmeans, 4 bits: the 2048 zeros became [-0.002], a row's sum of 64 is off by 0.15
SEEN
