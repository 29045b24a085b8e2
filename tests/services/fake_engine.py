"""An engine without a model: it plays the plan that lies in its directory, or speaks the chat protocol.

Started like the real one, `fake_engine.py JOB DIR`. A plan is a JSON list of one-key steps: emit an event, wait for a
file, print, append raw text, save an adapter, exit or be killed.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil


def play(directory: Path) -> None:
    written = directory / "plan.json"
    plan = json.loads(written.read_text()) if written.exists() else [{"live": 300}]
    if plan and plan[0] == {"anonymous": True}:  # dies before it has said who it is
        plan = plan[1:]
    else:
        me = psutil.Process()
        record = {"pid": me.pid, "started": me.create_time(), "token": os.environ.get("PEFT_STUDIO_TOKEN", "")}
        (directory / "process.tmp").write_text(json.dumps(record))
        os.replace(directory / "process.tmp", directory / "process.json")
    for step in plan:
        ((verb, value),) = step.items()
        if verb == "emit":
            append(directory, json.dumps({"time": "2026-01-02T03:04:05Z", "elapsed": time.monotonic(), **value}) + "\n")
        elif verb == "append":
            append(directory, value)
        elif verb == "wait":
            while not (directory / value).exists():
                time.sleep(0.02)
        elif verb == "print":
            print(value, flush=True)  # noqa: T201
        elif verb == "adapter":
            save(directory / "adapter", value)
        elif verb == "write":
            (directory / value[0]).write_text(json.dumps(value[1]))
        elif verb == "live":
            live(directory, value)
        elif verb == "exit":
            sys.exit(value)
        elif verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def live(directory: Path, steps: int) -> None:
    """Make a step every hundredth of a second; pause and stop when asked, and go on from where it paused."""

    def emit(**event: object) -> None:
        append(directory, json.dumps({"time": "2026-01-02T03:04:05Z", "elapsed": time.monotonic(), **event}) + "\n")

    kept = [int(path.name.removeprefix("step-")) for path in (directory / "checkpoints").glob("step-*")]
    step, control = max(kept, default=0), directory / "control"
    facts = {"rows": 9, "eval_rows": 1, "tokens_per_epoch": 5, "trainable_parameters": 3, "device": "processor"}
    emit(type="started", steps=steps, precision="fp32", resumed_from=step if kept else None, **facts)
    while step < steps and not (control / "stop").exists():
        if (control / "pause").exists():
            (directory / "checkpoints" / f"step-{step}").mkdir(parents=True, exist_ok=True)
            emit(type="paused", step=step, checkpoint=f"checkpoints/step-{step}", memory_bytes=1)
            return
        time.sleep(0.01)
        step += 1
        numbers = {"learning_rate": 1e-4, "grad_norm": 1.0, "tokens": step, "tokens_per_second": 50.0}
        emit(type="step", step=step, loss=2.0 / step, memory_bytes=10, **numbers)
    save(directory / "adapter", "Better: 3 of 4.")
    emit(type="finished", step=step, stopped=step < steps, result={"steps": step, "eval": {"verdict": "Better."}})


def append(directory: Path, text: str) -> None:
    with open(directory / "events.jsonl", "a") as file:
        file.write(text)


def save(folder: Path, verdict: str) -> None:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights of " + folder.parent.name.encode())
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "starter"}')
    facts = {
        "base": {"id": "starter", "revision": "abc", "path": "/models/starter"},
        "method": "lora",
        "quantization": "none",
        "metrics": {"verdict": verdict},
    }
    (folder / "studio.json").write_text(json.dumps(facts))


def chat(folder: Path) -> None:
    """Answer word by word with the question; words that start with `!` make it misbehave."""

    def say(**line: object) -> None:
        print(json.dumps(line), flush=True)  # noqa: T201

    stop = threading.Event()
    asked: list[dict] = []
    more = threading.Condition()

    def listen() -> None:
        for text in sys.stdin:
            line = json.loads(text)
            if line["do"] == "stop":
                stop.set()
            else:
                with more:
                    asked.append(line)
                    more.notify()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    print("a library prints this", flush=True)  # noqa: T201
    say(type="phase", words=f"Loading {folder.name}")
    if (folder / "broken").exists():
        say(type="error", id=None, message="The weights are damaged.", hint="Fetch it again.")
        return
    while (folder / "slow").exists():
        time.sleep(0.02)
    say(type="ready", seconds=0.1, memory_bytes=1000, quantization="nf4" if folder.name == "large" else "none")
    while True:
        with more:
            more.wait_for(lambda: asked)
            request = asked.pop(0)
        if request["do"] == "exit":
            return
        stop.clear()
        number = request["id"]
        for lane, asked_of in enumerate(request["lanes"]):
            words = asked_of["messages"][-1]["content"].split()
            told = []
            for word in words:
                if word == "!die":
                    print("out of luck", file=sys.stderr)  # noqa: T201
                    os.kill(os.getpid(), signal.SIGKILL)
                if word == "!error":
                    say(type="error", id=number, message="The adapter does not fit.", hint="Choose another.")
                    break
                if word == "!wait":
                    stop.wait(30)
                if stop.is_set():
                    break
                word = {"!pid": str(os.getpid()), "!adapter": str(asked_of["adapter"])}.get(word, word)
                told.append(word)
                say(type="token", id=number, lane=lane, text=word + " ")
            if "!error" in words:
                break
            facts = {"tokens": len(told), "tokens_per_second": 9.0, "memory_bytes": 1200}
            say(type="answer", id=number, lane=lane, text=" ".join(told), stopped=stop.is_set(), **facts)
            if stop.is_set():
                break
        if "!error" not in words:
            say(type="done", id=number, memory_bytes=1200)
        if "!leave" in words:
            os._exit(0)  # as after some minutes without a question


if __name__ == "__main__":
    job, where = sys.argv[1], Path(sys.argv[2])
    if job == "chat":
        chat(where)
    elif job == "keep":
        save(where / "adapter", "")
    else:
        play(where)
