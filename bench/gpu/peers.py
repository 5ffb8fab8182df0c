"""timm's losses and PyTorch's, eager and under torch.compile, beside a copy from device to device in the same rounds.

    python3 bench/gpu/peers.py OUT.json

Times are medians of CUDA events over buffers that take turns, as in bench.ts, whose results they stand beside.
"""

import json
import pathlib
import statistics
import sys

try:
    import torch
    from timm.loss import BinaryCrossEntropy, JsdCrossEntropy, LabelSmoothingCrossEntropy
except ImportError as error:
    print(f"bench/gpu/peers.py: left out: {error}")
    sys.exit(0)
if not torch.cuda.is_available():
    print("bench/gpu/peers.py: left out, as no GPU was found")
    sys.exit(0)

SHAPES = json.loads(pathlib.Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))
DTYPES = ("float32", "bfloat16")
ROUNDS = 9

# Each with the rows of a sample.
LOSSES = {
    "CrossEntropyLoss": (torch.nn.CrossEntropyLoss(), 1),
    "LabelSmoothingCrossEntropy": (LabelSmoothingCrossEntropy(), 1),
    "JsdCrossEntropy": (JsdCrossEntropy(), 3),
    "BinaryCrossEntropy": (BinaryCrossEntropy(), 1),
}


def milliseconds(call, count):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for i in range(count):
        call(i)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


def measure(name, loss, dtype, rows, classes, backward, compiled):
    size = rows * classes * torch.finfo(dtype).bits // 8
    sets = max(1, min(8, -(-256 * 2**20 // size)))
    inputs = [(3 * torch.randn(rows, classes, device="cuda")).to(dtype).requires_grad_(backward) for _ in range(sets)]
    target = torch.randint(classes, (rows,), device="cuda")
    function = torch.compile(loss) if compiled else loss

    def run(i):
        x = inputs[i % sets]
        value = function(x, target)
        if backward:
            x.grad = None
            value.backward()
        return value

    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    destination = torch.empty_like(source)
    for i in range(3):
        run(i)
    count = max(2, min(200, int(10 / max(milliseconds(run, 2), 1e-3))))
    ours, copies = [], []
    for _ in range(ROUNDS):
        ours.append(milliseconds(run, count))
        copies.append(milliseconds(lambda i: destination.copy_(source), count))
    return {
        "loss": name,
        "pass": "loss and gradient" if backward else "forward",
        "dtype": str(dtype).removeprefix("torch."),
        "rows": rows,
        "classes": classes,
        "compiled": compiled,
        "microseconds": statistics.median(ours) * 1e3,
        "copyGigabytesPerSecond": 2 * size / statistics.median(copies) / 1e6,
    }


def main():
    cases = []
    for shape in SHAPES:
        rows, classes = shape["rows"], shape["classes"]
        for dtype in (getattr(torch, name) for name in shape["dtypes"] if name in DTYPES):
            for name, (loss, splits) in LOSSES.items():
                if splits != shape.get("splits", 1):
                    continue
                for backward in (False, True):
                    for compiled in (False, True):
                        try:
                            case = measure(name, loss, dtype, rows, classes, backward, compiled)
                        except torch.cuda.OutOfMemoryError:
                            torch.cuda.empty_cache()
                            continue
                        cases.append(case)
                        print(json.dumps(case), flush=True)
    result = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "cases": cases}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


main()
