"""Measures the engine: training speed beside MONAI, prediction memory, weight map, prior and DICOM times. See README.md here.

Prints one markdown table a part. Timings are read by people, never by pass/fail tests; `--quick` only shows that each part runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dicom
import memory
import quality
import training
from common import Rows, markdown
from machine import machine

PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "training": training.training,
    "norm": training.norm,
    "memory": memory.memory,
    "weights": quality.weights,
    "prior": quality.prior,
    "dicom": dicom.dicom,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[*PARTS], metavar="NAME", help=f"one part, may be repeated: {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    about = machine(options.device)
    print(markdown([about]))
    print(f"\nRepeat: python Testing/benchmark/engine.py {' '.join(sys.argv[1:])}")
    numbers: dict[str, Any] = {"machine": about}
    for name in options.only or PARTS:
        print(f"\n## {name}\n{PARTS[name].__doc__}\n", flush=True)
        numbers[name] = PARTS[name](options)
        if numbers[name]:
            print(f"\n{markdown(numbers[name])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1, default=lambda number: number.item()) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
