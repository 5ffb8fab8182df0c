"""A PyTorch process beside torch_peer.test.ts: shares its tensors' memory, and opens that of others.

Tasks come as lines of JSON and are answered so. Handles are CUDA's, by the driver's own functions.
"""

import base64
import ctypes
import json
import sys

import torch
import torch.nn.functional as F

driver = ctypes.CDLL("libcuda.so.1")


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_byte * 64)]


def check(result):
    if result != 0:
        raise RuntimeError(f"the CUDA driver answers {result}")


class Memory:
    """What __cuda_array_interface__ tells of memory at an address."""

    def __init__(self, address, shape):
        self.__cuda_array_interface__ = {
            "shape": tuple(shape), "typestr": "<f4", "data": (address, False), "version": 3,
        }


def open_tensor(description):
    handle = Handle()
    ctypes.memmove(handle.bytes, base64.b64decode(description["handle"]), 64)
    base = ctypes.c_uint64()
    # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS; the handle is passed by value.
    driver.cuIpcOpenMemHandle_v2.argtypes = [ctypes.POINTER(ctypes.c_uint64), Handle, ctypes.c_uint]
    check(driver.cuIpcOpenMemHandle_v2(ctypes.byref(base), handle, 1))
    return torch.as_tensor(Memory(base.value + description["byteOffset"], description["shape"]), device="cuda")


def share_tensor(tensor):
    """A tensor of PyTorch's own allocator stands somewhere in an allocation, whose handle it has."""
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    address = ctypes.c_uint64(tensor.data_ptr())
    check(driver.cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), address))
    handle = Handle()
    check(driver.cuIpcGetMemHandle(ctypes.byref(handle), base))
    torch.cuda.synchronize()
    return {
        "handle": base64.b64encode(bytes(handle.bytes)).decode(),
        "byteOffset": tensor.data_ptr() - base.value,
        "shape": list(tensor.shape),
        "dtype": "float32",
        "device": "cuda:0",
    }


kept = {}


def make(name, rows, classes):
    # Neighbours, so that tensors stand inside of an allocation.
    kept[name + " before"] = torch.zeros(1000, device="cuda")
    kept[name] = torch.randn(rows, classes, device="cuda")
    return {"handle": share_tensor(kept[name]), "values": kept[name].tolist()}


def gradient(logits, labels):
    """Loss and gradient of the smoothed cross entropy in float64."""
    x = kept[logits].double().clone().requires_grad_(True)
    value = F.cross_entropy(x, torch.tensor(labels, device="cuda"), label_smoothing=0.1)
    value.backward()
    return {"value": value.item(), "grad": x.grad.tolist()}


def answer(task):
    name = task.get("name")
    if task["task"] == "make":
        return make(name, task["rows"], task["classes"])
    if task["task"] == "open":
        kept[name] = open_tensor(task["handle"])
        return {"values": kept[name].tolist()}
    if task["task"] == "read":
        torch.cuda.synchronize()
        return {"values": kept[name].tolist()}
    if task["task"] == "gradient":
        return gradient(task["logits"], task["labels"])
    if task["task"] == "write":
        kept[name].copy_(torch.tensor(task["values"]))
        torch.cuda.synchronize()
        return {}
    raise ValueError(task["task"])


print(json.dumps({"torch": torch.__version__, "gpu": torch.cuda.is_available()}), flush=True)
torch.zeros(1, device="cuda")  # the context that the driver's functions work in
for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:  # the test says what it was
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
