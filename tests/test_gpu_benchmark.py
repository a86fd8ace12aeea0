"""``benchmarks.gpu`` runs, in small sizes on the CPU, and its limits count the products that the models compute."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForCausalLM

from benchmarks.gpu import Options, Sizes, main, table
from benchmarks.gpu_limits import Phase, Rates, causal_pass, decoding, encoding, lora_pass, policy_update
from benchmarks.gpu_models import ModelSize

ROOT = Path(__file__).resolve().parents[1]


def test_everything_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Options(tmp_path / "gpu.json", "cpu", quick=True, seconds=0.0))
    results = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    units = [row["unit"] for row in results["rows"]]
    assert units == ["prompts", "pairs", *["tokens"] * 4, "updates", "tokens"]
    for row in results["rows"]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["share"] == pytest.approx(row["median"] / row["limit"])
    printed = capsys.readouterr().out
    assert table(results) in printed
    assert printed.count("\n| word encoder, 4 prompts of 20 words") == 1


def test_without_a_gpu_one_line_says_what_it_would_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"needs a GPU.*would measure the word encoder.*LoRA") as ended:
        main(Options())
    assert "\n" not in str(ended.value)
    with pytest.raises(SystemExit, match="add --quick"):
        main(Options(device="cpu"))


def test_the_page_has_the_committed_results() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    path = ROOT / "benchmarks" / "results" / "gpu.json"
    if path.is_file():
        assert table(json.loads(path.read_text(encoding="utf-8"))) in page
    else:
        assert "No results yet" in page


def test_a_limit_is_the_sum_of_what_each_phase_takes_longest_for() -> None:
    rates = Rates({torch.float32: 10.0, torch.bfloat16: 100.0}, bandwidth=5.0)
    bound_by_memory, bound_by_arithmetic = Phase(10, 15, torch.float32), Phase(400, 5, torch.bfloat16)
    assert rates.limit([bound_by_memory, bound_by_arithmetic]) == (3.0 + 4.0, "arithmetic")
    assert rates.limit([bound_by_memory]) == (3.0, "memory")


def _products(model: torch.nn.Module, tokens: torch.Tensor, learns: bool = False, **options: int) -> int:
    """The operations of the model's products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        output = model(tokens, **options)
        if learns:
            output.logits.sum().backward()
    return counter.get_total_flops()


def _tokens(n: int) -> torch.Tensor:
    return torch.zeros((1, n), dtype=torch.long, device="meta")


def _made(size: ModelSize) -> torch.nn.Module:
    auto = AutoModel if size.kind == "bert" else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(size.config, attn_implementation="eager").requires_grad_(False)


def _rest_of_attention(size: ModelSize, n: int) -> int:
    """What a model computes of later tokens before it masks them."""
    return 4 * size.hidden * size.layers * n * (n - 1) // 2


def test_the_encoders_limit_counts_its_products() -> None:
    size = Sizes().encoder
    work = encoding(size, [100, 100], torch.float32, batches=1)
    pooler = 2 * size.hidden**2  # not used here
    assert work.flops == 2 * (_products(_made(size), _tokens(100)) - pooler)


@pytest.mark.once  # the first versions of PyTorch and transformers cannot run these models without weights
@pytest.mark.parametrize("size", [Sizes().decoder, Sizes().tuned])
def test_an_llms_limit_counts_its_products_and_its_weights(size: ModelSize) -> None:
    model, n = _made(size), 100
    counted = _products(model, _tokens(n), logits_to_keep=3)
    rotary = counted - causal_pass(size, n, 3) - _rest_of_attention(size, n)
    assert 0 <= rotary < 1e-4 * counted
    in_matrices = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    prompt, step = decoding(size, 1, n, 2, torch.bfloat16)
    kept = 2 * 2 * size.layers * size.kv_hidden
    assert (prompt.bytes, step.bytes) == (2 * in_matrices + kept * n, 2 * in_matrices + kept * (n + 1))
    assert prompt.flops + step.flops == causal_pass(size, n + 1, 2)


@pytest.mark.once
def test_loras_limit_counts_its_products() -> None:
    adapters = pytest.importorskip("pmlm_env.llm.lora.adapters")
    pytest.importorskip("peft")
    size, n = Sizes().tuned, 100
    model = _made(size)
    adapters.add_adapter_layers(model, 8, 16)
    counted = _products(model.train(), _tokens(n), learns=True, logits_to_keep=3)
    expected = lora_pass(size, n, 3, 8) + 3 * _rest_of_attention(size, n)
    assert expected == pytest.approx(counted, rel=1e-3)


def test_the_policys_limit_counts_its_products() -> None:
    first, *others = torch.nn.Linear(384, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 1)
    with FlopCounterMode(display=False) as counter:
        seen = torch.zeros(32 * 190 * 10, 384)
        for epoch in range(5):  # episodes, then four epochs
            with torch.set_grad_enabled(epoch > 0):
                out = torch.nn.Sequential(first, *others)(seen)
            if epoch:
                out.sum().backward()
    assert policy_update(32, 190, 384, 64, 10, 4, torch.float32).flops == counter.get_total_flops()
