"""Instruction tasks one after another: LoRA on a causal language model, each task's change kept in balls by FTP.

    python strategies/llm_lora_ftp.py --model meta-llama/Llama-3.2-1B-Instruct
    python strategies/llm_lora_ftp.py --model FOLDER --tasks a.jsonl b.jsonl    # a line: {"prompt": ..., "answer": ...}

From an English name: the class of an emoji, its German name, its Spanish one; or your --tasks. --without-ftp projects
nothing. A fifth is held out. The adapter is merged into the weights after a task, and the next one starts at B A = 0.
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
BUILT_IN = {"class": "What kind of thing is", "de": "Translate into German:", "es": "Translate into Spanish:"}


def read_task(name: str) -> list[dict[str, str]]:
    """Return the prompts and answers of a file, or of one of the tasks that ship with the package."""
    if name in BUILT_IN:
        return [{"prompt": f"{BUILT_IN[name]} {row['name']}", "answer": row[name]} for row in emoji_texts()]
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def encode(tokenizer, example: dict[str, str]) -> tuple[list[int], int]:
    """Return the ids of prompt and answer, and how many are the prompt's."""
    turns = [{"role": "user", "content": example["prompt"]}]
    chat = tokenizer.chat_template and tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(chat or f"{example['prompt']}\n", add_special_tokens=not chat)["input_ids"]
    answer = tokenizer(example["answer"], add_special_tokens=False)["input_ids"]
    return [*prompt, *answer, tokenizer.eos_token_id], len(prompt)


def loss_of(model, batch: list[tuple[list[int], int]]) -> torch.Tensor:
    """Return the mean negative log-likelihood of the answers' tokens, in nats."""
    place = torch.arange(max(len(ids) for ids, _ in batch))
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in batch], batch_first=True)
    mask = place < torch.tensor([[len(ids)] for ids, _ in batch])
    labels = ids.where(mask & (place >= torch.tensor([[asked] for _, asked in batch])), -100)
    return model(input_ids=ids.to(DEVICE), attention_mask=mask.long().to(DEVICE), labels=labels.to(DEVICE)).loss


@torch.no_grad()
def held_out_loss(model, examples: list[tuple[list[int], int]]) -> float:
    """Return the same of any number of examples."""
    batches = [examples[start : start + 8] for start in range(0, len(examples), 8)]
    tokens = [sum(len(ids) - asked for ids, asked in batch) for batch in batches]
    return sum(float(loss_of(model, b)) * n for b, n in zip(batches, tokens, strict=True)) / sum(tokens)


def main() -> None:
    """Train on task after task; after each, print the held-out loss of all, and at the end what was forgotten."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder, or name on the Hugging Face hub")
    parser.add_argument("--tasks", nargs="+", default=list(BUILT_IN))
    parser.add_argument("--epochs", type=int, default=2, help="per task")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--without-ftp", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0), random.seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).to(DEVICE)
    data = {name: [encode(tokenizer, example) for example in read_task(name)] for name in arguments.tasks}
    for examples in data.values():
        random.shuffle(examples)
    held_out, table = {name: examples[: len(examples) // 5] for name, examples in data.items()}, []
    for name, examples in data.items():
        config = peft.LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules="all-linear")
        model = peft.get_peft_model(model, config)
        optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=arguments.lr)
        if not arguments.without_ftp:
            FTP(model).attach(optimizer)
        for _ in range(arguments.epochs):
            training = random.sample(examples[len(examples) // 5 :], len(examples) - len(examples) // 5)
            for start in range(0, len(training), 8):
                optimizer.zero_grad()
                loss_of(model, training[start : start + 8]).backward()
                optimizer.step()
        model = model.merge_and_unload()
        table.append([held_out_loss(model, part) for part in held_out.values()])
        print(f"after {name}:", *(f"{task} {loss:.3f}" for task, loss in zip(data, table[-1], strict=True)))
    forgotten = [table[-1][i] - table[i][i] for i in range(len(table) - 1)]
    print(f"forgetting: {sum(forgotten) / max(1, len(forgotten)):.3f} nats a token, mean over the earlier tasks")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # no such model or file, no network
        raise SystemExit(f"llm_lora_ftp.py: {' '.join(str(error).split())}") from None
