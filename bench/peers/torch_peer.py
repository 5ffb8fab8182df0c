"""timm's losses as their formulas say, in eager PyTorch. A line of JSON asks, a line of JSON answers.

Data stay here between questions and runs are timed here, so that neither counts what travels between processes.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F


def cross_entropy(x, d):
    return F.cross_entropy(x, d["labels"])


def label_smoothing(x, d, smoothing=0.1):
    logprobs = F.log_softmax(x, dim=-1)
    nll = -logprobs.gather(-1, d["labels"].unsqueeze(1)).squeeze(1)
    return ((1 - smoothing) * nll - smoothing * logprobs.mean(-1)).mean()


def soft_target(x, d):
    return torch.sum(-d["soft"] * F.log_softmax(x, dim=-1), dim=-1).mean()


def jsd(x, d, splits=3, alpha=12):
    size = x.shape[0] // splits
    x = x[: size * splits]
    parts = torch.split(x, size)
    loss = label_smoothing(parts[0], {"labels": d["labels"][:size]})
    probs = [F.softmax(part, dim=1) for part in parts]
    mixture = torch.clamp(torch.stack(probs).mean(0), 1e-7, 1).log()
    return loss + alpha * sum(F.kl_div(mixture, p, reduction="batchmean") for p in probs) / splits


def binary(x, d):
    return F.binary_cross_entropy_with_logits(x, d["multiHot"])


def asymmetric_multi_label(x, d, gamma_neg=4, gamma_pos=1, clip=0.05, eps=1e-8):
    y = d["multiHot"]
    p = torch.sigmoid(x)
    q = (1 - p + clip).clamp(max=1)
    loss = y * torch.log(p.clamp(min=eps)) + (1 - y) * torch.log(q.clamp(min=eps))
    weight = torch.pow(1 - p * y - q * (1 - y), gamma_pos * y + gamma_neg * (1 - y))
    return -(loss * weight).sum()


def asymmetric_single_label(x, d, gamma_pos=1, gamma_neg=4, eps=0.1):
    logprobs = F.log_softmax(x, dim=-1)
    y = torch.zeros_like(x).scatter_(1, d["labels"].unsqueeze(1), 1)
    p = torch.exp(logprobs)
    weight = torch.pow(1 - p * y - (1 - p) * (1 - y), gamma_pos * y + gamma_neg * (1 - y))
    return -((y * (1 - eps) + eps / x.shape[-1]) * logprobs * weight).sum(dim=-1).mean()


LOSSES = {
    "CrossEntropyLoss": cross_entropy,
    "LabelSmoothingCrossEntropy": label_smoothing,
    "SoftTargetCrossEntropy": soft_target,
    "JsdCrossEntropy": jsd,
    "BinaryCrossEntropy, dense target": binary,
    "AsymmetricLossMultiLabel": asymmetric_multi_label,
    "AsymmetricLossSingleLabel": asymmetric_single_label,
}

data = {}


def run(loss, wants_grad):
    x = data["logits"]
    if not wants_grad:
        with torch.no_grad():
            return LOSSES[loss](x, data).item()
    x.grad = None
    value = LOSSES[loss](x, data)
    value.backward()
    return value.item()


def load(request):
    shape = (request["rows"], request["classes"])

    def read(name, dtype):
        with open(request["files"][name], "rb") as file:
            return torch.frombuffer(bytearray(file.read()), dtype=dtype)

    data["logits"] = read("logits", torch.float32).reshape(shape).requires_grad_()
    data["labels"] = read("labels", torch.int32).long()
    data["soft"] = read("soft", torch.float32).reshape(shape)
    data["multiHot"] = read("multiHot", torch.float32).reshape(shape)
    return {}


def threads(request):
    torch.set_num_threads(request["count"])
    return {}


def result(request):
    value = run(request["loss"], request["wantsGrad"])
    if request["wantsGrad"]:
        with open(request["file"], "wb") as file:
            file.write(data["logits"].grad.numpy().tobytes())
    return {"value": value}


def sample(request):
    if request["rehearse"]:
        run(request["loss"], request["wantsGrad"])
    start = time.perf_counter_ns()
    for _ in range(request["repeats"]):
        run(request["loss"], request["wantsGrad"])
    return {"ns": (time.perf_counter_ns() - start) / request["repeats"]}


def version(_request):
    return {"torch": torch.__version__, "python": sys.version.split()[0]}


def main():
    answers = {"load": load, "threads": threads, "result": result, "sample": sample, "version": version}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request["do"]](request)), flush=True)


main()
