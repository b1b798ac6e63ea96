"""langchain-openai: an answer, a stream, a history, texts in a batch, and its error."""

import os

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

how = {"base_url": os.environ["BASE_URL"], "api_key": "none", "max_retries": 0, "max_tokens": 8}
chat = ChatOpenAI(model="M1", temperature=0, **how)
question = HumanMessage("What is force? (3)")
answer = chat.invoke([question])
assert answer.content, answer
assert chat.invoke([SystemMessage("Be brief."), question, answer, question]).content
assert "".join(chunk.content for chunk in chat.stream([question])) == answer.content
assert len(chat.batch(["What is mass?", "What is work?"])) == 2
logprobs = chat.bind(logprobs=True).invoke([question]).response_metadata["logprobs"]["content"]
assert b"".join(bytes(token["bytes"]) for token in logprobs) == answer.content.encode()
texts = OpenAI(model="M1", temperature=0, **how).batch(["The force", "The mass", "The work"])
assert len(texts) == 3
assert all(texts)
try:
    chat.invoke("7" * 7000)
except openai.BadRequestError as error:
    code = error.code
else:
    raise AssertionError("a long conversation was answered")
assert code == "context_length_exceeded", code
