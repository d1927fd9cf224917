"""PyTorch by transformers: eager modules with its own attention, as a user of `generate` has them."""
import json
import os

DTYPES = ("float32", "bfloat16")
KINDS = ("encode", "generate", "seq2seq")
# How many of the likeliest tokens of a step are kept, for judging a near tie.
LIKELIEST = 16


def version():
    """The versions that a record names."""
    import torch
    import transformers

    return f"torch {torch.__version__.split('+')[0]} (transformers {transformers.__version__})"


def prepare(root, dtype):
    """Nothing: it reads the directories as they are."""


class Engine:
    """One model on one work."""

    def __init__(self, job):
        """Imports, which nobody times."""
        import torch
        import transformers

        self.job, self.torch, self.transformers = job, torch, transformers
        # transformers imports the code of an architecture when it is first named.
        with open(os.path.join(job.root, job.dtype, "config.json")) as file:
            getattr(transformers, json.load(file)["architectures"][0])
        torch.set_num_threads(job.threads)
        torch.set_num_interop_threads(1)
        # Kept, since it ends when it is dropped.
        self.inference = torch.inference_mode()
        self.inference.__enter__()

    def open(self):
        """From files to a model and its inputs."""
        job, tf = self.job, self.transformers
        cls = {"encode": tf.AutoModel, "generate": tf.AutoModelForCausalLM, "seq2seq": tf.AutoModelForSeq2SeqLM}
        dtype = getattr(self.torch, job.dtype)
        directory = os.path.join(job.root, job.dtype)
        self.model = cls[job.kind].from_pretrained(directory, dtype=dtype).eval()
        self.ids = self.torch.from_numpy(job.ids)
        self.mask = self.torch.ones_like(self.ids)

    def call(self):
        """One forward pass, or one generation."""
        if self.job.kind == "encode":
            return self.model(input_ids=self.ids, attention_mask=self.mask).last_hidden_state
        return self.generate()

    def generate(self, **more):
        """As many tokens as the work says, the end banned until then."""
        new = self.job.new
        return self.model.generate(self.ids, attention_mask=self.mask, max_new_tokens=new, min_new_tokens=new,
                                   do_sample=False, num_beams=self.job.beams, **more)

    def result(self, found):
        """What is compared; of greedy tokens in float32, the reference, also the likeliest of each step."""
        if self.job.kind == "encode":
            return {"sequence_output": found.float().numpy()}
        arrays = {"ids": found[0, -self.job.new:].numpy()}
        if self.job.beams == 1 and self.job.dtype != "float32":
            return arrays
        details = self.generate(return_dict_in_generate=True, output_logits=True, output_scores=True)
        if self.job.beams > 1:
            arrays["score"] = details.sequences_scores.float().numpy()
            return arrays
        if self.job.kind == "seq2seq":
            # The decoder reads the beginning of the source: logits that depend on nobody's choices.
            forced = self.model(input_ids=self.ids, decoder_input_ids=self.ids[:, :self.job.new]).logits
            arrays["logits"] = forced[0].numpy()
        logits = self.torch.stack([step[0] for step in details.logits]).float()
        scores = self.torch.stack([step[0] for step in details.scores]).float()
        top = scores.topk(LIKELIEST)
        arrays.update(top_ids=top.indices.numpy(), top_logits=top.values.numpy(),
                      deviation=logits.std(dim=1).numpy())
        return arrays
