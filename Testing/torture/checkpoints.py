"""Files of a job that are broken while nobody looks: a checkpoint, the logs. They cost themselves, not the job."""

from __future__ import annotations

import itertools

from .engine import Engine
from .inputs import altered_model
from .mutate import damaged
from .painter import Painter
from .trial import Trial


def broken_checkpoint(trial: Trial) -> None:
    """model.pt with a byte or a value that is another: a run goes on from it, or begins anew and says so."""
    import torch

    painter, engine = Painter(trial), Engine(trial, copied=True)
    engine.open(painter.folder)
    engine.send("train", "t")
    trial.require(engine.answer("t", "result", "error")["event"] == "result", engine.last)
    model = painter.folder / "model.pt"
    whole, holds = model.read_bytes(), torch.load(model, weights_only=True)
    for number in range(5 if trial.quick else 40):
        if trial.rng.random() < 0.4:
            model.write_bytes(damaged(whole, trial.rng))
        else:
            torch.save(altered_model(holds, trial.rng), model)
        trial.tried += 1
        engine.open(painter.folder, f"o{number}")
        engine.send("train", f"t{number}", settings={"steps": 4 + number % 3})
        answer = engine.answer(f"t{number}", "result", "error")
        if answer["event"] != "result":
            trial.broke(f"a broken checkpoint costs the job: {answer.get('sentence')}")
    trial.require(engine.end() == 0, engine.last)
    painter.check_strokes()


def blocked_files(trial: Trial) -> None:
    """A folder, a link to nowhere or a loop in the place of each file that the engine writes but does not need: never a lost answer or stroke."""
    names = (
        "log.txt",
        "events.jsonl",
        "report.json",
        "weights.npy",
        "grown.npy",
        "prior.npy",
        "uncertainty.npy",
        "dense.npy",
        "model.pt",
        "preview-0002-0001.npy",
    )
    for name, kind in itertools.islice(itertools.product(names, ("folder", "link", "loop")), trial.number, None, 5 if trial.quick else 1):
        painter = Painter(trial, f"job-{name}-{kind}")
        place = painter.folder / name
        if kind == "folder":
            (place / "something").mkdir(parents=True)
        else:
            place.symlink_to(place.name if kind == "loop" else "/no such folder/file")
        engine = Engine(trial, copied=True)
        painter.heard(engine.open(painter.folder))
        for command, fields in (("update", painter.paint()), ("train", {})):
            id = f"u{painter.revision}" if command == "update" else "t"
            engine.send(command, id, **fields)
            answer = engine.verdict(id) if command == "update" else engine.answer(id, "result", "error")
            painter.heard(answer)
            if answer.get("code") == "internal":
                trial.broke(f"a {kind} in the place of {name}: {answer['sentence']}")
        trial.tried += 1
        if not engine.of("open", "ready"):
            trial.broke(f"a {kind} in the place of {name}: the job does not open; {engine.last}")
        trial.require(engine.end() == 0, f"a {kind} in the place of {name}: {engine.last}")
        painter.check_strokes()
        painter.check_words(engine.events)
