"""litellm: an answer, a stream, a history, and its classes of errors."""

import os

import litellm

how = {"model": "openai/M1", "api_base": os.environ["BASE_URL"], "api_key": "none", "max_tokens": 8}
question = {"role": "user", "content": "What is force? (3)"}
first = litellm.completion(messages=[question], **how)
message = first.choices[0].message
assert message.content, first
litellm.completion(messages=[question, message, question], **how)
litellm.completion(messages=[question, message.model_dump(), question], **how)
stream = litellm.completion(messages=[question], stream=True, **how)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == message.content
try:
    litellm.completion(messages=[{"role": "user", "content": "7" * 7000}], num_retries=0, **how)
except litellm.ContextWindowExceededError:
    pass
else:
    raise AssertionError("a long conversation was answered")
try:
    litellm.completion(messages=[question], num_retries=0, **(how | {"model": "openai/M9"}))
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("an unknown model answered")
