"""The program of a saved ``.mlpackage``, evaluated on any machine.

Core ML runs on Apple's devices alone. What it runs is written down in the package: a program in MIL, Apple's Model Intermediate Language,
and a file of weights. This package reads both and computes every operator with torch, so that the artefact that ships, not another export
of the same network, answers on Linux.

``load`` reads a package into a ``program``, with what it needs from ``blob`` and ``proto``; ``ops`` says what each operator computes;
``dry`` tells what an operator would make before any memory is taken for it; ``evaluate`` binds a program to them and runs it; ``names``
finds the exported program's nodes among its variables; ``described`` holds what a package tells an app against its manifest; ``runtime``
is the session that the rest of the package sees.
"""
