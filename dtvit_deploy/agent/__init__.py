"""The device's side: does a job with this package's own harness, and writes one results file.

It needs Python 3.10, numpy and the device's runtime, and brings the rest along in one archive (`dtvit_deploy.agent.archive`). Nothing is
installed, nothing is asked of root, and nothing is written but its folder in the user's cache.
"""
