#!/usr/bin/env python3
"""Write configs.tsv: config.json in every form that people have, over the weights of the golden `parallel`, with what
transformers computes from it.

    /opt/geul-py/bin/python tests/golden/make_configs.py

A line: name; the tensors that are left out; what geul's message holds, empty where it converts; the last logits' first 8
values as transformers has them, - where it refuses to load; config.json. A second run writes the same bytes. Made with
transformers 5.24.0, torch 2.15.0.
"""
import os

os.environ.update(ATEN_CPU_CAPABILITY="default", MKL_CBWR="COMPATIBLE", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1",
                  TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1")

import json
import shutil
import tempfile
import warnings

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
GONE = object()
BASE = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 64, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128,
        "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 0.5, "rotary_emb_base": 10000,
        "use_parallel_residual": True, "tie_word_embeddings": False, "torch_dtype": "float32"}
NO_ROTARY = dict(rotary_pct=GONE, rotary_emb_base=GONE)
DEFAULT = {"rope_type": "default", "rope_theta": 300, "partial_rotary_factor": 0.75}
SCALED = "scaled positions"
cases = []


def case(name, message="", out="none", text=None, **keys):
    config = {k: v for k, v in (BASE | keys).items() if v is not GONE}
    cases.append((name, out, message, text or json.dumps(config, ensure_ascii=True)))


