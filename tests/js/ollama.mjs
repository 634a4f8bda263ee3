// Runs every call of Ollama's own client and prints what it saw as one JSON object. Usage: node ollama.mjs URL MODEL
// FROM the hub: an optional third argument is a reference to pull. Refusals are noted as "status: message".
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const model = process.argv[3];
const reference = process.argv[4];
const messages = [{ role: "user", content: "Hello" }];
const options = { temperature: 0, num_predict: 12 };
const seen = {};

async function refusal(call) {
  try {
    const answer = await call();
    if (answer?.[Symbol.asyncIterator]) for await (const _ of answer);
    return null;
  } catch (error) {
    return `${error.status_code}: ${error.message}`;
  }
}

async function joined(stream, pick) {
  let text = "";
  let last = null;
  for await (const part of stream) {
    text += pick(part) ?? "";
    last = part;
  }
  return { text, last };
}

seen.version = (await client.version()).version;
seen.models = (await client.list()).models.map((one) => one.model);
const chat = await client.chat({ model, messages, options });
seen.chat = { text: chat.message.content, done: chat.done, reason: chat.done_reason, eval: chat.eval_count };
const streamed = await joined(await client.chat({ model, messages, options, stream: true }), (part) => part.message.content);
seen.streamed = { text: streamed.text, eval: streamed.last.eval_count };
const generated = await client.generate({ model, prompt: "Hello", options, system: "Be brief." });
seen.generated = { text: generated.response, durations: [generated.total_duration, generated.eval_duration] };
seen.generatedStream = (await joined(await client.generate({ model, prompt: "Hello", options, system: "Be brief.", stream: true }), (part) => part.response)).text;
seen.raw = (await client.generate({ model, prompt: "Hello", raw: true, options })).response;
seen.shown = (await client.show({ model })).details.format;
seen.running = (await client.ps()).models.map((one) => one.model);
seen.loaded = (await client.chat({ model, messages: [], keep_alive: "10m" })).done_reason;

seen.embed = await refusal(async () => {
  seen.vectors = (await client.embed({ model, input: ["one", "two"] })).embeddings.length;
});
seen.embeddings = await refusal(async () => {
  seen.vector = (await client.embeddings({ model, prompt: "one" })).embedding.length;
});

seen.copied = (await client.copy({ source: model, destination: "js-copy" })).status;
const created = await joined(await client.create({ model: "js-made", from: model, system: "Be long.", stream: true }), (part) => `${part.status};`);
seen.created = created.last.status;
seen.createdWhole = (await client.create({ model: "js-whole", from: model, parameters: { num_ctx: 512 } })).status;
seen.madeAnswers = (await client.chat({ model: "js-made", messages, options })).message.content.length > 0;
seen.taken = await refusal(() => client.create({ model: "js-made", from: model }));
for (const name of ["js-copy", "js-made", "js-whole"]) seen[`deleted ${name}`] = (await client.delete({ model: name })).status;

if (reference) {
  const steps = await joined(await client.pull({ model: reference, stream: true }), (part) => `${part.status};`);
  seen.pulled = { first: steps.text.split(";")[0], last: steps.last.status };
  seen.pulledModel = (await client.chat({ model: reference.split(":").at(-1), messages, options })).done;
}
seen.push = await refusal(() => client.push({ model }));
seen.unknown = await refusal(() => client.chat({ model: "gpt-4", messages }));
seen.unknownStream = await refusal(() => client.chat({ model: "gpt-4", messages, stream: true }));
seen.tools = await refusal(() => client.chat({ model, messages, tools: [{ type: "function", function: { name: "f", parameters: {} } }] }));
seen.noModel = await refusal(() => client.pull({ model: "nothing-of-that-name" }));

const cut = await client.chat({ model, messages, options: { temperature: 0, num_predict: 1000 }, stream: true });
seen.aborted = await refusal(async () => {
  for await (const _ of cut) cut.abort();
});
seen.unloaded = (await client.generate({ model, prompt: "", keep_alive: 0 })).done_reason;

console.log(JSON.stringify(seen));
