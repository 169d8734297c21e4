"""Core ML packages of an exported program: FP32 and FP16 from the program itself, INT8 and compressed weights from the FP16 package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dtvit_deploy.artifacts.artifact import FLOAT16, Artifact, load_artifact
from dtvit_deploy.artifacts.cache import Cache
from dtvit_deploy.artifacts.evidence import Rung
from dtvit_deploy.artifacts.source import source_digest
from dtvit_deploy.artifacts.target import Precision
from dtvit_deploy.calibration.ranges import RangeTable
from dtvit_deploy.errors import InputError
from dtvit_deploy.formats.mlpackage.options import IMAGE, LINK, RELAID, VIEWS, CoreMlOptions, views_of
from dtvit_deploy.pipeline.coreml_interface import interface_of, with_labels
from dtvit_deploy.pipeline.float16 import float16_stage
from dtvit_deploy.pipeline.mixed_precision import FOUND, IMPRECISE
from dtvit_deploy.pipeline.onnx import onnx_stage
from dtvit_deploy.pipeline.program import ProgramEntry
from dtvit_deploy.pipeline.stages import GuardFeeds, describe, made_here, versions
from dtvit_deploy.plural import counted
from dtvit_deploy.recipe.tables import Int8

if TYPE_CHECKING:
    from dtvit_deploy.calibration.class_map import ClassMap

PACKAGE = "model.mlpackage"
LEAST_IOS = 17
"""Release of iOS whose Core ML has operators that quantise activations."""
NOT_SEARCHED = "no module was searched for that should stay in float: what one gains on the Neural Engine shows on an Apple device alone"


def require_coreml(options: CoreMlOptions, precisions: Sequence[Precision]) -> None:
    """Refuse what cannot be built before a minute's work.

    Raises:
        InputError: the deployment target excludes a precision, or weights are to be compressed of a package that is not asked for.
        MissingError: coremltools cannot be used.
    """
    from dtvit_deploy.export.coreml.saved import require_coremltools

    if Precision.INT8 in precisions and options.ios < LEAST_IOS:
        raise InputError(
            f"INT8 activations need iOS {LEAST_IOS}, whose Core ML is the first to quantise them, and iOS {options.ios} was asked for",
            remedy=f"use --ios {LEAST_IOS}, or --precision fp16 --weights int8, which iOS 16 loads",
        )
    if options.weights is not None and Precision.FP16 not in precisions:
        raise InputError(
            f"weights as {options.weights} are those of an FP16 package, which was not asked for",
            remedy="add --precision fp16, or leave --weights out",
        )
    require_coremltools()


@dataclass(frozen=True)
class CoreMl:
    """Builds packages of one program.

    Attributes:
        program: the exported program.
        guard: feeds that tell which tensors outgrow FP16.
        keep_fp32: modules that stay FP32 in FP16 and in INT8 packages.
        options: how packages are made.
        cache: holds what was built before.
        class_map: what images call the classes, and a classifier too where the checkpoint does not name them.
    """

    program: ProgramEntry
    guard: GuardFeeds
    keep_fp32: tuple[str, ...]
    options: CoreMlOptions
    cache: Cache
    class_map: ClassMap | None = None

    def build(self, precision: Precision, table: RangeTable | None = None, asked: Int8 | None = None) -> Artifact:
        """The package of a precision.

        Args:
            table: ranges of every tensor, for INT8.
            asked: how INT8 is made of them.

        Raises:
            InputError: an operator has no translation, an option does not fit the network, or nothing would be INT8.
        """
        if precision is Precision.INT8:
            assert table is not None
            made = self._int8(table, asked or Int8())
        else:
            made = self._in_order(precision)
            if precision is Precision.FP16 and self.options.weights is not None:
                made = self._compressed(made)
        return self._placed(made)

    def _converted(self, precision: Precision) -> Artifact:
        manifest, labels = with_labels(self.program.artifact.manifest, self.options, self.class_map)
        keep = self.keep_fp32 if precision is Precision.FP16 else ()
        searched = self._searched() if precision is Precision.FP16 else {}
        interface = interface_of(manifest, self.options)
        tools = versions("coremltools", "torch", "numpy")
        options = {
            **msgspec.to_builtins(msgspec.structs.replace(self.options, weights=None, layout=None)),
            IMAGE: msgspec.to_builtins(interface.image),
            **({"keep_fp32": keep, "range_feeds": self.guard.source} if precision is Precision.FP16 else {}),
            **searched,
        }

        def build(folder: Path) -> None:
            from dtvit_deploy.export.coreml.package import mlpackage_from_program
            from dtvit_deploy.pipeline.coreml_answers import require_same_network
            from dtvit_deploy.pipeline.coreml_evaluated import reached
            from dtvit_deploy.runtimes.torch.session import read_program

            path = folder / PACKAGE
            unmeasured: list[str] = []

            def measure(package: Path) -> dict[str, float]:
                try:
                    return reached(package, self.guard.feeds)
                except InputError as error:  # Core ML may have what the evaluator has not
                    unmeasured.append(f"no tensor was measured, and what outgrows FP16 is FP16 all the same: {error}")
                    return {}

            program = read_program(self.program.artifact)
            made = mlpackage_from_program(
                program,
                self.program.nodes,
                interface,
                precision,
                path,
                measure=measure,
                judge=lambda package: require_same_network(package, self.program.artifact, self.program.nodes, self.guard),
                keep_fp32=keep,
                imprecise=searched.get(IMPRECISE),
            )
            views = {name: msgspec.to_builtins(view) for name, view in made.views.items()}
            told = options | {VIEWS: views} | ({"fp32_modules": dict(made.reasons)} if precision is Precision.FP16 else {})
            notes = (*labels, *made.notes, *unmeasured, *searched.get(FOUND, ()))
            describe(path, manifest, precision, LINK, tools, told, notes, rung=Rung.PREPARED)

        key = {"parent": manifest, "precision": precision, "options": options, "tools": tools, "source": source_digest(__name__)}
        key |= {"labels": labels}
        key["guard"] = self.guard.digest  # what FP16 is typed by, and both are judged on
        return made_here(self.cache.entry("coreml", key, build) / PACKAGE)

    def _searched(self) -> dict[str, Any]:
        """What the search for modules that FP16 is too coarse for came to: made on the ONNX graph, once for all targets of an export."""
        try:
            halved = float16_stage(onnx_stage(self.program, self.guard, self.cache), self.guard, self.keep_fp32, self.cache)
        except InputError as error:  # ONNX may not have what Core ML has
            return {IMPRECISE: {}, FOUND: [f"no module was searched for that FP16 is too coarse for: {error}"]}
        link = halved.manifest.parent(FLOAT16)
        assert link is not None
        return {key: link.options[key] for key in (IMPRECISE, FOUND)}

    def _in_order(self, precision: Precision) -> Artifact:
        """The package with its tensors in the order that was asked for, if that gives the same answers."""
        parent = self._converted(precision)
        if self.options.layout is None:
            return parent
        options = {"layout": str(self.options.layout), "guard_feeds": self.guard.source}
        tools = versions("coremltools", "torch", "numpy")

        def build(folder: Path) -> None:
            from dtvit_deploy.export.coreml.layout.relay import relay_mlpackage
            from dtvit_deploy.pipeline.coreml_evaluated import moved

            path = folder / PACKAGE
            try:
                made = relay_mlpackage(parent.path, path, self.options.ios, views_of(parent.manifest))
                views = {name: msgspec.to_builtins(view) for name, view in made.views.items()}
                told = {"moves_before": made.before, "moves_after": made.after, VIEWS: views}
                describe(path, parent.manifest, precision, RELAID, tools, options | told, (made.note,), rung=Rung.PREPARED)
                why = f"{made.before} transposes and reshapes became {made.after}" if made.after > made.before else ""
                why = why or moved(parent, load_artifact(path), self.guard)
            except Exception as error:  # a rewriting that fails, in whatever way, must not take the export with it
                why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'no message'}"
            if why:
                shutil.rmtree(path, ignore_errors=True)
                shutil.copytree(parent.path, path)
                note = f"layout for the Neural Engine rolled back: {why}"
                describe(path, parent.manifest, precision, RELAID, tools, options, (note,), rung=Rung.PREPARED)

        key = {"parent": parent.manifest, "options": options, "guard": self.guard.digest, "tools": tools, "source": source_digest(__name__)}
        return made_here(self.cache.entry("coreml-layout", key, build) / PACKAGE)

    def _placed(self, artifact: Artifact) -> Artifact:
        """The same with notes of what cannot be verified here, and of what would not run on the Neural Engine.

        The cache's, from which others are made, has none.
        """
        relaid = self.options.layout is not None

        def build(folder: Path) -> None:
            from dtvit_deploy.export.coreml.placement import lines, place
            from dtvit_deploy.pipeline.coreml_evaluated import unproven

            nodes = self.program.nodes
            found = (*unproven(artifact.path, nodes), *lines(place(artifact.path, nodes, relaid=relaid).findings))
            (folder / "notes.json").write_bytes(msgspec.json.encode(found))

        tools = versions("coremltools", "numpy")
        key = {"package": artifact.manifest, "relaid": relaid, "tools": tools, "source": source_digest(__name__)}
        notes = msgspec.json.decode((self.cache.entry("coreml-placement", key, build) / "notes.json").read_bytes(), type=tuple[str, ...])
        *before, last = artifact.manifest.lineage
        told = msgspec.structs.replace(last, notes=(*last.notes, *notes))
        return msgspec.structs.replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, lineage=(*before, told)))

    def _int8(self, table: RangeTable, asked: Int8) -> Artifact:
        parent, nodes = self._in_order(Precision.FP16), self.program.nodes
        tools = versions("coremltools", "numpy")
        facts: dict[str, Any] = {
            "ranges": table.sha256,
            "method": asked.method.value,
            "layout": "coreml",
            "in_float": sorted(self.keep_fp32),
            "calibration": f"{counted(len(table.samples), 'sample')} of {table.source}",
            "synthetic": table.synthetic,
            "leaked": table.leaked,
        }

        def build(folder: Path) -> None:
            from dtvit_deploy.export.coreml.int8 import quantise_mlpackage

            path = folder / PACKAGE
            ranges = table.lookup(nodes, asked.method, parent.manifest.signature)
            made = quantise_mlpackage(parent.path, path, ranges, nodes, self.options.ios, self.keep_fp32)
            options = facts | {"products": sum(made.modules.values()), "pairs": made.pairs}
            named = (f"in float: {', '.join(self.keep_fp32)}",) if self.keep_fp32 else ()
            searched = (NOT_SEARCHED,) if asked.search else ()
            describe(
                path,
                parent.manifest,
                Precision.INT8,
                "int8",
                tools,
                options,
                (*table.notes, *searched, *named, *made.notes),
                rung=Rung.PREPARED,
            )

        key = {
            "parent": parent.manifest,
            "options": facts,
            "tools": tools,
            "source": source_digest(__name__),
            "search": asked.search,
        }
        return made_here(self.cache.entry("coreml-int8", key, build) / PACKAGE)

    def _compressed(self, parent: Artifact) -> Artifact:
        weights = self.options.weights
        assert weights is not None
        tools = versions("coremltools", "numpy")

        def build(folder: Path) -> None:
            from dtvit_deploy.export.coreml.int8 import compress_mlpackage

            path = folder / PACKAGE
            count = compress_mlpackage(parent.path, path, weights, self.options.ios)
            describe(
                path, parent.manifest, Precision.FP16, "weights", tools, {"weights": str(weights), "tensors": count}, (), rung=Rung.PREPARED
            )

        key = {"parent": parent.manifest, "weights": str(weights), "tools": tools, "source": source_digest(__name__)}
        return made_here(self.cache.entry("coreml-weights", key, build) / PACKAGE)
