import type { IncomingMessage, ServerResponse } from 'node:http';
import { messageOf, SluiceError, type SluiceErrorCode } from '../base/errors.ts';

/** Codes of what is wrong with a request before Sluice has a say in it. */
export type HttpErrorCode =
  | 'HTTP_BAD_REQUEST'
  | 'HTTP_UNAUTHORIZED'
  | 'HTTP_FORBIDDEN'
  | 'HTTP_NOT_FOUND'
  | 'HTTP_METHOD_NOT_ALLOWED'
  | 'HTTP_BODY_STALLED'
  | 'HTTP_BODY_TOO_LARGE'
  | 'HTTP_UNSUPPORTED_MEDIA_TYPE'
  | 'HTTP_INTERNAL'
  | 'HTTP_BUSY';

/** A reason not to answer with success. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly status: number;
  readonly code: HttpErrorCode | SluiceErrorCode;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: HttpErrorCode | SluiceErrorCode,
    message: string,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

const STATUS: Partial<Record<SluiceErrorCode, number>> = {
  SLUICE_INVALID_OPTION: 400,
  SLUICE_INVALID_KEY: 400,
  SLUICE_INVALID_VALUE: 400,
  SLUICE_INVALID_SQL: 400,
  SLUICE_VALIDATION: 400,
  SLUICE_NOT_FOUND: 404,
  SLUICE_CONFLICT: 409,
  SLUICE_FULL: 503,
  SLUICE_TIMEOUT: 503,
  SLUICE_CLOSED: 503,
  SLUICE_FAILED: 503,
  SLUICE_LOG_IO: 503,
};

/** Anything thrown, as what to answer. */
export function toRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof SluiceError) {
    const status = STATUS[error.code] ?? 500;
    return new Refusal(status, error.code, error.message, status === 503 ? { 'retry-after': '1' } : {});
  }
  process.emitWarning(`a request failed: ${messageOf(error)}`, { type: 'SluiceWarning' });
  return new Refusal(500, 'HTTP_INTERNAL', 'the request failed, see the warnings of the process');
}

/** Answers with JSON text. */
export function send(
  response: ServerResponse,
  status: number,
  body: string | Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    ...headers,
  });
  response.end(response.req.method === 'HEAD' ? undefined : body);
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, `${JSON.stringify(value)}\n`);
}

export function sendRefusal(response: ServerResponse, { status, code, message, headers }: Refusal): void {
  send(response, status, `${JSON.stringify({ error: { code, message } })}\n`, headers);
}

const DISCARD_BYTES_MAX = 64 * 1024 * 1024;
const DISCARD_MS = 5_000;

/**
 * Reads on what nobody wants any more, for a while: whoever is still sending would otherwise see the connection break
 * before the answer.
 */
export function discardBody(request: IncomingMessage): void {
  if (request.readableEnded || request.destroyed) return;
  // A sender that goes away meanwhile is just as fine.
  discard(request).catch(() => undefined);
}

async function discard(request: IncomingMessage): Promise<void> {
  const timer = setTimeout(() => request.destroy(), DISCARD_MS);
  try {
    let bytes = 0;
    // Leaving the loop early ends the connection.
    for await (const chunk of request as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > DISCARD_BYTES_MAX) return;
    }
  } finally {
    clearTimeout(timer);
  }
}
