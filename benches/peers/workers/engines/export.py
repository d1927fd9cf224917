"""The ONNX file that ONNX Runtime and OpenVINO read: a BERT encoder with dynamic batch and length."""
import os


def prepare(root, dtype):
    """Writes `root`/model.onnx, in float32, unless it is there."""
    import torch
    import transformers as tf

    path = os.path.join(root, "model.onnx")
    if os.path.exists(path):
        return
    model = tf.AutoModel.from_pretrained(os.path.join(root, "float32"), attn_implementation="eager").eval()

    class Encoder(torch.nn.Module):
        """The one output that works ask for."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    ids = torch.randint(10, 1000, (2, 16))
    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("seq", min=2, max=512)}
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(Encoder(), (ids, torch.ones_like(ids)), path + ".unfinished", dynamo=True, verbose=False,
                      dynamic_shapes={name: sizes for name in names}, input_names=names, external_data=False)
    os.rename(path + ".unfinished", path)
