"""ONNX Runtime, its CPU provider. Encoders in float32: it computes nothing in bfloat16 on this provider."""
import os

from .export import prepare  # noqa: F401

DTYPES = ("float32",)
KINDS = ("encode",)


def version():
    """The version that a record names."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


class Engine:
    """One model on one work."""

    def __init__(self, job):
        """Imports, which nobody times."""
        import onnxruntime

        self.job, self.ort = job, onnxruntime

    def open(self):
        """From the file to a session and its inputs."""
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.job.threads
        options.inter_op_num_threads = 1
        path = os.path.join(self.job.root, "model.onnx")
        self.session = self.ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {"input_ids": self.job.ids, "attention_mask": self.job.mask}
        self.inputs = {each.name: inputs[each.name] for each in self.session.get_inputs()}

    def call(self):
        """One forward pass."""
        return self.session.run(None, self.inputs)[0]

    def result(self, found):
        """What is compared."""
        return {"sequence_output": found}
