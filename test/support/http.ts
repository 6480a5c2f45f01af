import { type IncomingHttpHeaders, request } from 'node:http';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what an answer holds is what the test is about
  readonly json: any;
}

/** A request with any header, Host included, which fetch does not allow. */
export function ask(
  url: string,
  {
    method = 'GET',
    headers = {},
    body,
  }: { method?: string; headers?: Record<string, string>; body?: string | Buffer } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('error', reject);
      response.on('end', () => {
        const isJson = response.headers['content-type']?.startsWith('application/json') === true && text !== '';
        const json = isJson ? (JSON.parse(text) as unknown) : undefined;
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

export const NDJSON = { 'content-type': 'application/x-ndjson' };

export function post(url: string, body: string | Buffer, headers: Record<string, string> = {}): Promise<Answer> {
  return ask(url, { method: 'POST', body, headers: { ...NDJSON, ...headers } });
}

export function sqlUrl(url: string, sql: string, more = ''): string {
  return `${url}/query?sql=${encodeURIComponent(sql)}${more}`;
}
