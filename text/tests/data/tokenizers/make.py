"""Makes small vocabularies, and what transformers and KerasHub make of texts with them.

    pip install transformers==5.23 keras-hub==0.32 sentencepiece==0.2.3 protobuf torch
    python make.py

Writes vocab.txt, vocab.json, merges.txt and spiece.model, trained on the sentences below, unless they are there:
training does not repeat itself to the last token. Then writes expected.json: for each directory that a user may
have, its configuration, which of the vocabularies lie in it under which names, and for each text the ids of a
prompt and the text that they decode to.
"""

import contextlib
import io
import json
import os
import shutil
import tempfile

os.environ["KERAS_BACKEND"] = "torch"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras_hub
import numpy
import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))

SENTENCES = """
The quick brown fox jumps over the lazy dog, and the dog sleeps in the sun.
A transformer reads the whole sentence at once; a decoder writes one token after another.
In 2024 there were 1,234,567 readers, 89.5% of them in 17 countries.
Don't you think it's what they're after? We've seen that she'll do what I'd do.
The weather was nice this morning: the children were playing in the garden near the river.
translate English to German: The house is wonderful and the garden is small.
Das Haus ist wunderbar, und der Garten ist klein. Größe und Straße.
summarize: the state of the art was changed by attention, without recurrence or convolution.
Le café est déjà fermé, mais la crème brûlée était délicieuse. Ça va?
Где находится библиотека? Москва и Санкт-Петербург.
日本語の文章です。東京は大きいです。
한국어 문장입니다.
print("hello, world") # a comment; x = [1, 2, 3]
for i in range(10): total += values[i] * weights[i]
Call me Ishmael. Some years ago, never mind how long precisely, having little money in my purse.
It was the best of times, it was the worst of times, it was the age of wisdom.
Sentence pieces are trained on raw text, and the space is a character as any other.
WordPiece takes the longest piece of the vocabulary that the word begins with.
playing played player plays playful unplayable replaying
reading reader readers reads unreadable rereading
tokens tokenize tokenized tokenizer tokenization detokenize
""".strip().splitlines()

TEXTS = [
    "The quick brown fox jumped over 13 lazy dogs.",
    "",
    " ",
    "translate English to German: The house is wonderful.",
    "  two  spaces,\tone tab\nand two newlines\n\n at  the end  ",
    "It's 2024: don't say they're 1,234,567.89% sure; we'll see 'tis 100000.",
    "Das Café in der Straße ist GRÖSSER, déjà cre\u0301me bru\u0302le\u0301e ŒUVRE",
    "Где находится библиотека? 日本語の文章です。한국어",
    "emoji \U0001f600 and \U0001f468\u200d\U0001f469\u200d\U0001f467, \u2764\ufe0f!",
    "\ufb01ne \uff21\uff22\uff23 \u2122 \u00bd\u00b2 \uff76\uff9e x\u00a0y\u2009z\u3000w a\u00adb c\u200bd",
    "special <s> tokens </s> in<pad>the <mask> text <unk>, [CLS] a [MASK]b [SEP] <|endoftext|> <extra_id_0> <extra_id_99>",
    "print(\"hello, world\")  # \u2026 \u201cquoted\u201d \u2014 dash_under_score a+b=c $5 ^_^ `x` ~y~",
    "unplayable retokenization " + "long" * 40 + " \u00e9" * 3 + " \u0130stanbul ma\u00df \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0915\u094d\u0937\u0947\u0924\u094d\u0930 \u05e9\u05dc\u05d5\u05dd \u0001control\u007f \ufffd",
]

# What of NFKC the SentencePiece model has: the whole takes 240 KB.
RULES = {
    "\u00a0": " ", "\u2009": " ", "\u3000": " ", "\t": " ", "\n": " ", "\u200b": " ", "\u00ad": "", "\u0001": "",
    "\ufb01": "fi", "\u2122": "TM", "\u00bd": "1\u20442", "\u00b2": "2", "\u2026": "...", "\uff76": "\u30ab",
    "\uff76\uff9e": "\u30ac", "\uff21": "A", "\uff22": "B", "\uff23": "C", "e\u0301": "\u00e9", "u\u0302": "\u00fb",
}


