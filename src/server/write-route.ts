import type { IncomingMessage, ServerResponse } from 'node:http';
import { codeOf } from '../base/errors.ts';
import { discardBody, Refusal, send, sendRefusal, toRefusal } from './answer.ts';
import { type BodyLimits, checkBody, readBody } from './body.ts';
import { type Destination, type LineError, LineWriter } from './line-writer.ts';

/** How the body of an answer to `POST /write/:table` looks. */
export interface WriteAnswer {
  /** Lines that are in the database, as safe as the durability level says. */
  readonly accepted: number;
  /** Lines that are not, each for a reason of its own. */
  readonly rejected: number;
  /** The first 100 of these reasons. */
  readonly errors: readonly LineError[];
  /** Whether there were more. */
  readonly errorsTruncated: boolean;
  /** Lines that were taken, but whose safety could not be confirmed: they may be there or not. */
  readonly unconfirmed?: number;
  /** Why the rest of the body was not looked at. Lines up to `accepted + rejected` (empty ones not counted) were. */
  readonly error?: { readonly code: string; readonly message: string };
}

/** `POST /write/:table`: reads the body at the pace of the database, and answers when all of it is safe. */
export async function write(
  request: IncomingMessage,
  response: ServerResponse,
  to: Destination,
  limits: BodyLimits,
): Promise<void> {
  const writer = await begin(request, response, to, limits);
  if (writer === undefined) return;
  const ended = await takeAll(writer, readBody(request, response, limits));
  const unconfirmed = await confirm(to, limits);
  discardBody(request);
  // A sender that has gone away gets no answer; what it had sent in full stays.
  if (response.destroyed) return;

  const refusal = unconfirmed ?? ended;
  const { accepted, rejected, errors } = writer;
  const answer: WriteAnswer = {
    accepted: unconfirmed === undefined ? accepted : 0,
    rejected,
    errors,
    errorsTruncated: rejected > errors.length,
    ...(unconfirmed === undefined ? {} : { unconfirmed: accepted }),
    ...(refusal === undefined ? {} : { error: { code: refusal.code, message: refusal.message } }),
  };
  send(response, refusal?.status ?? statusOf(writer), `${JSON.stringify(answer)}\n`, refusal?.headers);
}

async function begin(
  request: IncomingMessage,
  response: ServerResponse,
  to: Destination,
  limits: BodyLimits,
): Promise<LineWriter | undefined> {
  try {
    checkBody(request, limits);
    return await LineWriter.open(to);
  } catch (error) {
    sendRefusal(response, toRefusal(error));
    discardBody(request);
    return undefined;
  }
}

/** Returns why it ended before the end. */
async function takeAll(writer: LineWriter, chunks: AsyncIterable<Buffer>): Promise<Refusal | undefined> {
  try {
    for await (const chunk of chunks) await writer.feed(chunk);
    await writer.end();
    return undefined;
  } catch (error) {
    if (codeOf(error) === 'ECONNRESET') return new Refusal(400, 'HTTP_BAD_REQUEST', 'the body ended too early');
    return toRefusal(error);
  }
}

async function confirm({ db }: Destination, { idleMs }: BodyLimits): Promise<Refusal | undefined> {
  try {
    await db.adurable({ timeoutMs: idleMs });
    return undefined;
  } catch (error) {
    return toRefusal(error);
  }
}

/** A body without lines is an empty batch, which is fine. */
function statusOf(writer: LineWriter): number {
  if (writer.accepted > 0 || writer.rejected === 0) return 200;
  return writer.isConflict ? 409 : 400;
}
