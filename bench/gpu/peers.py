"""timm's losses and PyTorch's, eager and under torch.compile, beside a copy from device to device in the same rounds.

    python3 bench/gpu/peers.py OUT.json [--seconds N] [word ...]

Times are medians of CUDA events over buffers that take turns, as in bench.ts, whose results they stand beside. Words choose
cases as there; after N seconds no other case is begun, and the result says how many were left out.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

try:
    import torch
    from timm.loss import (
        AsymmetricLossMultiLabel,
        BinaryCrossEntropy,
        JsdCrossEntropy,
        LabelSmoothingCrossEntropy,
        SoftTargetCrossEntropy,
    )
except ImportError as error:
    print(f"bench/gpu/peers.py: left out: {error}")
    sys.exit(0)
if not torch.cuda.is_available():
    print("bench/gpu/peers.py: left out, as no GPU was found")
    sys.exit(0)

SHAPES = json.loads(pathlib.Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))
DTYPES = ("float32", "bfloat16")
ROUNDS = 7
ROUND_MILLISECONDS = 6
# More than twice what an H200's caches hold.
ROTATING_BYTES = 256 * 2**20

# Each with the rows of a sample, and whether its target is of the input's shape.
LOSSES = {
    "CrossEntropyLoss": (torch.nn.CrossEntropyLoss(), 1, False),
    "LabelSmoothingCrossEntropy": (LabelSmoothingCrossEntropy(), 1, False),
    "SoftTargetCrossEntropy": (SoftTargetCrossEntropy(), 1, True),
    "JsdCrossEntropy": (JsdCrossEntropy(), 3, False),
    "BinaryCrossEntropy": (BinaryCrossEntropy(), 1, False),
    "AsymmetricLossMultiLabel": (AsymmetricLossMultiLabel(), 1, True),
}


def milliseconds(call, count):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for i in range(count):
        call(i)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def sets_of(size):
    return max(1, min(8, -(-ROTATING_BYTES // size)))


def copies(moved):
    """Copies of half of so many bytes, between buffers that take turns."""
    half = moved // 2
    pairs = [
        [torch.empty(half, dtype=torch.uint8, device="cuda") for _ in range(2)] for _ in range(sets_of(half))
    ]

    def copy(i):
        source, destination = pairs[i % len(pairs)]
        destination.copy_(source)

    return copy


def measure(loss, is_dense, dtype, rows, classes, backward, compiled):
    # What was compiled for other shapes would count towards the limit after which PyTorch compiles no more.
    torch._dynamo.reset()
    size = rows * classes * dtype.itemsize
    sets = sets_of(size)
    inputs = [(3 * torch.randn(rows, classes, device="cuda")).to(dtype).requires_grad_(backward) for _ in range(sets)]
    if is_dense:
        target = torch.rand(rows, classes, device="cuda").mul_(2 / classes).to(dtype)
    else:
        target = torch.randint(classes, (rows,), device="cuda")
    function = torch.compile(loss, dynamic=False) if compiled else loss

    def run(i):
        x = inputs[i % sets]
        value = function(x, target)
        if backward:
            x.grad = None
            value.backward()
        return value

    moved = size * (1 + backward + is_dense)
    copy = copies(moved)
    for i in range(3):
        run(i)
        copy(i)
    count = max(2, min(200, int(ROUND_MILLISECONDS / max(milliseconds(run, 2), 1e-3))))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(milliseconds(run, count))
        theirs.append(milliseconds(copy, count))
    return {
        "microseconds": statistics.median(ours) * 1e3,
        "copyGigabytesPerSecond": moved / statistics.median(theirs) / 1e6,
    }


def wanted(words):
    """All cases that the words choose, those of a shape together."""
    for shape in SHAPES:
        rows, classes = shape["rows"], shape["classes"]
        for dtype in shape["dtypes"]:
            for name, (_, splits, _) in LOSSES.items():
                if dtype not in DTYPES or splits != shape.get("splits", 1):
                    continue
                for backward in (True, False):
                    case = {
                        "loss": name,
                        "pass": "loss and gradient" if backward else "forward",
                        "dtype": dtype,
                        "rows": rows,
                        "classes": classes,
                    }
                    line = f"{name} {case['pass']} {dtype} {rows}x{classes}".lower()
                    if all(word.lower() in line for word in words):
                        yield case


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    begin = time.monotonic()
    cases, left_out = [], 0
    for case in wanted(arguments.words):
        loss, _, is_dense = LOSSES[case["loss"]]
        for compiled in (False, True):
            if time.monotonic() - begin > arguments.seconds:
                left_out += 1
                continue
            try:
                measured = measure(
                    loss,
                    is_dense,
                    getattr(torch, case["dtype"]),
                    case["rows"],
                    case["classes"],
                    case["pass"] != "forward",
                    compiled,
                )
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                left_out += 1
                continue
            cases.append({**case, "compiled": compiled, **measured})
            print(json.dumps(cases[-1]), flush=True)
    result = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "cases": cases,
        "leftOut": left_out,
    }
    with open(arguments.out, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


main()
