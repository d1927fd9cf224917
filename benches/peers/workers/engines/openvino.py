"""OpenVINO on the ONNX file, compiled for the sizes of the work: its fastest way. Encoders."""
import os

from .export import prepare  # noqa: F401

KINDS = ("encode",)
HINTS = {"float32": "f32", "bfloat16": "bf16"}


def version():
    """The version that a record names."""
    import openvino

    return f"OpenVINO {openvino.__version__.split('-')[0]}"


def dtypes():
    """bfloat16 where its CPU plugin says that it computes in it."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [dtype for dtype, name in (("float32", "FP32"), ("bfloat16", "BF16")) if name in able]


class Engine:
    """One model on one work."""

    def __init__(self, job):
        """Imports, which nobody times."""
        import openvino

        self.job, self.core = job, openvino.Core()

    def open(self):
        """From the file to a compiled model and its inputs."""
        job = self.job
        model = self.core.read_model(os.path.join(job.root, "model.onnx"))
        model.reshape({each.get_any_name(): list(job.ids.shape) for each in model.inputs})
        wanted = HINTS[job.dtype]
        options = {"INFERENCE_NUM_THREADS": job.threads, "INFERENCE_PRECISION_HINT": wanted,
                   "PERFORMANCE_HINT": "LATENCY"}
        compiled = self.core.compile_model(model, "CPU", options)
        got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if got != wanted:
            raise RuntimeError(f"asked for {wanted}, it computes in {got}")
        inputs = {"input_ids": job.ids, "attention_mask": job.mask}
        self.inputs = [inputs[each.get_any_name()] for each in compiled.inputs]
        self.request = compiled.create_infer_request()

    def call(self):
        """One forward pass."""
        return self.request.infer(self.inputs)[0]

    def result(self, found):
        """What is compared."""
        return {"sequence_output": found}
