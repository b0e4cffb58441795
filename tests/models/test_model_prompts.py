"""Prompt rendering: the string shown is the string that the model reads, in both renderings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lighttransfer_core.errors import InvalidPromptError
from lighttransfer_core.models import render_prompt, tokens_before_question
from lighttransfer_core.models.prompts import pieces, render_turn, split_question
from lighttransfer_core.types import Rendering

TEXTS = ["Hello", "  two blanks\n\n\tand a tab ", "naïve 面積 🙂", "1  2   3", "<s>not a turn</s>"]


@pytest.mark.parametrize("text", TEXTS)
def test_raw_is_the_text_alone(byte_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    prompt = render_prompt(byte_tokenizer, text, "raw")
    assert prompt.text == text
    assert prompt.input_ids.dtype == torch.long
    assert prompt.input_ids.shape == (1, prompt.num_tokens)
    assert byte_tokenizer.decode(prompt.input_ids[0], clean_up_tokenization_spaces=False) == text
    assert prompt.system is None


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("system", [None, "Answer in French."])
def test_chat_is_the_template_filled(byte_tokenizer: PreTrainedTokenizerFast, text: str, system: str | None) -> None:
    prompt = render_prompt(byte_tokenizer, text, "chat", system)
    used = system or "Be brief."
    assert prompt.text == f"<s>system\n{used}</s>\n<s>user\n{text}</s>\n<s>assistant\n"
    assert prompt.system == used
    assert byte_tokenizer.decode(prompt.input_ids[0], clean_up_tokenization_spaces=False) == prompt.text


def test_ids_are_what_transformers_itself_makes(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    expected = byte_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert render_prompt(byte_tokenizer, "Hello").input_ids[0].tolist() == expected


def test_tokens_are_the_pieces_of_the_text(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = render_prompt(byte_tokenizer, "a b", "chat")
    assert "".join(prompt.tokens) == prompt.text
    assert prompt.tokens[0] == "<s>"
    half_of_a_character = render_prompt(byte_tokenizer, "ï", "raw")
    assert half_of_a_character.tokens == ["\ufffd", "\ufffd"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_further_question_continues_the_conversation_as_the_template_has_it(
    byte_tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    whole = byte_tokenizer.apply_chat_template(
        [*messages, {"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    prompt = render_prompt(byte_tokenizer, "Hello").input_ids[0].tolist()
    answer = byte_tokenizer("Hi", add_special_tokens=False).input_ids
    assert [*prompt, *answer, *render_turn(byte_tokenizer, text)] == whole
    assert render_turn(byte_tokenizer, text, "raw") == byte_tokenizer(text, add_special_tokens=False).input_ids


def test_the_embedded_model_is_asked_on_as_its_template_has_it(embedded_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    ids = render_turn(tokenizer, "And then?")
    assert tokenizer.decode(ids) == "<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
    assert ids[0] == tokenizer.eos_token_id, "an answer that has ended is not ended twice: its last token is not fed"


def test_a_further_question_that_cannot_be_rendered_is_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="empty"):
        render_turn(byte_tokenizer, "  ")
    with pytest.raises(InvalidPromptError, match="no tokenizer"):
        render_turn(None, "Hello")
    byte_tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(InvalidPromptError, match="drops earlier answers"):
        render_turn(byte_tokenizer, "Hello")
    byte_tokenizer.chat_template = "{% if messages|length > 1 %}{{ raise_exception('no') }}{% endif %}"
    with pytest.raises(InvalidPromptError, match="refuses a further question"):
        render_turn(byte_tokenizer, "Hello")
    byte_tokenizer.chat_template = None
    with pytest.raises(InvalidPromptError, match="no chat template"):
        render_turn(byte_tokenizer, "Hello")


def test_a_token_that_the_tokenizer_puts_first_is_shown(embedded_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    tokenizer.backend_tokenizer.post_processor = _put_first(tokenizer.bos_token, tokenizer.bos_token_id)
    prompt = render_prompt(tokenizer, "Hello there", "raw")
    assert prompt.text == "<|im_start|>Hello there"
    assert prompt.tokens == ["<|im_start|>", "Hello", " there"]


def _put_first(token: str, token_id: int) -> object:
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])


def test_sentencepiece_pieces_keep_their_blank() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab={"\u2581": 0, "h": 1, "i": 2, "\u2581h": 3}, merges=[("\u2581", "h")]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert pieces(tokenizer, tokenizer("hi hi").input_ids) == [" h", "i", " h", "i"]


def test_a_template_without_a_system_prompt(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    byte_tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}<s>{{ m['content'] }}</s>{% endfor %}"
    )
    assert render_prompt(byte_tokenizer, "Hello").system is None
    with pytest.raises(InvalidPromptError, match="put the system prompt into the text"):
        render_prompt(byte_tokenizer, "Hello", "chat", "Be brief.")


def test_a_template_that_fails_by_itself(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    byte_tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(InvalidPromptError, match="use the rendering 'raw'"):
        render_prompt(byte_tokenizer, "Hello")


def test_a_template_that_folds_the_system_prompt_into_the_turn(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    byte_tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n' %}"
        "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
        "{% for m in turns %}<s>{{ first }}{{ m['content'] }}</s>{% endfor %}"
    )
    assert render_prompt(byte_tokenizer, "Hello").system is None
    assert render_prompt(byte_tokenizer, "Hello", "chat", "Be brief.").text == "<s>Be brief.\nHello</s>"


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_refused(byte_tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    with pytest.raises(InvalidPromptError, match="empty"):
        render_prompt(byte_tokenizer, text)


def test_a_prompt_that_is_too_long_says_by_how_much(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    assert render_prompt(byte_tokenizer, "x" * 512, "raw", max_tokens=512).num_tokens == 512
    with pytest.raises(InvalidPromptError, match=r"has 1,512 tokens and the model takes 512: .* by 1,000 tokens"):
        render_prompt(byte_tokenizer, "x" * 1512, "raw", max_tokens=512)


def test_half_a_character_is_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="position 2"):
        render_prompt(byte_tokenizer, "ab\ud800")


def test_a_base_model_is_raw(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    byte_tokenizer.chat_template = None
    with pytest.raises(InvalidPromptError, match=r"base model.*'raw'"):
        render_prompt(byte_tokenizer, "Hello")
    assert render_prompt(byte_tokenizer, "Hello", "raw").num_tokens == 5


def test_other_misuse_is_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidPromptError, match="no tokenizer"):
        render_prompt(None, "Hello")
    with pytest.raises(InvalidPromptError, match="has no system prompt"):
        render_prompt(byte_tokenizer, "Hello", "raw", "Be brief.")
    with pytest.raises(InvalidPromptError, match="'chat' or 'raw'"):
        render_prompt(byte_tokenizer, "Hello", "markdown")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A story.\n\nWho?", ("A story.", "Who?")),
        ("One.\n\nTwo.\n \t\n\nWho?\n\n", ("One.\n\nTwo.", "Who?")),
        ("One.\r\n\r\nWho?", ("One.", "Who?")),
        ("Line.\nWho?", None),
        ("\n\nWho?\n\n", None),
        ("", None),
    ],
)
def test_the_question_is_what_follows_the_last_blank_line(text: str, parts: tuple[str, str] | None) -> None:
    found = split_question(text)
    assert (found and (found[0].rstrip(), found[1])) == parts


@pytest.mark.parametrize("rendering", ["chat", "raw"])
def test_the_tokens_before_the_question_are_those_that_both_prompts_begin_with(
    byte_tokenizer: PreTrainedTokenizerFast, rendering: Rendering
) -> None:
    text = "  One two three.\n\nWho is it?"
    count = tokens_before_question(byte_tokenizer, text, rendering)
    read = "".join(render_prompt(byte_tokenizer, text, rendering).tokens[:count])
    assert read.endswith("  One two three.")
    assert tokens_before_question(byte_tokenizer, "Who is it?", rendering) is None
