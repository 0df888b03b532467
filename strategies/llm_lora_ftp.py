"""Instruction tasks one after another: LoRA on a causal language model, each task's change kept in balls by FTP.

    python strategies/llm_lora_ftp.py --model meta-llama/Llama-3.2-1B-Instruct
    python strategies/llm_lora_ftp.py --model FOLDER --tasks a.jsonl b.jsonl    # a line: {"prompt": ..., "answer": ...}
    python strategies/llm_lora_ftp.py --model FOLDER --without-ftp              # the same without the projection

Without --tasks: the class of an emoji, its German and its Spanish name, from its English name. A fifth of each task is
held out. After a task the adapter is merged into the weights, so that the next one starts at B A = 0 again.
"""

import argparse
import json
import random
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftp_cl.benchmarks import emoji_texts
from ftp_cl.optim import FTP

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def built_in_tasks() -> dict[str, list[dict[str, str]]]:
    """Return task -> prompts and answers, from the texts that ship with the package."""
    asked = {"class": "What kind of thing is", "de": "Translate into German:", "es": "Translate into Spanish:"}
    emoji = emoji_texts()
    return {
        task: [{"prompt": f"{words} {e['name']}", "answer": e[task]} for e in emoji] for task, words in asked.items()
    }


def encode(tokenizer, example: dict[str, str]) -> tuple[list[int], int]:
    """Return the ids of prompt and answer, and how many are the prompt's."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": example["prompt"]}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(f"{example['prompt']}\n")["input_ids"]
    answer = tokenizer(example["answer"], add_special_tokens=False)["input_ids"]
    return [*ids, *answer, tokenizer.eos_token_id], len(ids)


def loss_of(model, batch: list[tuple[list[int], int]]) -> torch.Tensor:
    """Return the mean negative log-likelihood of a token of the answers."""
    length = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([[*i, *[0] * (length - len(i))] for i, _ in batch], device=DEVICE)
    mask = torch.tensor([[1] * len(i) + [0] * (length - len(i)) for i, _ in batch], device=DEVICE)
    asked = torch.tensor([[n <= t < len(i) for t in range(length)] for i, n in batch], device=DEVICE)
    return model(input_ids=ids, attention_mask=mask, labels=ids.where(asked, -100)).loss


def main() -> None:
    """Train on task after task; after each, print the held-out loss of all, and at the end what was forgotten."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face hub")
    parser.add_argument("--tasks", nargs="+", type=Path, default=[])
    parser.add_argument("--epochs", type=int, default=2, help="per task")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--without-ftp", action="store_true")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).to(DEVICE)
    lines = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in arguments.tasks}
    tasks = {name: list(map(json.loads, some)) for name, some in lines.items()} or built_in_tasks()
    parts = {}
    for name, examples in tasks.items():
        encoded = [encode(tokenizer, example) for example in examples]
        random.Random(0).shuffle(encoded)
        parts[name] = encoded[len(encoded) // 5 :], encoded[: len(encoded) // 5]

    table = []
    for name, (training, _) in parts.items():
        config = peft.LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules="all-linear")
        model = peft.get_peft_model(model, config)
        optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=arguments.lr)
        if not arguments.without_ftp:
            FTP(model, k=0).attach(optimizer)
        for _ in range(arguments.epochs):
            for start in range(0, len(training), arguments.batch):
                optimizer.zero_grad()
                loss_of(model, training[start : start + arguments.batch]).backward()
                optimizer.step()
            random.shuffle(training)
        model = model.merge_and_unload()
        with torch.no_grad():
            table.append([float(loss_of(model, held_out)) for _, held_out in parts.values()])
        print(f"after {name:10}", *(f"{task} {loss:7.3f}" for task, loss in zip(parts, table[-1], strict=True)))
    forgotten = [table[-1][i] - table[i][i] for i in range(len(table) - 1)]
    print(f"forgetting {sum(forgotten) / max(1, len(forgotten)):.3f} nats a token, mean of the earlier tasks")


if __name__ == "__main__":
    main()
