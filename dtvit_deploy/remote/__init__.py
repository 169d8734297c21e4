"""The host's side of a device: puts a job together, brings it there, follows its results, and answers from them.

A command that is to measure elsewhere does this (`asking.Asking`, `device.Device`, `recorded`):

1. ``asking = Asking(folder)``; ``asking.subject(artifact, "onnxruntime")`` for each artefact in each runtime; ``asking.answers(…)``,
   ``asking.layers(…)``, ``asking.latency(…)`` for what is to be found out. Each returns the place of its task.
2. ``results = Device(transport).perform(asked.job, asked.blobs)`` of ``asked = asking.asked``: the agent and what is missing is sent, the
   results are followed while they are written. The transport is a `devices.reconnecting.Reconnecting` of connections.
   ``bundle.write_bundle(asked, file)`` and ``bundle.read_bundle_results(asked, file)`` are the same by a stick.
   `request.ask_for` asks for what a bench needs, for both: `place.Place` by a connection, `brought.Brought` by a file.
3. ``RecordedRuntime(asked, results, subject, where="on orin")`` stands where a runtime of this machine would: `Pairing`, parity and
   accuracy take its sessions' answers. ``layer_sums`` gives `harness.layers.report_of` its energies, and ``latencies`` gives `Measurement`.
"""
