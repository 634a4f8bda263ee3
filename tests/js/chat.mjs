// Drives a node with the official client and prints what it saw as one JSON object. Usage: node chat.mjs URL
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const models = [];
for await (const model of client.models.list()) models.push(model.id);

const model = models[0];
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const limits = { model, messages, max_tokens: 12, temperature: 0 };
const whole = await client.chat.completions.create(limits);

let streamed = "";
let usage = null;
const stream = await client.chat.completions.create({ ...limits, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}

let refused = null;
try {
  await client.chat.completions.create({ ...limits, model: "gpt-4o" });
} catch (error) {
  refused = { name: error.constructor.name, status: error.status, code: error.code };
}

const cut = await client.chat.completions.create({ ...limits, max_tokens: 1000, stream: true });
for await (const _ of cut) break; // leaving the loop closes the connection

console.log(JSON.stringify({ models, whole: whole.choices[0].message.content, streamed, usage, refused }));
