"""What a configuration and the heads of weights say, in numbers and in words."""

from studio.domain.model_facts import ModelFacts, Tensor, of_config, of_tensors, told


def test_sizes_are_read_under_old_names_and_inside_a_text_part() -> None:
    old = of_config({"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024})
    assert (old["layers"], old["hidden"], old["heads"], old["key_value_heads"]) == (12, 768, 12, 12)
    assert old["context"] == 1024
    nested = of_config({"model_type": "gemma3", "text_config": {"num_hidden_layers": 26, "torch_dtype": "bfloat16"}})
    assert (nested["family"], nested["layers"], nested["dtype"]) == ("gemma3", 26, "bfloat16")


def test_targets_are_the_matrices_of_the_layers() -> None:
    heads = {
        "transformer.wte.weight": (50, 8),
        "transformer.h.0.attn.c_attn.weight": (8, 24),
        "transformer.h.0.ln_1.weight": (8,),
        "lm_head.weight": (50, 8),
    }
    found = of_tensors(Tensor(name, "float32", shape) for name, shape in heads.items())
    assert found == {"parameters": 400 + 192 + 8 + 400, "dtype": "float32", "targets": ["c_attn"]}
    assert of_tensors([]) == {"parameters": 0, "dtype": "", "targets": []}


def test_facts_are_told_in_words_and_what_is_unknown_is_left_out() -> None:
    facts = ModelFacts(id="m", source="folder", heads=9, key_value_heads=3, context=8192, targets=["k_proj", "q_proj"])
    said = dict(told(facts))
    assert said["Attention heads"] == "9, 3 for keys and values"
    assert said["Reads at most"] == "8,192 tokens"
    assert said["Chat template"] == "none: a plain one is used"
    assert said["Can be adapted"] == "k_proj, q_proj"
    assert "Parameters" not in said
    assert "Layers" not in said
