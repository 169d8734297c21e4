"""The peaks of this machine, by the runtimes that artefacts run in: products of large matrices in each precision, and copies of memory.

A product is a network of one operator with constant weights, as those of a layer are; INT8 ones stand between quantise and dequantise, as
in an artefact. What a runtime has no kernels for, it is not asked for. All of them take turns, and the fastest run of each counts: a peak
is what the machine can do, and other work on it can only hide that. Devices measure their own with this file, and have no ``onnx``.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.formats.onnx_messages import Values, model_written
from dtvit_deploy.harness.roofline import Peak, Peaks
from dtvit_deploy.runtimes import onnxruntime, openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

SIZES = ((1024, 1024, 1024), (2048, 2048, 2048))
"""Rows, depth and columns: enough to fill every vector unit, and little enough to lie in caches by tiles."""
ROUNDS, FEWEST = 6, 2
WARM_UP = 1
SECONDS = 60.0
"""After which no further round begins beyond the fewest: six take minutes on a small board, and its peak is no other by the second."""
COPY_MIB = 256
"""Of memory that is copied: a laptop's caches hold an eighth of it at most; a server's largest may hold it all, and is not meant."""
Run = Callable[[], object]


class _Product(NamedTuple):
    precision: str
    runtime: str
    size: tuple[int, int, int]
    run: Run

    @property
    def operations(self) -> int:
        rows, depth, columns = self.size
        return 2 * rows * depth * columns


def measured(threads: int, tell: Callable[[float], None] = lambda fraction: None) -> Peaks:
    """Measure the peaks; some ten seconds with one thread.

    Args:
        threads: of every product and copy.
        tell: is told the finished fraction.
    """
    products = [one for size in SIZES for one in (*_of_openvino(size, threads), *_of_onnxruntime(size, threads))]
    taken: list[list[float]] = [[] for _ in products]
    lots, start = random.Random(0), time.monotonic()
    for turn in range(WARM_UP + ROUNDS):
        if turn >= WARM_UP + FEWEST and time.monotonic() - start > SECONDS:
            break
        # By lot: threads of the runtime before still wait actively for a moment, and none is to follow the same one each time.
        for one, seconds in lots.sample(list(zip(products, taken, strict=True)), len(products)):
            began = time.perf_counter()
            one.run()
            if turn >= WARM_UP:
                seconds.append(time.perf_counter() - began)
        tell((turn + 1) / (WARM_UP + ROUNDS + 1))
    best: dict[str, Peak] = {}
    for one, seconds in zip(products, taken, strict=True):
        rate = one.operations / min(seconds) / 1e9
        if one.precision not in best or rate > best[one.precision].gflops:
            best[one.precision] = Peak(
                precision=one.precision,
                gflops=rate,
                runtime=one.runtime,
                size="×".join(map(str, one.size)),
                median_gflops=one.operations / statistics.median(seconds) / 1e9,
                runs=len(seconds),
            )
    return Peaks(
        products=tuple(best.values()),
        copy_gb_s=_copied(threads),
        copy_mib=COPY_MIB,
        threads=threads,
        taken=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _of_openvino(size: tuple[int, int, int], threads: int) -> Iterator[_Product]:
    version = openvino.OpenVinoRuntime().available().version
    if version is None:
        return
    import openvino as vendor
    from openvino import opset13 as ops

    core = vendor.Core()
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    given, weights = _factors(size)
    for hint, precision in openvino.TYPES.items():
        for quantised in (False, True) if precision is Precision.FP32 else (False,):
            if precision.value.upper() not in able:
                continue
            rows = ops.parameter(given.shape, np.float32)
            factors = [rows, ops.constant(weights)]
            if quantised:
                # 255 levels of weights: where zero lies between two, as of 256 from -1 to 1, OpenVINO computes the product in float.
                factors = [ops.fake_quantize(one, -1.0, 1.0, -1.0, 1.0, levels) for one, levels in zip(factors, (256, 255), strict=True)]
            model = vendor.Model([ops.matmul(*factors, False, False)], [rows])
            request = core.compile_model(model, "CPU", openvino.settings(hint, threads)).create_infer_request()
            request.set_input_tensor(vendor.Tensor(given.copy()))
            kind = Precision.INT8 if quantised else precision
            yield _Product(kind.value, f"openvino {version}", size, request.infer)


def _of_onnxruntime(size: tuple[int, int, int], threads: int) -> Iterator[_Product]:
    version = onnxruntime.OnnxRuntime().available().version
    for precision in (Precision.FP32, Precision.FP16, Precision.INT8) if version is not None else ():
        yield _Product(precision.value, f"onnxruntime {version}", size, _session(precision, size, threads))


def _session(precision: Precision, size: tuple[int, int, int], threads: int) -> Run:
    import onnxruntime as vendor

    given, weights = _factors(size)
    dtype = "float16" if precision is Precision.FP16 else "float32"
    constants: Mapping[str, Any] = {"weights": weights.astype(dtype)}
    nodes = [("MatMul", ["given", "weights"], ["made"])]
    if precision is Precision.INT8:
        scale, zero = np.float32(2 / 255), np.uint8(128)
        constants = {"codes": np.rint(weights * 127).astype(np.int8), "step": np.float32(1 / 127), "scale": scale, "zero": zero}
        constants |= {"far": np.float32(scale * size[1] ** 0.5)}
        nodes = [
            ("QuantizeLinear", ["given", "scale", "zero"], ["coded"]),
            ("DequantizeLinear", ["coded", "scale", "zero"], ["left"]),
            ("DequantizeLinear", ["codes", "step"], ["right"]),
            ("MatMul", ["left", "right"], ["product"]),
            ("QuantizeLinear", ["product", "far", "zero"], ["answer"]),
            ("DequantizeLinear", ["answer", "far", "zero"], ["made"]),
        ]
    rows, depth, columns = size
    model = model_written(
        nodes,
        [Values("given", dtype, (rows, depth))],
        [Values("made", dtype, (rows, columns))],
        {name: np.asarray(value) for name, value in constants.items()},
        opset=20,
        ir_version=9,
    )
    settings = vendor.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads, settings.log_severity_level = threads, 1, 4
    session = vendor.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    feed = {"given": given.astype(dtype)}
    return lambda: session.run(None, feed)


def _factors(size: tuple[int, int, int]) -> tuple[Array, Array]:
    """Matrices of numbers between -1 and 1: some processors are faster on zeros."""
    rows, depth, columns = size
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (rows, depth)).astype(np.float32), rng.uniform(-1, 1, (depth, columns)).astype(np.float32)


def _copied(threads: int) -> float:
    """10⁹ bytes a second, those that are read and those that are written, of the fastest of several copies, each thread with its part."""
    source = np.ones(COPY_MIB << 20, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    seconds = []
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in range(WARM_UP + ROUNDS):
            began = time.perf_counter()
            for done in [pool.submit(np.copyto, there, here) for here, there in parts]:
                done.result()
            seconds.append(time.perf_counter() - began)
    return 2 * source.nbytes / min(seconds[WARM_UP:]) / 1e9
