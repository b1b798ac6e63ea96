"""openai for Python: answers, a stream, log-probabilities, a history, and its errors."""

import os

import openai

client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=0)
question = {"role": "user", "content": "What is force? (3)"}
first = client.chat.completions.create(model="M1", messages=[question], max_tokens=8, logprobs=True)
answer = first.choices[0]
joined = b"".join(bytes(token.bytes) for token in answer.logprobs.content)
assert joined == answer.message.content.encode(), joined
again = client.chat.completions.create(
    model="M1",
    messages=[question, answer.message, question],
    max_completion_tokens=4,
    tools=[],
    store=False,
    metadata={},
    logit_bias={},
    parallel_tool_calls=True,
    response_format={"type": "text"},
)
assert again.usage.prompt_tokens > first.usage.prompt_tokens
stream = client.chat.completions.create(model="M1", messages=[question], max_tokens=8, stream=True)
text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
assert text == answer.message.content, text
two = client.completions.create(model="M1", prompt=["The force", "The mass"], max_tokens=4)
assert [choice.index for choice in two.choices] == [0, 1]


def raised(kind: type[openai.APIStatusError], **how: object) -> str | None:
    """The code of the error that a request raises."""
    try:
        client.chat.completions.create(**how)
    except kind as error:
        return error.code
    raise AssertionError("it was answered")


long = {"role": "user", "content": "7" * 7000}
found = raised(openai.BadRequestError, model="M1", messages=[long], max_tokens=4)
assert found == "context_length_exceeded", found
found = raised(openai.NotFoundError, model="M9", messages=[question])
assert found == "model_not_found", found
