"""Whether outputs agree: everybody's against torch's in float32, on the same token ids."""
import json
import math

from . import plan, tensors
from .measure import Failed, environment, output_of

REFERENCE = plan.Entry("torch", "float32")

# The norm of the difference over the norm of the reference, of an encoder's output.
ENCODED = {"float32": 1e-4, "bf16x6": 1e-4, "bfloat16": 3e-2, "int8": 1.5e-1}
# How far below the likeliest token the other one may have been, in standard deviations of that step's logits, for
# their first difference to be a near tie. Behind it nothing is comparable.
TIE = {"float32": 1e-3, "bf16x6": 1e-3, "bfloat16": 1e-1, "int8": 5e-1}
# How much worse the score of another sequence may be, relative to it, for beams.
SCORE = {"float32": 1e-4, "bf16x6": 1e-4, "bfloat16": 1e-2, "int8": 5e-2}


def check(bench, work, entry):
    """A line of the raw record: a verdict, `agrees`, `near tie`, `DISAGREES` or `not compared`, and figures."""
    line = {"kind": "agree", "model": work.model, "work": work.task, "engine": entry.engine, "dtype": entry.dtype}
    try:
        reference = tensors.read(bench.output(work, REFERENCE))
    except OSError:
        return {**line, "verdict": "not compared", "detail": "no result of torch in float32"}
    try:
        found = ours(bench, work, entry.dtype) if entry.engine == plan.OURS else (
            tensors.read(bench.output(work, entry)))
    except (OSError, Failed) as error:
        return {**line, "verdict": "not compared", "detail": str(error)}
    if entry == REFERENCE:
        return {**line, "verdict": "agrees", "detail": "the reference"}
    if plan.kind(work) == "encode":
        return {**line, **encoded(found["sequence_output"], reference["sequence_output"], entry.dtype)}
    if plan.kind(work) == "seq2seq" and plan.sizes(work)[2] > 1:
        return {**line, **searched(found, reference, entry.dtype)}
    line.update(greedy(found["ids"][1], reference, entry.dtype))
    if "logits" in found:
        logits = encoded(found["logits"], reference["logits"], entry.dtype)
        line["detail"] += f"; logits of given tokens: {logits['detail']}"
        if logits["verdict"] == "DISAGREES":
            line["verdict"] = "DISAGREES"
    return line


def ours(bench, work, dtype):
    """Our result, by the command line, in the form of the others'."""
    rachis, model, flags = bench.binaries / "rachis", bench.root(work) / plan.stored(dtype), plan.flags(dtype)
    if plan.kind(work) == "encode":
        output = bench.output(work, plan.Entry(plan.OURS, dtype))
        output_of([rachis, "run", "--model", model, "--input", bench.ids(work), "--output", output, *flags], environment(1))
        return tensors.read(output)
    _, prompt = tensors.read(bench.ids(work))["token_ids"]
    new, beams = [*plan.sizes(work), 1][1:3]
    found = output_of([rachis, "generate", "--json", "--model", model, "--prompt-ids", ",".join(map(str, prompt)),
                       "--max-new-tokens", new, "--min-new-tokens", new, "--num-beams", beams,
                       "--forced-eos-id", "none", *flags], environment(1))
    sequence = json.loads(found)["sequences"][0]
    result = {"ids": ([new], sequence["ids"][-new:]), "score": ([1], [sequence["score"]])}
    if plan.kind(work) == "seq2seq" and beams == 1:
        result["logits"] = forced(bench, work, dtype, prompt, new)
    return result


def forced(bench, work, dtype, prompt, new):
    """Our logits for a decoder that reads the beginning of the source, which depend on nobody's choices."""
    paths = [bench.root(work) / f"forced-{side}.safetensors" for side in ("input", "output")]
    tensors.write_ids(paths[0], {"encoder_token_ids": [prompt], "decoder_token_ids": [prompt[:new]]})
    model = bench.root(work) / plan.stored(dtype)
    output_of([bench.binaries / "rachis", "run", "--logits", "--model", model, "--input", paths[0],
               "--output", paths[1], *plan.flags(dtype)], environment(1))
    shape, numbers = tensors.read(paths[1])["logits"]
    return shape[1:], numbers


def encoded(found, reference, dtype):
    """Outputs of an encoder, by norms."""
    if found[0] != reference[0]:
        return {"verdict": "DISAGREES", "detail": f"shape {found[0]}, expected {reference[0]}"}
    differences = [a - b for a, b in zip(found[1], reference[1])]
    error = math.hypot(*differences) / math.hypot(*reference[1])
    largest = max(map(abs, differences))
    # Not `error <= tolerance` alone would let NaN through.
    verdict = "agrees" if error <= ENCODED[dtype] else "DISAGREES"
    return {"verdict": verdict, "error": error, "detail": f"relative error {error:.1e}, largest {largest:.1e}"}


def greedy(found, reference, dtype):
    """Tokens: equal, or equal until a step at which the two were nearly as likely."""
    expected = list(reference["ids"][1])
    found = list(found)
    if found == expected:
        return {"verdict": "agrees", "error": 0, "detail": same(expected)}
    if len(found) != len(expected):
        return {"verdict": "DISAGREES", "detail": f"{len(found)} tokens, expected {len(expected)}"}
    step = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
    kept = reference["top_ids"][0][1]
    ids = reference["top_ids"][1][step * kept:(step + 1) * kept]
    logits = reference["top_logits"][1][step * kept:(step + 1) * kept]
    if found[step] not in ids:
        return {"verdict": "DISAGREES", "detail": f"token {step + 1} is not among the {kept} likeliest"}
    gap = (logits[0] - logits[list(ids).index(found[step])]) / reference["deviation"][1][step]
    verdict = "near tie" if gap <= TIE[dtype] else "DISAGREES"
    detail = f"the same {step} of {len(expected)} tokens, then one that is {gap:.1e} deviations less likely"
    return {"verdict": verdict, "error": gap, "detail": detail}


def searched(found, reference, dtype):
    """A beam search: the same tokens, or others with as good a score."""
    if list(found["ids"][1]) == list(reference["ids"][1]):
        return {"verdict": "agrees", "error": 0, "detail": same(found['ids'][1])}
    score, expected = found["score"][1][0], reference["score"][1][0]
    worse = (expected - score) / abs(expected)
    verdict = "near tie" if worse <= SCORE[dtype] else "DISAGREES"
    return {"verdict": verdict, "error": worse, "detail": f"other tokens, score {score:.5f} beside {expected:.5f}"}


def same(tokens):
    """How much equal tokens say."""
    return f"the same {len(tokens)} tokens, {len(set(tokens))} of them different"
