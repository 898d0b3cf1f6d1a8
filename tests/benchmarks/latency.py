"""How long the int8 files of one model take beside each other and beside float.

ONNX Runtime on the CPU, one thread, in turns: each round runs every file once, and the median of
the rounds is kept. The time is that which the thread was computing, so that what else the machine
does counts little.
"""

import time

import numpy as np
import onnxruntime


def medians(files, feed, rounds):
    """Milliseconds of each file, by the names of `files`."""
    sessions = {name: _session(path) for name, path in files.items()}
    times = {name: [] for name in files}
    for turn in range(rounds + 2):
        for name, session in sessions.items():
            begun = time.thread_time()
            session.run(None, feed)
            if turn > 1:  # the first runs arrange memory
                times[name].append(time.thread_time() - begun)
    return {name: round(1000 * float(np.median(each)), 3) for name, each in times.items()}


def _session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
