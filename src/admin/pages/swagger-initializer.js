// Shows the API's description of the node that serves this page, and signs every call that is tried.
"use strict";

const field = (id) => document.getElementById(id);

async function read(path) {
  // Not relative: the address may hold credentials, which fetch does not take.
  const answer = await fetch(location.origin + path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// The paths that need no sign.
function openPaths(spec) {
  const needsNone = ([, item]) => !Object.values(item).some((operation) => operation.security);
  return new Set(Object.entries(spec.paths).filter(needsNone).map(([path]) => path));
}

function interceptor(spec, config) {
  const open = openPaths(spec);
  return async (request) => {
    const url = new URL(request.url, location.href);
    if (open.has(url.pathname) || url.searchParams.get("token") || url.searchParams.get("sign")) return request;
    const type = Object.entries(request.headers ?? {}).find(([name]) => name.toLowerCase() === "content-type")?.[1];
    request.url = await signing.signedUrl(url, {
      pid: field("pid").value,
      secret: field("secret").value,
      exp: Math.floor(Date.now() / 1000) + config.exp_s,
      body: request.body,
      isForm: type?.startsWith("application/x-www-form-urlencoded") ?? false,
    });
    return request;
  };
}

// A sign is made for each call, so there is nothing that a button could ask for once.
const noAuthorizing = () => {
  const nothing = () => () => null;
  return { wrapComponents: { authorizeBtn: nothing, AuthorizeBtnContainer: nothing, authorizeOperationBtn: nothing } };
};

// Swagger UI takes lines of JSON for one JSON value: it would send an example of them as a quoted string, and call an
// answer of more than one unreadable.
const LINES = "application/x-ndjson";
const rawLines = () => ({
  wrapComponents: {
    responseBody: (Original, { React }) => (props) => {
      const isLines = props.contentType?.startsWith(LINES);
      return React.createElement(Original, isLines ? { ...props, contentType: "text/plain" } : props);
    },
  },
  afterLoad() {
    const samples = this.fn.jsonSchema202012;
    const whole = samples.getJsonSampleSchema;
    samples.getJsonSampleSchema = (schema, config, type, example) =>
      type === LINES && typeof example === "string" ? example : whole(schema, config, type, example);
  },
});

async function start() {
  const [config, spec] = await Promise.all([read("/swagger/config.json"), read("/openapi.json")]);
  if (config.api) spec.servers = [{ url: config.api, description: "This node" }];
  field("pid").value ||= config.demo?.pid ?? "";
  field("secret").value ||= config.demo?.secret ?? "";
  SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    layout: "BaseLayout",
    presets: [SwaggerUIBundle.presets.apis],
    plugins: [noAuthorizing, rawLines],
    requestInterceptor: interceptor(spec, config),
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
  });
}

start().catch((error) => {
  const failed = document.createElement("p");
  failed.id = "failed";
  failed.textContent = `The page could not be shown: ${error.message}`;
  document.body.append(failed);
});
