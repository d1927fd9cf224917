"""CTranslate2. Its own format, converted before any measurement, one directory for each precision."""
import json
import os
import shutil

KINDS = ("encode", "generate", "seq2seq")


def version():
    """The version that a record names."""
    import ctranslate2

    return f"CTranslate2 {ctranslate2.__version__}"


def dtypes():
    """What it computes in on this processor."""
    import ctranslate2

    able = ctranslate2.get_supported_compute_types("cpu")
    return [dtype for dtype, name in (("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8_float32"))
            if name in able]


class Vocabulary:
    """Stands for a tokenizer: the converter asks for names of ids only."""

    unk_token, bos_token, eos_token, pad_token, unk_token_id = "t3", "t0", "t2", "t1", 3

    def __init__(self, size, eos):
        self.size = size
        self.eos_token = f"t{eos}"

    def __len__(self):
        return self.size

    def get_vocab(self):
        """Every id by its name."""
        return {f"t{i}": i for i in range(self.size)}

    def convert_ids_to_tokens(self, ids):
        """Names of ids."""
        return f"t{ids}" if isinstance(ids, int) else [f"t{i}" for i in ids]


def prepare(root, dtype):
    """Writes `root`/ct2-`dtype`, unless it is there."""
    from ctranslate2.converters import TransformersConverter

    target = os.path.join(root, f"ct2-{dtype}")
    if os.path.isdir(target):
        return
    source = os.path.join(root, "float32")
    with open(os.path.join(source, "config.json")) as file:
        config = json.load(file)
    converter = TransformersConverter(source)
    converter.load_tokenizer = lambda *_, **__: Vocabulary(config["vocab_size"], config.get("eos_token_id", 2))
    shutil.rmtree(target + ".unfinished", ignore_errors=True)
    converter.convert(target + ".unfinished", quantization=dtype)
    os.rename(target + ".unfinished", target)


class Engine:
    """One model on one work."""

    def __init__(self, job):
        """Imports, which nobody times."""
        import ctranslate2
        import numpy

        self.job, self.ct2, self.numpy = job, ctranslate2, numpy

    def open(self):
        """From files to a model and its inputs."""
        job = self.job
        cls = {"encode": self.ct2.Encoder, "generate": self.ct2.Generator, "seq2seq": self.ct2.Translator}
        directory = os.path.join(job.root, f"ct2-{job.dtype}")
        self.model = cls[job.kind](directory, device="cpu", compute_type=job.dtype, intra_threads=job.threads,
                                   inter_threads=1)
        rows = job.ids.tolist()
        self.inputs = rows if job.kind == "encode" else [[f"t{i}" for i in row] for row in rows]

    def call(self):
        """One forward pass, or one generation with the end banned until its last token."""
        job, new = self.job, self.job.new
        if job.kind == "encode":
            return self.numpy.asarray(self.model.forward_batch(self.inputs).last_hidden_state)
        if job.kind == "generate":
            return self.model.generate_batch(self.inputs, max_length=new, min_length=new, sampling_topk=1,
                                             include_prompt_in_result=False)
        return self.model.translate_batch(self.inputs, beam_size=job.beams, max_decoding_length=new,
                                          min_decoding_length=new, return_scores=job.beams > 1)

    def result(self, found):
        """What is compared."""
        kind = self.job.kind
        if kind == "encode":
            return {"sequence_output": self.numpy.ascontiguousarray(found, dtype="float32")}
        if kind == "generate":
            return {"ids": self.numpy.array(found[0].sequences_ids[0])}
        arrays = {"ids": self.numpy.array([int(token[1:]) for token in found[0].hypotheses[0]])}
        if self.job.beams > 1:
            arrays["score"] = self.numpy.array(found[0].scores[:1], dtype="float32")
        return arrays
