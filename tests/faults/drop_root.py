"""Runs a command without root's right to ignore permissions.

python -m tests.faults.drop_root COMMAND ...
"""

import ctypes
import os
import sys

if __name__ == "__main__":
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; no effect but for root
    os.execvp(sys.argv[1], sys.argv[1:])
