/** One plain HTTP request and its answer, for tests that look at status, headers and bytes. Owns nothing else. */

export interface HttpAnswer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
  json: any;
}

export interface HttpCall {
  method?: string;
  body?: string | Uint8Array<ArrayBuffer>;
  headers?: Record<string, string>;
}

/** `json` is undefined for an answer that is not JSON. */
export async function httpCall(url: string, call: HttpCall = {}): Promise<HttpAnswer> {
  const method = call.method ?? (call.body === undefined ? 'GET' : 'POST');
  const response = await fetch(url, { method, body: call.body, headers: call.headers });
  const text = await response.text();
  const isJson = /json/.test(response.headers.get('content-type') ?? '');
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: isJson ? JSON.parse(text) : undefined,
  };
}
