// Calls of the HTTP API as the demo project. The node signs them for the page, because the demo's secret is public.

async function json(path, options) {
  const response = await fetch(path, { cache: "no-store", ...options });
  const answer = await response.json();
  if (answer.code !== 1) throw new Error(`${answer.err}: ${answer.msg}`);
  return answer.payload;
}

const signed = async params => (await json(`/demo/sign/call?${new URLSearchParams(params)}`)).query;

/** A URL to connect with as `uid`, good for some minutes. */
export const connectUrl = async uid => (await json(`/demo/sign/connect?${new URLSearchParams({ uid })}`)).url;

/** Pushes; the id of the push comes back when the cluster's log has it. */
export const push = async params => (await json(`/ws/push?${await signed(params)}`, { method: "POST" })).id;

/** A tag's publications, the oldest first; none if nobody has published to it yet. */
export async function history(tag) {
  try {
    return (await json(`/v1/tags/${encodeURIComponent(tag)}?${await signed({})}`)).history;
  } catch {
    return [];
  }
}
