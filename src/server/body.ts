import type { IncomingMessage, ServerResponse } from 'node:http';
import { systemClock } from '../base/clock.ts';
import { codeOf } from '../base/errors.ts';
import { waitFor } from '../base/waiting.ts';
import { Refusal } from './answer.ts';

const JSON_TYPES: readonly string[] = [
  'application/x-ndjson',
  'application/ndjson',
  'application/jsonl',
  'application/json',
];

/** What a body may be. */
export interface BodyLimits {
  readonly maxBytes: number;
  /** How long the sender may be silent. */
  readonly idleMs: number;
  /** Content types that are taken. @defaultValue JSON and NDJSON */
  readonly types?: readonly string[];
  /** What to do with a larger one. */
  readonly advice?: string;
}

/** Refuses, before it is read, a body that cannot be taken. */
export function checkBody({ headers }: IncomingMessage, limits: BodyLimits): void {
  const { maxBytes, types = JSON_TYPES } = limits;
  const type = headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  // No form and no script of a foreign page can send these types unasked.
  if (type === undefined || !types.includes(type)) {
    throw new Refusal(415, 'HTTP_UNSUPPORTED_MEDIA_TYPE', `send the content type ${types.join(', or ')}`, {
      'accept-post': types.join(', '),
    });
  }
  const encoding = headers['content-encoding']?.trim().toLowerCase();
  if (encoding !== undefined && encoding !== '' && encoding !== 'identity') {
    throw new Refusal(415, 'HTTP_UNSUPPORTED_MEDIA_TYPE', 'send the body as it is: no content encoding is understood', {
      'accept-encoding': 'identity',
    });
  }
  if (Number(headers['content-length'] ?? 0) > maxBytes) throw tooLarge(limits);
}

/**
 * The body, as it comes in. The next chunk is read from the connection only when it is asked for. What comes before the
 * limit is still handed out.
 */
export async function* readBody(
  request: IncomingMessage,
  response: ServerResponse,
  limits: BodyLimits,
): AsyncGenerator<Buffer, void> {
  if (request.headers.expect !== undefined) response.writeContinue();
  // The connection is still needed for the answer when reading ends early.
  const chunks = request.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>;
  let left = limits.maxBytes;
  for (;;) {
    const step = await nextChunk(chunks, limits.idleMs);
    if (step.done === true) return;
    if (step.value.length > left) {
      if (left > 0) yield step.value.subarray(0, left);
      throw tooLarge(limits);
    }
    left -= step.value.length;
    yield step.value;
  }
}

async function nextChunk(chunks: AsyncIterableIterator<Buffer>, idleMs: number): Promise<IteratorResult<Buffer>> {
  const next = chunks.next();
  // When the wait is given up, nobody looks at the connection's end any more.
  next.catch(() => undefined);
  try {
    return await waitFor(next, 'the body', { timeoutMs: idleMs }, systemClock);
  } catch (error) {
    if (codeOf(error) !== 'SLUICE_TIMEOUT') throw error;
    throw new Refusal(408, 'HTTP_BODY_STALLED', `nothing came in for ${idleMs} ms, and the body is not complete`);
  }
}

const ADVICE = 'send several, or raise bodyMaxBytes (--body-max-bytes)';

function tooLarge({ maxBytes, advice = ADVICE }: BodyLimits): Refusal {
  return new Refusal(413, 'HTTP_BODY_TOO_LARGE', `a body may have ${maxBytes} bytes here: ${advice}`);
}
