// The package ws as its own documentation broadcasts: /subscribe/TAG hears what is sent to /publish/TAG, /echo sends back.
import { createRequire } from "node:module";
import process from "node:process";

const [port, modules] = process.argv.slice(2);
const { WebSocketServer } = createRequire(`${modules}/`)("ws");
const topics = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), backlog: 4096, perMessageDeflate: false, clientTracking: false });

function subscribe(tag, socket) {
  const topic = topics.get(tag) ?? topics.set(tag, new Set()).get(tag);
  topic.add(socket);
  socket.on("close", () => topic.delete(socket));
}

server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  const [, purpose, tag] = request.url.split("/");
  if (purpose === "subscribe") {
    subscribe(tag, socket);
  } else if (purpose === "publish") {
    socket.on("message", (data) => topics.get(tag)?.forEach((subscriber) => subscriber.send(data, { binary: false })));
  } else {
    socket.on("message", (data) => socket.send(data, { binary: false }));
  }
});
