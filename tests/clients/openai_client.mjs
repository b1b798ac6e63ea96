// openai for Node: an answer, a stream, a history, and its errors.
import assert from "node:assert";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none", maxRetries: 0 });
const question = { role: "user", content: "What is force? (3)" };
const ask = { model: "M1", max_tokens: 8 };
const first = await client.chat.completions.create({ ...ask, messages: [question], logprobs: true });
const { message, logprobs } = first.choices[0];
const joined = Buffer.from(logprobs.content.flatMap((token) => token.bytes)).toString();
assert.equal(joined, message.content);
const again = await client.chat.completions.create({
  ...ask,
  messages: [question, message, question],
  tools: [],
  store: false,
  n: null,
  logit_bias: {},
});
assert.ok(again.usage.prompt_tokens > first.usage.prompt_tokens);
let text = "";
for await (const chunk of await client.chat.completions.create({
  ...ask,
  messages: [question],
  stream: true,
  stream_options: { include_usage: true },
}))
  text += chunk.choices[0]?.delta?.content ?? "";
assert.equal(text, message.content);
const runner = client.chat.completions.stream({ ...ask, messages: [question] });
assert.equal(await runner.finalContent(), message.content);
await assert.rejects(
  client.chat.completions.create({ ...ask, messages: [{ role: "user", content: "7".repeat(7000) }] }),
  (error) =>
    error instanceof OpenAI.BadRequestError && error.code === "context_length_exceeded",
);
await assert.rejects(
  client.chat.completions.create({ model: "M9", messages: [question] }),
  (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
);
