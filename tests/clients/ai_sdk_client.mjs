// The Vercel AI SDK: an answer, a stream, a history, and its error.
import assert from "node:assert";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, streamText } from "ai";

const provider = createOpenAICompatible({
  name: "zephyr",
  baseURL: process.env.BASE_URL,
  apiKey: "none",
  includeUsage: true,
});
const model = provider("M1");
const question = { role: "user", content: "What is force? (3)" };
const ask = { model, maxOutputTokens: 8, temperature: 0, maxRetries: 0 };
const first = await generateText({ ...ask, messages: [question] });
assert.ok(first.text);
const messages = [question, ...first.response.messages, question];
assert.ok((await generateText({ ...ask, system: "Be brief.", messages })).text);
let text = "";
for await (const part of streamText({ ...ask, messages: [question] }).textStream) text += part;
assert.equal(text, first.text);
await assert.rejects(
  generateText({ ...ask, prompt: "7".repeat(7000) }),
  (error) =>
    APICallError.isInstance(error) && error.statusCode === 400 && /maximum context/.test(error.message),
);
