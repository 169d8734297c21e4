#!/usr/bin/env bash
# Guess: a task whose worker is lost is sent to another worker; what it takes is made again, or the task fails and says what it lacks.
# Is: that holds for what a task has computed. What the client has scattered is known to no graph: with the worker that holds it, the input and
# every task that takes it are "cancelled", as if somebody had called cancel, and the reason given is "already forgotten".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv --without-pip env
python3 -m pip --python env/bin/python install --quiet --no-compile distributed==2026.8.0 dask==2026.8.0 2>>log || { tail -n 20 log >&2; exit 1; }
cat >try.py <<'PYTHON'
import logging, os, signal, time

import distributed
from distributed import Client, LocalCluster

logging.disable(logging.CRITICAL)


def made():
    return bytes(1000)


def slow(data):
    time.sleep(3)
    return len(data)


if __name__ == "__main__":
    print(f"distributed {distributed.__version__}")
    for how in ("computed", "scattered"):
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
            first, *_ = client.nthreads()
            if how == "computed":
                data = client.submit(made, workers=[first], allow_other_workers=True)
            else:
                data = client.scatter(made(), workers=[first])
            distributed.wait(data)
            task = client.submit(slow, data, workers=[first], allow_other_workers=True)
            time.sleep(1)
            os.kill(client.run(os.getpid)[first], signal.SIGKILL)
            try:
                distributed.wait(task, timeout=60)
                said = f"the answer is {task.result()}"
            except Exception as error:
                said = f"{type(error).__name__}"
            reason = ""
            if task.status == "cancelled":
                try:
                    task.result()
                except Exception as error:
                    reason = f", for the reason {str(error).rpartition('reason: ')[2].rstrip('.')!r}"
            print(f"  its worker is killed, and with it an input that was {how}: the task is {task.status}, {said}{reason}")
PYTHON
env/bin/python try.py >seen 2>>log || { tail -n 20 log >&2; exit 1; }
cat seen
diff -u - seen <<'SEEN' || { echo "changed: the lines with + are new" >&2; exit 1; }
distributed 2026.8.0
  its worker is killed, and with it an input that was computed: the task is finished, the answer is 1000
  its worker is killed, and with it an input that was scattered: the task is cancelled, FuturesCancelledError, for the reason 'already forgotten'
SEEN