def rotary_cases():
    case("no_rotary_keys", **NO_ROTARY)
    case("top_partial_rotary_factor_alone", **NO_ROTARY, partial_rotary_factor=0.75)
    case("top_partial_rotary_factor", partial_rotary_factor=1.0)
    case("top_rope_theta_alone", **NO_ROTARY, rope_theta=500)
    case("top_rope_theta", rope_theta=500)
    case("top_rope_theta_null", rope_theta=None)
    case("top_rope_theta_nan", rope_theta=float("nan"))
    case("pct_alone", rotary_emb_base=GONE)
    case("base_alone", rotary_pct=GONE, rotary_emb_base=700)
    case("base_real", rotary_emb_base=700.0)
    case("base_1", rotary_emb_base=1)
    case("base_below_1", '"rotary_emb_base" must be a number from 1', rotary_emb_base=0.5)
    case("base_huge", '"rotary_emb_base" must be a number from 1', rotary_emb_base=1e13)
    case("base_null", '"rotary_emb_base" is null', rotary_emb_base=None)
    case("pct_0", rotary_pct=0)
    case("pct_1", rotary_pct=1)
    case("pct_odd", "3 rotary dimensions", rotary_pct=0.2)
    case("pct_beyond_1", '"rotary_pct" must be a number', rotary_pct=1.5)
    case("pct_null", '"rotary_pct" is null', rotary_pct=None)
    case("pct_text", '"rotary_pct" must be a number', rotary_pct="0.5")
    case("pct_nan", '"rotary_pct" is NaN', rotary_pct=float("nan"))
    case("rope_parameters", **NO_ROTARY, rope_parameters=DEFAULT)
    case("rope_parameters_and_old_keys", rope_parameters=DEFAULT)
    case("rope_parameters_theta", rope_parameters={"rope_type": "default", "rope_theta": 300})
    case("rope_parameters_theta_alone", **NO_ROTARY, rope_parameters={"rope_type": "default", "rope_theta": 300})
    case("rope_parameters_factor", rope_parameters={"rope_type": "default", "partial_rotary_factor": 1.0})
    case("rope_parameters_untyped", **NO_ROTARY, rope_parameters={"rope_theta": 300, "partial_rotary_factor": 0.75})
    case("rope_parameters_and_top_factor", **NO_ROTARY, rope_parameters={"rope_type": "default", "rope_theta": 300},
         partial_rotary_factor=1.0)
    case("rope_parameters_and_top_theta", **NO_ROTARY, rope_theta=300,
         rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.75})
    case("rope_parameters_old_type", rope_parameters={"type": "default", "rope_theta": 300})
    case("rope_parameters_empty", rope_parameters={})
    case("rope_parameters_null", rope_parameters=None)
    case("rope_parameters_null_theta", '"rope_theta" is null', rope_parameters={"rope_theta": None})
    case("rope_parameters_null_factor", '"partial_rotary_factor" is null', rope_parameters={"partial_rotary_factor": None})
    case("rope_parameters_list", "it must be an object", rope_parameters=[1])
    case("rope_parameters_text", "it must be an object", rope_parameters="default")
    case("rope_parameters_nan", '"rope_parameters" is NaN', rope_parameters=float("nan"))
    case("rope_parameters_linear", SCALED, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    for empty in (None, False, 0, "", [], {}):
        case(f"rope_scaling_{json.dumps(empty)}", rope_scaling=empty, rope_parameters=DEFAULT)
    case("rope_scaling_default", rope_scaling={"type": "default"})
    case("rope_scaling_default_values", rope_scaling=DEFAULT)
    case("rope_scaling_default_values_old_type", **NO_ROTARY,
         rope_scaling={"type": "default", "rope_theta": 300, "partial_rotary_factor": 0.75})
    case("rope_scaling_default_factor", rope_scaling={"type": "default", "factor": 8.0})
    case("rope_scaling_before_rope_parameters", rope_scaling={"rope_type": "default", "rope_theta": 300},
         rope_parameters={"rope_type": "default", "rope_theta": 900, "partial_rotary_factor": 1.0})
    case("rope_scaling_untyped", rope_scaling={"factor": 2.0})
    case("rope_scaling_two_types", rope_scaling={"type": "linear", "rope_type": "default", "factor": 2.0})
    case("rope_scaling_two_types_scaled", SCALED, rope_scaling={"type": "default", "rope_type": "linear", "factor": 2.0})
    case("rope_scaling_type_null", '"type" is null', rope_scaling={"type": None, "factor": 2.0})
    case("rope_scaling_type_unknown", 'type "su"', rope_scaling={"type": "su"})
    case("rope_scaling_linear", SCALED, rope_scaling={"type": "linear", "factor": 2.0})
    case("rope_scaling_dynamic", SCALED, rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    case("rope_scaling_yarn", SCALED, rope_scaling={"rope_type": "yarn", "factor": 2.0,
                                                    "original_max_position_embeddings": 64})
    case("rope_scaling_llama3", SCALED, rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                                      "high_freq_factor": 4.0, "original_max_position_embeddings": 64})
    case("rope_scaling_text", '"rope_scaling" is no object', rope_scaling="linear")
    case("rope_scaling_number", '"rope_scaling" is no object', rope_scaling=2)
    case("rope_scaling_nan", '"rope_scaling" is NaN', rope_scaling=float("nan"))


def shape_cases():
    case("head_dim", head_dim=16)
    case("head_dim_null", head_dim=None)
    case("head_dim_0", head_dim=0)
    case("head_dim_smaller", '"head_dim" is not 16', head_dim=8)
    case("head_dim_larger", '"head_dim" is not 16', head_dim=32)
    case("head_dim_text", '"head_dim" is not 16', head_dim="16")
    case("key_value_heads", num_key_value_heads=1)
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"):
        case(f"{key}_missing", f'"{key}" is missing', **{key: GONE})
        case(f"{key}_null", f'"{key}" is missing', **{key: None})
        case(f"{key}_real", f'"{key}" must be a whole number', **{key: float(BASE[key])})
        case(f"{key}_text", f'"{key}" must be a whole number', **{key: str(BASE[key])})
    case("positions_missing", max_position_embeddings=GONE)
    case("positions_null", '"max_position_embeddings" is missing', max_position_embeddings=None)
    case("positions_real", '"max_position_embeddings" must be a whole number', max_position_embeddings=128.0)
    case("positions_infinite", '"max_position_embeddings" is Infinity', max_position_embeddings=float("inf"))
    case("positions_1e30", '"max_position_embeddings" must be a whole number', max_position_embeddings=10**30)
    case("heads_that_do_not_divide", "not a multiple of the 3 heads", num_attention_heads=3)
    case("rows_too_few", "has shape (64, 32) where config.json asks for (60, 32)", vocab_size=60)
    case("layers_too_few", "which is not part of the GPT-NeoX model", num_hidden_layers=1)
    case("layers_too_many", "tensor gpt_neox.layers.2.input_layernorm.weight of shape (32) is missing",
         num_hidden_layers=3)


def other_cases():
    for act in ("gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh",
                "gelu_accurate"):
        case(f"act_{act}", hidden_act=act)
    for act in ("quick_gelu", "gelu_10", "relu", "silu", "linear", "GELU", "nonesuch"):
        case(f"act_{act}", f'hidden_act "{act}" is not a GELU', hidden_act=act)
    case("act_missing", hidden_act=GONE)
    case("act_null", '"hidden_act" is null', hidden_act=None)
    case("act_number", '"hidden_act" must be a string', hidden_act=7)
    case("eps_missing", layer_norm_eps=GONE)
    case("eps_0", layer_norm_eps=0.0)
    case("eps_0_whole", layer_norm_eps=0)
    case("eps_1", layer_norm_eps=1.0)
    case("eps_large", layer_norm_eps=0.1)
    case("eps_2", '"layer_norm_eps" must be a number from 0 to 1', layer_norm_eps=2.0)
    case("eps_below_0", '"layer_norm_eps" must be a number from 0 to 1', layer_norm_eps=-1e-5)
    case("eps_text", '"layer_norm_eps" must be a number', layer_norm_eps="1e-5")
    case("eps_null", '"layer_norm_eps" is null', layer_norm_eps=None)
    case("eps_nan", '"layer_norm_eps" is NaN', layer_norm_eps=float("nan"))
    case("residual_sequential", use_parallel_residual=False)
    case("residual_missing", use_parallel_residual=GONE)
    for key in ("use_parallel_residual", "tie_word_embeddings", "attention_bias"):
        case(f"{key}_null", f'"{key}" is null', **{key: None})
        case(f"{key}_number", f'"{key}" must be true or false', **{key: 1})
        case(f"{key}_text", f'"{key}" must be true or false', **{key: "false"})
    case("no_biases", out="attention biases", attention_bias=False)
    case("no_biases_though_stored", "which is not part of the GPT-NeoX model", attention_bias=False)
    case("biases_missing", "attention.query_key_value.bias of shape (96) is missing", out="attention biases")
    case("tied_both_stored", tie_word_embeddings=True)
    case("tied", out="embed_out", tie_word_embeddings=True)
    case("tied_only_the_output_stored", out="embed_in", tie_word_embeddings=True)
    case("tie_missing", tie_word_embeddings=GONE)
    case("tie_missing_no_output", "embed_out.weight of shape (64, 32) is missing, and config.json does not say tie",
         out="embed_out", tie_word_embeddings=GONE)
    case("untied_no_output", "embed_out.weight of shape (64, 32) is missing, and config.json does not say tie",
         out="embed_out")
    case("dtype_float64", torch_dtype="float64")
    case("dtype_missing", torch_dtype=GONE)
    case("dtype_new_key", torch_dtype=GONE, dtype="bfloat16")
    case("type_missing", '"model_type" is missing', model_type=GONE)
    case("type_other", '"model_type" is "gpt_neox_japanese"', model_type="gpt_neox_japanese")
    case("architecture_other", architectures=["GPTNeoXModel"])
    case("dropouts", attention_dropout=0.5, hidden_dropout=0.5, classifier_dropout=float("nan"))
    case("unused_1e30", model_max_length=10**30)
    case("unused_not_numbers", a=float("nan"), b=[float("inf"), {"c": -float("inf")}])
    case("unused_key_twice", text=json.dumps(BASE)[:-1] + ', "layer_norm_eps": 0.1}')
    case("heads_twice", text=json.dumps(BASE)[:-1] + ', "num_attention_heads": 1}')
    case("unused_beyond_double", text=json.dumps(BASE)[:-1] + ', "x": 1e999, "y": -123456789e400}')
    case("unused_half_a_pair", text=json.dumps(BASE)[:-1] + r', "x": "\ud83d", "\udc00": 1}')


@torch.no_grad()
def logits(folder, tokens):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = GPTNeoXForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        row = model.eval()(torch.tensor([tokens]), use_cache=False).logits[0, -1, :8]
    except Exception as e:
        return "-"
    return " ".join(f"{x:.6g}" for x in row.tolist())


def main():
    torch.manual_seed(0)  # of weights that are missing; geul refuses those
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    weights = load_file(os.path.join(HERE, "parallel", "model.safetensors"))
    tokens = np.load(os.path.join(HERE, "parallel", "tokens.npy")).tolist()
    left_out = {"none": (), "embed_out": ("lm_head.",), "embed_in": ("embed_in.",),
                "attention biases": ("query_key_value.bias", "attention.dense.bias")}
    rotary_cases()
    shape_cases()
    other_cases()
    assert len({c[0] for c in cases}) == len(cases)
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(HERE, "configs.tsv"), "w") as f:
        for name, out, message, text in cases:
            with open(os.path.join(folder, "config.json"), "w") as c:
                c.write(text)
            kept = {k: v for k, v in weights.items() if not any(part in k for part in left_out[out])}
            save_file(kept, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
            f.write("\t".join((name, out, message, logits(folder, tokens), text)) + "\n")


if __name__ == "__main__":
    main()
