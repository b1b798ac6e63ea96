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
try:
    client.chat.completions.create(
        model="M1", messages=[{"role": "user", "content": "7" * 7000}], max_tokens=4
    )
except openai.BadRequestError as error:
    assert error.code == "context_length_exceeded", error
else:
    raise AssertionError("a long conversation was answered")
try:
    client.chat.completions.create(model="M9", messages=[question])
except openai.NotFoundError as error:
    assert error.code == "model_not_found", error
else:
    raise AssertionError("an unknown model answered")
