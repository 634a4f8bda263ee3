// The client openai for JavaScript: tests named "SERVER: topic". Started by tests/clients/test_clients.py.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const tool = {
  type: "function",
  function: {
    name: "get_weather",
    strict: true,
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const Report = z.object({ city: z.enum(["Paris", "Rome"]), degrees: z.int() });
const user = (content) => [{ role: "user", content }];
const question = user("How warm is it in Paris? Use the function.");
const both = user("How warm is it in Paris, and how warm in Rome? Use the function for both.");
const order = "Report the weather: it is 21 degrees in Paris.";
const greedy = { temperature: 0, max_tokens: 30 };
const forCalls = { temperature: 0, max_tokens: 200 };

for (const server of JSON.parse(process.env.CLIENTS_SERVERS)) {
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: server.key, maxRetries: 0 });
  const completions = client.chat.completions;
  const topic = (name, body) => test(`${server.name}: ${name}`, body);

  topic("chat", async () => {
    const answer = await completions.create({ model: server.talker, messages: user("Hello!"), ...greedy });
    assert.ok(answer.choices[0].message.content);
    assert.ok(answer.usage.completion_tokens <= 30);
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    assert.ok(models.includes(server.talker));
  });

  topic("stream", async () => {
    const asked = { model: server.talker, messages: user("Hello!"), ...greedy };
    const whole = await completions.create(asked);
    const stream = await completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
  });

  topic("chat in a response", async () => {
    const asked = { model: server.talker, temperature: 0, max_output_tokens: 300 };
    const first = await client.responses.create({ ...asked, input: "Hello!" });
    assert.ok(first.output_text);
    const again = { ...asked, input: "Goodbye!", previous_response_id: first.id };
    const second = await client.responses.create(again);
    assert.ok(second.usage.input_tokens > first.usage.total_tokens);
    let text = "";
    for await (const event of await client.responses.create({ ...again, stream: true }))
      if (event.type === "response.output_text.delta") text += event.delta;
    assert.equal(text, second.output_text);
  });

  topic("tools", async () => {
    const asked = { model: server.caller, tools: [tool], ...forCalls };
    const first = (await completions.create({ ...asked, messages: question, tool_choice: "required" })).choices[0];
    assert.equal(first.finish_reason, "tool_calls");
    const [call] = first.message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.ok(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));
    const result = { role: "tool", tool_call_id: call.id, content: "21 degrees" };
    const messages = [...question, first.message, result];
    const second = (await completions.create({ ...asked, messages, tool_choice: "none" })).choices[0].message;
    assert.ok(second.content);
    if (server.name === "rkllm") assert.match(second.content, /21 degrees/);
    const pieces = [];
    const stream = completions.stream({ ...asked, messages: question, tool_choice: "required" });
    stream.on("tool_calls.function.arguments.delta", (event) => pieces.push(event.arguments_delta));
    const streamed = (await stream.finalMessage()).tool_calls;
    assert.equal(streamed[0].function.arguments, call.function.arguments);
    assert.equal(pieces.join(""), call.function.arguments);
  });

  topic("tools in parallel", async () => {
    const tool_choice = server.name === "rkllm" ? "auto" : "required";
    const asked = { model: server.caller, tools: [tool], messages: both, tool_choice, ...forCalls };
    const calls = (await completions.create(asked)).choices[0].message.tool_calls;
    const cities = calls.map((call) => JSON.parse(call.function.arguments).city);
    if (server.name === "rkllm") assert.deepEqual(cities, ["Paris", "Rome"]);
    assert.equal(new Set(calls.map((call) => call.id)).size, calls.length);
    const streamed = (await completions.stream(asked).finalMessage()).tool_calls;
    assert.deepEqual(streamed.map((call) => JSON.parse(call.function.arguments).city), cities);
  });

  topic("structured", async () => {
    const asked = { model: server.reporter, temperature: 0 };
    const response_format = zodResponseFormat(Report, "report");
    const answer = await completions.parse({ ...asked, messages: user(order), max_tokens: 100, response_format });
    assert.deepEqual(Report.parse(answer.choices[0].message.parsed), answer.choices[0].message.parsed);
    const text = { format: zodTextFormat(Report, "report") };
    const response = await client.responses.parse({ ...asked, input: order, max_output_tokens: 100, text });
    assert.deepEqual(Report.parse(response.output_parsed), response.output_parsed);
  });

  topic("reasoning", async () => {
    const model = server.thinker ?? server.talker;
    const thought = server.thinker ? "They greet me." : "";
    const asked = { model, messages: user("Hello!"), temperature: 0, max_tokens: 60 };
    const whole = (await completions.create(asked)).choices[0].message;
    assert.equal(whole.reasoning_content ?? "", thought);
    let streamed = "";
    for await (const chunk of await completions.create({ ...asked, stream: true }))
      streamed += chunk.choices[0].delta.reasoning_content ?? "";
    assert.equal(streamed, thought);
    const { output } = await client.responses.create({ model, input: "Hello!", temperature: 0, max_output_tokens: 60 });
    const items = output.filter((item) => item.type === "reasoning").map((item) => item.content[0].text);
    assert.deepEqual(items, server.thinker ? [thought] : []);
  });

  topic("embeddings", async () => {
    const found = await client.embeddings.create({ model: server.talker, input: ["One", "Two words"] });
    const [one, two] = found.data.map((item) => item.embedding);
    assert.equal(one.length, two.length);
    const plain = await client.embeddings.create({ model: server.talker, input: "One", encoding_format: "float" });
    plain.data[0].embedding.forEach((value, place) => assert.ok(Math.abs(value - one[place]) < 1e-3));
  });

  topic("errors", async () => {
    const asked = { model: server.talker, messages: user("Hello!"), ...greedy };
    const refused = (fields, kind, expected) =>
      assert.rejects(completions.create({ ...asked, ...fields }), (error) => {
        assert.ok(error instanceof kind, error);
        assert.deepEqual({ code: error.code, param: error.param }, expected);
        return true;
      });
    const unknown = { code: "model_not_found", param: "model" };
    await refused({ model: "gpt-4o" }, OpenAI.NotFoundError, unknown);
    await refused({ model: "gpt-4o", stream: true }, OpenAI.NotFoundError, unknown);
    await refused({ temperature: -1 }, OpenAI.BadRequestError, { code: "invalid_request", param: "temperature" });
    const tooLong = { code: "context_length_exceeded", param: "messages" };
    await refused({ messages: user("word ".repeat(9000)) }, OpenAI.BadRequestError, tooLong);
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "key-of-nobody", maxRetries: 0 });
    await assert.rejects(stranger.chat.completions.create(asked), OpenAI.AuthenticationError);
  });

  topic("cancellation", async () => {
    const aborted = async () => {
      const headers = { authorization: `Bearer ${server.key}` };
      const page = await (await fetch(`${server.url}/metrics`, { headers })).text();
      const counts = [...page.matchAll(/^exo_requests_total\{model="[^"]*",status="499"\} (\d+)/gm)];
      return counts.reduce((sum, [, count]) => sum + Number(count), 0);
    };
    const before = await aborted();
    const messages = user("Write a very long story about a king, with all the details.");
    const stream = await completions.create({ model: server.slow, messages, stream: true });
    for await (const _ of stream) break; // leaving the loop closes the connection
    const deadline = Date.now() + 20_000;
    while ((await aborted()) !== before + 1) assert.ok(Date.now() < deadline, "a request that was given up");
  });
}
