"""SIGTERM at random moments of long native calls: how soon the process ends, and what it leaves.

python -m fuzz.moments [--count N]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 3.0
"""Seconds."""
BEGIN = """
import sys
from pathlib import Path
from dtvit_deploy.cli import failure
from dtvit_deploy.artifacts.staging import staged
failure.end_on_request()
def begun(stage):
    (stage / "model.onnx").write_text("half")
    print("begun", flush=True)
"""
GRAPH = """
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper
nodes = [helper.make_node("Expand", ["x", "size"], ["m0"])]
nodes += [helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(400)]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", (1, 1)), ("m400", None))]
size = numpy_helper.from_array(np.array([4096, 4096]), "size")
graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], [size])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
feed = {"x": np.ones((1, 1), np.float32)}
"""
CALLS = {
    "a product in torch": "import torch\nlarge = torch.ones(14000, 14000)",
    "an inference in ONNX Runtime": GRAPH + "import onnxruntime\nsession = onnxruntime.InferenceSession(model)",
    "an inference in OpenVINO": GRAPH + "import openvino\nrun = openvino.Core().compile_model(openvino.Core().read_model(model), 'CPU')",
    "a product in NumPy": "import numpy as np\nlarge = np.ones((12000, 12000), np.float32)",
}
RUN = {
    "a product in torch": "large @ large",
    "an inference in ONNX Runtime": "session.run(None, feed)",
    "an inference in OpenVINO": "run(feed)",
    "a product in NumPy": "large @ large",
}


def one(call: str, wait: float, out: Path) -> tuple[float, int, list[Path]]:
    """Seconds from the signal to the end, the exit status, and what is left."""
    body = f"{BEGIN}{CALLS[call]}\nwith failure.told(), staged(Path(sys.argv[1])) as stage:\n    begun(stage)\n    {RUN[call]}\n"
    process = subprocess.Popen([sys.executable, "-c", body, str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "begun\n":
        raise RuntimeError(f"{call} did not begin")
    time.sleep(wait)
    begun = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return time.perf_counter() - begun, process.returncode, list(out.parent.iterdir())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, metavar="N")
    chance, taken, wrong = random.Random(0), [], 0
    for index in range(parser.parse_args().count):
        call = list(CALLS)[index % len(CALLS)]
        with tempfile.TemporaryDirectory(prefix="moments-") as folder:
            seconds, status, left = one(call, chance.uniform(0, 3), Path(folder, "out"))
        taken.append(seconds)
        if status != 128 + signal.SIGTERM or left or seconds > LIMIT:
            wrong += 1
            print(f"  {call}: {seconds:.2f} s, exit status {status}, left: {left}", flush=True)
    mean = sum(taken) / len(taken)
    print(f"SIGTERM at {len(taken)} moments: {wrong} wrong; answered after {max(taken):.2f} s at most, {mean:.2f} s on average")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
