"""`model=NAME` and `--model NAME` are the same, in each command that takes a model."""

from __future__ import annotations

import pytest

from pipeline.commands import model_named
from pipeline.commands.parsers import parser_of
from pipeline.commands.predict import split_arguments
from pipeline.system.errors import ConfigError

ONE_MODEL = ("export", "serve", "demo")


def named(command: str, *words: str) -> str | None:
    args = parser_of(command).parse_args(words)
    if command == "predict":
        return split_arguments(["page.png", *args.words], args.models)[1]
    return model_named(args.model, args.models)


@pytest.mark.parametrize("command", [*ONE_MODEL, "predict"])
def test_a_model_is_named_by_a_word_or_by_an_option(command: str) -> None:
    inputs = ["page.png"] if command == "predict" else []

    assert named(command, *inputs) is None
    assert (
        named(command, *inputs, "model=a@champion") == named(command, "--model", "a@champion", *inputs) == "a@champion"
    )


@pytest.mark.parametrize("command", [*ONE_MODEL, "predict"])
@pytest.mark.parametrize("words", [("--model", "b", "model=a"), ("model=a", "--model=b"), ("--model=a", "--model=b")])
def test_two_models_are_refused(command: str, words: tuple[str, ...]) -> None:
    inputs = ["page.png"] if command == "predict" and words[1] == "--model=b" and words[0] != "model=a" else []
    with pytest.raises(ConfigError, match=r"^expected one model, found 2: a, b$"):
        named(command, *words, *inputs)


@pytest.mark.parametrize("command", ONE_MODEL)
def test_another_word_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match=r"^models: expected model=NAME"):
        named(command, "models")