def vocabularies():
    """vocab.txt, vocab.json with merges.txt, spiece.model."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>"]
    bpe.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet)
    )
    model = json.loads(bpe.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    vocab["<mask>"] = len(vocab)
    with open(f"{HERE}/vocab.json", "w", encoding="utf-8") as file:
        json.dump(vocab, file, ensure_ascii=False)
    with open(f"{HERE}/merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in model["merges"]))

    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces.train_from_iterator(
        SENTENCES + [sentence.lower() for sentence in SENTENCES] + ["mass istanbul fine abc œuvre grosser"],
        trainers.WordPieceTrainer(vocab_size=600, special_tokens=special),
    )
    vocab = sorted(pieces.get_vocab().items(), key=lambda item: item[1])
    with open(f"{HERE}/vocab.txt", "w", encoding="utf-8") as file:
        file.write("".join(f"{token}\n" for token, _ in vocab))

    # The model remembers the name of the file of rules.
    with tempfile.TemporaryDirectory() as dir, contextlib.chdir(dir):
        with open("rules.tsv", "w", encoding="utf-8") as file:
            codes = lambda text: " ".join(f"{ord(c):x}" for c in text)
            file.write("".join(f"{codes(a)}\t{codes(b)}\n" for a, b in RULES.items()))
        spm = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 3), model_writer=spm, model_type="unigram", vocab_size=260,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv="rules.tsv",
            num_threads=1, minloglevel=2,
        )
    with open(f"{HERE}/spiece.model", "wb") as file:
        file.write(spm.getvalue())


def falcon_json():
    """A tokenizer.json as Falcon's own."""
    tokenizer = Tokenizer(models.BPE.from_file(f"{HERE}/vocab.json", f"{HERE}/merges.txt"))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return json.loads(tokenizer.to_str())


BPE = {"vocab.json": "vocab.json", "merges.txt": "merges.txt"}
WORDS = {"vocab.txt": "vocab.txt"}
PIECES = {"spiece.model": "spiece.model"}


def token(content, **more):
    base = {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False,
            "single_word": False}
    return {**base, **more}


def hugging_face():
    """(name, model_type, files, JSON files) of the directories that transformers reads."""
    opt = {
        "errors": "replace", "unk_token": token("</s>"), "bos_token": token("</s>"), "eos_token": token("</s>"),
        "pad_token": token("<pad>"), "add_prefix_space": False, "add_bos_token": True,
        "tokenizer_class": "GPT2Tokenizer",
    }
    opt_map = {key: value for key, value in opt.items() if key in ("unk_token", "bos_token", "eos_token")}
    opt_map["pad_token"] = "<pad>"
    flan = {
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)], "eos_token": "</s>", "extra_ids": 100,
        "pad_token": "<pad>", "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>",
    }
    bart = {
        "bos_token": "<s>", "eos_token": "</s>", "add_prefix_space": True, "tokenizer_class": "BartTokenizer",
        "mask_token": token("<mask>", lstrip=True, normalized=False),
    }
    cased = {"do_lower_case": False, "tokenize_chinese_chars": False, "tokenizer_class": "BertTokenizer"}
    stripped = {"do_lower_case": False, "strip_accents": True}
    decoder = {
        "added_tokens_decoder": {
            "1": {"content": "<pad>", "special": True, "lstrip": False, "rstrip": False, "normalized": False,
                  "single_word": False},
            "701": {"content": "quick brown", "special": False, "lstrip": False, "rstrip": False,
                    "normalized": True, "single_word": False},
        },
        "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer",
    }
    return [
        ("bert", "bert", WORDS, {}),
        ("bert cased", "bert", WORDS, {"tokenizer_config.json": cased}),
        ("bert without accents", "bert", WORDS, {"tokenizer_config.json": stripped}),
        ("bart", "bart", BPE, {}),
        ("bart with a prefix space", "bart", BPE, {"tokenizer_config.json": bart}),
        ("opt", "opt", BPE, {"tokenizer_config.json": opt, "special_tokens_map.json": opt_map}),
        ("opt without settings", "opt", BPE, {}),
        ("opt with a map of tokens", "opt", BPE, {
            "tokenizer_config.json": {"add_bos_token": True},
            "special_tokens_map.json": {"bos_token": "</s>", "unk_token": "</s>", "eos_token": "</s>"},
        }),
        ("opt with added tokens", "opt", BPE, {"added_tokens.json": {"quick brown": 701}}),
        ("falcon", "falcon", {}, {"tokenizer.json": falcon_json()}),
        ("falcon of vocabulary and merges", "falcon", BPE, {"tokenizer_config.json": decoder}),
        ("falcon without settings", "falcon", BPE, {}),
        ("t5", "t5", PIECES, {}),
        ("flan-t5", "t5", PIECES, {"tokenizer_config.json": flan}),
        ("t5 of 8 extra ids", "t5", PIECES, {"tokenizer_config.json": {"extra_ids": 8}}),
    ]


