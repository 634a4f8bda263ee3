from __future__ import annotations

from exo.inference.conversation import ConversationModels, conversation_key
from exo.types import ChatRequest, Message, Role


def key(*messages: tuple[Role, str], model: str = "m") -> str:
    return conversation_key(
        ChatRequest(model=model, messages=tuple(Message(role=role, content=text) for role, text in messages))
    )


def test_all_turns_of_a_conversation_share_a_key() -> None:
    first = key(("system", "s"), ("user", "u"))
    assert first == key(("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"))


def test_another_system_text_question_or_model_is_another_conversation() -> None:
    keys = {
        key(("system", "s"), ("user", "u")),
        key(("system", "t"), ("user", "u")),
        key(("system", "s"), ("user", "v")),
        key(("system", "s"), ("user", "u"), model="n"),
        key(("user", "u")),
        key(("system", "su")),
    }
    assert len(keys) == 6


def test_text_that_is_no_valid_unicode_has_a_key_too() -> None:
    assert key(("user", "\ud800"), model="\udfff")


def test_the_oldest_conversation_is_forgotten() -> None:
    models = ConversationModels(most=2)
    for text in ("a", "b", "c"):
        models.remember("", ChatRequest(model="", messages=(Message(role="user", content=text),)), text)

    def before(text: str) -> str:
        roles = (Message(role="user", content=text), Message(role="assistant", content="x"))
        return models.before("", ChatRequest(model="", messages=roles))

    assert [before(text) for text in ("a", "b", "c")] == ["", "b", "c"]
