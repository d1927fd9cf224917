"""Models with random weights at real sizes, as Hugging Face directories in float32 and bfloat16."""
import json
import os
import shutil

SEED = 20

# Attributes that the CTranslate2 converter asks of a configuration.
CONVERTER_BERT = {"position_embedding_type": "absolute"}
CONVERTER_BART = {"normalize_before": False, "normalize_embedding": True, "scale_embedding": False}

# What the weights of linear layers are multiplied with: as they are drawn, this model writes few different tokens,
# which compares little. With T5 and BART that has a price: what makes their tokens vary makes them chaotic, so that
# float32 differs from float64. Their logits are compared instead.
GAINS = {"opt-125m": 3}


def specifications():
    """Name to (class, configuration, what to add to the saved configuration)."""
    import transformers as tf

    minilm = dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    t5 = dict(d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0)
    layers = {f"{part}_{size}": n for part in ("encoder", "decoder")
              for size, n in (("layers", 6), ("attention_heads", 12), ("ffn_dim", 3072))}
    falcon = dict(vocab_size=50304, hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, alibi=True,
                  multi_query=False, parallel_attn=False, bias=True, new_decoder_architecture=False,
                  bos_token_id=1, eos_token_id=2)
    return {
        "minilm-l6": (tf.BertModel, tf.BertConfig(**minilm), CONVERTER_BERT),
        "bert-base": (tf.BertModel, tf.BertConfig(), CONVERTER_BERT),
        "opt-125m": (tf.OPTForCausalLM, tf.OPTConfig(), {}),
        "t5-base": (tf.T5ForConditionalGeneration, tf.T5Config(**t5), {}),
        "bart-base": (tf.BartForConditionalGeneration, tf.BartConfig(d_model=768, **layers), CONVERTER_BART),
        "falcon-rw-1b": (tf.FalconForCausalLM, tf.FalconConfig(**falcon), {}),
    }


def make(root, name):
    """Writes `root`/float32 and `root`/bfloat16, unless they are there."""
    import torch

    wanted = [dtype for dtype in ("float32", "bfloat16") if not os.path.isdir(os.path.join(root, dtype))]
    if not wanted:
        return
    cls, config, additions = specifications()[name]
    torch.manual_seed(SEED)
    model = cls(config).eval()
    amplify(model, GAINS.get(name, 1))
    if hasattr(model, "generation_config"):
        # Works have exact lengths: nothing may end or be forced by the length.
        model.generation_config.forced_eos_token_id = None
    for dtype in wanted:
        directory = os.path.join(root, dtype)
        unfinished = directory + ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        model.to(getattr(torch, dtype)).save_pretrained(unfinished)
        path = os.path.join(unfinished, "config.json")
        with open(path) as file:
            saved = json.load(file)
        saved.update(additions)
        saved.pop("forced_eos_token_id", None)
        with open(path, "w") as file:
            json.dump(saved, file, indent=1)
        os.rename(unfinished, directory)


def amplify(model, gain):
    """Multiplies the weights of all linear layers but that of the logits."""
    import torch

    with torch.no_grad():
        for path, layer in model.named_modules():
            if isinstance(layer, torch.nn.Linear) and path != "lm_head":
                layer.weight.mul_(gain)