def by_transformers():
    for name, model_type, files, configs in hugging_face():
        with tempfile.TemporaryDirectory() as dir:
            for to, source in files.items():
                shutil.copy(f"{HERE}/{source}", f"{dir}/{to}")
            configs = {"config.json": {"model_type": model_type}, **configs}
            for to, content in configs.items():
                with open(f"{dir}/{to}", "w", encoding="utf-8") as file:
                    json.dump(content, file)
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(dir)
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}")
                continue
            print(name, type(tokenizer).__name__)
            ids = [tokenizer(text)["input_ids"] for text in TEXTS]
            decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
            yield {"name": name, "files": files, "json": configs, "ids": ids, "decoded": decoded}


KERAS_BPE = {"assets/tokenizer/vocabulary.json": "vocab.json", "assets/tokenizer/merges.txt": "merges.txt"}
KERAS_WORDS = {"assets/tokenizer/vocabulary.txt": "vocab.txt"}
KERAS_PIECES = {"assets/tokenizer/vocabulary.spm": "spiece.model"}


def by_keras_hub():
    bpe = {"vocabulary": f"{HERE}/vocab.json", "merges": f"{HERE}/merges.txt"}
    words = {"vocabulary": f"{HERE}/vocab.txt"}
    pieces = {"proto": f"{HERE}/spiece.model"}
    for name, family, arguments, files in [
        ("keras bert", "Bert", {**words, "lowercase": True}, KERAS_WORDS),
        ("keras bert cased", "Bert", words, KERAS_WORDS),
        ("keras bert without accents", "Bert", {
            **words, "lowercase": True, "strip_accents": True, "special_tokens_in_strings": True
        }, KERAS_WORDS),
        ("keras bart", "Bart", bpe, KERAS_BPE),
        ("keras opt", "OPT", bpe, KERAS_BPE),
        ("keras opt with a prefix space", "OPT", {**bpe, "add_prefix_space": True}, KERAS_BPE),
        ("keras falcon", "Falcon", {**bpe, "unsplittable_tokens": ["<|endoftext|>", "<mask>"]}, KERAS_BPE),
        ("keras t5", "T5", pieces, KERAS_PIECES),
    ]:
        tokenizer = getattr(keras_hub.tokenizers, f"{family}Tokenizer")(**arguments)
        with tempfile.TemporaryDirectory() as dir:
            tokenizer.save_to_preset(dir)
            with open(f"{dir}/tokenizer.json", encoding="utf-8") as file:
                config = json.load(file)
        if whole := config["config"].get("unsplittable_tokens"):
            whole.sort()
        print(name)
        backbone = {"registered_name": f"keras_hub>{family}Backbone", "config": {}}
        row = {"name": name, "files": files, "json": {"config.json": backbone, "tokenizer.json": config}}
        ids, decoded = [], []
        for text in TEXTS:
            if family == "Bert":
                inputs = keras_hub.models.BertTextEmbedderPreprocessor(tokenizer, sequence_length=512)(text)
                found, mask = inputs["token_ids"], inputs["padding_mask"]
                length = int(mask.sum())
                ids.append([int(id) for id in found[:length]])
                keep = [id for id in ids[-1] if id not in tokenizer.special_token_ids]
                decoded.append(tokenizer.detokenize(keep) if keep else "")
                continue
            task = "Seq2SeqLM" if family in ("Bart", "T5") else "CausalLM"
            preprocessor = getattr(keras_hub.models, f"{family}{task}Preprocessor")(tokenizer)
            inputs = preprocessor.generate_preprocess(text)
            side = "encoder_" if task == "Seq2SeqLM" else ""
            length = int(inputs[f"{side}padding_mask"].sum())
            ids.append([int(id) for id in inputs[f"{side}token_ids"][:length]])
            side = side.replace("encoder", "decoder")
            if side:
                row["decoder_prompt"] = [
                    int(id) for id in inputs["decoder_token_ids"][: int(inputs["decoder_padding_mask"].sum())]
                ]
            both = {f"{side}token_ids": numpy.array([ids[-1]]), f"{side}padding_mask": numpy.ones((1, length), bool)}
            found = preprocessor.generate_postprocess(both)
            found = found[0]
            decoded.append(found if isinstance(found, str) else found.decode("utf-8", "replace"))
        row["end"] = tokenizer.end_token_id
        yield {**row, "ids": ids, "decoded": decoded}


if __name__ == "__main__":
    if not all(os.path.exists(f"{HERE}/{name}") for name in ("vocab.txt", "vocab.json", "merges.txt", "spiece.model")):
        vocabularies()
    rows = [*by_transformers(), *by_keras_hub()]
    with open(f"{HERE}/expected.json", "w", encoding="utf-8") as file:
        line = lambda value: json.dumps(value, ensure_ascii=False)
        file.write(f'{{"texts": {line(TEXTS)},\n"directories": [\n' + ",\n".join(map(line, rows)) + "\n]}\n")
